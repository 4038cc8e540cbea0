"""What visitors are told where something is wrong around a web application, or there is too much.

The application runs in the test's own process, as its command has it.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import module_from_spec, spec_from_file_location
from typing import Any

import httpx
import pytest

from broker.management import Management
from broker.receipt import Receipt
from broker.topology import Topology
from producers.caller import Caller
from tests.end_to_end.websites import EXAMPLES, SUNSPOTS, read_events
from tests.provision import provision
from tests.rabbitmq import RabbitMQ
from tests.waiting import until

from web.calls import Calls  # isort: skip
from web.services import TOPOLOGY, serving  # isort: skip


def wsgi_application(calls: Calls) -> Any:
    spec = spec_from_file_location("wsgi_example", EXAMPLES / "wsgi" / "app.py")
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.Application(calls)


@contextmanager
def serving_calls(url: str, **options: Any) -> Iterator[tuple[Calls, httpx.Client]]:
    with Caller(Topology.load(TOPOLOGY), url) as caller:
        calls = Calls(caller, **options)
        with (
            serving(wsgi_application(calls)) as address,
            httpx.Client(base_url=address, timeout=30, trust_env=False) as client,
        ):
            yield calls, client


@pytest.fixture
def no_worker(rabbitmq: RabbitMQ, vhost: str) -> str:
    """The address of a virtual host with the example's topology, where no worker runs."""
    provision(Topology.load(TOPOLOGY), rabbitmq.address(vhost))
    return rabbitmq.url(vhost)


def test_where_no_worker_runs_the_stream_ends_with_an_error(no_worker):
    with serving_calls(no_worker, timeout_s=0.5) as (_, client):
        id = client.post("jobs", content=SUNSPOTS).json()["id"]
        with client.stream("GET", f"jobs/{id}/events") as response:
            [(_, kind, data)] = read_events(response)
    assert kind == "error"
    assert data["error"] == "CallTimeout"
    assert "0.5" in data["message"]


def test_where_there_is_no_room_it_is_busy_and_the_old_make_way(no_worker):
    with serving_calls(no_worker, most=2, most_streams=1) as (calls, client):
        first, second = (client.post("jobs", content=SUNSPOTS).json()["id"] for _ in range(2))
        refused = client.post("jobs", content=SUNSPOTS)
        assert refused.status_code == 503
        assert refused.headers["Retry-After"] == "5"
        assert "2 jobs are under way" in refused.json()["message"]

        stream = calls.events(first)
        assert client.get(f"jobs/{second}/events").status_code == 503
        stream.close()
        with client.stream("GET", f"jobs/{second}/events") as response:
            assert response.status_code == 200
            assert client.delete(f"jobs/{second}").json()["given_up"]
            assert [kind for _, kind, _ in read_events(response)] == ["error"]

        assert client.post("jobs", content=SUNSPOTS).status_code == 202
        assert client.get(f"jobs/{second}").status_code == 404
        assert client.get(f"jobs/{first}").status_code == 200


def test_an_ended_job_is_forgotten_after_a_while(no_worker):
    now = 0.0
    with serving_calls(no_worker, keep_s=10, clock=lambda: now) as (_, client):
        id = client.post("jobs", content=SUNSPOTS).json()["id"]
        client.delete(f"jobs/{id}")
        now = 9.0
        assert client.get(f"jobs/{id}").json()["state"] == "failed"
        now = 11.0
        assert client.get(f"jobs/{id}").status_code == 404


def test_a_full_queue_and_an_unknown_one_are_503_with_a_sentence(rabbitmq, vhost, no_worker):
    with (
        Management(rabbitmq.address(vhost)) as management,
        serving_calls(no_worker) as (_, client),
    ):
        management.delete("queues", vhost, "web.series")
        answer = client.post("jobs", content=SUNSPOTS)
    assert answer.status_code == 503
    assert answer.json()["error"] == "Unroutable"
    assert "web.lowess" in answer.json()["message"]


def test_without_rabbitmq_an_answer_is_503_at_once():
    with serving_calls("amqp://guest:guest@127.0.0.1:1/x") as (_, client):
        for _ in range(2):
            began = time.monotonic()
            answer = client.post("jobs", content=SUNSPOTS)
            assert time.monotonic() - began < 3
            assert answer.status_code == 503
            assert answer.json()["error"] == "Unreachable"
            assert "127.0.0.1:1" in answer.json()["message"]


def test_a_client_that_goes_frees_its_stream(no_worker, monkeypatch):
    monkeypatch.setattr("web.history.HEARTBEAT_S", 0.05)
    with serving_calls(no_worker, most_streams=1) as (_, client):
        id = client.post("jobs", content=SUNSPOTS).json()["id"]
        with client.stream("GET", f"jobs/{id}/events") as response:
            next(response.iter_lines())
        until(
            lambda: client.get(f"jobs/{id}").json()["state"] == "waiting" and opens(client, id),
            timeout_s=20,
            what="the stream to be free again",
        )


def opens(client: httpx.Client, id: str) -> bool:
    with client.stream("GET", f"jobs/{id}/events") as response:
        return response.status_code == 200


def test_what_rabbitmq_does_not_confirm_in_time_is_given_up(no_worker, monkeypatch):
    def wait(receipt: Receipt, timeout_s: float) -> None:
        raise TimeoutError

    with serving_calls(no_worker, most=2) as (_, client):
        assert client.post("jobs", content=SUNSPOTS).status_code == 202
        monkeypatch.setattr(Receipt, "wait", wait)
        for _ in range(2):  # what is given up takes no room
            answer = client.post("jobs", content=SUNSPOTS)
            assert answer.status_code == 503
            assert answer.json()["error"] == "NotTaken"
        monkeypatch.undo()
        assert client.post("jobs", content=SUNSPOTS).status_code == 202
