"""What RabbitMQ denies or has no plugin for is said before the first write."""

from __future__ import annotations

import re
import uuid
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from broker.management import Management
from broker.topology.changes import Change
from broker.topology.features import lacking
from broker.topology.objects import PARAMETER, Identity, Object
from tests.waiting import until

FIRST = "exchanges:\n  first: {type: topic}\n"
LACKING = {
    "  x: {type: x-bogus}\n": r"type 'x-bogus'.*`rabbitmq-plugins list` shows",
    "  x: {type: x-rtopic}\n": r"install the plugin rabbitmq_rtopic_exchange",
}


@pytest.fixture
def management(rabbitmq: Any, vhost: str) -> Iterator[Management]:
    with Management(rabbitmq.address(vhost)) as client:
        yield client


@pytest.fixture
def policymaker(management: Management, vhost: str) -> Iterator[Management]:
    name = f"u-{uuid.uuid4().hex}"
    management.put("users", name, body={"password": "pw", "tags": "policymaker"})
    rights = {"configure": ".*", "write": ".*", "read": ".*"}
    management.put("permissions", vhost, name, body=rights)
    with Management(replace(management.address, user=name, password="pw")) as client:
        yield client
    management.delete("users", name)


@pytest.mark.parametrize("section", LACKING)
def test_what_rabbitmq_lacks_is_said_with_its_line_and_nothing_is_written(
    management: Management, vhost: str, rabbitry: Any, tmp_path: Path, section: str
) -> None:
    path = tmp_path / "topology.yaml"
    path.write_text(f"version: 1\nname: t\n{FIRST}{section}")
    told = rf"{re.escape(str(path))}:5:3: .*{LACKING[section]}"
    planned = rabbitry("topology", "plan", "--topology", path)
    done = rabbitry("topology", "apply", "--yes", "--topology", path)
    assert re.search(rf"Warning: {told}", planned.stderr), planned.stderr
    assert (done.returncode, bool(re.search(rf"{told}.*; nothing was written", done.stderr))) == (
        4,
        True,
    ), done.stderr
    assert management.find("exchanges", vhost, "first") is None


def running_in(management: Management) -> set[str]:
    """Return what runs; nothing while the statistics may be from before all of it had started."""
    nodes = management.get("nodes")
    if any(node.get("uptime", 0) < 10_000 for node in nodes):
        return set()
    return {app["name"] for node in nodes for app in node["applications"]}


@pytest.mark.parametrize("component", ["shovel", "federation-upstream"])
def test_a_plugin_that_is_off_is_said_also_to_whom_may_not_read_the_plugins(
    management: Management, policymaker: Management, vhost: str, component: str
) -> None:
    identity = Identity(PARAMETER, (component, "u"))
    changes = [Change("create", identity, after=Object(identity, {"value": {"uri": "amqp://"}}))]
    running = until(lambda: running_in(management), 30, "the statistics of a RabbitMQ just started")
    plugin = f"rabbitmq_{component.partition('-')[0]}"
    # Both ways of asking say the same, whatever this RabbitMQ runs.
    expected = not any(name.startswith(plugin) for name in running)
    for client in (management, policymaker):
        said = [text for text in lacking(changes, client) if f"enable {plugin}`" in text]
        assert bool(said) == expected
    assert list(lacking(changes, policymaker, only_read=True)) == []
    assert management.get("parameters", component, vhost) == []
