"""Jobs that still run when RabbitMQ has taken their message back.

It does so when a consumer has held a message for longer than its time-out, or when the connection
is lost, and delivers the message again. Celery would begin the job a second time, beside the first,
and after the next time-out a third time. Here the copy that runs goes on with the new delivery.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from typing import Any

from celery.utils.log import get_logger
from celery.worker import state

from consumers.delays import queue_of
from consumers.failure.undertaker import is_held
from consumers.limits import CONSUMER_TIMEOUT

logger = get_logger("rabbitry.job")

# Jobs that were done when their message was gone, and whose new delivery has not come yet; it
# never comes where it has gone to another worker.
MOST_DONE = 10_000
# Of the time-out: a job begins a little after its message was delivered.
_MOST_OF_IT = 0.9


class Takeover:
    """Gives new deliveries of messages to the jobs that they began.

    Args:
        consumer: the `JobConsumer` that receives them.
    """

    def __init__(self, consumer: Any) -> None:
        self._consumer = consumer
        self._done: OrderedDict[tuple[str, str], None] = OrderedDict()

    def take(self, message: Any) -> bool:
        """Take a message whose job runs here, or is done here, and must not begin again.

        Args:
            message: kombu's, of a job.

        Returns:
            Whether it is taken; that of a job that is done is acknowledged.
        """
        redelivered = message.delivery_info.get("redelivered")
        if not redelivered and not self._done:
            return False
        id = message.headers.get("id")
        queue = queue_of(self._consumer, message.delivery_info.get("consumer_tag"))
        if not isinstance(id, str) or queue is None:
            return False
        was_done = (id, queue) in self._done
        self._done.pop((id, queue), None)
        if not redelivered:
            # Published anew: whoever did so wants it to run again.
            return False
        if was_done:
            logger.info("job %s was done before its message came back: acknowledged", id)
            message.ack_log_error(logger, self._consumer.connection_errors)
            return True
        request = state.requests.get(id)
        take_over = getattr(request, "take_over", None)
        if take_over is None or not take_over(message, queue):
            return False
        logger.warning("job %s still runs here: it goes on with the message that came back", id)
        return True

    def tell(self, queue: Any, tag: str) -> None:
        """Log that RabbitMQ has ended a consumer, and what to do about it.

        Args:
            queue: kombu's, that it consumed.
            tag: of the consumer.
        """
        timeout_s = (queue.consumer_arguments or {}).get(CONSUMER_TIMEOUT, 0) / 1000
        overdue = [
            f"{request.name} ({request.id})"
            for request in tuple(state.active_requests)
            if request.message.delivery_info.get("consumer_tag") == tag
            and request.time_start is not None
            and time.time() - request.time_start >= timeout_s * _MOST_OF_IT
        ]
        if not timeout_s or not overdue:
            logger.warning(
                "RabbitMQ ended the consumer of queue %r, which is consumed again: it is being"
                " replaced, or a job was held for longer than the queue's consumer time-out",
                queue.name,
            )
            return
        logger.error(
            "RabbitMQ took back what ran for longer than %g s, the consumer time-out of queue %r:"
            " %s. It goes on here and is not begun again by this worker, but another one may; give"
            " the job a time_limit in a prefork worker, or raise consumer_timeout",
            *(timeout_s, queue.name, ", ".join(overdue)),
        )

    def is_gone(self, message: Any) -> bool:
        """Return whether RabbitMQ may have a message back: who it was delivered to is gone."""
        tags = self._consumer.task_consumer._active_tags.values()
        return not is_held(message) or message.delivery_info.get("consumer_tag") not in tags

    def done(self, message: Any, id: str, queue: str) -> None:
        """Note a job that is done; where its message is gone, so that it ends when it comes back.

        Args:
            message: kombu's.
            id: of the job.
            queue: that it came from.
        """
        if self.is_gone(message):
            self._done[id, queue] = None
            if len(self._done) > MOST_DONE:
                self._done.popitem(last=False)
