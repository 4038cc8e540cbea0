"""The frames that are written, read by py-amqp's own decoder and by pika's."""

from __future__ import annotations

import uuid
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pika.frame
import pytest
from amqp.method_framing import frame_handler
from hypothesis import given
from hypothesis import strategies as st

from broker.body import Body, decode
from broker.contracts import Contract, Job
from broker.envelope import Envelope
from broker.errors import InvalidArguments, InvalidMessage
from broker.frames import (
    FRAME_MAX,
    FRAME_MIN,
    ONE_FRAME_BYTES,
    Content,
    LargeContent,
    body_bytes,
    content_of,
    wire_bytes,
)
from broker.ids import BATCH, Ids
from broker.inherited import Parent
from broker.message import CALL, DEADLINE, NEWS, Message, job_message

CONTRACT = Contract("demo.add", "jobs", "normal.demo.add", priority=7, deadline_s=2.5)
NOW_MS = 1_800_000_000_123

texts = st.text(max_size=40)
names = st.text(min_size=1, max_size=20)
values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=3),
    max_leaves=8,
)
tables = st.dictionaries(names, values, max_size=6)
arguments = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


def written(content: Content, frame_max: int = FRAME_MAX) -> bytes:
    """Return a message's bytes as they go over a connection."""
    if isinstance(content, LargeContent):
        return b"".join(bytes(buffer) for buffer in content.buffers(frame_max))
    return content


def by_amqp(data: bytes, frame_max: int = FRAME_MAX) -> tuple[Any, bytes]:
    """Read one message with py-amqp: its properties and body."""
    found: list[Any] = []
    connection = SimpleNamespace(bytes_recv=0)
    # A published message has the shape of a delivered one; only its method differs.
    on_frame = frame_handler(
        connection,
        lambda channel, method, arguments, message: found.append((channel, method, message)),
        content_methods={(60, 40)},
    )
    at = 0
    while at < len(data):
        size = int.from_bytes(data[at + 3 : at + 7], "big")
        assert size + 8 <= frame_max
        assert data[at + 7 + size] == 0xCE
        channel = int.from_bytes(data[at + 1 : at + 3], "big")
        on_frame((data[at], channel, data[at + 7 : at + 7 + size]))
        at += 8 + size
    [(channel, method, message)] = found
    assert (channel, method) == (1, (60, 40))
    body = message.body if message.body_size else b""
    return message.properties, body


def by_pika(data: bytes) -> tuple[Any, Any, bytes]:
    """Read one message with pika: its method, properties and body."""
    frames = []
    while data:
        consumed, frame = pika.frame.decode_frame(data)
        assert consumed
        frames.append(frame)
        data = data[consumed:]
    method, header, *bodies = frames
    body = b"".join(each.fragment for each in bodies)
    assert header.body_size == len(body)
    return method.method, header.properties, body


def without_fractions(value: Any) -> Any:
    """Return what pika 1.4 makes of a table: it reads a double and drops its fraction."""
    if isinstance(value, float):
        return int(value)
    if isinstance(value, list):
        return [without_fractions(each) for each in value]
    if isinstance(value, dict):
        return {key: without_fractions(each) for key, each in value.items()}
    return value


@given(headers=tables, id=names, body=st.binary(max_size=50), priority=st.integers(0, 31))
def test_any_message_is_read_back_by_both(
    headers: dict[str, Any], id: str, body: bytes, priority: int
) -> None:
    properties = {"message_id": id, "priority": priority, "delivery_mode": 2, "timestamp": 17}
    message = Message(id, Body(body, "application/json", "utf-8"), headers, properties)
    data = written(content_of(message, exchange="Börse", routing_key="a.ß"))
    theirs, content = by_amqp(data)
    assert theirs == {
        "content_type": "application/json",
        "content_encoding": "utf-8",
        "application_headers": headers,
        **properties,
    }
    assert content == body
    method, basic, content = by_pika(data)
    assert (method.exchange, method.routing_key, method.mandatory) == ("Börse", "a.ß", True)
    assert (basic.message_id, basic.priority) == (id, priority)
    assert basic.headers == without_fractions(headers)
    assert content == body


