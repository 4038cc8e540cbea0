"""RabbitMQ's client for C: `publish.c`, built against Debian's librabbitmq-dev."""

from __future__ import annotations

import subprocess
from functools import cache
from pathlib import Path

from benchmarks.method import ROOT, told
from benchmarks.publishers.order import Order, Taken
from broker.connection import Address
from broker.window import WINDOW

SOURCE = Path(__file__).with_name("publish.c")
PROGRAM = ROOT / "build" / "publish"
APT = "apt-get install gcc libc6-dev librabbitmq-dev"


def needs() -> str | None:
    """Say what is lacking here; None where it can run."""
    return None if _built() else f"not built: the compiler or its library is missing; {APT}"


def publish(order: Order) -> Taken:
    """Publish one message, under ids of its own, pipelined like our own publisher."""
    from amqp.serialization import dumps

    address = Address.parse(order.url)
    message = order.message()
    table: bytes = dumps("F", [dict(message.headers)])
    command = (
        *(str(PROGRAM), address.host, str(address.port), address.user, address.vhost_name),
        *(order.exchange, order.routing_key, str(order.count), str(order.warm_up), str(WINDOW)),
        *(str(message.properties["priority"]), message.body.content_type),
    )
    environment = {
        "PASSWORD": address.password,
        "ID": message.id,
        "RABBITMQ_PID": str(order.rabbitmq or 0),
    }
    _built()
    found = told(command, environment=environment, given=table + message.body.content)
    found.pop("version")
    return Taken(**found)


@cache
def _built() -> bool:
    """Compile the program where it is older than its source."""
    if PROGRAM.exists() and PROGRAM.stat().st_mtime >= SOURCE.stat().st_mtime:
        return True
    PROGRAM.parent.mkdir(exist_ok=True)
    command = ("cc", "-O2", "-o", str(PROGRAM), str(SOURCE), "-lrabbitmq")
    try:
        done = subprocess.run(command, capture_output=True)
    except FileNotFoundError:
        return False
    if done.returncode and not (b"amqp.h" in done.stderr or b"-lrabbitmq" in done.stderr):
        raise SystemExit(f"{SOURCE} does not compile:\n{done.stderr.decode()}")
    return not done.returncode
