"""Replies and news on the wire, written and read."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from celery import Celery
from hypothesis import given
from hypothesis import strategies as st

from broker.body import ARRAYS_JSON, encode
from broker.errors import InvalidMessage
from broker.frames import FRAME_MAX
from broker.message import FINISHED, PUBLISHED, STARTED, WORKER
from broker.reply import (
    ACCEPTED,
    FAILURE,
    MESSAGE_BYTES,
    PROGRESS,
    REVOKED,
    SUCCESS,
    Accepted,
    Progress,
    Reply,
    error_of,
    read_reply,
    reply_body,
    reply_frames,
)
from tests.unit.test_frames import by_amqp, by_pika, written

times = st.none() | st.integers(0, 2**62)
names = st.text(max_size=40)


def read(value: Any, **headers: Any) -> Any:
    body = encode(value)
    return read_reply(body.content, content_type=body.content_type, headers=headers)


def told(status: str, result: Any) -> Any:
    return read({"task_id": "1", "status": status, "result": result})


def test_a_reply_of_celerys_backend_is_read() -> None:
    reply = told("SUCCESS", [1])
    assert reply == Reply("1", failed=False, result=[1])


def test_an_error_in_a_reply_is_named_and_not_rebuilt() -> None:
    result = {"exc_type": "Oops", "exc_module": "os.path", "exc_message": ["no", 1]}
    value = {"task_id": "1", "status": "FAILURE", "result": result, "traceback": "Traceback …"}
    reply = read(value)
    assert reply.error == ("os.path.Oops", "no, 1", "Traceback …")
    assert (reply.failed, reply.revoked, reply.result) == (True, False, None)


def test_what_was_revoked_failed_and_says_so() -> None:
    reply = told(REVOKED, {"exc_type": "Cancelled", "exc_message": ["cancelled"]})
    assert (reply.failed, reply.revoked, reply.error) == (
        True,
        True,
        ("Cancelled", "cancelled", ""),
    )


def test_news_tell_of_a_call_under_way() -> None:
    accepted = read({"task_id": "1", "status": ACCEPTED, "result": None}, **{STARTED: 7})
    assert accepted == Accepted("1", started_ms=7)
    half = told(PROGRESS, {"fraction": 0.5, "text": "half", "partial": [1]})
    assert half == Progress("1", 0.5, "half", [1])
    assert told(PROGRESS, {"fraction": 1}) == Progress("1", 1.0)
    assert told("RETRY", None) is None


@pytest.mark.parametrize("fraction", [-0.1, 1.1, "1", True, [], {"__type__": 1}])
def test_a_fraction_that_is_none_is_not_believed(fraction: Any) -> None:
    assert told(PROGRESS, {"fraction": fraction, "text": 3}) == Progress("1")


def test_what_a_task_of_plain_celery_says_of_itself_is_partial() -> None:
    meta = {"current": 3, "total": 4}
    assert told(PROGRESS, meta) == Progress("1", partial=meta)
    assert told(PROGRESS, 3) == Progress("1", partial=3)


@pytest.mark.parametrize("value", [[], "x", {"status": 1}, {}, None])
def test_what_is_no_reply_is_an_error(value: object) -> None:
    with pytest.raises(InvalidMessage):
        read(value)


@given(names, names, times, times, times, st.none() | names, st.sampled_from([0, 10_000]))
def test_what_is_written_is_read_by_py_amqp_and_by_pika(
    reply_to: str,
    id: str,
    published_ms: int | None,
    started_ms: int | None,
    finished_ms: int | None,
    worker: str | None,
    padding: int,
) -> None:
    body = reply_body(id, SUCCESS, "x" * padding)
    frames = written(
        reply_frames(
            body,
            reply_to=reply_to,
            correlation_id=id,
            published_ms=published_ms,
            started_ms=started_ms,
            finished_ms=finished_ms,
            worker=worker,
        )
    )
    properties, content = by_amqp(frames)
    given_headers = {
        PUBLISHED: published_ms,
        STARTED: started_ms,
        FINISHED: finished_ms,
        WORKER: worker,
    }
    assert properties == {
        "content_type": "application/json",
        "content_encoding": "utf-8",
        "application_headers": {k: v for k, v in given_headers.items() if v is not None},
        "delivery_mode": 1,
        "correlation_id": id,
        "message_id": id,
    }
    method, theirs, also = by_pika(frames)
    assert (method.exchange, method.routing_key, method.mandatory) == ("", reply_to, True)
    assert theirs.correlation_id == id
    assert content == also == body.content
    reply = read_reply(
        content,
        content_type=properties["content_type"],
        headers=properties["application_headers"],
    )
    assert reply == Reply(
        id,
        failed=False,
        result="x" * padding,
        published_ms=published_ms,
        started_ms=started_ms,
        finished_ms=finished_ms,
        worker=worker,
    )


def test_an_id_or_queue_longer_than_amqp_takes_is_refused() -> None:
    body = reply_body("1", SUCCESS, None)
    for names in (
        {"reply_to": "é" * 128, "correlation_id": ""},
        {"reply_to": "", "correlation_id": "é" * 128},
    ):
        with pytest.raises(InvalidMessage, match="255 bytes"):
            reply_frames(body, **names)


def test_a_celery_client_understands_every_reply() -> None:
    backend = Celery(set_as_current=False, backend="rpc://", broker="memory://").backend
    failed = reply_body("1", FAILURE, error_of(ValueError("no")), traceback="Traceback …")
    meta = backend.meta_from_decoded(backend.decode_result(failed.content))
    assert repr(meta["result"]) == "ValueError('no')"
    assert (meta["task_id"], meta["traceback"]) == ("1", "Traceback …")
    done = backend.decode_result(reply_body("1", SUCCESS, {"a": 1}).content)
    assert (done["status"], done["result"], done["children"]) == ("SUCCESS", {"a": 1}, [])


def test_an_error_is_named_however_odd_it_is() -> None:
    class Mute(Exception):
        def __str__(self) -> str:
            raise RuntimeError

    mute = error_of(Mute())
    assert mute["exc_type"].endswith(".Mute")
    assert mute["exc_message"] == ["<Mute that cannot be written as text>"]
    long = error_of(ValueError("x" * 10**7))
    assert len(long["exc_message"][0]) <= MESSAGE_BYTES
    surrogate = reply_body("1", FAILURE, error_of(ValueError("\ud800")))
    assert read_reply(surrogate.content, content_type=surrogate.content_type, headers={}).error == (
        "ValueError",
        "\\ud800",
        "",
    )


def test_arrays_travel_in_results_and_in_partial_ones() -> None:
    array = np.arange(6.0).reshape(2, 3)
    body = reply_body("1", PROGRESS, {"fraction": None, "text": None, "partial": array})
    news = read_reply(body.content, content_type=body.content_type, headers={})
    assert isinstance(news, Progress)
    assert news.partial.tolist() == array.tolist()


def test_an_array_is_copied_once_into_its_reply_and_read_where_it_lies() -> None:
    array = np.zeros(500_000)
    # What is imported for the first time is none of it.
    read_reply(reply_body("1", SUCCESS, array[:1]).content, content_type=ARRAYS_JSON, headers={})

    def taken(work: Callable[[], Any]) -> tuple[Any, float]:
        tracemalloc.reset_peak()
        before, _ = tracemalloc.get_traced_memory()
        made = work()
        return made, (tracemalloc.get_traced_memory()[1] - before) / array.nbytes

    tracemalloc.start()
    try:
        body, encoded = taken(lambda: reply_body("1", SUCCESS, array))
        frames, framed = taken(lambda: reply_frames(body, reply_to="q", correlation_id="1"))
        _, split = taken(lambda: list(frames.buffers(FRAME_MAX)))
        reply, decoded = taken(
            lambda: read_reply(body.content, content_type=ARRAYS_JSON, headers={})
        )
    finally:
        tracemalloc.stop()
    assert encoded < 1.1
    assert max(framed, split, decoded) < 0.1
    assert np.shares_memory(reply.result, np.frombuffer(body.content, np.uint8))
