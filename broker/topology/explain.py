"""Where each setting in force on a queue or exchange comes from, and what it comes to; pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from broker.topology.effective import (
    DEFAULTS,
    UNKNOWN_TO,
    Match,
    Said,
    Setting,
    merged,
    type_of,
    value_of,
)
from broker.topology.objects import EXCHANGE, POLICY, QUEUE, Identity, Object, Objects, canonical
from broker.topology.policies import owner_of
from broker.topology.retry import schedule_of
from broker.topology.route import Router
from broker.topology.settings import EXCHANGE_SETTINGS, SETTINGS
from broker.topology.source import DataPath, Source
from broker.topology.timeouts import Need
from broker.units import format_duration

_TIMEOUT = "consumer-timeout"
_IN_MS = frozenset(
    {"message-ttl", "expires", "consumer-timeout", "consumer-disconnected-timeout"}
    | {"delayed-retry-min", "delayed-retry-max"}
)
# From RabbitMQ's keys to those of the file.
_IN_FILE: Mapping[str, tuple[str, ...]] = {
    **{each.key.removeprefix("x-"): (name,) for name, each in SETTINGS.items()},
    **{key: (name,) for name, key in EXCHANGE_SETTINGS.items()},
    "delayed-retry-type": ("retry", "type"),
    "delayed-retry-min": ("retry", "delay"),
    "delayed-retry-max": ("retry", "max_delay"),
    "dead-letter-exchange": ("dead_letter", "exchange"),
    "dead-letter-routing-key": ("dead_letter", "routing_key"),
    "dead-letter-strategy": ("dead_letter", "strategy"),
}


@dataclass(frozen=True, slots=True)
class Line:
    """One setting.

    Attributes:
        key: RabbitMQ's name, without ``x-``.
        value: what holds.
        origin: what says it: an argument, a policy, RabbitMQ's default.
        place: where the file says it, ``file:line:column``, or "".
        gave_way: what else says it and does not hold, each with its value.
    """

    key: str
    value: Any
    origin: str
    place: str = ""
    gave_way: tuple[tuple[str, Any], ...] = ()

    @property
    def shown(self) -> str:
        """The value as people read it."""
        text = self.value if isinstance(self.value, str) else canonical(self.value)
        if self.key in _IN_MS and isinstance(self.value, int):
            return f"{text} ({format_duration(timedelta(milliseconds=self.value))})"
        return str(text)


@dataclass(frozen=True, slots=True)
class Stated:
    """The names of the policies in force on an object, as RabbitMQ says them; None where none."""

    policy: str | None
    operator_policy: str | None

    @classmethod
    def of(cls, answer: Mapping[str, Any]) -> Stated:
        """Read them from what the management API says of a queue or an exchange."""
        # Of an exchange RabbitMQ leaves out what is not there.
        return cls(answer.get("policy") or None, answer.get("operator_policy") or None)


@dataclass(frozen=True, slots=True)
class Explanation:
    """A queue or an exchange explained.

    Attributes:
        subject: which one, such as ``queue 'jobs.high'``.
        type: its type.
        place: where it stands in the file, or "".
        lines: its settings by key.
        words: what they come to, in sentences.
        differs: where RabbitMQ says something else about the policies in force.
    """

    subject: str
    type: str
    place: str
    lines: tuple[Line, ...]
    words: tuple[str, ...]
    differs: tuple[str, ...] = ()

    def document(self) -> dict[str, Any]:
        """Return the explanation as JSON."""
        return {
            "subject": self.subject,
            "type": self.type,
            "place": self.place or None,
            "settings": [
                {
                    "key": line.key,
                    "value": line.value,
                    "origin": line.origin,
                    "place": line.place or None,
                    "gave_way": [{"origin": by, "value": value} for by, value in line.gave_way],
                }
                for line in self.lines
            ],
            "words": list(self.words),
            "differs": list(self.differs),
        }


def explain(
    objects: Objects,
    name: str,
    *,
    source: Source | None = None,
    effective: Mapping[str, Mapping[str, Any]] | None = None,
    stated: Mapping[Identity, Stated] | None = None,
    derived: Mapping[str, Need] | None = None,
) -> list[Explanation]:
    """Explain the queue and the exchange of a name.

    Args:
        objects: what there is, as the file compiles to it or as RabbitMQ has it.
        name: of a queue, an exchange, or one of each.
        source: where the values of the file stand.
        effective: the policy settings in force on each queue, as RabbitMQ says them.
        stated: the policies in force on a queue or an exchange, as RabbitMQ names them.
        derived: the consumer time-outs of queues that follow from time limits in the file.

    Returns:
        One explanation for each; none where nothing has the name.
    """
    router = Router(objects)
    found = [router.exchange(name), _queue(objects, name)]
    there = [each for each in found if each is not None]
    return [
        _explained(each, router, source, effective, stated or {}, derived or {}) for each in there
    ]


def _queue(objects: Objects, name: str) -> Object | None:
    return next(
        (each for key, each in objects.items() if key.kind == QUEUE and key.name == (name,)), None
    )


def _explained(
    there: Object,
    router: Router,
    source: Source | None,
    effective: Mapping[str, Mapping[str, Any]] | None,
    stated: Mapping[Identity, Stated],
    derived: Mapping[str, Need],
) -> Explanation:
    settings = router.settings(there)
    kind, name = there.identity.kind, there.identity.name[0]
    home: DataPath = ("exchanges" if kind == EXCHANGE else "queues", name)
    need = derived.get(name) if kind == QUEUE else None
    lines = [_line(each, home, source, need) for each in settings.values()]
    for key, value in DEFAULTS.get(type_of(there), {}).items():
        if key not in settings:
            lines.append(Line(key, value, "RabbitMQ's default"))
    match = router.policies.of(name, type_of(there))
    words = [*(_exchange_words(settings) if kind == EXCHANGE else _queue_words(there, settings))]
    if need is not None and value_of(settings, _TIMEOUT) == need.timeout_ms:
        words.append(f"The consumer timeout follows from {need}.")
    words += _idle_policies(match, type_of(there))
    differs: list[str] = []
    if kind == QUEUE and effective is not None and name in effective:
        differs += _differences(merged(match), effective[name])
    if there.identity in stated:
        differs += _other_policies(match, stated[there.identity])
    return Explanation(
        str(there.identity),
        str(there.attributes["type"]),
        _place(home, source),
        tuple(sorted(lines, key=lambda line: line.key)),
        tuple(words),
        tuple(differs),
    )


def _line(setting: Setting, home: DataPath, source: Source | None, need: Need | None) -> Line:
    said = setting.holds
    path = _path(setting.key, said, home, source)
    if setting.key == _TIMEOUT and need is not None and said.value == need.timeout_ms:
        path = need.path
    return Line(
        setting.key,
        said.value,
        said.origin,
        _place(path, source),
        tuple((each.origin, each.value) for each in setting.gave_way),
    )


def _path(key: str, said: Said, home: DataPath, source: Source | None) -> DataPath:
    if said.by is not None and owner_of(said.by.identity.name[0]) is None:
        section = "policies" if said.by.identity.kind == POLICY else "operator_policies"
        return (section, said.by.identity.name[0], "definition", key)
    if said.argument and key not in _IN_FILE:
        argument = key if home[0] == "exchanges" else f"x-{key}"
        return (*home, "arguments", argument)
    limit = (*home, "retry", "limit")
    if key == "delivery-limit" and source is not None and limit in source.keys:
        return limit
    return (*home, *_IN_FILE.get(key, ()))


def _place(path: DataPath, source: Source | None) -> str:
    if source is None or path[:2] not in source.keys:
        return ""
    return str(source.key(path))


def _exchange_words(settings: Mapping[str, Setting]) -> Iterator[str]:
    alternate = value_of(settings, "alternate-exchange")
    if alternate is not None:
        yield f"What no binding takes goes to exchange {alternate!r}."
    else:
        yield "What no binding takes is returned to publishers that ask (mandatory), else dropped."


def _queue_words(there: Object, settings: Mapping[str, Setting]) -> Iterator[str]:
    type_ = there.attributes["type"]
    if type_ == "stream":
        yield "A stream keeps what consumers have read until it is too old or too much."
        return
    exchange = value_of(settings, "dead-letter-exchange")
    end = "dropped"
    if exchange is not None:
        key = value_of(settings, "dead-letter-routing-key")
        keyed = "its own key" if key is None else f"key {key!r}"
        end = f"dead-lettered to exchange {exchange!r} with {keyed}"
    if type_ == "quorum":
        schedule = schedule_of(settings)
        finally_ = "" if schedule.limit is None else f"; then it is {end}"
        yield f"A failed message {schedule}{finally_}."
        timeout = value_of(settings, "consumer-timeout", DEFAULTS["quorum"]["consumer-timeout"])
        yield f"A consumer may hold a message for {_ms(timeout)}; then it is taken back."
    else:
        yield (
            "A message that is returned comes again at once, without end;"
            f" one that is rejected is {end}."
        )
    ttl = value_of(settings, "message-ttl")
    if ttl is not None:
        yield f"A message waits for at most {_ms(ttl)}; then it is {end}."
    limits = [
        f"{value_of(settings, key)} {unit}"
        for key, unit in (("max-length", "messages"), ("max-length-bytes", "bytes"))
        if key in settings
    ]
    if limits:
        overflow = value_of(settings, "overflow", "drop-head")
        gives = (
            f"the oldest message is {end}" if overflow == "drop-head" else "publishers are refused"
        )
        yield f"With {' or '.join(limits)} it is full: {gives}."


def _idle_policies(match: Match, type_: str) -> Iterator[str]:
    """Say which policies match and do nothing, for that is what nobody expects."""
    for first, *others in filter(None, (match.policies, match.operator_policies)):
        for each in others:
            yield (
                f"The {each.identity} (priority {each.attributes['priority']}) matches too and"
                f" does nothing: of all only {first.identity} (priority"
                f" {first.attributes['priority']}) applies."
            )
    for each in match.unfit:
        unknown = UNKNOWN_TO.get(type_, frozenset()) & each.attributes["definition"].keys()
        yield (
            f"The {each.identity} matches too and does nothing: a {type_} queue does not take"
            f" {', '.join(sorted(unknown))}."
        )


def _differences(here: Mapping[str, Any], there: Mapping[str, Any]) -> Iterator[str]:
    for key in sorted({*here, *there}):
        if canonical(here.get(key)) != canonical(there.get(key)):
            yield (
                f"{key}: RabbitMQ says {canonical(there.get(key))}, the policies come to"
                f" {canonical(here.get(key))}; a policy may have just changed"
            )


def _other_policies(match: Match, stated: Stated) -> Iterator[str]:
    for what, here, there in (
        ("policy", match.policy, stated.policy),
        ("operator policy", match.operator_policy, stated.operator_policy),
    ):
        name = None if here is None else here.identity.name[0]
        if name != there:
            yield (
                f"{what}: RabbitMQ says {canonical(there)} is in force, by pattern, kind and"
                f" priority it is {canonical(name)}; a policy may have just changed"
            )


def _ms(value: Any) -> str:
    return format_duration(timedelta(milliseconds=value)) if isinstance(value, int) else repr(value)
