"""The errors of rabbitry, split by what the caller can do about them.

    RabbitryError
    ├── InvalidInput                 mend what was passed in            exit 2
    │   ├── InvalidURL
    │   ├── TopologyError            file, line, column
    │   ├── UnknownJob               job, known
    │   ├── InvalidArguments         job, argument
    │   ├── InvalidDelay             a delay that the topology's ladder does not take
    │   ├── InvalidData              a file of values that cannot be read
    │   ├── InvalidMessage           a body or header that cannot be written or read
    │   └── MessageTooLarge          size_bytes, limit_bytes
    ├── BrokerUnavailable            wait, or mend the address          exit 4
    │   ├── Unreachable              nobody answers
    │   ├── AccessRefused            wrong user, password or rights
    │   ├── VirtualHostMissing
    │   └── UnsupportedBroker        too old, or lacks a feature
    ├── ProvisioningFailed           object, reason: what RabbitMQ said exit 1
    ├── ApplyRefused                 another apply runs, or the plan is out of date  exit 1
    ├── Interrupted                  the user stopped it half-way       exit 130
    ├── MissingOnBroker              the file names it, RabbitMQ has it not: apply   exit 1
    ├── LocalNodeError               the private RabbitMQ               exit 1
    ├── PublishFailed                message_id, exchange, routing_key
    │   ├── Unroutable               no queue took it                   exit 5
    │   ├── Rejected                 a queue refused it                 exit 5
    │   └── OutcomeUnknown           sent: was it ever written          exit 6
    │       └── KeptInOutbox         not confirmed yet; it will be sent exit 3
    ├── OutboxError                  path: cannot be read or written    exit 1
    ├── CallFailed                   job, message_id
    │   ├── RemoteError              the task raised                    exit 1
    │   ├── CallTimeout              no reply by the deadline           exit 6
    │   └── InvalidReply             a reply that cannot be read        exit 1
    ├── CallCancelled (broker.cancellation) 1; NoResult, ResultsUnavailable (broker.stored) 6, 4
    └── WorkerError                  a daemon (consumers.errors)         exit 1

Each message is one sentence that names the object and the next step; passwords never appear.
Errors of libraries are turned into these where they are met (as `broker.connection`), chained.
"""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches
from pathlib import Path

# Exit codes of the command line, named once.
EXIT_DONE = 0
EXIT_FAILED = 1
EXIT_USAGE = 2
EXIT_DIFFERS = 3
EXIT_UNREACHABLE = 4
EXIT_REFUSED = 5
EXIT_UNKNOWN = 6
EXIT_INTERRUPTED = 130


class RabbitryError(Exception):
    """Anything that rabbitry itself raises."""

    exit_code = EXIT_FAILED


# -- what was passed in ---------------------------------------------------------------


class InvalidInput(RabbitryError):
    """The caller's own input cannot be used; nothing was sent or changed."""

    exit_code = EXIT_USAGE


class InvalidURL(InvalidInput):
    """The address of RabbitMQ cannot be read."""


class TopologyError(InvalidInput):
    """The topology file is wrong; says where.

    Attributes:
        file: path of the file as it was given.
        line: 1-based line, or None where the whole file is meant.
        column: 1-based column, or None.
        text: the sentence without the position.
    """

    def __init__(
        self, text: str, *, file: str | Path, line: int | None = None, column: int | None = None
    ) -> None:
        self.text = text
        self.file = str(file)
        self.line = line
        self.column = column
        position = "".join(f":{part}" for part in (line, column) if part is not None)
        super().__init__(f"{self.file}{position}: {text}")


class UnknownJob(InvalidInput):
    """No contract of this name stands in the topology."""

    def __init__(self, job: str, known: Iterable[str]) -> None:
        self.job = job
        self.known = sorted(known)
        super().__init__(
            f"no job is named {job!r}{did_you_mean(job, self.known)};"
            " `rabbitry jobs list` shows the jobs of the topology"
        )


class InvalidArguments(InvalidInput):
    """The arguments of a job do not fit its contract or its signature."""

    def __init__(self, text: str, *, job: str, argument: str | None = None) -> None:
        self.job = job
        self.argument = argument
        super().__init__(text)


