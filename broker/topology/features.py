"""What a plan needs and RabbitMQ lacks: features that it denies, plugins that are off.

`GET /api/deprecated-features` tells what is denied, whatever the version
(https://www.rabbitmq.com/docs/deprecated-features). Which plugins run is for monitoring users
to read; anybody else is asked by writing what cannot be written: a shovel without an address is
refused with one reason where the plugin runs, and with another where it does not.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from broker.errors import AccessRefused, ProvisioningFailed
from broker.management import Management
from broker.topology.changes import Change
from broker.topology.objects import EXCHANGE, OPERATOR_POLICY, PARAMETER, POLICY, QUEUE, Object
from broker.topology.source import Source

_BUILT_IN = frozenset({"direct", "fanout", "headers", "topic"})
_SWITCH = "x-modulus-hash"
# Exchange types by their plugin; those of the last three are not part of RabbitMQ.
_PLUGINS = {
    "x-consistent-hash": "rabbitmq_consistent_hash_exchange",
    "x-random": "rabbitmq_random_exchange",
    "x-recent-history": "rabbitmq_recent_history_exchange",
    "x-jms-topic": "rabbitmq_jms_topic_exchange",
    _SWITCH: "rabbitmq_sharding",
    "x-delayed-message": "rabbitmq_delayed_message_exchange",
    "x-message-deduplication": "rabbitmq_message_deduplication",
    "x-rtopic": "rabbitmq_rtopic_exchange",
}
_ELSEWHERE = frozenset({"x-delayed-message", "x-message-deduplication", "x-rtopic"})
_COMPONENTS = {
    "shovel": "rabbitmq_shovel",
    "federation-upstream": "rabbitmq_federation",
    "federation-upstream-set": "rabbitmq_federation",
}
# Federation links exchanges and queues by policies too.
_FEDERATION = frozenset(
    {"federation-upstream", "federation-upstream-set", "federation-upstream-pattern"}
)


def lacking(
    changes: Iterable[Change],
    management: Management,
    *,
    source: Source | None = None,
    only_read: bool = False,
) -> Iterator[str]:
    """Yield what changes need and RabbitMQ lacks, a sentence each; asks only what it has to.

    Args:
        changes: what is to be done.
        management: the management API; its address names the virtual host.
        source: where the objects stand in the file.
        only_read: whether nothing may be sent but requests to read; what these do not tell
            stays unknown.
    """
    broker = _Broker(management, only_read)
    for change in changes:
        after = change.after
        if after is None:
            continue
        place = f"{source.key(after.path)}: " if source is not None and after.path else ""
        for text in _lacks(change, after, broker):
            yield f"{place}{text}"


@dataclass(slots=True)
class _Broker:
    """What RabbitMQ has; each thing is asked for once, and only where it matters."""

    management: Management
    only_read: bool
    _seen: dict[str, Any] = field(default_factory=dict)

    def denies(self, feature: str) -> bool:
        """Say whether a deprecated feature is denied."""
        return feature in self._once("denied", self._denied)

    def has_type(self, type_: str) -> bool:
        """Say whether there is a type of exchange."""
        return type_ in _BUILT_IN or type_ in self._once("types", self._types)

    def runs(self, plugin: str, component: str) -> bool:
        """Say whether a plugin runs that brings a component of parameters, as far as is known."""
        running: Collection[str] | None = self._once("plugins", self._plugins)
        # Since RabbitMQ 4.1 federation is several plugins on one foundation.
        if running is not None and {plugin, f"{plugin}_common"} & set(running):
            return True
        if self.only_read:
            return running is None
        # The list comes with the statistics, seconds after a start: what it lacks may run by now.
        refused: bool = self._once(plugin, lambda: self._refused(component))
        return not refused

    def _once(self, what: str, ask: Callable[[], Any]) -> Any:
        if what not in self._seen:
            self._seen[what] = ask()
        return self._seen[what]

    def _denied(self) -> Collection[str]:
        answers = self.management.get("deprecated-features")
        # RabbitMQ 4.0 names them without their state.
        return {each["name"] for each in answers if each.get("state") == "denied"}

    def _types(self) -> Collection[str]:
        answer = self.management.get("overview")
        return {each["name"] for each in answer["exchange_types"]}

    def _plugins(self) -> Collection[str] | None:
        try:
            nodes = self.management.get("nodes")
        except AccessRefused:
            return None
        # Applications, since a plugin that another one needs is not listed as enabled.
        running = [{app["name"] for app in each.get("applications", ())} for each in nodes]
        told = [each for each in running if each]
        return set[str].intersection(*told) if told else None

    def _refused(self, component: str) -> bool:
        vhost, name = self.management.address.vhost_name, "rabbitry.asks"
        try:
            self.management.put("parameters", component, vhost, name, body={"value": {}})
        except ProvisioningFailed as exc:
            return f"component {component} not found" in exc.reason
        except AccessRefused:
            return False
        return False


def _lacks(change: Change, after: Object, broker: _Broker) -> Iterator[str]:
    kind, name = after.identity.kind, after.identity
    if kind == EXCHANGE:
        yield from _type(f"{name} is of", str(after.attributes["type"]), broker)
    elif kind == QUEUE:
        transient = not after.attributes.get("durable", True)
        if change.action != "update" and transient and broker.denies("transient_nonexcl_queues"):
            yield (
                f"RabbitMQ denies {name}: it is not durable, and queues that are neither durable"
                " nor exclusive (transient_nonexcl_queues) are switched off; write `durable:"
                " true`, or permit the feature in rabbitmq.conf"
            )
        if change.action == "replace":
            yield from _type(f"replacing {name} takes an exchange of", _SWITCH, broker)
    elif kind in (POLICY, OPERATOR_POLICY):
        keys = after.attributes["definition"].keys()
        if federated := sorted(_FEDERATION & keys):
            yield from _plugin(f"{name} sets {federated[0]}", "federation-upstream", broker)
    elif kind == PARAMETER and name.name[0] in _COMPONENTS:
        yield from _plugin(f"there can be no {name}", name.name[0], broker)


def _type(who: str, type_: str, broker: _Broker) -> Iterator[str]:
    if broker.has_type(type_):
        return
    plugin = _PLUGINS.get(type_)
    text = f"{who} type {type_!r}, which this RabbitMQ does not have: "
    if plugin is None:
        yield f"{text}enable the plugin that brings it (`rabbitmq-plugins list` shows them)"
    elif type_ in _ELSEWHERE:
        yield (
            f"{text}install the plugin {plugin}, which is not part of RabbitMQ, and run"
            f" `rabbitmq-plugins enable {plugin}`"
        )
    else:
        yield f"{text}run `rabbitmq-plugins enable {plugin}`"


def _plugin(who: str, component: str, broker: _Broker) -> Iterator[str]:
    plugin = _COMPONENTS[component]
    if not broker.runs(plugin, component):
        yield f"{who}: the plugin is off that does it; run `rabbitmq-plugins enable {plugin}`"
