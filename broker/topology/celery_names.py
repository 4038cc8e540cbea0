"""Which objects Celery makes for itself, so that nobody takes them for strays; pure.

https://docs.celeryq.dev/en/stable/userguide/workers.html#remote-control and kombu's native
delayed delivery, whose exchanges and queues are named by powers of two of a second.
"""

from __future__ import annotations

import re

from broker.topology.objects import BINDING, EXCHANGE, QUEUE, Identity

_UUID = r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"
_DELAY = (re.compile(r"celery_delayed_(?:\d+|delivery)"), "native delayed delivery")
_EXCHANGES = (
    _DELAY,
    (re.compile(r"celeryev"), "events"),
    (re.compile(r"(?:reply\.)?celery\.pidbox"), "remote control"),
)
_QUEUES = (
    _DELAY,
    (re.compile(rf"celeryev\.{_UUID}"), "events"),
    (re.compile(rf"{_UUID}\.reply\.celery\.pidbox"), "remote control"),
    (re.compile(r"[^@]+@.+\.celery\.pidbox"), "remote control"),
    (re.compile(_UUID), "replies"),
)


def celery_owned(identity: Identity) -> str | None:
    """Return what Celery needs an object for, or None where it is none of Celery's.

    A binding is Celery's where either end is: native delayed delivery binds its exchange to
    those of the application.
    """
    if identity.kind == BINDING:
        source, kind, destination, *_ = identity.name
        return _matching(_EXCHANGES, source) or _matching(
            _QUEUES if kind == "queue" else _EXCHANGES, destination
        )
    patterns = {EXCHANGE: _EXCHANGES, QUEUE: _QUEUES}.get(identity.kind)
    return _matching(patterns, identity.name[0]) if patterns else None


def _matching(patterns: tuple[tuple[re.Pattern[str], str], ...], name: str) -> str | None:
    return next((what for pattern, what in patterns if pattern.fullmatch(name)), None)