SIZES = [
    *(0, 1, ONE_FRAME_BYTES - 1, ONE_FRAME_BYTES, ONE_FRAME_BYTES + 1, FRAME_MIN),
    *(FRAME_MAX - 9, FRAME_MAX - 8, FRAME_MAX - 7, FRAME_MAX, 2 * (FRAME_MAX - 8), 300_000),
]


@pytest.mark.parametrize("frame_max", [FRAME_MIN, 8192, FRAME_MAX, 0])
@pytest.mark.parametrize("size", SIZES)
def test_a_body_of_any_size_is_cut_into_frames_that_fit(size: int, frame_max: int) -> None:
    body = bytes(index % 251 for index in range(size))
    message = Message("one", Body(body, "x", "binary"), {"a": 1}, {"message_id": "one"})
    content = content_of(message, exchange="jobs", routing_key="key")
    data = written(content, frame_max)
    assert by_amqp(data, frame_max or FRAME_MAX)[1] == body
    assert by_pika(data)[2] == body
    assert body_bytes(content) == size
    assert wire_bytes(content, frame_max) == len(data)


def test_headers_that_do_not_fit_into_a_frame_are_refused() -> None:
    message = Message("one", Body(b"", "x", "y"), {"a": "x" * FRAME_MAX}, {})
    with pytest.raises(InvalidMessage, match="one frame"):
        content_of(message, exchange="jobs", routing_key="key")
    envelope = Envelope(CONTRACT, ids=Ids())
    with pytest.raises(InvalidMessage, match="one frame"):
        envelope.frames(Job("demo.add", headers={"a": "x" * FRAME_MAX}), published_ms=NOW_MS)


@pytest.mark.parametrize(
    ("exchange", "properties"),
    [("x" * 256, {}), ("jobs", {"colour": "red"}), ("jobs", {"priority": "high"})],
)
def test_what_amqp_cannot_say_is_refused(exchange: str, properties: dict[str, Any]) -> None:
    message = Message("one", Body(b"", "x", "y"), {}, properties)
    with pytest.raises(InvalidMessage):
        content_of(message, exchange=exchange, routing_key="key")


jobs = st.builds(
    Job,
    st.just("demo.add"),
    st.lists(arguments, max_size=3).map(tuple) | st.lists(arguments, max_size=3),
    st.dictionaries(names, arguments, max_size=3),
    id=st.none() | names,
    priority=st.none() | st.integers(0, 31),
    deadline_s=st.none() | st.floats(0.001, 1e6),
    correlation_id=st.none() | names,
    headers=st.none() | st.dictionaries(names.map("h-{}".format), values, max_size=3),
    compression=st.sampled_from([None, "gzip", "bzip2"]),
)


