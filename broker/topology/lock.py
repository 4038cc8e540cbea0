"""The lock against a second apply: an exclusive queue, held for as long as its connection lives.

One for each virtual host, whatever the topology: who owns what is decided under it.
https://www.rabbitmq.com/docs/queues#exclusive-queues
"""

from __future__ import annotations

import logging
import os
import socket
import threading
import time
import uuid
from datetime import UTC, datetime
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from broker.connection import CONNECT_TIMEOUT_S, Address
from broker.errors import (
    AccessRefused,
    ApplyRefused,
    BrokerUnavailable,
    Unreachable,
    VirtualHostMissing,
)
from broker.topology.ownership import LOCK_NAME

if TYPE_CHECKING:
    import pika

    from broker.management import Management

HEARTBEAT_S = 20
# How often the connection is serviced; far below the heartbeat.
SERVICE_S = 1.0
# RabbitMQ lists a connection a second after it is there, a busy one some seconds.
_LISTED_S = 10.0
_NAME = "rabbitry topology apply"


class ApplyLock:
    """Held from entering to leaving; a context manager.

    A thread services the connection, so that its heartbeats go on during long work, and
    `check` asks RabbitMQ whether the lock is still held.
    """

    def __init__(
        self,
        address: Address,
        *,
        owner: str = "",
        management: Management | None = None,
        heartbeat_s: int = HEARTBEAT_S,
    ) -> None:
        """Prepare the lock; nothing is sent yet.

        Args:
            address: where RabbitMQ is; its virtual host is what is locked.
            owner: the topology that is applied, for whoever meets the lock.
            management: tells who holds the lock where it is held.
            heartbeat_s: seconds of silence after which RabbitMQ counts the connection as dead.
        """
        self.address = address
        self._owner = owner
        self._management = management
        self._heartbeat_s = heartbeat_s
        self._id = uuid.uuid4().hex
        self._mutex = threading.Lock()
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._service, name="apply-lock", daemon=True)
        self._connection: pika.BlockingConnection | None = None
        self._channel: Any = None
        self._lost = ""

    def __enter__(self) -> Self:
        """Take the lock.

        Raises:
            ApplyRefused: another apply holds it.
            AccessRefused: the user may not declare its queue.
            Unreachable, VirtualHostMissing: see `broker.errors`.
        """
        self._connection = _connect(self.address, self._owner, self._heartbeat_s, self._id)
        try:
            self._take()
        except BaseException:
            self._close()
            raise
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.release()

    def release(self) -> None:
        """Give the lock back; twice does no harm."""
        self._stopped.set()
        if self._thread.is_alive():
            self._thread.join()
        with self._mutex:
            self._close()

    def check(self) -> None:
        """Ask RabbitMQ whether the lock is still held.

        Raises:
            ApplyRefused: it is not: the connection was lost or closed.
        """
        import pika.exceptions

        with self._mutex:
            if not self._lost and self._connection is not None:
                try:
                    self._channel.queue_declare(LOCK_NAME, passive=True)
                except (pika.exceptions.AMQPError, OSError) as exc:
                    self._lost = _told(exc)
            if self._lost:
                raise ApplyRefused(
                    f"the lock on virtual host {self.address.vhost_name!r} was lost"
                    f" ({self._lost}), so another apply may be running; run this one again"
                )

    def _take(self) -> None:
        import pika.exceptions

        assert self._connection is not None
        vhost, user = self.address.vhost_name, self.address.user
        self._channel = self._connection.channel()
        try:
            # Classic, since only classic queues are exclusive, whatever the default type is.
            self._channel.queue_declare(
                LOCK_NAME, exclusive=True, arguments={"x-queue-type": "classic"}
            )
        except pika.exceptions.ChannelClosedByBroker as exc:
            if exc.reply_code == 405:
                holder = (
                    ""
                    if self._management is None
                    else holder_of(self._management, besides=self._id)
                )
                raise ApplyRefused(
                    f"another apply is at work in virtual host {vhost!r}{holder}; wait for it and"
                    " run this one again"
                ) from exc
            if exc.reply_code == 403:
                raise AccessRefused(
                    f"user {user!r} may not configure queue {LOCK_NAME!r} in virtual host"
                    f" {vhost!r}, which keeps two applies apart; let the configure expression"
                    f" of its permissions match it; nothing was written"
                ) from exc
            raise ApplyRefused(f"the lock cannot be taken: {exc.reply_text}") from exc

    def _service(self) -> None:
        import pika.exceptions

        while not self._stopped.wait(SERVICE_S):
            with self._mutex:
                try:
                    if self._connection is not None:
                        self._connection.process_data_events(time_limit=0)
                except (pika.exceptions.AMQPError, OSError) as exc:
                    self._lost = _told(exc)
                    return

    def _close(self) -> None:
        import pika.exceptions

        connection, self._connection = self._connection, None
        if connection is not None and connection.is_open:
            try:
                # RabbitMQ takes its time over the queues of a closed connection; the next
                # apply shall not meet this one.
                if self._channel is not None and self._channel.is_open:
                    self._channel.queue_delete(LOCK_NAME)
                connection.close()
            except (pika.exceptions.AMQPError, OSError) as exc:
                # It is gone, and with it the lock.
                self._lost = _told(exc)


