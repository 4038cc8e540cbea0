"""The envelopes of a topology's jobs, as publisher and caller need them."""

from __future__ import annotations

from dataclasses import replace

from broker.body import Serializer
from broker.contracts import Contract, contract_of
from broker.envelope import Envelope
from broker.ids import Ids
from broker.topology import Topology
from producers.expiry import may_expire
from producers.routes import Routes


class Envelopes(dict[str, Envelope]):
    """Envelopes by the names of their jobs, each made when it is first asked for.

    Args:
        topology: says which jobs there are and where they go.
        routes: of the topology.
        serializer: of the arguments.
        reply_to: the queue that waits for replies; makes each message a call.

    Asking for a job that the topology has not raises UnknownJob.
    """

    def __init__(
        self,
        topology: Topology,
        *,
        routes: Routes,
        serializer: Serializer,
        reply_to: str | None = None,
    ) -> None:
        super().__init__()
        self._topology = topology
        self._routes = routes
        self._serializer = serializer
        self.reply_to = reply_to
        self._ids = Ids()

    def __missing__(self, name: str) -> Envelope:
        envelope = self[name] = Envelope(
            self._contract(name),
            ids=self._ids,
            serializer=self._serializer,
            reply_to=self.reply_to,
        )
        return envelope

    def _contract(self, name: str) -> Contract:
        contract = contract_of(self._topology, name)
        calls = self.reply_to is not None
        expires = may_expire(self._routes, contract.exchange, contract.routing_key, calls=calls)
        return replace(contract, expires=expires)
