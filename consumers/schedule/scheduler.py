"""The scheduler: waits for its turn to lead, publishes what is due, hands the token on."""

from __future__ import annotations

import logging
import os
import socket
import threading
import time
from collections.abc import Callable
from queue import Empty, SimpleQueue

from broker.connection import Address, connect, translated
from broker.errors import (
    InvalidMessage,
    MissingOnBroker,
    PublishFailed,
    RabbitryError,
    TopologyError,
    Unreachable,
)
from broker.receipt import Receipt, Routed
from broker.recurrence import text_of
from broker.topology import Topology
from broker.topology.token import Token, token_of
from consumers.pulse import Pulse
from consumers.schedule.marks import Marks, State, adapted, ahead, decode, merged
from consumers.schedule.term import Term
from consumers.schedule.ticks import Observer, Ticks

logger = logging.getLogger("rabbitry.schedule")

# The token is written anew at least so often, so that people see a leader that has nothing to do.
RENEW_S = 60.0
LOOK_S = 1.0
# What is under way when the scheduler is told to stop has so long to end.
STOP_S = 0.5
_CONNECTING, _WAITING, _LEADING = "connecting", "waiting", "leading"
RETRY_FIRST_S = 0.1
RETRY_MOST_S = 5.0


class Stopped(Exception):
    """The scheduler was told to stop."""


