"""Jobs on the wire."""

from __future__ import annotations

import numpy as np
import pytest
from celery import Celery

from broker.body import decode
from broker.contracts import Contract, Job
from broker.errors import InvalidArguments, InvalidMessage
from broker.message import job_message, short_repr

CONTRACT = Contract("demo.add", "jobs", "normal.demo.add", priority=7, deadline_s=2.5)
NOW_MS = 1_800_000_000_123


def test_a_job_has_every_header_of_celerys_own_messages() -> None:
    message = job_message(CONTRACT, Job("demo.add", (1, 2), {"c": 3}), published_ms=NOW_MS)
    app = Celery(set_as_current=False)
    theirs = app.amqp.as_task_v2("id", "demo.add", (1, 2), {"c": 3})
    assert theirs.headers.keys() <= message.headers.keys()
    ours = decode(message.body.content, message.body.content_type)
    assert ours == [[1, 2], {"c": 3}, theirs.body[2]]
    assert message.headers["argsrepr"] == theirs.headers["argsrepr"]
    assert message.headers["kwargsrepr"] == theirs.headers["kwargsrepr"]


def test_a_job_is_persistent_with_an_explicit_priority_and_a_deadline_header() -> None:
    message = job_message(CONTRACT, Job("demo.add", (), id="one"), published_ms=NOW_MS)
    assert message.properties == {
        "delivery_mode": 2,
        "priority": 7,
        "message_id": "one",
        "correlation_id": "one",
        "timestamp": 1_800_000_000,
    }
    assert message.headers["rabbitry-published"] == NOW_MS
    assert message.headers["rabbitry-deadline"] == NOW_MS + 2500
    assert message.headers["ignore_result"] is True
    assert "expiration" not in message.properties


def test_a_call_names_its_reply_queue_and_wants_the_result() -> None:
    message = job_message(CONTRACT, Job("demo.add", ()), published_ms=NOW_MS, reply_to="here")
    assert message.properties["reply_to"] == "here"
    assert message.headers["rabbitry-call"] is True
    assert message.headers["ignore_result"] is False


def test_the_jobs_own_options_win_over_the_contracts() -> None:
    job = Job("demo.add", (), priority=0, deadline_s=1, correlation_id="x", headers={"mine": 1})
    message = job_message(CONTRACT, job, published_ms=NOW_MS)
    assert message.properties["priority"] == 0
    assert message.properties["correlation_id"] == "x"
    assert message.headers["rabbitry-deadline"] == NOW_MS + 1000
    assert message.headers["mine"] == 1


@pytest.mark.parametrize("priority", [-1, 32, 1.5, "9", True])
def test_a_priority_out_of_range_is_refused(priority: object) -> None:
    with pytest.raises(InvalidArguments, match="priority"):
        job_message(CONTRACT, Job("demo.add", priority=priority), published_ms=NOW_MS)


@pytest.mark.parametrize("deadline_s", [0, -1, float("nan")])
def test_a_deadline_that_has_passed_is_refused(deadline_s: float) -> None:
    with pytest.raises(InvalidArguments, match="deadline"):
        job_message(CONTRACT, Job("demo.add", deadline_s=deadline_s), published_ms=NOW_MS)


@pytest.mark.parametrize("name", ["rabbitry-call", "x-death", "task", "id", "", 3])
def test_reserved_headers_are_refused(name: object) -> None:
    job = Job("demo.add", headers={name: 1} if name != "" else {"n" * 256: 1})
    with pytest.raises(InvalidMessage, match="header"):
        job_message(CONTRACT, job, published_ms=NOW_MS)


@pytest.mark.parametrize("value", [object(), {1, 2}, lambda: None])
def test_what_cannot_be_serialised_is_named(value: object) -> None:
    with pytest.raises(InvalidMessage, match=r"demo\.add"):
        job_message(CONTRACT, Job("demo.add", (value,)), published_ms=NOW_MS)


def test_an_id_longer_than_amqp_takes_is_refused() -> None:
    with pytest.raises(InvalidMessage, match="255 bytes"):
        job_message(CONTRACT, Job("demo.add", id="é" * 128), published_ms=NOW_MS)


def test_arguments_are_described_briefly() -> None:
    assert short_repr((np.zeros((3, 4)), 1)) == "(array(float64, (3, 4)), 1)"
    assert len(short_repr(["x" * 10_000] * 10_000)) <= 200
    assert short_repr([[[[[1]]]]]) == "[[[…]]]"

    class Shy:
        def __repr__(self) -> str:
            raise RuntimeError

    assert short_repr((Shy(),)) == "(<Shy>,)"
