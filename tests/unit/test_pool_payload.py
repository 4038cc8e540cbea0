"""What of a job travels to its process, and that Celery finds there what it would find itself."""

from __future__ import annotations

import pickle
from types import SimpleNamespace
from typing import Any
from uuid import UUID

import pytest
from celery.app import trace
from celery.app.task import Context
from kombu.message import Message

from broker.body import JSON, encode, register_with_kombu
from broker.message import EMBED
from consumers.failure.request import JobRequest
from consumers.observer import JobObserver
from consumers.pool.payload import payload_of, trace_job

ID = "5d0c"
HEADERS = {"lang": "py", "task": "demo", "id": ID, "retries": 0, "rabbitry-call": True, "mine": 7}


@pytest.fixture
def traced(monkeypatch) -> list[Any]:
    """Return what Celery's tracer is called with."""
    calls: list[Any] = []
    monkeypatch.setattr(trace, "fast_trace_task", lambda *args: calls.append(args))
    return calls


def request_of(body: str, content_type: str = JSON) -> JobRequest:
    register_with_kombu()
    message = Message(
        body, 1, content_type, "utf-8", headers=dict(HEADERS), accept={JSON}, delivery_info={}
    )
    app = SimpleNamespace(observer=JobObserver(), timezone="UTC")
    task = SimpleNamespace(ignore_result=False, time_limit=None)
    return JobRequest(message, app=app, task=task)


def body_of(*args: Any) -> str:
    return encode([args, {}, EMBED]).content.decode()


def begun(request: JobRequest) -> Any:
    """Return the call that a request becomes in its process."""
    args = (
        *(request.type, request.id, request.request_dict, request.body),
        *(request.content_type, request.content_encoding),
    )
    payload, _ = payload_of((0, (7, None, trace.fast_trace_task, args, {})))
    function, found, _ = pickle.loads(payload)[1][2:]
    assert function is trace_job
    return found


@pytest.mark.parametrize("headers", [None, {"given": 1}, {}])
def test_a_job_has_the_headers_that_celery_would_have_found(headers, traced) -> None:
    for extra in ({}, {"headers": headers}):
        request = {**HEADERS, "hostname": "here", "properties": {}, **extra}
        celery_s = Context(dict(request), args=[1], called_directly=False, kwargs={})
        trace_job("demo", ID, request, [[1], {}, None], None, None)
        ours = Context(traced.pop()[2], args=[1], called_directly=False, kwargs={})
        assert ours.headers == celery_s.headers
        assert vars(ours) == vars(celery_s)


def test_a_job_without_headers_of_the_user_s_has_none(traced) -> None:
    trace_job("demo", ID, {"task": "demo", "id": ID}, [[1], {}, None], None, None)
    assert Context(traced.pop()[2]).headers is None


def test_a_small_body_travels_as_it_was_decoded() -> None:
    name, id, request, *body = begun(request_of(body_of("a", [1, None])))
    assert (name, id) == ("demo", ID)
    assert "args" not in request
    assert body == [[["a", [1, None]], {}, EMBED], None, "utf-8"]


@pytest.mark.parametrize(
    "body",
    [
        body_of("x" * 5000),
        # Whoever registers a type with kombu need not have made it one that can be pickled.
        body_of(UUID(int=1)),
    ],
    ids=["large", "typed"],
)
def test_any_other_body_is_decoded_where_it_runs(body) -> None:
    _, _, _, *found = begun(request_of(body))
    assert found == [body, JSON, "utf-8"]
