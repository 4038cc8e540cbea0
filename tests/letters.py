"""Dead letters for tests: buried as a worker buries them, and found again."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from broker.body import Body, encode
from broker.case_file import CaseFile, Reason
from broker.confirmed import ConfirmedChannel
from broker.connection import Address, connect
from broker.contracts import Job, contract_of
from broker.message import Message, job_message
from broker.topology import Topology
from consumers.queues.browse import Browser, Delivery

PUBLISHED_MS = 1_700_000_000_000


def case(**changes: Any) -> CaseFile:
    """Return a case file of a job that failed in all its attempts."""
    settings: dict[str, Any] = {
        "reason": Reason.LIMIT,
        "error": "builtins.ValueError",
        "message": "no such thing",
        "traceback": "Traceback (most recent call last):\nValueError: no such thing",
        "attempt": 3,
        "first_ms": PUBLISHED_MS + 1000,
        "last_ms": PUBLISHED_MS + 5000,
        "worker": "normal",
        "version": "0.1.0",
        "exchange": "jobs",
        "routing_key": "normal.demo.add",
        "queue": "jobs.normal",
        **changes,
    }
    return CaseFile(**settings)


def letter(
    topology: Topology,
    id: str,
    *,
    job: str = "demo.add",
    body: Body | None = None,
    headers: dict[str, Any] | None = None,
    deadline_s: float | None = None,
    **changes: Any,
) -> Message:
    """Return a dead job's message, case file included."""
    contract = contract_of(topology, job)
    message = job_message(
        contract,
        Job(job, (1, 2), id=id, headers=headers or {}, deadline_s=deadline_s),
        published_ms=PUBLISHED_MS,
    )
    found = case(**{"routing_key": contract.routing_key, **changes})
    return Message(
        id, body or message.body, {**message.headers, **found.headers()}, message.properties
    )


def bury(address: Address, messages: Iterable[Message], *, key: str = "normal.demo.add") -> None:
    """Publish messages to the dead-letter exchange."""
    confirmed = ConfirmedChannel(address)
    try:
        receipts = [
            confirmed.publish(message, exchange="jobs.dead", routing_key=key)
            for message in messages
        ]
        for receipt in receipts:
            receipt.wait()
    finally:
        confirmed.close()


def inside(address: Address, queue: str) -> list[Delivery]:
    """Return what a queue holds, in order, without taking it."""
    with Browser(address, queue) as browser:
        return list(browser.deliveries())


def ids(address: Address, queue: str) -> list[str]:
    """Return the ids of what a queue holds, in order."""
    return [delivery.id for delivery in inside(address, queue)]


def fill(address: Address, queue: str, count: int, **properties: Any) -> None:
    """Publish messages 0, 1, 2 … to a queue."""
    confirmed = ConfirmedChannel(address)
    try:
        for number in range(count):
            body = encode(number)
            settings = {"delivery_mode": 2, "message_id": str(number), **properties}
            confirmed.publish(
                Message(str(number), body, {}, settings), exchange="", routing_key=queue
            )
        assert confirmed.flush(30)
    finally:
        confirmed.close()


def declare(address: Address, queue: str, **arguments: Any) -> None:
    """Declare a queue."""
    connection = connect(address)
    try:
        table = {f"x-{key.replace('_', '-')}": value for key, value in arguments.items()}
        connection.default_channel.queue_declare(
            queue, durable=True, auto_delete=False, arguments=table
        )
    finally:
        connection.release()
