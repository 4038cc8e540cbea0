"""From what RabbitMQ has to a topology file whose plan against it is empty; pure.

Generated policies are folded back into the keys of their queues and exchanges. What is folded
is compiled again and compared: where that would not give the same, a policy stays a policy.
What the file cannot say is left out and named. Passwords are never in it: a user without one
keeps what it has, and one in an address becomes a ``${VAR}``.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from pydantic import ValidationError

from broker.topology.compile import generated_policies
from broker.topology.export import sections
from broker.topology.export.folding import (
    fold_arguments,
    fold_exchange_policy,
    fold_policy,
    names_of,
)
from broker.topology.export.ladder import fold_ladder
from broker.topology.export.secrets import Secrets, escaped
from broker.topology.export.select import LeftOut, Scope, default_name, select
from broker.topology.lint import RULES, Finding, check
from broker.topology.model import Exchange, Queue, Topology
from broker.topology.objects import (
    BINDING,
    EXCHANGE,
    OPERATOR_POLICY,
    PARAMETER,
    POLICY,
    QUEUE,
    USER,
    VHOST,
    Identity,
    Objects,
    canonical,
)
from broker.topology.policies import APPLY_TO, owner_of
from broker.topology.settings import BUILT_IN_EXCHANGES

__all__ = ["Export", "LeftOut", "Scope", "default_name", "export"]

_TYPES = {apply_to: type_ for type_, apply_to in APPLY_TO.items()}
_LAZY = ("shovels", "federation", "parameters", "global_parameters")
_ATTEMPTS = 3
# The sections of what can be protected.
_SECTIONS = {
    EXCHANGE: "exchanges",
    QUEUE: "queues",
    POLICY: "policies",
    OPERATOR_POLICY: "operator_policies",
    USER: "users",
    PARAMETER: "shovels",
}


@dataclass(frozen=True, slots=True)
class Export:
    """A topology file in the making.

    Attributes:
        document: the data of the file.
        left_out: what it does not name, and why.
        variables: the passwords that it refers to, by the name of the environment variable.
        complaints: what `lint` has against the file as errors.
    """

    document: Mapping[str, Any]
    left_out: tuple[LeftOut, ...]
    variables: Mapping[str, str] = field(repr=False)
    complaints: tuple[str, ...] = ()


def export(
    objects: Objects,
    *,
    scope: Scope,
    vhost: str,
    requires: str | None = None,
    password_hashes: bool = False,
) -> Export:
    """Return the file that says what is there.

    Args:
        objects: what RabbitMQ has, the virtual host included.
        scope: which of them are asked for.
        vhost: the virtual host.
        requires: the version of RabbitMQ, such as ``4.3``.
        password_hashes: whether the hashes of passwords stand in the file.
    """
    kept, left_out = select(objects, scope)
    kept, delays = fold_ladder(kept, scope.name)
    links, unsaid = sections.links(kept)
    head: dict[str, Any] = {"version": 1, "name": scope.name}
    if requires is not None:
        head["broker"] = {"requires": requires}
    head["vhost"] = _vhost(kept, vhost)
    rest = {
        "limits": sections.limits(kept),
        "users": sections.users(kept, password_hashes=password_hashes),
        "operator_policies": sections.operator_policies(kept),
        "delays": delays,
        **links,
        "global_parameters": sections.global_parameters(kept),
    }
    structure = _Structure(kept, scope.name, head)
    document, complaints = structure.best(rest)
    _protect(document, scope.records.own.protected & kept.keys())
    secrets = Secrets()
    hidden = {
        key: secrets.hidden(value, key) if key in _LAZY else escaped(value)
        for key, value in document.items()
    }
    return Export(hidden, (*left_out, *unsaid), secrets.values, tuple(complaints))


def _protect(document: Mapping[str, Any], protected: Iterable[Identity]) -> None:
    """Mark what the topology's record protects."""
    for identity in protected:
        section = document.get(_SECTIONS.get(identity.kind, ""), {})
        if identity.kind == PARAMETER and identity.name[0] == "federation-upstream":
            section = document.get("federation", {}).get("upstreams", {})
        elif identity.kind == PARAMETER and identity.name[0] != "shovel":
            continue
        if identity.name[-1] in section:
            section[identity.name[-1]]["protected"] = True


def _vhost(objects: Objects, vhost: str) -> dict[str, Any]:
    there = objects.get(Identity(VHOST, (vhost,)))
    found = there.attributes if there else {}
    described: dict[str, Any] = {"name": vhost}
    if "default_queue_type" in found:
        described["default_queue_type"] = found["default_queue_type"]
    if found.get("description"):
        described["description"] = found["description"]
    if found.get("tags"):
        described["tags"] = sorted(found["tags"])
    if found.get("protected_from_deletion"):
        described["protected_from_deletion"] = True
    return described


