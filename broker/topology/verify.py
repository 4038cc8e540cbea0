"""Proves rights as the users themselves, by requests that RabbitMQ checks and never carries out.

Each is allowed or refused before it is found wrong in itself: a message whose `user_id` is not
the sender's, a consumer whose priority is no number, a queue whose expiry is none. So nothing is
published, delivered or declared, whatever the rights are.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from broker.connection import Address, connect, translated
from broker.errors import AccessRefused, BrokerUnavailable, RabbitryError, Unreachable
from broker.management import Management, require_version
from broker.topology.access import User
from broker.topology.model import Topology
from broker.topology.references import References
from broker.topology.rights import REPLY_QUEUE, Expectation, expectations

_NOT_A_NUMBER = "rabbitry verify-rights"
_REPLY_TO = "amq.rabbitmq.reply-to"
# RabbitMQ answers so to whoever may write to it: nobody publishes to an internal exchange.
_INTERNAL = "internal exchange"
_ACCESS_REFUSED, _NOT_FOUND, _PRECONDITION_FAILED = 403, 404, 406
_IMPERSONATOR = "impersonator"


@dataclass(frozen=True, slots=True)
class Verdict:
    """What became of one expectation.

    Attributes:
        user: the user's name.
        expectation: what was to be proved, or None where the user could not log in.
        holds: whether it is so.
        text: what RabbitMQ did.
    """

    user: str
    expectation: Expectation | None
    holds: bool
    text: str

    def document(self) -> dict[str, Any]:
        """Return the verdict as JSON."""
        wanted = self.expectation
        return {
            "user": self.user,
            "action": "log in" if wanted is None else str(wanted),
            "expected": "allowed" if wanted is None or wanted.allowed else "refused",
            "holds": self.holds,
            "found": self.text,
        }


def verify(
    topology: Topology, address: Address, *, environ: Mapping[str, str], only: frozenset[str]
) -> Iterator[Verdict]:
    """Log in as each user of a topology and yield what holds.

    Args:
        topology: names the users; what they must and must not do follows from it.
        address: where RabbitMQ is, with the virtual host.
        environ: the process's environment, for passwords.
        only: the users to look at; all, when empty.

    Raises:
        TopologyError: the variable of a password is not set.
        UnsupportedBroker: RabbitMQ is too old.
        Unreachable, VirtualHostMissing: see `broker.errors`.
    """
    references = References(topology.source, environ)
    for name, user in topology.users.items():
        if only and name not in only:
            continue
        if user.password is None:
            yield Verdict(name, None, False, "the file has no password to log in with")
            continue
        password = references.resolved(user.password, ("users", name, "password"))
        yield from _verify_user(
            topology, name, user, replace(address, user=name, password=password)
        )


def _verify_user(topology: Topology, name: str, user: User, address: Address) -> Iterator[Verdict]:
    wanted = expectations(topology, user)
    over_amqp = [each for each in wanted if each.verb not in ("management", "policies")]
    try:
        probe = Probe(address, harmless=_IMPERSONATOR not in (user.tags or ()))
    except AccessRefused as exc:
        yield Verdict(name, None, False, str(exc))
        return
    with probe:
        # Over AMQP, since most of the users have no business with the management API.
        require_version(probe.version, at=address.redacted)
        yield Verdict(name, None, True, "allowed")
        for each in over_amqp:
            yield _verdict(name, each, *probe.ask(each))
    with Management(address) as management:
        for each in wanted:
            if each.verb in ("management", "policies"):
                yield _verdict(name, each, *_ask_management(management, each))


def _verdict(user: str, wanted: Expectation, allowed: bool | None, text: str) -> Verdict:
    return Verdict(user, wanted, allowed == wanted.allowed, text)


def _ask_management(management: Management, wanted: Expectation) -> tuple[bool | None, str]:
    path = ("overview",) if wanted.verb == "management" else ("parameters",)
    try:
        management.get(*path)
    except Unreachable:
        raise
    except AccessRefused:
        return False, "refused"
    except BrokerUnavailable as exc:
        return None, str(exc)
    return True, "allowed"


class Probe:
    """A connection as one user; a context manager."""

    def __init__(self, address: Address, *, harmless: bool = True) -> None:
        """Log in.

        Args:
            address: where and as whom.
            harmless: whether RabbitMQ refuses a message with another's `user_id`; it takes it
                from a user with the tag impersonator, as which nothing is published.

        Raises:
            AccessRefused, Unreachable, VirtualHostMissing: see `broker.errors`.
        """
        self.address = address
        self.harmless = harmless
        self._kombu = connect(address)
        self._channel: Any = None

    def __enter__(self) -> Probe:
        return self

    @property
    def version(self) -> str:
        """RabbitMQ's, as it says at login."""
        return str(self._kombu.connection.server_properties.get("version", ""))

    def __exit__(self, *error: object) -> None:
        self._kombu.release()

    def ask(self, wanted: Expectation) -> tuple[bool | None, str]:
        """Return whether RabbitMQ allows something, or None where that stays open, and its words.

        Raises:
            RabbitryError: the connection is gone.
        """
        from amqp.exceptions import ChannelError

        with translated(self.address):
            channel = self._open()
            try:
                if wanted.verb == "write":
                    if not self.harmless:
                        return None, "not tried: as impersonator the message would be real"
                    self._write(channel, wanted)
                elif wanted.verb == "read":
                    arguments = {"x-priority": _NOT_A_NUMBER}
                    channel.basic_consume(wanted.name, arguments=arguments)
                elif wanted.verb == "configure":
                    arguments = {"x-expires": _NOT_A_NUMBER}
                    channel.queue_declare(
                        wanted.name, durable=True, auto_delete=False, arguments=arguments
                    )
                else:
                    tag = channel.basic_consume(_REPLY_TO, no_ack=True)
                    channel.basic_cancel(tag)
                    return True, "allowed"
            except ChannelError as exc:
                return self._read(exc.reply_code, str(exc.reply_text), wanted)
        raise RabbitryError(f"RabbitMQ carried out what it should have found wrong: {wanted}")

    def _open(self) -> Any:
        if self._channel is None or not self._channel.is_open:
            self._channel = self._kombu.connection.channel()
        return self._channel

    def _write(self, channel: Any, wanted: Expectation) -> None:
        from amqp.basic_message import Message

        message = Message(b"", user_id=f"not {self.address.user}")
        channel.basic_publish(message, exchange=wanted.name, routing_key=wanted.routing_key)
        # Publishing is not answered; what comes next is, and so is an error before it.
        channel.basic_qos(0, 1, False)

    def _read(self, code: int, text: str, wanted: Expectation) -> tuple[bool | None, str]:
        if code == _ACCESS_REFUSED:
            internal = _INTERNAL in text
            return (
                (True, "allowed, but the exchange is internal") if internal else (False, "refused")
            )
        if code == _PRECONDITION_FAILED:
            return True, "allowed"
        if code == _NOT_FOUND and wanted.name == REPLY_QUEUE:
            return True, "allowed"
        if code == _NOT_FOUND:
            return True, "allowed, but it does not exist; apply the file first"
        return None, f"{code} {text}"
