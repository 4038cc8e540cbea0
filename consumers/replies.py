"""Replies: a result backend that publishes straight to the caller's `reply_to`."""

from __future__ import annotations

import time
from typing import Any

from celery.backends.rpc import RPCBackend
from kombu.exceptions import EncodeError

from broker.body import encode
from broker.errors import InvalidMessage
from broker.message import FINISHED, PUBLISHED, STARTED, WORKER
from consumers.job import published_ms_of


class ReplyBackend(RPCBackend):  # type: ignore[misc]
    """Celery's ``rpc://`` with arrays in the result and times in the headers.

    A Celery client with ``rpc://`` understands its replies; nothing is declared, and a request
    without `reply_to` gets none.
    """

    def store_result(
        self,
        task_id: str,
        result: Any,
        state: str,
        traceback: str | None = None,
        request: Any = None,
        **kwargs: Any,
    ) -> Any:
        """Publish the reply to a request that waits for one.

        Raises:
            kombu.exceptions.EncodeError: the result cannot travel; Celery then replies with that.
        """
        reply_to, correlation_id = self.destination_for(task_id, request)
        if not reply_to:
            return result
        meta = self._to_result(task_id, state, result, traceback, request)
        try:
            body = encode(meta)
        except InvalidMessage as exc:
            raise EncodeError(f"the result cannot be put into a reply: {exc}") from exc
        headers = {
            PUBLISHED: published_ms_of(request),
            STARTED: getattr(request, "started_ms", None),
            FINISHED: round(time.time() * 1000),
            WORKER: getattr(request, "hostname", None),
        }
        with self.app.amqp.producer_pool.acquire(block=True) as producer:
            producer.publish(
                body.content,
                content_type=body.content_type,
                content_encoding=body.content_encoding,
                exchange="",
                routing_key=reply_to,
                correlation_id=correlation_id,
                headers={name: value for name, value in headers.items() if value is not None},
                delivery_mode=self.delivery_mode,
                retry=True,
                retry_policy=self.retry_policy,
            )
        return result

    def encode_result(self, result: Any, state: str) -> Any:
        """Return a result as it goes into the body; exceptions by class name and text."""
        if state in self.EXCEPTION_STATES and isinstance(result, Exception):
            return {
                "exc_type": type(result).__name__,
                "exc_message": [str(result)],
                "exc_module": type(result).__module__,
            }
        return result