class _Structure:
    """Exchanges, queues, bindings and policies, which hang together."""

    def __init__(self, objects: Objects, owner: str, head: Mapping[str, Any]) -> None:
        self.objects = objects
        self.head = head
        self.default = head["vhost"].get("default_queue_type", "quorum")
        self.policies = {i.name[0]: o for i, o in objects.items() if i.kind == POLICY}
        self.bindings: dict[tuple[str, str], list[dict[str, Any]]] = {}
        for identity in sorted(each for each in objects if each.kind == BINDING):
            source, kind, destination, key, arguments = identity.name
            binding: dict[str, Any] = {"exchange": source}
            if key:
                binding["routing_key"] = key
            if arguments != "{}":
                binding["arguments"] = json.loads(arguments)
            self.bindings.setdefault((kind, destination), []).append(binding)
        self.folded = {
            name
            for name in self.policies
            if owner_of(name) == owner and names_of(self._pattern(name)) is not None
        }

    def best(self, rest: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
        """Return the document with as much folded as gives the same, and what lint refuses."""
        for _ in range(_ATTEMPTS):
            document = self._document(rest)
            wrong = self._wrong(document)
            if not wrong:
                break
            self.folded -= wrong
        else:
            self.folded = set()
            document = self._document(rest)
        document = _accepted(document)
        return document, _complaints(document)

    def _wrong(self, document: Mapping[str, Any]) -> set[str]:
        """Return the folded policies that would not come out as they are."""
        structure = {key: document.get(key, {}) for key in ("exchanges", "queues")}
        topology = Topology.model_validate({**self.head, **structure})
        made = {each.identity.name[0]: each for each in generated_policies(topology)}
        wrong = {
            name
            for name in self.folded
            if name not in made
            or canonical(dict(made[name].attributes))
            != canonical(dict(self.policies[name].attributes))
        }
        # With those gone there may be none left over; if there are, nothing folds.
        return wrong or (set(self.folded) if made.keys() - self.folded else set())

    def _document(self, rest: Mapping[str, Any]) -> dict[str, Any]:
        settings = self._settings()
        exchanges: dict[str, Any] = {}
        queues: dict[str, Any] = {}
        for identity in sorted(self.objects):
            found = self.objects[identity].attributes
            name = identity.name[0]
            if identity.kind == EXCHANGE:
                exchanges[name] = self._exchange(name, found, settings)
            elif identity.kind == QUEUE:
                queues[name] = self._queue(name, found, settings)
        others = {n: o for n, o in self.policies.items() if n not in self.folded}
        everything = {
            **self.head,
            "limits": rest["limits"],
            "users": rest["users"],
            "exchanges": exchanges,
            "queues": queues,
            "policies": sections.policy_section(others, default="all"),
            **{key: value for key, value in rest.items() if key not in ("limits", "users")},
        }
        return {key: value for key, value in everything.items() if value or value == 0}

    def _settings(self) -> dict[tuple[str, str], dict[str, Any]]:
        """Return the keys that folded policies give to queues and exchanges."""
        settings: dict[tuple[str, str], dict[str, Any]] = {}
        for name in sorted(self.folded):
            found = self.policies[name].attributes
            type_ = _TYPES[found["apply-to"]]
            definition = found["definition"]
            if type_ == EXCHANGE:
                keys = fold_exchange_policy(definition)
            else:
                keys = fold_policy(definition, type_)
            if keys is None or not self._exist(keys):
                self.folded.discard(name)
                continue
            for each in names_of(self._pattern(name)) or ():
                settings[type_, each] = keys
        return settings

    def _exist(self, keys: Mapping[str, Any]) -> bool:
        exchanges = [keys.get("alternate_exchange"), keys.get("dead_letter", {}).get("exchange")]
        return all(
            name is None
            or name in BUILT_IN_EXCHANGES
            or Identity(EXCHANGE, (name,)) in self.objects
            for name in exchanges
        )

    def _exchange(
        self, name: str, found: Mapping[str, Any], settings: Mapping[tuple[str, str], Any]
    ) -> dict[str, Any]:
        exchange = Exchange.model_validate(
            {
                **{key: found[key] for key in ("type", "durable", "auto_delete", "internal")},
                "arguments": dict(sorted(found["arguments"].items())),
                **settings.get((EXCHANGE, name), {}),
                "bindings": self.bindings.get(("exchange", name), []),
            }
        )
        return exchange.model_dump(mode="json", exclude_defaults=True)

    def _queue(
        self, name: str, found: Mapping[str, Any], settings: Mapping[tuple[str, str], Any]
    ) -> dict[str, Any]:
        type_ = found["type"]
        base = {
            "type": type_,
            "durable": found["durable"],
            "auto_delete": found["auto_delete"],
            "bindings": self.bindings.get(("queue", name), []),
            **settings.get((type_, name), {}),
        }
        arguments = dict(sorted(found["arguments"].items()))
        try:
            queue = Queue.model_validate({**base, **fold_arguments(arguments, type_)})
        except ValidationError:
            queue = Queue.model_validate({**base, "arguments": arguments})
        dumped = queue.model_dump(mode="json", exclude_defaults=True)
        # Bindings last: they are what grows.
        bindings = dumped.pop("bindings", None)
        if type_ == self.default:
            del dumped["type"]
        return {**dumped, **({"bindings": bindings} if bindings else {})}

    def _pattern(self, name: str) -> str:
        return str(self.policies[name].attributes["pattern"])


def _findings(document: Mapping[str, Any]) -> list[Finding]:
    """Return the errors of a document that lint knows; it must be one that the model takes."""
    return [each for each in check(Topology.model_validate(document)) if each.level == "error"]


def _complaints(document: Mapping[str, Any]) -> list[str]:
    try:
        found = _findings(document)
    except ValidationError as exc:
        return [
            f"{'.'.join(map(str, error['loc']))}: {error['msg']}"
            for error in exc.errors(include_url=False, include_input=False)
        ]
    return [f"{'.'.join(map(str, each.path))}: {each.text} ({each.rule})" for each in found]


def _accepted(document: dict[str, Any]) -> dict[str, Any]:
    """Switch off the rules that what is there breaks: the file says what is, not what should be."""
    try:
        found = _findings(document)
    except ValidationError:
        return document
    ignored = sorted(
        {(each.rule, ".".join(map(str, each.path))) for each in found if not RULES[each.rule].fixed}
    )
    if not ignored:
        return document
    reason = "so it was on RabbitMQ when this was exported"
    ignore = [{"rule": rule, "on": on, "reason": reason} for rule, on in ignored]
    return {**document, "lint": {"ignore": ignore}}
