"""Lines of jobs and the record of a run, without RabbitMQ."""

from __future__ import annotations

import io
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.contracts import Job
from broker.errors import InvalidData, InvalidInput
from producers.batch import read_lines
from producers.batch_record import open_record


def read(content: bytes):
    return list(read_lines(io.BytesIO(content)))


def test_a_line_says_all_of_a_job() -> None:
    text = {"name": "a", "args": [1], "kwargs": {"b": 2}, "id": "x", "priority": 9}
    text |= {"delay": "1m30s", "deadline": 5, "headers": {"tenant": "t"}}
    [line] = read(json.dumps(text).encode())
    assert line.job == Job(
        "a",
        [1],
        {"b": 2},
        id="x",
        priority=9,
        delay_s=90.0,
        deadline_s=5.0,
        headers={"tenant": "t"},
    )


def test_marks_blanks_and_line_ends_are_taken_as_they_come() -> None:
    lines = read(b'\xef\xbb\xbf{"name": "a"}\r\n\r\n  \n{"name": "b"}')
    assert [line.job and line.job.name for line in lines] == ["a", None, None, "b"]
    assert [line.problem for line in lines] == [None] * 4
    # The same content has the same digest, whatever ends the line.
    assert lines[0].digest == read(b'{"name": "a"}')[0].digest


@given(st.binary(max_size=300))
def test_any_bytes_are_jobs_blanks_or_one_sentence(content) -> None:
    for line in read(content):
        assert line.job is None or line.problem is None
        assert "\n" not in (line.problem or "")


def test_a_record_skips_what_was_confirmed_and_nothing_else(tmp_path) -> None:
    file = tmp_path / "jobs"
    file.write_bytes(b"1\n2\n3\n4\n")
    lines = read(file.read_bytes())
    record = open_record(file, resume=False, restart=False)
    assert record is not None
    ids = [record.id_of(line) for line in lines]
    assert len(set(ids)) == 4
    with pytest.raises(InvalidInput, match="another run"):
        open_record(file, resume=True, restart=False)
    for line in lines[:3]:
        record.done(line, confirmed=line.number != 2)
    record.close(finished=False)
    # What a killed run has half written is passed over.
    with record.path.open("ab") as stream:
        stream.write(b'{"upto": 4, "dig')
    again = open_record(file, resume=True, restart=False)
    assert again is not None
    assert [again.skips(line) for line in lines] == [True, False, True, False]
    assert [again.id_of(line) for line in lines] == ids
    again.close(finished=False)
    with pytest.raises(InvalidInput, match="--resume skips those"):
        open_record(file, resume=False, restart=False)
    file.write_bytes(b"1\nmended\n3\n4\n5\n")
    mended = open_record(file, resume=True, restart=False)
    assert mended is not None
    mended.close(finished=False)
    file.write_bytes(b"1\n2\nchanged\n")
    with pytest.raises(InvalidData, match="is not the file"):
        open_record(file, resume=True, restart=False)
