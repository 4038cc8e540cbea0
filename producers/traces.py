"""Traces by OpenTelemetry: a span for each publish, and its context in the message's headers.

Nothing is done, and nothing imported, unless the program itself has loaded OpenTelemetry's SDK.
Names of spans and attributes are OpenTelemetry's for messaging; the headers (``traceparent`` and
what else the program's propagators write) stand where Celery's own instrumentation reads them.
"""

from __future__ import annotations

import sys
from dataclasses import replace

from broker.contracts import Contract, Job
from broker.receipt import Receipt, Routed

# Loaded by programs that record traces; the API alone records nothing.
SDK = "opentelemetry.sdk.trace"


class PublishSpan:
    """The span of one publish: from handing the job over to knowing its outcome.

    Attributes:
        job: the job with the trace's context among its headers.
    """

    __slots__ = ("_span", "job")

    def __init__(self, contract: Contract, job: Job) -> None:
        from opentelemetry import propagate, trace

        self._span = trace.get_tracer("rabbitry").start_span(
            f"publish {contract.name}",
            kind=trace.SpanKind.PRODUCER,
            attributes={
                "messaging.system": "rabbitmq",
                "messaging.operation.name": "publish",
                "messaging.operation.type": "send",
                "messaging.destination.name": contract.exchange,
                "messaging.rabbitmq.destination.routing_key": contract.routing_key,
            },
        )
        context: dict[str, str] = {}
        propagate.inject(context, trace.set_span_in_context(self._span))
        # What the producer set itself wins: a relay passes on the context that it was given.
        self.job = replace(job, headers={**context, **(job.headers or {})})

    def end_with(self, receipt: Receipt) -> None:
        """End the span once the outcome is known."""
        self._span.set_attribute("messaging.message.id", receipt.message_id)
        receipt.add_done_callback(self._done)

    def failed(self, error: BaseException) -> None:
        """End the span of a job that was not handed over."""
        from opentelemetry.trace import Status, StatusCode

        self._span.set_attribute("error.type", type(error).__name__)
        self._span.set_status(Status(StatusCode.ERROR, str(error)))
        self._span.end()

    def _done(self, receipt: Receipt) -> None:
        outcome = receipt.outcome
        if isinstance(outcome, Routed) or outcome is None:
            self._span.end()
        else:
            self.failed(outcome)


def start_span(contract: Contract, job: Job) -> PublishSpan | None:
    """Begin the span of a publish; None where the program records no traces."""
    if SDK not in sys.modules:
        return None
    return PublishSpan(contract, job)
