"""A case file goes into headers and comes out again, whatever went wrong."""

from __future__ import annotations

from datetime import UTC, datetime

from hypothesis import given
from hypothesis import strategies as st

from broker import case_file
from broker.body import Body
from broker.case_file import CASE_PREFIX, REPLAYS, CaseFile, Reason
from broker.frames import FRAME_MAX, content_of
from broker.message import RESERVED_PREFIXES, Message

WHOLE = CaseFile(
    Reason.LIMIT,
    error="builtins.ValueError",
    message="no such series",
    traceback="Traceback (most recent call last):\n  …\nValueError: no such series",
    attempt=6,
    first_ms=1_700_000_000_000,
    last_ms=1_700_000_015_000,
    worker="high",
    version="0.1.0",
    exchange="jobs",
    routing_key="high.signal.smooth",
    queue="jobs.high",
    replays=2,
)

texts = st.text(max_size=300) | st.text(min_size=1, max_size=40).map(lambda text: text * 400)
cases = st.builds(
    CaseFile,
    reason=st.sampled_from(list(Reason)),
    error=texts,
    message=texts,
    traceback=texts,
    attempt=st.integers(0, 2**31),
    first_ms=st.none() | st.integers(1, 2**53),
    last_ms=st.none() | st.integers(1, 2**53),
    worker=texts,
    version=texts,
    exchange=st.none() | texts,
    routing_key=st.none() | texts,
    queue=texts,
    replays=st.integers(0, 100),
)


def test_a_case_file_survives_the_way_through_headers() -> None:
    assert case_file.of(WHOLE.headers()) == WHOLE


def test_the_default_exchange_is_not_an_unknown_one() -> None:
    direct = CaseFile(Reason.KILLED, exchange="", routing_key="jobs.high")
    assert case_file.of(direct.headers()) == direct
    assert case_file.of(CaseFile(Reason.KILLED).headers()).exchange is None


def test_every_header_is_reserved() -> None:
    assert all(name.startswith(RESERVED_PREFIXES) for name in WHOLE.headers())


@given(cases)
def test_any_case_file_can_be_sent_in_one_frame_and_read_again(case: CaseFile) -> None:
    headers = case.headers()
    message = Message("id", Body(b"x", "text/plain", "binary"), headers, {})
    assert len(content_of(message, exchange="jobs.dead", routing_key="k")) < FRAME_MAX // 4
    found = case_file.of(headers)
    assert found is not None
    assert found.headers() == headers
    assert (found.reason, found.attempt, found.last_ms) == (case.reason, case.attempt, case.last_ms)


@given(st.text(), st.integers(0, 200))
def test_a_text_is_never_longer_than_it_may_be(text: str, most_bytes: int) -> None:
    cut = case_file.bounded(text, most_bytes)
    assert len(cut.encode()) <= most_bytes
    if len(text.encode("utf-8", "backslashreplace")) > most_bytes > 20:
        assert "[…]" in cut


def test_the_end_of_a_long_traceback_is_kept() -> None:
    case = CaseFile(Reason.FAILED, traceback="begin " + "frame\n" * 5000 + "ValueError: the end")
    traceback = case.headers()[case_file.TRACEBACK]
    assert traceback.startswith("begin ")
    assert traceback.endswith("ValueError: the end")
    assert len(traceback.encode()) <= case_file.TRACEBACK_BYTES


def test_where_room_is_short_the_traceback_gives_way_first() -> None:
    case = CaseFile(Reason.FAILED, message="m" * 300, traceback="t" * 5000)
    headers = case.headers(most_bytes=500)
    assert headers[case_file.MESSAGE] == "m" * 300
    assert len(headers[case_file.TRACEBACK]) < 200
    assert case_file.TRACEBACK not in case.headers(most_bytes=310)


def test_what_rabbitmq_dead_lettered_is_read_from_its_own_record() -> None:
    when = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    headers = {
        "task": "demo.add",
        "x-delivery-count": 6,
        "x-death": [
            {
                "count": 1,
                "reason": "delivery_limit",
                "queue": "jobs.high",
                "exchange": "jobs",
                "routing-keys": ["high.demo.add"],
                "time": when,
            },
            {"count": 3, "reason": "expired", "queue": "delay", "exchange": "", "time": when},
        ],
    }
    assert case_file.of(headers, {"timestamp": 1_700_000_000}) == CaseFile(
        Reason.DELIVERY_LIMIT,
        message="RabbitMQ gave it up: each time its worker, or the worker's connection, was lost"
        " before it was done, or it was returned",
        attempt=6,
        first_ms=1_700_000_000_000,
        last_ms=round(when.timestamp() * 1000),
        exchange="jobs",
        routing_key="high.demo.add",
        queue="jobs.high",
    )


def test_a_worker_s_case_file_says_more_than_rabbitmq_s_record() -> None:
    headers = {**WHOLE.headers(), "x-death": [{"reason": "expired", "queue": "delay"}]}
    assert case_file.of(headers) == WHOLE


def test_a_message_that_never_died_has_no_case() -> None:
    assert case_file.of({"task": "demo.add", "x-death": []}) is None
    assert case_file.of({"x-death": "no list"}) is None
    assert case_file.of({"x-death": ["no table"]}) is None


def test_headers_of_a_wrong_kind_are_left_out() -> None:
    found = case_file.of({case_file.REASON: "failed", case_file.ATTEMPT: "six", REPLAYS: True})
    assert found == CaseFile("failed")


def test_a_message_without_its_case_keeps_all_else() -> None:
    own = {"task": "demo.add", "id": "1", "x-mine": 1.5, "rabbitry-published": 1}
    headers = {**own, **WHOLE.headers(), "x-death": [], "x-first-death-queue": "q"}
    stripped = case_file.without_case(headers)
    assert stripped == {**own, REPLAYS: 2}
    assert not any(name.startswith(CASE_PREFIX) for name in stripped)
