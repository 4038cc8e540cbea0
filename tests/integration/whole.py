"""A topology in a virtual host of its own: written as a file, applied, looked at, exported."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

from broker.errors import ProvisioningFailed
from broker.management import Management
from broker.topology import Topology
from broker.topology.apply import apply
from broker.topology.export import Export, Scope, export
from broker.topology.export.emit import to_yaml
from broker.topology.export.live import major_minor, read_live
from broker.topology.export.secrets import escaped
from broker.topology.look import Look, look
from tests.rabbitmq import RabbitMQ
from tests.unit.topology.strategies import PASSWORD_VARIABLE

PASSWORD = "of a property test"
_UPSTREAM = "federation_upstream"
_REFERRING = f"${{{PASSWORD_VARIABLE}}}"


@contextmanager
def environment(values: Mapping[str, str]) -> Iterator[None]:
    """Set environment variables for a while."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def knows_component(management: Management, component: str) -> bool:
    """Say whether a plugin has brought a component of runtime parameters.

    A list of the plugins comes with the statistics, seconds after the start of a node.
    """
    try:
        # Refused in any case: it lacks what is mandatory.
        vhost = management.address.vhost_name
        management.put("parameters", component, vhost, "probe", body={"value": {}})
    except ProvisioningFailed as exc:
        return f"component {component} not found" not in exc.reason
    raise AssertionError(f"RabbitMQ took an empty {component}")


class Site:
    """A virtual host and the file that is for it."""

    def __init__(self, management: Management, folder: Path) -> None:
        self.management = management
        self.vhost = management.address.vhost_name
        self.path = folder / f"{uuid4().hex}.yaml"

    def load(self, document: Mapping[str, Any]) -> Topology:
        """Write a document as a file for the RabbitMQ that is there, and read it."""
        there = {"broker": {"requires": major_minor(self.management.version())}}
        document = {**self._without_plugins(document), **there}
        text = to_yaml(escaped(document)).replace(f"$${_REFERRING[1:]}", _REFERRING)
        return self.read(text)

    def _without_plugins(self, document: Mapping[str, Any]) -> dict[str, Any]:
        """Leave out what takes a plugin that RabbitMQ has not enabled."""
        left: dict[str, Any] = dict(document)
        if not knows_component(self.management, "shovel"):
            left.pop("shovels", None)
        if not knows_component(self.management, "federation-upstream"):
            left.pop("federation", None)
            for section in ("exchanges", "queues"):
                left[section] = {
                    name: {key: value for key, value in each.items() if key != _UPSTREAM}
                    for name, each in left.get(section, {}).items()
                }
        return left

    def read(self, text: str) -> Topology:
        self.path.write_text(text, encoding="utf-8")
        return Topology.load(self.path)

    def look(self, topology: Topology) -> Look:
        return look(topology, self.management)

    def apply(self, topology: Topology) -> None:
        outcome = apply(self.look(topology).plan, self.management)
        assert outcome.complete, json.dumps(outcome.document() | {"done": []}, indent=1)

    def export(self, **options: Any) -> Export:
        live = read_live(self.management, self.vhost)
        name = live.name(self.vhost)
        scope = Scope(name, live.records_of(name, self.vhost), user=live.user)
        requires = major_minor(live.version)
        return export(live.objects, scope=scope, vhost=self.vhost, requires=requires, **options)

    def changes(self, topology: Topology) -> list[tuple[str, str, tuple[str, ...]]]:
        """Return what a plan would do."""
        return [
            (change.action, change.identity.kind, change.identity.name)
            for change in self.look(topology).plan.changes
        ]


@contextmanager
def site(rabbitmq: RabbitMQ, folder: Path) -> Iterator[Site]:
    """A fresh virtual host; gone afterwards, with the users and global parameters of its name."""
    vhost = f"test-{uuid4().hex[:12]}"
    with Management(rabbitmq.address(vhost)) as management:
        management.put("vhosts", vhost, body={"default_queue_type": "quorum"})
        try:
            with environment({PASSWORD_VARIABLE: PASSWORD}):
                yield Site(management, folder)
        finally:
            management.put(
                "vhosts", vhost, body={"default_queue_type": "quorum", "protected": False}
            )
            management.delete("vhosts", vhost)


def forget(management: Management, vhost: str, prefix: str) -> None:
    """Delete what an example made beside the virtual hosts."""
    for each in management.get("users"):
        if each["name"].startswith(prefix):
            management.delete("users", each["name"])
    for each in management.get("global-parameters"):
        if each["name"].startswith(prefix) or (
            isinstance(each["value"], dict) and each["value"].get("vhost") == vhost
        ):
            management.delete("global-parameters", each["name"])
