"""Something that answers calls as a test tells it to, and connections that are cut."""

from __future__ import annotations

import contextlib
import threading
import uuid
from collections.abc import Callable
from typing import Any

import amqp
import kombu

from broker.body import Body, decode, encode
from broker.connection import Address, kombu_connection
from broker.management import Management
from tests.waiting import until

# What is answered: nothing, one message, or several in turn.
Answer = Callable[[Any], Body | list[Body] | None]


class Consumer:
    """Consumes jobs.normal in a thread and answers each request as it is told.

    Attributes:
        requests: what has come.
        holding: whether answers wait.
        name: of its connection, as RabbitMQ lists it.
    """

    def __init__(self, address: Address, answer: Answer) -> None:
        self.requests: list[Any] = []
        self.holding = False
        self._answer = answer
        self.name = f"answers {uuid.uuid4()}"
        self._connection = named(address, self.name)
        self._channel = self._connection.channel()
        self._channel.basic_consume("jobs.normal", no_ack=True, callback=self.requests.append)
        self._stopping = False
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def send(self, request: Any, body: Body, **properties: Any) -> None:
        """Send something to who waits for the reply to a request; for tests of odd replies."""
        message = amqp.Message(
            body.content,
            **{
                "content_type": body.content_type,
                "content_encoding": body.content_encoding,
                "correlation_id": request.properties["correlation_id"],
                **properties,
            },
        )
        self._channel.basic_publish(message, "", request.properties["reply_to"])

    def _reply(self, request: Any) -> None:
        args, _, _ = decode(request.body, request.properties["content_type"])
        found = self._answer(args)
        for body in found if isinstance(found, list) else [found]:
            if body is not None:
                self.send(request, body)

    def _run(self) -> None:
        answered = 0
        while not self._stopping:
            with contextlib.suppress(TimeoutError):
                self._connection.drain_events(timeout=0.05)
            # Not from the callback: py-amqp reads again while it publishes.
            while answered < len(self.requests) and not self.holding:
                self._reply(self.requests[answered])
                answered += 1

    def close(self) -> None:
        self._stopping = True
        self._thread.join()
        self._connection.release()


def success(result: Any) -> Body:
    """Return the body of a reply of Celery's."""
    return encode({"task_id": "?", "status": "SUCCESS", "result": result, "traceback": None})


def echo(args: Any) -> Body:
    """Answer with the first argument."""
    return success(args[0])


def named(address: Address, name: str) -> kombu.Connection:
    """Open a connection that RabbitMQ lists by a name."""
    connection = kombu_connection(address)
    connection.transport_options = {
        **(connection.transport_options or {}),
        "client_properties": {"connection_name": name},
    }
    connection.ensure_connection(max_retries=0)
    return connection


def cut(management: Management, *, but: set[str]) -> None:
    """Close every connection to the virtual host, but for those of these names."""
    vhost = management.address.vhost_name

    def others() -> list[str]:
        return [
            each["name"]
            for each in management.get("connections")
            # One that begins is not listed whole.
            if each.get("vhost") == vhost
            and "client_properties" in each
            and each["client_properties"].get("connection_name") not in but
        ]

    for name in until(others, timeout_s=20, what="the connection to be listed"):
        management.delete("connections", name)


def reply_queues(management: Management) -> list[str]:
    """Return the names of the reply queues in the virtual host."""
    queues = management.get("queues", management.address.vhost_name, disable_stats=True)
    return [each["name"] for each in queues if each["name"].startswith("rabbitry.reply.")]