class InvalidDelay(InvalidInput):
    """A job cannot wait that long, or not there."""


class InvalidData(InvalidInput):
    """A file of values (CSV, .npy, JSON lines) cannot be read."""


class InvalidMessage(InvalidInput):
    """A value cannot be put into a message, or a body cannot be read as one."""


class MessageTooLarge(InvalidInput):
    """The message is larger than RabbitMQ accepts."""

    def __init__(self, *, size_bytes: int, limit_bytes: int, job: str | None = None) -> None:
        self.size_bytes = size_bytes
        self.limit_bytes = limit_bytes
        self.job = job
        what = f"the message of {job!r}" if job else "the message"
        super().__init__(
            f"{what} has {size_bytes} bytes, RabbitMQ takes at most {limit_bytes}"
            " (max_message_size in rabbitmq.conf); send less, or a reference to the data"
        )


# -- the broker -----------------------------------------------------------------------


class BrokerUnavailable(RabbitryError):
    """No usable connection to RabbitMQ."""

    exit_code = EXIT_UNREACHABLE


class Unreachable(BrokerUnavailable):
    """Nobody answers at the address, or the connection was lost."""


class AccessRefused(BrokerUnavailable):
    """RabbitMQ refuses the user, the password or the right to do this."""


class VirtualHostMissing(BrokerUnavailable):
    """The virtual host does not exist."""


class UnsupportedBroker(BrokerUnavailable):
    """The RabbitMQ that answers is too old, or lacks what is needed."""


class ProvisioningFailed(RabbitryError):
    """RabbitMQ did not take an object as it was declared.

    Attributes:
        object: kind and name, such as ``queue 'jobs.high'``.
        reason: RabbitMQ's own words.
    """

    def __init__(self, text: str, *, object: str, reason: str) -> None:
        self.object = object
        self.reason = reason
        super().__init__(text)


class ApplyRefused(RabbitryError):
    """RabbitMQ must not be changed now: another apply runs, or the plan no longer holds."""


class Interrupted(RabbitryError):
    """The user stopped it half-way; what was done is accounted for."""

    exit_code = EXIT_INTERRUPTED


class MissingOnBroker(RabbitryError):
    """The topology names an object that the virtual host does not have."""


class LocalNodeError(RabbitryError):
    """The private RabbitMQ cannot be started, stopped or read."""


# -- publishing -----------------------------------------------------------------------


class PublishFailed(RabbitryError):
    """A message was not accepted, or nobody knows whether it was."""

    def __init__(self, text: str, *, message_id: str, exchange: str, routing_key: str) -> None:
        self.message_id = message_id
        self.exchange = exchange
        self.routing_key = routing_key
        super().__init__(text)


class Unroutable(PublishFailed):
    """RabbitMQ returned the message: no queue took it, or the exchange is missing.

    Attributes:
        reply_code: AMQP's, such as 312 (NO_ROUTE) or 404 (NOT_FOUND).
        reply_text: RabbitMQ's own words.
    """

    exit_code = EXIT_REFUSED

    def __init__(
        self, *, message_id: str, exchange: str, routing_key: str, reply_code: int, reply_text: str
    ) -> None:
        self.reply_code = reply_code
        self.reply_text = reply_text
        super().__init__(
            f"no queue took message {message_id}: exchange {exchange!r}, routing key"
            f" {routing_key!r}: {reply_code} {reply_text}; check the bindings with"
            " `rabbitry topology plan`",
            message_id=message_id,
            exchange=exchange,
            routing_key=routing_key,
        )


class Rejected(PublishFailed):
    """RabbitMQ refused the message: a queue is full or failed (basic.nack), or it may not pass.

    Attributes:
        reason: RabbitMQ's own words where it gave any, else what a basic.nack stands for.
    """

    exit_code = EXIT_REFUSED

    def __init__(
        self, *, message_id: str, exchange: str, routing_key: str, reason: str | None = None
    ) -> None:
        self.reason = reason or (
            "a queue is full (max_length with overflow reject-publish) or failed;"
            " publish again when it has drained"
        )
        super().__init__(
            f"RabbitMQ rejected message {message_id} (exchange {exchange!r}, routing key"
            f" {routing_key!r}): {self.reason}",
            message_id=message_id,
            exchange=exchange,
            routing_key=routing_key,
        )


