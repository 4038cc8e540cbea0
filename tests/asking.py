"""A caller that sees every answer to its calls, news and duplicates too."""

from __future__ import annotations

import time
from types import TracebackType
from typing import Any

from broker.connection import Address, connect
from broker.contracts import Contract, Job
from broker.message import NEWS, Message, job_message
from broker.reply import Reply, read_reply

DIRECT = "amq.rabbitmq.reply-to"


class Asker:
    """One connection with direct reply-to, or a queue of its own.

    Args:
        address: where RabbitMQ is.
        queue: for the replies; exclusive, by default direct reply-to.
    """

    def __init__(self, address: Address, *, queue: str | None = None) -> None:
        self.answers: list[tuple[str, Any]] = []
        self._connection = connect(address)
        self.channel = self._connection.channel()
        self.reply_to = queue or DIRECT
        if queue is not None:
            self.channel.queue_declare(queue, exclusive=True)
        self.channel.basic_consume(self.reply_to, no_ack=True, callback=self._on_reply)

    def _on_reply(self, message: Any) -> None:
        properties = message.properties
        answer = read_reply(
            message.body,
            content_type=properties["content_type"],
            headers=properties.get("application_headers") or {},
        )
        self.answers.append((properties["correlation_id"], answer))

    def ask(self, name: str, *args: Any, id: str, news: bool = False, **options: Any) -> None:
        """Publish a call of a job that is bound as `normal.#`."""
        message = call_of(name, args, id=id, reply_to=self.reply_to, news=news, **options)
        send(self.channel, message)

    def until_ended(self, count: int = 1, *, timeout_s: float = 30) -> list[Any]:
        """Wait until so many calls have ended; return all that was answered, in order."""
        deadline = time.monotonic() + timeout_s
        while sum(isinstance(answer, Reply) for _, answer in self.answers) < count:
            left_s = deadline - time.monotonic()
            assert left_s > 0, f"waited {timeout_s} s for {count} replies: {self.answers}"
            try:
                self._connection.drain_events(timeout=left_s)
            except TimeoutError:
                continue
        return [answer for _, answer in self.answers]

    def __enter__(self) -> Asker:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._connection.release()


def call_of(
    name: str,
    args: tuple[Any, ...],
    *,
    id: str,
    reply_to: str,
    news: bool = False,
    deadline_s: float | None = 30.0,
) -> Message:
    """Return the message of a call."""
    message = job_message(
        Contract(name, "jobs", f"normal.{name}"),
        Job(name, args, id=id, deadline_s=deadline_s),
        published_ms=round(time.time() * 1000),
        reply_to=reply_to,
    )
    if not news:
        return message
    return Message(message.id, message.body, {**message.headers, NEWS: True}, message.properties)


def send(channel: Any, message: Message, *, exchange: str = "jobs") -> None:
    """Publish a message as it stands."""
    import amqp

    channel.basic_publish(
        amqp.Message(
            message.body.content,
            content_type=message.body.content_type,
            content_encoding=message.body.content_encoding,
            application_headers=dict(message.headers),
            **message.properties,
        ),
        exchange,
        f"normal.{message.headers['task']}",
    )
