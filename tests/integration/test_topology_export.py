"""Export against a real RabbitMQ, definitions files, and the samples of the reference."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from broker.management import Management
from broker.topology.export.emit import to_yaml
from tests.integration.large import definitions
from tests.integration.whole import forget, site
from tests.provision import reference_for
from tests.rabbitmq import RabbitMQ

Run = Callable[..., Any]


def counted(management: Management, vhost: str) -> dict[str, int]:
    found = management.get("definitions", vhost)
    return {key: len(found[key]) for key in ("exchanges", "queues", "bindings", "policies")}


@pytest.mark.parametrize("source", ["broker", "definitions"])
def test_the_definitions_of_a_large_broker_go_round(
    rabbitmq: RabbitMQ, vhost: str, rabbitry: Run, tmp_path: Path, source: str
) -> None:
    prefix = f"large-{uuid4().hex[:8]}-"
    found = definitions(600, vhost=vhost, users=prefix)
    found["rabbitmq_version"] = rabbitmq.version
    path, written = tmp_path / "definitions.json", tmp_path / "topology.yaml"
    path.write_text(json.dumps(found))
    with Management(rabbitmq.address(vhost)) as management:
        try:
            management.post("definitions", body=found)
            if source == "broker":
                done = rabbitry("topology", "export", "--output", written)
            else:
                done = rabbitry("topology", "export", "--from", path, "--output", written)
            assert done.returncode == 0, done.stderr
            planned = rabbitry("topology", "plan", "--json", "--topology", written)
            assert json.loads(planned.stdout)["changes"] == []
            assert planned.returncode == 0
            # On an empty virtual host the file makes the same again.
            before = counted(management, vhost)
            management.delete("vhosts", vhost)
            applied = rabbitry("topology", "apply", "--yes", "--topology", written)
            assert applied.returncode == 0, applied.stderr
            assert counted(management, vhost) == before
        finally:
            forget(management, vhost, prefix)


def test_internal_exchanges_and_their_bindings_are_exported(
    rabbitmq: RabbitMQ, tmp_path: Path
) -> None:
    inner = {
        "type": "fanout",
        "internal": True,
        "bindings": [{"exchange": "outer", "routing_key": "a"}],
    }
    exchanges = {"inner": inner, "outer": {"type": "topic"}}
    with site(rabbitmq, tmp_path) as here:
        document = {"version": 1, "name": "t", "exchanges": exchanges}
        here.apply(here.load(document))
        assert here.export().document["exchanges"] == exchanges


def test_the_reference_file_and_what_it_exports_to_say_the_same(
    rabbitmq: RabbitMQ, tmp_path: Path
) -> None:
    with site(rabbitmq, tmp_path) as here:
        wanted = here.read(reference_for(rabbitmq))
        here.apply(wanted)
        made = here.export()
        assert made.document["name"] == "rabbitry"
        again = here.read(to_yaml(made.document))
        assert here.changes(again) == []
        if rabbitmq.knows("4.3"):
            told = {name: queue.retry for name, queue in wanted.queues.items()}
            # Beside them are the queues of the schedulers, of which RabbitMQ knows no more.
            assert {name: again.queues[name].retry for name in wanted.queues} == told
        else:
            # Without delays a limit is all that there is.
            limits = {name: again.queues[name].delivery_limit for name in wanted.queues}
            assert limits == {"jobs.high": 5, "jobs.normal": 5, "jobs.low": 5, "jobs.dead": -1}


def test_passwords_stay_and_are_nowhere_in_the_file(
    rabbitmq: RabbitMQ, vhost: str, rabbitry: Run, env: dict[str, str], tmp_path: Path
) -> None:
    user = f"export-{uuid4().hex}"
    shovel = {
        "src-uri": "amqp://me:very%20secret@127.0.0.1:1",
        "src-queue": "a",
        "dest-uri": "amqp://",
        "dest-queue": "b",
        "reconnect-delay": 3600,
    }
    written = tmp_path / "topology.yaml"
    with Management(rabbitmq.address(vhost)) as management:
        try:
            management.put("users", user, body={"password": "very secret", "tags": "management"})
            rights = {"configure": "", "write": ".*", "read": "^$"}
            management.put("permissions", vhost, user, body=rights)
            management.put("parameters", "shovel", vhost, "s", body={"value": shovel})
            done = rabbitry("topology", "export", "--output", written)
            assert done.returncode == 0
            assert "secret" not in written.read_text() + done.stdout + done.stderr
            assert "hash" not in written.read_text()
            assert "Set SHOVELS_S_SRC_URI_PASSWORD" in done.stderr
            unset = rabbitry("topology", "plan", "--topology", written)
            assert unset.returncode == 2
            assert "SHOVELS_S_SRC_URI_PASSWORD is not set" in unset.stderr
            env["SHOVELS_S_SRC_URI_PASSWORD"] = "very%20secret"
            planned = rabbitry("topology", "plan", "--json", "--topology", written)
            assert json.loads(planned.stdout)["changes"] == []
            applied = rabbitry("topology", "apply", "--yes", "--topology", written)
            assert applied.returncode == 0, applied.stderr
            # The user still logs in.
            (there,) = (each for each in management.get("users") if each["name"] == user)
            assert there["password_hash"]
            hashed = rabbitry("topology", "export", "--password-hashes")
            assert there["password_hash"] in hashed.stdout
        finally:
            forget(management, vhost, user)


def test_a_user_who_may_read_little_exports_what_it_may(
    rabbitmq: RabbitMQ, vhost: str, rabbitry: Run, env: dict[str, str]
) -> None:
    user = f"export-{uuid4().hex}"
    with Management(rabbitmq.address(vhost)) as management:
        try:
            management.put("users", user, body={"password": "pw", "tags": "management"})
            rights = {"configure": "^$", "write": "^$", "read": "^$"}
            management.put("permissions", vhost, user, body=rights)
            management.put("queues", vhost, "q", body={"durable": True})
            env["RABBITRY_URL"] = re.sub(r"//[^@]*@", f"//{user}:pw@", env["RABBITRY_URL"])
            done = rabbitry("topology", "export")
            assert done.returncode == 0, done.stderr
            assert "  q: {}" in done.stdout or "  q:" in done.stdout
            assert "Not read, since user" in done.stderr
        finally:
            forget(management, vhost, user)


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["--vhost", "x"], "--vhost goes with --from"),
        (["--name", "a b"], "--name has at most 64"),
        (["--from", "README.md"], "this is not JSON"),
        (["--from", "nowhere.json"], "cannot be read"),
        (["--from", "docs/reference/topology.schema.json"], "not a definitions file"),
        (["--output", "README.md"], "--force writes over it"),
    ],
)
def test_bad_input_is_told_in_a_sentence(rabbitry: Run, arguments: list[str], text: str) -> None:
    done = rabbitry("topology", "export", *arguments)
    assert done.returncode == 2
    assert text in done.stderr
    assert "Traceback" not in done.stderr


def test_of_several_virtual_hosts_one_is_chosen(rabbitry: Run, tmp_path: Path) -> None:
    both = definitions(10, vhost="a")
    both["vhosts"].append({"name": "b/2"})
    both["queues"].append(
        {"name": "other", "vhost": "b/2", "durable": True, "auto_delete": False, "arguments": {}}
    )
    path = tmp_path / "definitions.json"
    path.write_text(json.dumps(both))
    unchosen = rabbitry("topology", "export", "--from", path)
    assert unchosen.returncode == 2
    assert "choose by --vhost 'a', 'b/2'" in unchosen.stderr
    wrong = rabbitry("topology", "export", "--from", path, "--vhost", "b2")
    assert "did you mean 'b/2'" in wrong.stderr
    chosen = rabbitry("topology", "export", "--from", path, "--vhost", "b/2", "--json")
    assert list(json.loads(chosen.stdout)["queues"]) == ["other"]
