"""What a publisher did can be read from Prometheus' registry."""

from __future__ import annotations

import pytest
from prometheus_client import CollectorRegistry, generate_latest

from broker.errors import PublishFailed
from broker.management import Management
from producers.metrics import PublisherMetrics
from producers.publisher import Publisher
from tests.waiting import until


@pytest.fixture
def registry() -> CollectorRegistry:
    return CollectorRegistry()


def test_every_message_is_counted_by_how_it_ended(provisioned, registry) -> None:
    metrics = PublisherMetrics(registry)
    with Publisher(provisioned.topology, provisioned.url, metrics=metrics) as publisher:
        names = ["demo.echo"] * 5 + ["test.nowhere"] * 2
        list(publisher.publish_many((name, (1,)) for name in names))
        assert value(registry, "rabbitry_publish_in_flight") == 0
    closed = publisher.publish("demo.echo", 1)
    with pytest.raises(PublishFailed):
        closed.wait()
    assert value(registry, "rabbitry_published_total", outcome="routed") == 5
    assert value(registry, "rabbitry_published_total", outcome="unroutable") == 2
    assert value(registry, "rabbitry_published_total", outcome="unknown") == 1
    assert value(registry, "rabbitry_publish_in_flight") == 0
    assert value(registry, "rabbitry_confirm_seconds_count") == 5
    assert 0 < value(registry, "rabbitry_confirm_seconds_sum") < 5 * 30
    assert b"rabbitry_confirm_seconds_bucket" in generate_latest(registry)


def test_what_is_under_way_is_in_flight(provisioned, registry) -> None:
    nobody = provisioned.url.replace(f":{provisioned.address.port}", ":1")
    metrics = PublisherMetrics(registry)
    with Publisher(provisioned.topology, nobody, metrics=metrics) as publisher:
        receipts = [publisher.publish("demo.echo", 1, timeout_s=0.5) for _ in range(3)]
        assert value(registry, "rabbitry_publish_in_flight") == 3
        for receipt in receipts:
            with pytest.raises(PublishFailed):
                receipt.wait()
    assert value(registry, "rabbitry_publish_in_flight") == 0


def test_a_connection_made_anew_is_counted(provisioned, registry, rabbitmq) -> None:
    metrics = PublisherMetrics(registry)
    with (
        Publisher(provisioned.topology, provisioned.url, metrics=metrics) as publisher,
        Management(provisioned.address) as management,
    ):
        publisher.publish("demo.echo", 1).wait()
        assert value(registry, "rabbitry_publish_reconnects_total") == 0
        ours = until(
            lambda: connections_in(management, provisioned.address.vhost_name), 30, "the connection"
        )
        for name in ours:
            management.delete("connections", name)
        until(
            lambda: value(registry, "rabbitry_publish_reconnects_total") == 1,
            30,
            "a new connection",
        )
        publisher.publish("demo.echo", 1).wait()


def connections_in(management: Management, vhost: str) -> list[str]:
    found = management.get("connections")
    return [each["name"] for each in found if each.get("vhost") == vhost]


def value(registry: CollectorRegistry, name: str, **labels: str) -> float:
    found = registry.get_sample_value(name, labels)
    assert found is not None, f"no {name} {labels}"
    return found
