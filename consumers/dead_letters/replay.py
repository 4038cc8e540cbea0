"""Sends dead letters again, each confirmed before it leaves the dead-letter queue.

A kill at any point loses none: a letter that was confirmed and not taken out yet is there twice,
with the same message id.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from broker.body import Body
from broker.case_file import REPLAYS, Reason, without_case
from broker.confirmed import ConfirmedChannel
from broker.errors import RabbitryError
from broker.message import DEADLINE, PUBLISHED, Message
from broker.receipt import Receipt
from consumers.dead_letters.letter import Filter, Letter
from consumers.queues.browse import Browser

# Under way at a time: so many may be there twice after a kill.
WINDOW = 500
MAX_REPLAYS = 3
_BEAT_S = 1.0


@dataclass(frozen=True, slots=True)
class Stayed:
    """A letter that was meant and stays where it is.

    Attributes:
        letter: which.
        error: why.
    """

    letter: Letter
    error: RabbitryError


@dataclass(slots=True)
class Tally:
    """What became of the letters.

    Attributes:
        looked: how many were looked at.
        replayed: how many were sent, or would be.
        stayed: those that were meant and are still there.
    """

    looked: int = 0
    replayed: int = 0
    stayed: list[Stayed] = field(default_factory=list)


class NotReplayed(RabbitryError):
    """A dead letter that is not to be sent again as it is."""


def replay(
    browser: Browser,
    confirmed: ConfirmedChannel | None,
    queue: str,
    *,
    meant: Filter,
    limit: int | None = None,
    rate: float | None = None,
    max_replays: int = MAX_REPLAYS,
    tally: Tally,
    stopped: Callable[[], bool] = lambda: False,
    on_letter: Callable[[Letter], object] = lambda _: None,
    on_sent: Callable[[Letter], object] = lambda _: None,
    now_ms: Callable[[], int] = lambda: round(time.time() * 1000),
) -> None:
    """Send dead letters again to the exchange and routing key that they came from.

    The message id and everything else stay; the case file and ``x-death`` go, and the header
    ``rabbitry-replays`` counts. A deadline that has passed begins anew, and what was cancelled is
    not any more.

    Args:
        browser: looks into the queue.
        confirmed: publishes; None only says what would be sent.
        queue: the name of the queue.
        meant: which letters; the others stay in place.
        limit: how many to send at most, counted with what `tally` has already.
        rate: how many to send a second at most.
        max_replays: a letter that was replayed so often stays.
        tally: told what became of each.
        stopped: asked between letters; once it says so no more are sent, and what was sent is
            accounted for. An exception from a signal's handler could fall between a step and its
            account, so handlers should set what this tells.
        on_letter, on_sent: told each letter that was looked at, or was sent or would be.
        now_ms: the clock.

    Raises:
        BrokerUnavailable: RabbitMQ was lost; nothing else is.
    """
    under_way: deque[tuple[Letter, Receipt]] = deque()
    began = time.monotonic()
    sent = 0
    try:
        for delivery in browser.deliveries(stopped=stopped):
            tally.looked += 1
            letter = Letter.of(queue, delivery)
            on_letter(letter)
            if not meant.takes(letter):
                continue
            reason = _why_not(letter, max_replays)
            if reason is not None:
                tally.stayed.append(Stayed(letter, NotReplayed(reason)))
                continue
            if confirmed is None:
                tally.replayed += 1
                on_sent(letter)
            else:
                if rate is not None:
                    browser.pause(began + sent / rate - time.monotonic(), stopped=stopped)
                    if stopped():
                        return
                assert letter.origin is not None
                exchange, routing_key = letter.origin
                try:
                    receipt = confirmed.publish(
                        again(letter, now_ms()), exchange=exchange, routing_key=routing_key
                    )
                except RabbitryError as exc:
                    tally.stayed.append(Stayed(letter, exc))
                    continue
                sent += 1
                on_sent(letter)
                under_way.append((letter, receipt))
                _settle(browser, under_way, tally, most=WINDOW)
            if limit is not None and tally.replayed + len(under_way) >= limit:
                _settle(browser, under_way, tally, most=0)
                if tally.replayed >= limit:
                    return
    finally:
        _settle(browser, under_way, tally, most=0)


def again(letter: Letter, now_ms: int) -> Message:
    """Return a letter's message as it is sent again."""
    headers = without_case(letter.delivery.headers)
    headers[REPLAYS] = letter.case.replays + 1
    headers.update(_deadline(headers, now_ms))
    if letter.case.reason == Reason.CANCELLED:
        # What was published before it was cancelled stays cancelled.
        headers[PUBLISHED] = now_ms
    properties = dict(letter.delivery.properties)
    body = Body(
        letter.delivery.content,
        properties.pop("content_type", None),
        properties.pop("content_encoding", None),
    )
    return Message(letter.id, body, headers, properties)


def _deadline(headers: Mapping[str, Any], now_ms: int) -> dict[str, int]:
    """Give a job as much time again as it had when it was published; its wait begins anew, too."""
    deadline, published = headers.get(DEADLINE), headers.get(PUBLISHED)
    if not isinstance(deadline, int) or deadline > now_ms:
        return {}
    had_ms = deadline - published if isinstance(published, int) else 0
    return {PUBLISHED: now_ms, DEADLINE: now_ms + had_ms} if had_ms > 0 else {}


def _why_not(letter: Letter, max_replays: int) -> str | None:
    name = f"message {letter.id or 'without an id'} of queue {letter.queue!r}"
    if letter.origin is None:
        return (
            f"{name} does not say where it was published to: neither a case file nor x-death names"
            " its exchange"
        )
    if letter.case.replays >= max_replays:
        return (
            f"{name} was replayed {letter.case.replays} times already and failed again; mend the"
            " job, or raise --max-replays"
        )
    return None


def _settle(
    browser: Browser, under_way: deque[tuple[Letter, Receipt]], tally: Tally, *, most: int
) -> None:
    """Take out of the queue what is confirmed; wait while more than `most` are under way."""
    while under_way:
        letter, receipt = under_way[0]
        if not receipt.done and len(under_way) <= most:
            return
        try:
            receipt.wait(_BEAT_S)
        except TimeoutError:
            browser.beat()
            continue
        except RabbitryError as exc:
            tally.stayed.append(Stayed(letter, exc))
        else:
            tally.replayed += 1
            browser.let_go(letter.delivery)
        under_way.popleft()
