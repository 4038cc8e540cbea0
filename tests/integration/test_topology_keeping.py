"""What stays keeps what it needs; records of what is gone mislead nobody; secrets stay out."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from broker.errors import ApplyRefused
from broker.management import Management
from broker.topology import Topology
from broker.topology.apply import Outcome, apply
from broker.topology.destroy import destroy, plan_destroy
from broker.topology.look import look
from broker.topology.observe import read_effective
from broker.topology.obsolete import Consent
from broker.topology.ownership import read_record

PRUNE = Consent(prune=True)
REPLACE = Consent(prune=True, replace=True)
QUICK_S = 0.2


@pytest.fixture
def management(rabbitmq: Any, vhost: str) -> Iterator[Management]:
    with Management(rabbitmq.address(vhost)) as client:
        yield client


def topology(name: str = "t", **sections: Any) -> Topology:
    return Topology.model_validate({"version": 1, "name": name, **sections})


def applied(found: Topology, management: Management, consent: Consent | None = None) -> Outcome:
    plan = look(found, management, consent=consent).plan
    return apply(plan, management, consent=consent, settle_s=QUICK_S)


def queue(type_: str) -> Topology:
    settings = {"type": type_, "dead_letter": {"exchange": "dead"}, "max_length": 10}
    return topology(exchanges={"dead": {"type": "fanout"}}, queues={"q": settings})


# -- what stays -----------------------------------------------------------------------


def test_a_queue_that_waits_for_its_replacement_keeps_its_dead_lettering(
    management: Management, vhost: str
) -> None:
    assert applied(queue("classic"), management).complete
    outcome = applied(queue("quorum"), management, PRUNE)
    assert [each.action for each in outcome.not_done] == ["replace"]
    there = read_effective(management, vhost)["q"]
    assert (there["dead-letter-exchange"], there["max-length"]) == ("dead", 10)
    assert applied(queue("quorum"), management, REPLACE).complete
    assert read_effective(management, vhost)["q"]["dead-letter-exchange"] == "dead"
    # The policy of the old type goes with it.
    assert len(management.get("policies", vhost)) == 1
    assert look(queue("quorum"), management).plan.same


def test_what_hangs_on_something_protected_is_left_and_the_plan_is_empty(
    management: Management,
) -> None:
    exchanges = {"x": {"type": "topic"}}
    bound = {"bindings": [{"exchange": "x"}], "protected": True}
    applied(topology(exchanges=exchanges, queues={"q": bound}), management)
    found = topology(exchanges=exchanges)
    assert applied(found, management, PRUNE).complete
    plan = look(found, management, consent=PRUNE).plan
    assert plan.same
    assert [(each.identity.kind, each.reason) for each in plan.left][1:] == [
        ("binding", "queue 'q' stays")
    ]


# -- what is gone ---------------------------------------------------------------------


def test_the_record_of_a_deleted_virtual_host_does_not_hold_names_in_a_new_one(
    management: Management, vhost: str
) -> None:
    applied(topology("old", exchanges={"x": {"type": "topic"}}), management)
    wanted = topology("new", exchanges={"x": {"type": "fanout"}})
    with pytest.raises(ApplyRefused, match="topology 'old' manages exchange 'x'"):
        applied(wanted, management)
    management.delete("vhosts", vhost)
    management.put("vhosts", vhost, body={})
    assert applied(wanted, management).complete
    assert read_record(management, vhost, "old") is None
    assert look(wanted, management).plan.same


def test_apply_makes_a_deleted_virtual_host_anew(management: Management, vhost: str) -> None:
    applied(topology("old", exchanges={"y": {"type": "topic"}}), management)
    found = topology(exchanges={"x": {"type": "topic"}})
    applied(found, management)
    management.delete("vhosts", vhost)
    assert applied(found, management).complete
    assert read_record(management, vhost, "old") is None
    assert look(found, management, consent=PRUNE).plan.same


def test_destroy_removes_the_record_of_a_virtual_host_that_somebody_deleted(
    rabbitmq: Any, management: Management, vhost: str
) -> None:
    user = f"u-{uuid.uuid4().hex}"
    found = topology(users={user: {"password": "pw"}}, exchanges={"x": {"type": "topic"}})
    assert applied(found, management).complete
    management.delete("vhosts", vhost)
    # Users live beside the virtual hosts.
    outcome = destroy(plan_destroy("t", vhost, management), management, settle_s=QUICK_S)
    assert outcome.complete, outcome
    assert [each.identity.name for each in outcome.done] == [(user,)]
    assert management.find("users", user) is None
    assert read_record(management, vhost, "t") is None


# -- saved plans ----------------------------------------------------------------------


def test_a_kept_plan_names_the_variables_of_its_secrets_and_holds_none(
    management: Management, vhost: str, rabbitry: Any, env: dict[str, str], tmp_path: Path
) -> None:
    user = f"u-{uuid.uuid4().hex}"
    path, kept = tmp_path / "topology.yaml", tmp_path / "kept.plan"
    path.write_text(
        f"version: 1\nname: t\nusers:\n  {user}: {{password: '${{SOME_PASSWORD}}'}}\n"
        "global_parameters:\n  t1.told: {a: ['${OTHER:-hidden}']}\n"
    )
    env["SOME_PASSWORD"] = "correct horse"
    try:
        found = rabbitry("topology", "plan", "--out", kept, "--topology", path)
        assert found.returncode == 3, found.stderr
        assert f"Not kept: user {user!r} gets what ${{SOME_PASSWORD}} holds" in found.stderr
        assert json.loads(kept.read_text())["secrets"][f"user {user!r}"] == ["${SOME_PASSWORD}"]
        for text in (kept.read_text(), found.stdout, found.stderr):
            assert "correct horse" not in text
            assert "hidden}" not in text
        env["SOME_PASSWORD"] = "battery staple"
        done = rabbitry("topology", "apply", kept, "--yes", "--topology", path)
        assert done.returncode == 0, done.stderr
        # What the variable holds now, as the plan said; a plan made before is out of date.
        again = rabbitry("topology", "plan", "--out", kept, "--topology", path)
        assert again.returncode == 0, again.stderr
        env["SOME_PASSWORD"] = "correct horse"
        refused = rabbitry("topology", "apply", kept, "--yes", "--topology", path)
        assert (refused.returncode, "a secret has changed" in refused.stderr) == (1, True)
    finally:
        management.delete("users", user)
        management.delete("global-parameters", "t1.told")