@given(
    job=jobs,
    serializer=st.sampled_from(["json", "msgpack"]),
    expires=st.booleans(),
    reply_to=st.sampled_from([None, "rabbitry.reply.x"]),
    parent=st.sampled_from(
        [
            None,
            Parent(None, None, NOW_MS / 1000 + 1),
            Parent("its parent", "its root", None),
        ]
    ),
)
def test_a_job_in_its_envelope_equals_its_message_header_by_header(
    job: Job, serializer: Any, expires: bool, reply_to: str | None, parent: Parent | None
) -> None:
    options: dict[str, Any] = {"published_ms": NOW_MS}
    contract = replace(CONTRACT, expires=expires)
    envelope = Envelope(contract, ids=Ids(), serializer=serializer, reply_to=reply_to)
    try:
        message = job_message(
            contract,
            job,
            serializer=serializer,
            reply_to=reply_to,
            parent_id=parent.id if parent else None,
            root_id=parent.root_id if parent else None,
            **options,
        )
    except InvalidMessage:
        with pytest.raises(InvalidMessage):
            envelope.frames(job, **options)
        return
    id, content = envelope.frames(job, parent=parent, **options)
    if parent and parent.deadline_s:
        message.headers[DEADLINE] = min(message.headers[DEADLINE], NOW_MS + 1000)
    plain = content_of(message, exchange="jobs", routing_key="normal.demo.add")
    ours, body = by_amqp(written(content))
    theirs, their_body = by_amqp(written(plain))
    assert ours["message_id"] == id
    if job.id is None:
        for made in (ours, theirs):
            for name in ("id",) if parent and parent.id else ("id", "root_id"):
                made["application_headers"].pop(name)
            made.pop("message_id")
            if job.correlation_id is None:
                assert made.pop("correlation_id")
    assert ours == theirs
    assert ("expiration" in ours) == expires
    assert ours.get("reply_to") == reply_to
    assert body == their_body
    assert by_pika(written(content))[2] == body


def test_the_envelope_names_where_it_goes() -> None:
    envelope = Envelope(CONTRACT, ids=Ids(), exchange="later", routing_key="in.5s")
    method, basic, _ = by_pika(written(envelope.frames(Job("demo.add"), published_ms=NOW_MS)[1]))
    assert (method.exchange, method.routing_key) == ("later", "in.5s")
    assert basic.headers["rabbitry-deadline"] == NOW_MS + 2500


def test_a_call_says_whether_its_caller_wants_news() -> None:
    envelope = Envelope(CONTRACT, ids=Ids(), reply_to="replies")
    for news in (False, True):
        _, content = envelope.frames(Job("demo.add"), published_ms=NOW_MS, news=news)
        properties, _ = by_amqp(written(content))
        assert properties["application_headers"].get(NEWS, False) is news
        assert properties["application_headers"][CALL] is True


def test_a_large_body_is_not_copied() -> None:
    job = Job("demo.add", ("x" * 10_000,))
    _, content = Envelope(CONTRACT, ids=Ids()).frames(job, published_ms=NOW_MS)
    assert isinstance(content, LargeContent)
    views = [each for each in content.buffers(FRAME_MAX) if isinstance(each, memoryview)]
    assert views[0].obj is content.body
    args, _, _ = decode(content.body, "application/json")
    assert args == ["x" * 10_000]


@pytest.mark.parametrize(
    ("job", "error"),
    [
        (Job("demo.add", priority=32), InvalidArguments),
        (Job("demo.add", deadline_s=0), InvalidArguments),
        (Job("demo.add", deadline_s=float("nan")), InvalidArguments),
        (Job("demo.add", id="x" * 256), InvalidMessage),
        (Job("demo.add", correlation_id="\udc80"), InvalidMessage),
        (Job("demo.add", (object(),)), InvalidMessage),
        (Job("demo.add", kwargs={1: 2}), InvalidMessage),
        (Job("demo.add", headers={"task": "x"}), InvalidMessage),
        (Job("demo.add", headers={"compression": "x"}), InvalidMessage),
        (Job("demo.add", headers={"a": object()}), InvalidMessage),
        (Job("demo.add", compression="cardboard"), InvalidMessage),
    ],
)
def test_what_cannot_be_a_job_is_refused_by_both(job: Job, error: type[Exception]) -> None:
    with pytest.raises(error, match=r"demo\.add"):
        Envelope(CONTRACT, ids=Ids()).frames(job, published_ms=NOW_MS)


def test_ids_are_random_uuids_and_never_the_same() -> None:
    ids = Ids()
    taken = [ids.take() for _ in range(3 * BATCH)]
    assert len(set(taken)) == len(taken)
    for id in taken:
        assert uuid.UUID(id).version == 4
        assert uuid.UUID(id).variant == uuid.RFC_4122
        assert str(uuid.UUID(id)) == id