class Scheduler:
    """Publishes the schedules of a topology while it leads; any number may run.

    Args:
        topology: says what recurs.
        address: where RabbitMQ is.
        clock: seconds since 1970-01-01 UTC.
        look_s: how often it is looked at while nothing is due: it may be set meanwhile.
        observer: counts.

    Attributes:
        pulse: whether it goes on.
        state: ``connecting``, ``waiting`` for the lead, ``leading`` or ``stopping``.

    Raises:
        TopologyError: the file has no schedules.
    """

    def __init__(
        self,
        topology: Topology,
        address: Address,
        *,
        clock: Callable[[], float] = time.time,
        look_s: float = LOOK_S,
        observer: Observer | None = None,
    ) -> None:
        token = token_of(topology)
        if token is None:
            raise TopologyError(
                "there is nothing to schedule; add a job that recurs under `schedules:`",
                file=topology.source.file if topology.source else "topology",
            )
        self.name = f"scheduler.{socket.gethostname()}.{os.getpid()}"[:255]
        self.pulse = Pulse()
        self.state = _CONNECTING
        self._topology = topology
        self._address = address
        self._token: Token = token
        self._clock = clock
        self._look_s = look_s
        self._observer = observer
        self._wake: SimpleQueue[None] = SimpleQueue()
        self._stopping = False
        self._stop_by = float("inf")
        self._ticks = Ticks(topology, clock=clock, observer=observer)

    def stop(self) -> None:
        """Stop soon: what is under way has half a second; may be called in a signal's handler."""
        if not self._stopping:
            self._stop_by = time.monotonic() + STOP_S
            self._stopping = True
            self.state = "stopping"
        self._wake.put(None)

    def check(self) -> None:
        """Find out whether RabbitMQ has what a scheduler needs.

        Raises:
            MissingOnBroker: a queue is missing.
            BrokerUnavailable: see `broker.errors`.
        """
        from amqp.exceptions import NotFound

        connection = connect(self._address)
        try:
            for queue in (self._token.queue, self._token.state):
                with translated(self._address):
                    try:
                        connection.default_channel.queue_declare(queue, passive=True)
                    except NotFound as exc:
                        raise MissingOnBroker(
                            f"virtual host {self._address.vhost_name!r} lacks the queue"
                            f" {queue!r} that schedulers share; `rabbitry topology apply` makes it"
                        ) from exc
        finally:
            connection.release()

    def run(self) -> None:
        """Wait for a turn to lead, lead, and begin again when a connection is lost, until `stop`.

        Raises:
            MissingOnBroker, AccessRefused, VirtualHostMissing: at the start, what waiting would
                not mend.
        """
        self._begin()
        retry_s = RETRY_FIRST_S
        while not self._stopping:
            began = time.monotonic()
            self._enter(_CONNECTING)
            try:
                self._term()
            except Stopped:
                break
            except RabbitryError as exc:
                if time.monotonic() - began > RETRY_MOST_S:
                    retry_s = RETRY_FIRST_S
                logger.warning("%s; beginning again", exc)
                self.pulse.trouble = str(exc)
                self._enter(_CONNECTING)
                self._pause(retry_s)
                retry_s = min(2 * retry_s, RETRY_MOST_S)
        logger.info("stopped")

    def _begin(self) -> None:
        """Check, but go on where RabbitMQ cannot be reached yet."""
        found: list[BaseException | None] = []

        def look() -> None:
            try:
                self.check()
            except BaseException as exc:  # noqa: BLE001  (raised where somebody waits)
                found.append(exc)
            else:
                found.append(None)
            self._wake.put(None)

        # Whoever is told to stop must not wait for a RabbitMQ that does not answer.
        threading.Thread(target=look, name="rabbitry-scheduler-check", daemon=True).start()
        while not found and not self._stopping:
            self._sleep(LOOK_S)
        if not found or found[0] is None:
            return
        if not isinstance(found[0], Unreachable):
            raise found[0]
        self.pulse.trouble = str(found[0])
        logger.warning("%s; trying again", found[0])

    def _pause(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        while not self._stopping and (left := until - time.monotonic()) > 0:
            self._sleep(left)

    def _sleep(self, seconds: float) -> None:
        self.pulse.beat()
        try:
            self._wake.get(timeout=max(0.0, seconds))
        except Empty:
            return

    # -- one term -------------------------------------------------------------------------

    def _term(self) -> None:
        with Term(self._address, self._token, consumer_tag=self.name, wake=self._wake) as term:
            self._wait(term, lambda: term.opened)
            self.pulse.trouble = ""
            self._enter(_WAITING)
            # A token that nobody needs does no harm: the leader drops it.
            self._routed(term, term.offer())
            logger.info("waiting for the lead")
            held = self._tokens(term)
            # Another one comes back behind all that lay in the queue before: then all is known.
            offered = term.offer()
            self._routed(term, offered)
            while offered.message_id not in held.ids:
                held.add(self._tokens(term))
            try:
                self._lead(term, held)
            finally:
                if self._observer is not None:
                    self._observer.leads(False)

    def _enter(self, state: str) -> None:
        if not self._stopping:
            self.state = state

    def _lead(self, term: Term, held: Held) -> None:
        logger.info("leading")
        self._enter(_LEADING)
        if self._observer is not None:
            self._observer.leads(True)
        written: Marks | None = None
        renew_at = 0.0
        while True:
            held.add(Held.of(term))
            now_s = int(self._clock())
            for name in ahead(held.marks, now_s=now_s):
                logger.warning(
                    "schedule %s is done up to %s, which is ahead of the clock: beginning now",
                    name,
                    text_of(held.marks[name].done_s),
                )
            marks = adapted(held.marks, self._topology.schedules, now_s=now_s)
            batch = self._ticks.due(marks, now_s=now_s)
            self._ticks.publish(batch, term)
            try:
                self._settled(term, batch.receipts)
                marks = self._ticks.done(batch, marks)
                if marks != written or time.monotonic() >= renew_at:
                    self._write(term, held, marks)
                    written, renew_at = marks, time.monotonic() + RENEW_S
            except RabbitryError as exc:
                self._ticks.note_refusals(batch, exc)
                raise
            self._idle(term, min(self._ticks.first_s(marks) - self._clock(), self._look_s))

    def _write(self, term: Term, held: Held, marks: Marks) -> None:
        """Publish the token as it is now, and drop those before it once RabbitMQ has it."""
        last_tag = held.last_tag
        held.marks = marks
        self._routed(term, term.write(State(marks, self.name, int(self._clock()))))
        term.drop(last_tag)

    # -- waiting --------------------------------------------------------------------------

    def _idle(self, term: Term, seconds: float) -> None:
        self._go_on(term)
        self._sleep(seconds)
        self._go_on(term)

    def _go_on(self, term: Term) -> None:
        if self._stopping:
            raise Stopped
        if term.error is not None:
            raise term.error

    def _wait(self, term: Term, condition: Callable[[], bool]) -> None:
        """Wait for something, or for the term's end."""
        while not condition():
            self._go_on(term)
            self._sleep(LOOK_S)

    def _tokens(self, term: Term) -> Held:
        """Wait for tokens."""
        while not (held := Held.of(term)).ids:
            self._idle(term, LOOK_S)
        return held

    def _settled(self, term: Term, receipts: list[Receipt]) -> None:
        """Wait until the outcome of each publish is known.

        Raises:
            RabbitryError: the term is over.
        """
        while not all(receipt.done for receipt in receipts):
            if term.error is not None:
                raise term.error
            if time.monotonic() >= self._stop_by:
                raise Stopped
            self._sleep(min(LOOK_S, self._stop_by - time.monotonic()))
        if term.error is not None:
            raise term.error

    def _routed(self, term: Term, receipt: Receipt) -> None:
        """Wait until a token is in its queue.

        Raises:
            RabbitryError: it is not, or the term is over.
        """
        self._settled(term, [receipt])
        if not isinstance(receipt.outcome, Routed):
            assert isinstance(receipt.outcome, PublishFailed)
            raise receipt.outcome


class Held:
    """The tokens that the scheduler holds.

    Attributes:
        marks: what they say together.
        last_tag: the delivery tag of the last.
        ids: of their messages.
    """

    def __init__(self) -> None:
        self.marks: Marks = {}
        self.last_tag = 0
        self.ids: set[str] = set()

    @classmethod
    def of(cls, term: Term) -> Held:
        """Take what was delivered."""
        held = cls()
        for delivered in term.delivered():
            held.last_tag = delivered.tag
            held.ids.add(delivered.message_id)
            try:
                held.marks = merged(held.marks, decode(delivered.content).marks)
            except InvalidMessage as exc:
                logger.warning("%s", exc)
        return held

    def add(self, other: Held) -> None:
        """Hold others as well."""
        self.marks = merged(self.marks, other.marks)
        self.last_tag = max(self.last_tag, other.last_tag)
        self.ids = other.ids


def run_scheduler(topology: Topology, address: Address, *, health: str | None = None) -> int:
    """Run a scheduler until SIGTERM or SIGINT; return the exit code.

    Args:
        topology: says what recurs.
        address: where RabbitMQ is.
        health: ``HOST:PORT`` where it answers probes; None for nowhere.
    """
    import signal

    from broker.errors import EXIT_DONE

    if health is None:
        scheduler = Scheduler(topology, address)
    else:
        from consumers.schedule.metrics import ScheduleMetrics, registry_for, serve

        registry = registry_for()
        scheduler = Scheduler(topology, address, observer=ScheduleMetrics(registry))
        serve(scheduler, registry, health)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: scheduler.stop())
    scheduler.run()
    return EXIT_DONE
