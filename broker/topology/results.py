"""Where results are kept that outlive their caller."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Annotated, Any, Literal

from pydantic import AfterValidator

from broker.topology.strict import Strict
from broker.topology.values import PositiveDuration

Serializer = Literal["json", "msgpack", "pickle"]

_SCHEME = re.compile(r"^rediss?://")
# With TLS, and the server's certificate checked unless the address says otherwise.
_TLS, _CHECK = "rediss://", "ssl_cert_reqs"


def check_backend(text: str) -> str:
    """Return the address of a Redis; one that begins with a reference is looked at when resolved.

    Raises:
        ValueError: it is none; does not repeat it, since it may hold a password.
    """
    if not _SCHEME.match(text) and not text.startswith("${"):
        raise ValueError("results are kept in Redis: write redis://HOST:6379/0, or rediss:// (TLS)")
    return text


def completed(url: str) -> str:
    """Return the address of a Redis with what TLS needs said."""
    if not url.startswith(_TLS) or _CHECK in url:
        return url
    return f"{url}{'&' if '?' in url else '?'}{_CHECK}=required"


def _whole_seconds(value: Any) -> Any:
    if value % timedelta(seconds=1):
        raise ValueError("Celery counts whole seconds here")
    return value


class Results(Strict):
    """Where results are kept of jobs that say `store: true`."""

    backend: Annotated[str, AfterValidator(check_backend)]
    """The Redis that keeps them, such as `redis://:${REDIS_PASSWORD}@HOST:6379/0`; `rediss://`
    with TLS."""
    expires: Annotated[PositiveDuration, AfterValidator(_whole_seconds)] = timedelta(days=1)
    """How long a result is kept after its job has ended, in whole seconds."""
    serializer: Serializer = "json"
    """How they are written: `json`, `msgpack`, or `pickle` where `accept:` names it. Arrays are
    written as such by each."""
