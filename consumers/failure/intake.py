"""Looks at what arrives before Celery does: what is no job of this worker's is over at once."""

from __future__ import annotations

from collections.abc import Collection, Container, Mapping
from typing import Any

from kombu.exceptions import ContentDisallowed

from broker.body import CONTENT_TYPES, JSON, load_json
from broker.case_file import Reason
from consumers.failure.failure import Failure

_ABSENT = type(None)
# As most messages have them.
_NO_LIMITS = [None, None]


def problem_of(
    message: Any, jobs: Container[str], content_types: Collection[str] = CONTENT_TYPES
) -> Failure | None:
    """Return what keeps a message from becoming a job, or None.

    Args:
        message: kombu's.
        jobs: names of the tasks that the worker has.
        content_types: that it reads.
    """
    if message.content_type not in content_types:
        return Failure(
            Reason.CONTENT_TYPE,
            "",
            f"the content type {message.content_type!r} is not read here; known:"
            f" {', '.join(content_types)}",
        )
    try:
        payload = _payload_of(message)
    except ContentDisallowed as exc:
        return Failure.of(Reason.CONTENT_TYPE, exc, with_traceback=False)
    # Decoders raise what they like.
    except Exception as exc:  # noqa: BLE001
        return Failure.of(Reason.UNDECODABLE, exc, with_traceback=False)
    wrong = _wrong(message.headers, payload)
    if wrong:
        return Failure(Reason.SHAPE, "", f"the message is no job: {wrong}")
    name = (message.headers if "task" in message.headers else payload)["task"]
    if name not in jobs:
        return Failure(Reason.UNKNOWN_JOB, "", f"this worker has no task {name!r}")
    return None


def _payload_of(message: Any) -> Any:
    """Return what a message's body says; what kombu would make of it, and keep."""
    if message.content_type != JSON or message._decoded_cache is not None:
        return message.payload
    try:
        payload = message._decoded_cache = load_json(message.body)
    # kombu has its own words for it.
    except Exception:  # noqa: BLE001
        return message.payload
    return payload


def _wrong(headers: Mapping[str, Any], payload: Any) -> str | None:
    """Return what Celery's message protocols do not allow, or None."""
    if "task" in headers:
        meta: Mapping[str, Any] = headers
        if isinstance(payload, dict):  # between protocols 1 and 2
            args, kwargs, embed = payload.get("args", ()), payload.get("kwargs", {}), None
        elif isinstance(payload, (list, tuple)) and len(payload) == 3:
            args, kwargs, embed = payload
        else:
            return "its body is not [args, kwargs, embed]"
    elif isinstance(payload, dict) and "task" in payload:  # protocol 1
        meta, args, kwargs = payload, payload.get("args", ()), payload.get("kwargs", {})
        embed = None
    else:
        return "neither its headers nor its body name a task"
    if not isinstance(meta["task"], str):
        return f"the name of its task is {meta['task']!r}"
    if not isinstance(meta.get("id"), str):
        return f"its id is {meta.get('id')!r}"
    if not isinstance(args, (list, tuple)):
        return f"its arguments are a {type(args).__name__}, not a list"
    if not isinstance(kwargs, dict) or not all(isinstance(key, str) for key in kwargs):
        return "its keyword arguments are not an object with text for keys"
    if not isinstance(embed, (dict, _ABSENT)):
        return f"the third part of its body is a {type(embed).__name__}, not an object"
    limits = meta.get("timelimit")
    if limits is not None and limits != _NO_LIMITS and not _are_limits(limits):
        return f"its timelimit is {limits!r}"
    return None


def _are_limits(value: Any) -> bool:
    return (
        isinstance(value, (list, tuple))
        and len(value) == 2
        and all(isinstance(each, (int, float, _ABSENT)) for each in value)
    )
