"""Results in Redis, where they outlive their caller: the bytes, and the way there.

They are what Celery's own Redis backend writes, so that any Celery client reads those without
arrays. Results with arrays, which none could read, begin with a mark and their content type.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

from broker.body import JSON, MSGPACK, decode, encode
from broker.errors import (
    EXIT_UNKNOWN,
    EXIT_UNREACHABLE,
    InvalidInput,
    InvalidMessage,
    RabbitryError,
)
from broker.topology.results import Serializer

# Celery's, before the id of the job.
KEY_PREFIX = "celery-task-meta-"
# No serializer's output begins so.
MARK = b"\x00rabbitry\x00"
# What Redis takes as one value.
MOST_BYTES = 512 * 2**20
CONNECT_TIMEOUT_S = 2.0
# Without an answer for so long a connection counts as lost.
ANSWER_TIMEOUT_S = 5.0

_PLAIN = {"json": JSON, "msgpack": MSGPACK}


class ResultsUnavailable(RabbitryError):
    """The Redis that keeps results does not answer, or refuses."""

    exit_code = EXIT_UNREACHABLE


class NoResult(RabbitryError):
    """No result is kept of a job: it has not ended, keeps none, or its time is over.

    Attributes:
        message_id: of the job.
    """

    exit_code = EXIT_UNKNOWN

    def __init__(self, text: str, *, message_id: str) -> None:
        self.message_id = message_id
        super().__init__(text)


def dump(value: Any, *, serializer: Serializer) -> bytes:
    """Write what is to be stored; numpy arrays anywhere within.

    Raises:
        InvalidMessage: something within cannot be expressed, or it is too large.
    """
    if serializer == "pickle":
        content = _pickled(value)
    else:
        body = encode(value, serializer=serializer)
        content = body.content
        if body.content_type != _PLAIN[serializer]:
            content = b"".join((MARK, body.content_type.encode(), b"\x00", content))
    if len(content) > MOST_BYTES:
        raise InvalidMessage(
            f"the result has {len(content)} bytes, Redis takes at most {MOST_BYTES}"
        )
    return content


def load(content: bytes, *, serializer: Serializer, accept: Sequence[Serializer] = ()) -> Any:
    """Read what was stored; arrays are read-only.

    Args:
        content: as `dump` or a plain Celery worker wrote it.
        serializer: of the file's `results:`.
        accept: the file's `accept:`; pickle is read only where it stands there.

    Raises:
        InvalidMessage: it is not of this serializer.
    """
    if content.startswith(MARK):
        kind, _, rest = content[len(MARK) :].partition(b"\x00")
        return decode(rest, kind.decode("latin-1"))
    if serializer != "pickle":
        return decode(content, _PLAIN[serializer])
    if "pickle" not in accept:
        raise InvalidMessage("pickle is read only where the topology says accept: [pickle]")
    import pickle

    try:
        return pickle.loads(content)
    # Unpickling runs what it likes.
    except Exception as exc:
        raise InvalidMessage(
            f"the result is not the pickle it is to be: {type(exc).__name__}: {exc}"
        ) from exc


def _pickled(value: Any) -> bytes:
    import pickle

    try:
        # Older protocols turn arrays of another byte order into this machine's.
        return pickle.dumps(value, protocol=5)
    # So does pickling.
    except Exception as exc:
        raise InvalidMessage(f"the result cannot be pickled: {type(exc).__name__}: {exc}") from exc


def check_installed() -> None:
    """Check that Redis can be spoken to.

    Raises:
        InvalidInput: its client is not installed.
    """
    if importlib.util.find_spec("redis") is None:
        raise InvalidInput(
            "`results:` in the topology takes the client of Redis, which is not installed;"
            " `pip install 'rabbitry[redis]'`"
        )


def shown(url: str) -> str:
    """Return the address of a Redis without user and password."""
    try:
        parts = urlsplit(url)
        return f"{parts.scheme}://{parts.hostname}:{parts.port or 6379}/{parts.path.strip('/')}"
    except ValueError:
        return "the address of `results:`"


@contextmanager
def translated(url: str) -> Iterator[None]:
    """Turn what Redis's client raises into `ResultsUnavailable`."""
    from redis.exceptions import RedisError

    try:
        yield
    except (RedisError, OSError) as exc:
        raise ResultsUnavailable(
            f"the results in {shown(url)} cannot be read or written: {exc}; see that Redis runs"
            " there and `results:` in the topology names it"
        ) from exc


def connect(url: str) -> Any:
    """Return a client of Redis; it connects when it is used.

    Raises:
        InvalidInput: the client is not installed, or the address cannot be read.
    """
    check_installed()
    from redis import Redis
    from redis.backoff import NoBackoff
    from redis.retry import Retry

    try:
        return Redis.from_url(
            url,
            socket_connect_timeout=CONNECT_TIMEOUT_S,
            socket_timeout=ANSWER_TIMEOUT_S,
            # A connection that was idle for long may be gone: once more.
            retry=Retry(NoBackoff(), 1),
        )
    except ValueError:
        # Its own words may have the password in them.
        raise InvalidInput(
            "the address of `results:` cannot be read; write redis://:PASSWORD@HOST:6379/0"
        ) from None
