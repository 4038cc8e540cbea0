"""What a rule has to say, and which rules there are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from broker.topology.source import DataPath

Level = Literal["error", "warning", "info"]


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that lint has to say.

    Attributes:
        path: where it stands in the file's data; the last part may name a key.
        rule: the name of the rule.
        text: one sentence.
        level: an error keeps the topology from being loaded.
        at_key: whether the culprit is the key rather than its value.
    """

    path: DataPath
    rule: str
    text: str
    level: Level = "error"
    at_key: bool = False


@dataclass(frozen=True, slots=True)
class Rule:
    """A rule.

    Attributes:
        level: how bad it is.
        fixed: whether a file cannot switch it off, since RabbitMQ or rabbitry could not use
            what the file says.
    """

    level: Level
    fixed: bool = False


_REFUSED = Rule("error", fixed=True)
_WRONG = Rule("error")
_DOUBTFUL = Rule("warning")
_WORTH_KNOWING = Rule("info")

# docs/reference/lint.md explains each one.
RULES: Mapping[str, Rule] = {
    # Reading the file; found by `broker.topology.load`.
    "file": _REFUSED,
    "unknown-key": _REFUSED,
    "missing-key": _REFUSED,
    "type": _REFUSED,
    "value": _REFUSED,
    "name": _REFUSED,
    "reference": _REFUSED,
    # References between the sections
    "unknown-exchange": _REFUSED,
    "unknown-queue": _REFUSED,
    "repeated": _REFUSED,
    # Queues
    "setting-for-type": _REFUSED,
    "quorum-max-priority": _REFUSED,
    # What is there cannot be changed, and `topology export` must be able to say it.
    "argument-with-key": _WRONG,
    "argument-for-type": _REFUSED,
    "unknown-argument": _DOUBTFUL,
    "ignored-value": _WRONG,
    "transient-queue": _REFUSED,
    "limit-twice": _REFUSED,
    "retry-order": _REFUSED,
    "duration": _REFUSED,
    "constant-delay": _WORTH_KNOWING,
    "needs-version": _DOUBTFUL,
    "dead-letter-strategy": _REFUSED,
    "dead-letter-nowhere": _DOUBTFUL,
    "dead-letter-circle": _DOUBTFUL,
    "no-dead-letter": _DOUBTFUL,
    "endless-redelivery": _DOUBTFUL,
    # Exchanges and bindings
    "swallows": _DOUBTFUL,
    "alternate-hides-unroutable": _DOUBTFUL,
    "binding-pattern": _REFUSED,
    "binding-headers": _REFUSED,
    # Jobs and workers
    "json-schema": _REFUSED,
    "job-unroutable": _DOUBTFUL,
    "job-twice": _DOUBTFUL,
    "job-internal": _WRONG,
    "priority-levels": _DOUBTFUL,
    "starvation": _DOUBTFUL,
    "prefetch-priority": _DOUBTFUL,
    "time-limit": _WRONG,
    "time-limit-pool": _DOUBTFUL,
    "worker-slots": _REFUSED,
    "worker-weights": _REFUSED,
    "worker-starvation": _DOUBTFUL,
    "health-taken": _WRONG,
    "not-consumed": _WORTH_KNOWING,
    # Results
    "store-nowhere": _REFUSED,
    "pickle-not-accepted": _REFUSED,
    "accepts-pickle": _DOUBTFUL,
    # Schedules
    "unknown-job": _REFUSED,
    "schedule-arguments": _REFUSED,
    # Policies
    "policy-name": _WRONG,
    "policy-hides-generated": _WRONG,
    "policy-tie": _WRONG,
    "policy-shadowed": _DOUBTFUL,
    "policy-matches-nothing": _DOUBTFUL,
    "policy-key-for-type": _DOUBTFUL,
    "removed-key": _WRONG,
    "not-anchored": _DOUBTFUL,
    # Names and secrets
    "celery-name": _DOUBTFUL,
    "reply-name": _WRONG,
    "plain-secret": _DOUBTFUL,
    # Switching rules off
    "lint-rule": _REFUSED,
    "lint-unused": _DOUBTFUL,
}


def finding(path: DataPath, rule: str, text: str, *, at_key: bool = False) -> Finding:
    """Return a finding with the level of its rule."""
    return Finding(path, rule, text, RULES[rule].level, at_key)
