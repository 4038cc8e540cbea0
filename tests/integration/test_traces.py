"""A program that records traces finds each publish among them, and the worker its context."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from opentelemetry import propagate, trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

from broker.connection import connect
from broker.errors import InvalidArguments, Unroutable
from producers.publisher import Publisher


@pytest.fixture(scope="module")
def provider() -> TracerProvider:
    """OpenTelemetry's own, which a process sets once."""
    provider = TracerProvider()
    trace.set_tracer_provider(provider)
    return provider


@pytest.fixture
def spans(provider) -> Iterator[InMemorySpanExporter]:
    exporter = InMemorySpanExporter()
    processor = SimpleSpanProcessor(exporter)
    provider.add_span_processor(processor)
    yield exporter
    processor.shutdown()


def published(spans: InMemorySpanExporter) -> ReadableSpan:
    (span,) = [span for span in spans.get_finished_spans() if span.name.startswith("publish")]
    return span


def test_the_message_carries_the_context_of_its_publish(provisioned, spans) -> None:
    with (
        Publisher(provisioned.topology, provisioned.url) as publisher,
        trace.get_tracer("test").start_as_current_span("request") as request,
    ):
        publisher.publish("demo.echo", 1, id="one", headers={"tenant": "a"}).wait()
    span = published(spans)
    assert span.parent == request.get_span_context()
    assert span.kind is SpanKind.PRODUCER
    assert span.attributes["messaging.message.id"] == "one"
    assert span.attributes["messaging.destination.name"] == "jobs"
    connection = connect(provisioned.address)
    message = connection.default_channel.basic_get("jobs.normal", no_ack=True)
    connection.release()
    headers = message.properties["application_headers"]
    assert headers["tenant"] == "a"
    carried = trace.get_current_span(propagate.extract(headers)).get_span_context()
    assert (carried.trace_id, carried.span_id) == (span.context.trace_id, span.context.span_id)


def test_the_span_ends_with_the_outcome(provisioned, spans) -> None:
    with Publisher(provisioned.topology, provisioned.url) as publisher:
        receipt = publisher.publish("test.nowhere")
        with pytest.raises(Unroutable):
            receipt.wait()
    span = published(spans)
    assert span.status.status_code is StatusCode.ERROR
    assert span.attributes["error.type"] == "Unroutable"


def test_the_span_of_a_job_that_was_refused_ends_too(provisioned, spans) -> None:
    with (
        Publisher(provisioned.topology, provisioned.url) as publisher,
        pytest.raises(InvalidArguments),
    ):
        publisher.publish("demo.echo", 1, priority=99)
    assert published(spans).attributes["error.type"] == "InvalidArguments"
