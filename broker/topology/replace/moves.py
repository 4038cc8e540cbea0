"""Moves messages from a queue through an exchange, over AMQP, each confirmed before it is acked.

By py-amqp, since pika 1.4 cannot write a header that is a float. The exchange is a fanout one:
publishing straight to a queue would replace the routing key, by which a message may yet be
dead-lettered, and would let a CC header deliver it elsewhere too.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from broker.connection import translated
from broker.errors import AccessRefused, ProvisioningFailed, Unreachable
from broker.topology.replace.site import Site

# Marks a message that was delivered before it was moved: somebody may have had it, and where a
# mover was killed between the confirm and the ack it is there twice. RabbitMQ's own mark does
# not outlive a move.
REDELIVERED = "rabbitry-redelivered"
# Each message that was got is acked by a command of its own, and of more than 32 that are not
# applied yet RabbitMQ's channel keeps the rest: they would come back when it closes.
BATCH = 25
CONFIRM_TIMEOUT_S = 60.0
# Between attempts at a queue that is full.
RETRY_S = 0.5


class GetRefused(ProvisioningFailed):
    """A quorum queue with a single active consumer gives messages to consumers only."""


def move(
    site: Site,
    source: str,
    exchange: str,
    *,
    most: int,
    on_moved: Callable[[int], object] = lambda _: None,
) -> int:
    """Move what is ready in a queue, in its order.

    Properties, headers, priority and routing key stay; RabbitMQ counts deliveries anew.

    Args:
        site: where.
        source: the queue; its consumers go on taking their share.
        exchange: leads to the queue that gets the messages, whatever their keys.
        most: how many to move; fewer where the queue is empty before.
        on_moved: told the number of messages so far.

    Returns:
        How many were moved.

    Raises:
        GetRefused: only consumers get messages of this queue.
        ProvisioningFailed: a message cannot be moved; it stays where it is.
        Unreachable, AccessRefused: see `broker.errors`.
    """
    moved = 0
    with _explained(site, source), site.channel() as channel:
        # Bodies as they are, whatever their content encoding says.
        channel.auto_decode = False
        confirms = _Confirms(channel)
        while batch := list(_take(channel, source, min(BATCH, most - moved))):
            _publish(site, channel, confirms, batch, exchange)
            channel.basic_ack(batch[-1].delivery_tag, multiple=True)
            moved += len(batch)
            on_moved(moved)
    return moved


def _take(channel: Any, source: str, most: int) -> Iterator[Any]:
    for _ in range(most):
        message = channel.basic_get(source)
        if message is None:
            return
        yield message


def _publish(
    site: Site, channel: Any, confirms: _Confirms, messages: list[Any], exchange: str
) -> None:
    """Publish until all are confirmed; what a full queue refuses, again and again."""
    told = False
    while messages:
        for message in messages:
            if message.delivery_info["redelivered"]:
                headers = message.properties.get("application_headers") or {}
                message.properties["application_headers"] = {**headers, REDELIVERED: True}
            key = message.delivery_info["routing_key"]
            channel.basic_publish(message, exchange, key, mandatory=True)
            confirms.expect(message)
        messages = confirms.wait()
        if messages:
            if not told:
                site.say(f"the queue behind {exchange!r} refuses messages, as it is full: waiting")
                told = True
            time.sleep(RETRY_S)


class _Confirms:
    """Which messages of a channel are confirmed."""

    def __init__(self, channel: Any) -> None:
        self._channel = channel
        self._tag = 0
        self._open: dict[int, Any] = {}
        self._refused: list[Any] = []
        self._returned: str | None = None
        channel.confirm_select()
        channel.events["basic_ack"].add(lambda tag, multiple: self._settle(tag, multiple))
        channel.events["basic_nack"].add(
            lambda tag, multiple: self._refused.extend(self._settle(tag, multiple))
        )
        channel.events["basic_return"].add(self._on_return)

    def expect(self, message: Any) -> None:
        """Count a message that was published."""
        self._tag += 1
        self._open[self._tag] = message

    def wait(self) -> list[Any]:
        """Wait until all are confirmed or refused; return those that were refused, in order."""
        deadline = time.monotonic() + CONFIRM_TIMEOUT_S
        while self._open:
            left_s = deadline - time.monotonic()
            if left_s <= 0:
                raise Unreachable(
                    f"RabbitMQ has not confirmed {len(self._open)} messages in"
                    f" {CONFIRM_TIMEOUT_S:.0f} s; they are still where they were"
                )
            self._channel.connection.drain_events(timeout=left_s)
        if self._returned is not None:
            raise ProvisioningFailed(
                f"RabbitMQ returned a message that was to be moved: {self._returned};"
                " it is still where it was",
                object=f"exchange {self._channel!r}",
                reason=self._returned,
            )
        refused, self._refused = self._refused, []
        return sorted(refused, key=lambda message: int(message.delivery_tag))

    def _settle(self, tag: int, multiple: bool) -> list[Any]:
        tags = [each for each in self._open if each <= tag] if multiple else [tag]
        return [self._open.pop(each) for each in tags if each in self._open]

    def _on_return(self, exception: Any, exchange: str, key: str, message: Any) -> None:
        self._returned = f"exchange {exchange!r} leads nowhere"


@contextmanager
def _explained(site: Site, source: str) -> Iterator[None]:
    import amqp.exceptions

    try:
        with translated(site.address):
            try:
                yield
            except amqp.exceptions.ChannelError as exc:
                if isinstance(exc, amqp.exceptions.AccessRefused):
                    raise AccessRefused(
                        f"user {site.address.user!r} may not move the messages of queue"
                        f" {source!r}: {exc.reply_text}; give it the rights read on the queue and"
                        " write on exchanges that begin with rabbitry.replace."
                    ) from exc
                locked = isinstance(exc, amqp.exceptions.ResourceLocked)
                raise (GetRefused if locked else ProvisioningFailed)(
                    f"the messages of queue {source!r} cannot be moved: {exc.reply_text}"
                    + _advice(str(exc.reply_text), locked=locked),
                    object=f"queue {source!r}",
                    reason=str(exc.reply_text),
                ) from exc
    except TimeoutError as exc:
        raise Unreachable(f"RabbitMQ at {site.address.host} does not confirm in time") from exc


def _advice(reason: str, *, locked: bool) -> str:
    if locked:
        return "; enable the plugin rabbitmq_shovel, which can, or let a consumer drain it"
    if "user_id" in reason:
        return "; give the user the tag impersonator, so that it may move messages of others"
    return ""