class OutcomeUnknown(PublishFailed):
    """The deadline passed or the connection was lost before RabbitMQ confirmed.

    Attributes:
        sent: False if it was never written: certainly not on the broker; True if it may be.
        reason: what happened instead of the confirm.
    """

    exit_code = EXIT_UNKNOWN

    def __init__(
        self, *, message_id: str, exchange: str, routing_key: str, sent: bool, reason: str
    ) -> None:
        self.sent = sent
        self.reason = reason
        fate = "it may have arrived" if sent else "it was never sent"
        super().__init__(
            f"RabbitMQ did not confirm message {message_id} ({reason}): {fate};"
            " publish it again with the same id",
            message_id=message_id,
            exchange=exchange,
            routing_key=routing_key,
        )


class KeptInOutbox(OutcomeUnknown):
    """The wait for RabbitMQ's confirm is over; the job is safe in the outbox and will be sent.

    Attributes:
        outbox: path of the outbox.
    """

    exit_code = EXIT_DIFFERS

    def __init__(
        self,
        *,
        message_id: str,
        exchange: str,
        routing_key: str,
        sent: bool,
        reason: str,
        outbox: str | Path,
    ) -> None:
        self.sent = sent
        self.reason = reason
        self.outbox = str(outbox)
        PublishFailed.__init__(
            self,
            f"RabbitMQ has not confirmed message {message_id} yet ({reason}): it is kept in"
            f" {outbox} and will be sent from there; `rabbitry jobs flush --outbox {outbox}`"
            " sends it now",
            message_id=message_id,
            exchange=exchange,
            routing_key=routing_key,
        )


class OutboxError(RabbitryError):
    """The file of an outbox cannot be read or written; what it has accepted stays in it.

    Attributes:
        path: of the file.
    """

    def __init__(self, text: str, *, path: str | Path) -> None:
        self.path = str(path)
        super().__init__(text)


# -- calling --------------------------------------------------------------------------


class CallFailed(RabbitryError):
    """A call ended without a result."""

    def __init__(self, text: str, *, job: str, message_id: str) -> None:
        self.job = job
        self.message_id = message_id
        super().__init__(text)


class RemoteError(CallFailed):
    """The task raised; its class is named, never rebuilt.

    Attributes:
        remote_class: qualified name of the exception's class in the worker.
        remote_message: its text.
        remote_traceback: the worker's traceback as text, or "".
    """

    def __init__(
        self,
        *,
        job: str,
        message_id: str,
        remote_class: str,
        remote_message: str,
        remote_traceback: str = "",
    ) -> None:
        self.remote_class = remote_class
        self.remote_message = remote_message
        self.remote_traceback = remote_traceback
        super().__init__(
            f"job {job!r} failed in the worker: {remote_class}: {remote_message}",
            job=job,
            message_id=message_id,
        )


class CallTimeout(CallFailed):
    """No reply came before the deadline; the job may still run."""

    exit_code = EXIT_UNKNOWN

    def __init__(self, *, job: str, message_id: str, timeout_s: float) -> None:
        self.timeout_s = timeout_s
        super().__init__(
            f"job {job!r} ({message_id}) did not reply within {timeout_s:g} s; is a worker"
            " consuming its queue? `rabbitry worker run NAME` starts one",
            job=job,
            message_id=message_id,
        )


class InvalidReply(CallFailed):
    """A reply came that cannot be read."""


class WorkerError(RabbitryError):
    """A worker daemon cannot start as it was asked to."""


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return ``" (did you mean 'x'?)"`` for the nearest of the known words, or ""."""
    nearest = get_close_matches(word, list(known), n=1, cutoff=0.6)
    return f" (did you mean {nearest[0]!r}?)" if nearest else ""
