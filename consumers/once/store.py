"""What is recorded of a finished job, and what a store of such records can do."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, Self

from broker.body import decode, encode
from broker.errors import InvalidMessage

# What RabbitMQ takes as one message unless told otherwise: no longer result could be replied with.
MOST_BYTES = 16 * 2**20


class Key(NamedTuple):
    """Which job: its name, and the id of its message."""

    job: str
    id: str


@dataclass(frozen=True, slots=True)
class Record:
    """A job that is finished.

    Attributes:
        finished_ms: when, milliseconds since 1970-01-01 UTC.
        content: the encoded result, or None where none is kept.
        content_type: of the content, or "".
    """

    finished_ms: int
    content: bytes | None = None
    content_type: str = ""

    @classmethod
    def now(cls) -> Self:
        """Return the record of a job that finishes now and whose result nobody waits for."""
        return cls(round(time.time() * 1000))

    @classmethod
    def of(cls, result: Any) -> Self:
        """Return the record of a job that finishes now.

        Args:
            result: may hold numpy arrays. One that cannot be written into a message, or is larger
                than RabbitMQ's 16 MiB, is not kept: it could not be replied with either.
        """
        try:
            body = encode(result)
        except InvalidMessage:
            return cls.now()
        if len(body.content) > MOST_BYTES:
            return cls.now()
        return cls(round(time.time() * 1000), body.content, body.content_type)

    def result(self) -> Any:
        """Return the result, as whoever reads the reply gets it; arrays bit for bit.

        Raises:
            LookupError: none is kept.
            InvalidMessage: the content is not what was kept.
        """
        if self.content is None:
            raise LookupError("the record has no result")
        return decode(self.content, self.content_type)


class Store(Protocol):
    """Where records are kept: by the processes of a worker, and by all workers of a job.

    Any thread may call, and what has been kept outlasts the process. What a store raises returns
    the job to RabbitMQ, to be tried again.
    """

    def find(self, key: Key) -> Record | None:
        """Return the record of a job, or None where there is none or its time is over."""
        ...

    def keep(self, key: Key, record: Record, *, ttl_s: float) -> None:
        """Keep a record for so many seconds; one that is there already stays as it is."""
        ...