def holder_of(management: Management, *, besides: str = "") -> str:
    """Return who holds the lock, as ``": topology 'x', by …"``, or "" where it cannot be told.

    Args:
        management: the management API; its address names the virtual host.
        besides: the `_id` of a connection that does not hold it.
    """
    deadline = time.monotonic() + _LISTED_S
    while True:
        try:
            # It takes the tag monitoring to see the connections of others.
            there = management.get("vhosts", management.address.vhost_name, "connections")
        except BrokerUnavailable:
            return ""
        own = False
        for each in there:
            told = dict(each.get("client_properties") or {})
            own = own or told.get("id") == besides
            if each.get("user_provided_name") == _NAME and told.get("id") != besides:
                since = datetime.fromtimestamp(int(each.get("connected_at") or 0) / 1000, UTC)
                return (
                    f": topology {told.get('topology', '')!r}, by user {each.get('user')!r} in"
                    f" process {told.get('process')} on {told.get('host')} since"
                    f" {since:%H:%M:%S} UTC"
                )
        # The holder's is older: where this one is listed and that one not, it is not shown.
        if own or time.monotonic() > deadline:
            return ""
        time.sleep(_LISTED_S / 40)


def _told(exc: BaseException) -> str:
    return str(getattr(exc, "reply_text", "") or exc) or type(exc).__name__


def _connect(address: Address, owner: str, heartbeat_s: int, id: str) -> pika.BlockingConnection:
    import pika
    import pika.exceptions

    # It reports on its own, at length, what is raised here as one sentence.
    logging.getLogger("pika").setLevel(logging.CRITICAL)
    context = address.ssl_context()
    tls = None
    if context is not None:
        server = (address.tls or {}).get("server_name_indication", address.host)
        tls = pika.SSLOptions(context, server)
    where = f"{address.host}:{address.port}"
    try:
        return pika.BlockingConnection(
            pika.ConnectionParameters(
                host=address.host,
                port=address.port,
                virtual_host=address.vhost_name,
                credentials=pika.PlainCredentials(address.user, address.password),
                heartbeat=heartbeat_s,
                socket_timeout=CONNECT_TIMEOUT_S,
                blocked_connection_timeout=CONNECT_TIMEOUT_S,
                ssl_options=tls,
                client_properties={
                    "connection_name": _NAME,
                    "id": id,
                    "topology": owner,
                    "host": socket.gethostname(),
                    "process": str(os.getpid()),
                },
            )
        )
    except (
        pika.exceptions.ProbableAuthenticationError,
        pika.exceptions.AuthenticationError,
    ) as exc:
        raise AccessRefused(
            f"RabbitMQ at {where} refuses user {address.user!r} over AMQP; check the user and"
            " password in the URL"
        ) from exc
    except pika.exceptions.ConnectionClosedByBroker as exc:
        if "not found" in exc.reply_text:
            raise VirtualHostMissing(
                f"RabbitMQ at {where} has no virtual host {address.vhost_name!r}"
            ) from exc
        raise AccessRefused(
            f"RabbitMQ at {where} refuses user {address.user!r} in virtual host"
            f" {address.vhost_name!r}: {exc.reply_text}; nothing was written"
        ) from exc
    except pika.exceptions.ProbableAccessDeniedError as exc:
        raise AccessRefused(
            f"user {address.user!r} has no permissions in virtual host {address.vhost_name!r};"
            " `rabbitmqctl set_permissions` gives them; nothing was written"
        ) from exc
    except (pika.exceptions.AMQPError, OSError) as exc:
        raise Unreachable(
            f"cannot reach RabbitMQ at {where} over AMQP ({str(exc) or type(exc).__name__});"
            " apply needs it for the lock against a second apply"
        ) from exc
