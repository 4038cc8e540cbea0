"""rabbitry: jobs over RabbitMQ from one topology file.

The public names; each is imported from its room only when it is asked for, so that
``import rabbitry`` costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from broker.cancellation import CallCancelled
    from broker.contracts import Job
    from broker.errors import (
        AccessRefused,
        BrokerUnavailable,
        CallFailed,
        CallTimeout,
        InvalidArguments,
        InvalidInput,
        InvalidMessage,
        InvalidReply,
        MessageTooLarge,
        OutcomeUnknown,
        PublishFailed,
        RabbitryError,
        Rejected,
        RemoteError,
        TopologyError,
        UnknownJob,
        Unreachable,
        Unroutable,
        VirtualHostMissing,
    )
    from broker.inherited import detached
    from broker.receipt import Receipt, Routed
    from broker.reply import Accepted, Progress
    from broker.stored import NoResult, ResultsUnavailable
    from broker.topology import Topology
    from consumers.job import Cancelled, GiveUp, TryAgain, current_job, current_jobs, job
    from producers.caller import Caller
    from producers.publisher import Publisher
    from producers.results import Results

_ROOMS = {
    "broker.cancellation": ("CallCancelled",),
    "broker.contracts": ("Job",),
    "broker.errors": (
        "AccessRefused",
        "BrokerUnavailable",
        "CallFailed",
        "CallTimeout",
        "InvalidArguments",
        "InvalidInput",
        "InvalidMessage",
        "InvalidReply",
        "MessageTooLarge",
        "OutcomeUnknown",
        "PublishFailed",
        "RabbitryError",
        "Rejected",
        "RemoteError",
        "TopologyError",
        "UnknownJob",
        "Unreachable",
        "Unroutable",
        "VirtualHostMissing",
    ),
    "broker.receipt": ("Receipt", "Routed"),
    "broker.reply": ("Accepted", "Progress"),
    "broker.stored": ("NoResult", "ResultsUnavailable"),
    "broker.topology": ("Topology",),
    "broker.inherited": ("detached",),
    "consumers.job": ("Cancelled", "GiveUp", "TryAgain", "current_job", "current_jobs", "job"),
    "producers.caller": ("Caller",),
    "producers.publisher": ("Publisher",),
    "producers.results": ("Results",),
}
_HOME = {name: room for room, names in _ROOMS.items() for name in names}

__all__ = [  # noqa: RUF022  (in the order of the rooms)
    "Topology",
    "Publisher",
    "Caller",
    "Results",
    "Job",
    "job",
    "current_job",
    "current_jobs",
    "detached",
    "Cancelled",
    "GiveUp",
    "TryAgain",
    "Receipt",
    "Routed",
    "Accepted",
    "Progress",
    "AccessRefused",
    "BrokerUnavailable",
    "CallCancelled",
    "CallFailed",
    "CallTimeout",
    "InvalidArguments",
    "InvalidInput",
    "InvalidMessage",
    "InvalidReply",
    "MessageTooLarge",
    "NoResult",
    "OutcomeUnknown",
    "PublishFailed",
    "RabbitryError",
    "Rejected",
    "RemoteError",
    "ResultsUnavailable",
    "TopologyError",
    "UnknownJob",
    "Unreachable",
    "Unroutable",
    "VirtualHostMissing",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'rabbitry' has no attribute {name!r}")
    value = getattr(import_module(_HOME[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOME})
