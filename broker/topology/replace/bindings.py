"""Binding, unbinding, and knowing which bindings there are."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from contextlib import suppress

from broker.connection import connect, translated
from broker.errors import BrokerUnavailable, ProvisioningFailed
from broker.management import Management
from broker.topology.objects import BINDING, Identity, Object, binding_identity
from broker.topology.observe import read_kind
from broker.topology.plan import Change
from broker.topology.write import write


class Bindings:
    """The bindings of one virtual host."""

    def __init__(self, management: Management, vhost: str) -> None:
        self._management = management
        self._vhost = vhost

    def read(self) -> frozenset[Identity]:
        """Return all bindings."""
        return frozenset(read_kind(self._management, self._vhost, BINDING))

    def bind(self, bindings: Iterable[Identity]) -> None:
        """Make bindings, and believe nothing that was not read back.

        Raises:
            ProvisioningFailed: one was not made.
        """
        wanted = list(bindings)
        there = self.read() if wanted else frozenset()
        missing = [each for each in wanted if each not in there]
        for each in missing:
            write(Change("create", each, after=Object(each, {})), self._vhost, self._management)
        there = self.read() if missing else there
        for each in wanted:
            if each not in there:
                raise _failed(each, "RabbitMQ said that it made it, but it is not there")

    def unbind(self, bindings: Iterable[Identity]) -> None:
        """Remove bindings, and believe nothing that was not read back.

        Raises:
            ProvisioningFailed: one is still there.
        """
        there = self.read()
        present = [each for each in bindings if each in there]
        for each in present:
            try:
                write(Change("delete", each), self._vhost, self._management)
            except BrokerUnavailable as exc:
                if type(exc) is not BrokerUnavailable:
                    raise
                self._unbind_over_amqp(each)
        there = self.read() if present else there
        for each in present:
            if each in there:
                raise _failed(each, "RabbitMQ said that it removed it, but it is still there")

    def _unbind_over_amqp(self, binding: Identity) -> None:
        # RabbitMQ's HTTP API cannot address a binding with ~ in its key and arguments.
        source, kind, destination, routing_key, arguments = binding.name
        address = self._management.address.with_vhost(self._vhost)
        connection = connect(address)
        try:
            with translated(address):
                channel = connection.default_channel
                unbind = channel.queue_unbind if kind == "queue" else channel.exchange_unbind
                unbind(destination, source, routing_key, arguments=json.loads(arguments))
        finally:
            with suppress(OSError):
                connection.release()


def link(source: str, kind: str, destination: str, routing_key: str = "") -> Identity:
    """Return a plain binding; kind is "queue" or "exchange"."""
    return binding_identity(
        source=source, kind=kind, destination=destination, routing_key=routing_key, arguments={}
    )


def into(bindings: Iterable[Identity], kind: str, name: str) -> Iterator[Identity]:
    """Yield the bindings that lead to a queue or exchange."""
    return (each for each in bindings if each.name[1:3] == (kind, name))


def out_of(bindings: Iterable[Identity], exchange: str) -> Iterator[Identity]:
    """Yield the bindings that lead away from an exchange."""
    return (each for each in bindings if each.name[0] == exchange)


def redirected(binding: Identity, kind: str, destination: str) -> Identity:
    """Return a binding with the same source, key and arguments to another destination."""
    source, _, _, routing_key, arguments = binding.name
    return Identity(BINDING, (source, kind, destination, routing_key, arguments))


def relayed(binding: Identity, source: str) -> Identity:
    """Return a binding with the same destination, key and arguments from another source."""
    return Identity(BINDING, (source, *binding.name[1:]))


def _failed(binding: Identity, reason: str) -> ProvisioningFailed:
    return ProvisioningFailed(f"{binding}: {reason}", object=str(binding), reason=reason)
