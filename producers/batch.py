"""Jobs from a file or a pipe, a JSON object a line: what they are, and what is wrong with which."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from broker.contracts import PRIORITIES, Job
from broker.errors import InvalidData, did_you_mean
from broker.units import parse_duration

KEYS = ("name", "args", "kwargs", "id", "priority", "delay", "deadline", "headers")
# Far above what RabbitMQ takes (16 MiB by default); a file without line ends must not fill memory.
LINE_BYTES = 64 * 2**20
BOM = b"\xef\xbb\xbf"


class Line:
    """One line.

    Attributes:
        number: from 1.
        end: where it ends in the file, in bytes, its line end included.
        digest: SHA-256 of its content without the line end.
        job: what it asks for, or None where it is blank or wrong.
        problem: what is wrong with it, or None.
    """

    __slots__ = ("digest", "end", "job", "number", "problem")

    def __init__(self, number: int, end: int, content: bytes) -> None:
        self.number = number
        self.end = end
        self.digest = hashlib.sha256(content).digest()
        self.job: Job | None = None
        self.problem: str | None = None


def open_lines(path: Path) -> BinaryIO:
    """Open a file of jobs. Raises InvalidData."""
    try:
        return path.open("rb")
    except FileNotFoundError:
        raise InvalidData(f"there is no file {path}; is its path right?") from None
    except IsADirectoryError:
        raise InvalidData(f"{path} is a directory, not a file of jobs") from None
    except (OSError, ValueError) as exc:
        reason = getattr(exc, "strerror", None) or exc
        raise InvalidData(f"{path} cannot be read: {reason}") from None


def read_lines(
    stream: BinaryIO,
    *,
    wanted: Callable[[Line], bool] = lambda _: True,
    id_of: Callable[[Line], str] | None = None,
) -> Iterator[Line]:
    """Read lines one at a time, in constant memory.

    Args:
        stream: what to read; UTF-8, with or without a byte order mark, lines ending in LF or CRLF.
        wanted: whether a line matters; else it is passed on without looking at what it says.
        id_of: makes the id of a job whose line says none.
    """
    number = end = 0
    while raw := stream.readline(LINE_BYTES + 1):
        number += 1
        end += len(raw)
        content = raw.removeprefix(BOM) if number == 1 else raw
        content = content.rstrip(b"\r\n")
        line = Line(number, end, content)
        if len(raw) > LINE_BYTES and not raw.endswith(b"\n"):
            line.problem = f"the line is longer than {LINE_BYTES} bytes; a job has one line"
            while rest := stream.readline(LINE_BYTES):
                line.end = end = end + len(rest)
                if rest.endswith(b"\n"):
                    break
        elif content.strip() and wanted(line):
            try:
                job = job_of(content)
            except _Wrong as exc:
                line.problem = str(exc)
            else:
                if job.id is None and id_of is not None:
                    job = _with_id(job, id_of(line))
                line.job = job
        yield line


class _Wrong(ValueError):
    """What is wrong with a line, in one sentence."""


def job_of(content: bytes) -> Job:
    """Read the job of one line. Raises ValueError with a sentence."""
    if b"\0" in content:
        raise _Wrong("this is binary or UTF-16, not a line of JSON in UTF-8")
    try:
        text = content.decode()
    except UnicodeDecodeError as exc:
        raise _Wrong(f"this is not UTF-8 text (byte {exc.start + 1} of the line)") from None
    try:
        value = json.loads(text)
    except RecursionError:
        raise _Wrong("this is nested too deeply") from None
    except json.JSONDecodeError as exc:
        raise _Wrong(f"this is not JSON: {exc.msg} at column {exc.colno}") from None
    except ValueError as exc:
        raise _Wrong(f"this is not JSON: {exc}") from None
    if type(value) is not dict:
        raise _Wrong(
            f"this is {_kind(value)}, not an object; write"
            ' {"name": "…", "kwargs": {…}} on each line'
        )
    if "\\u" in text:
        # Half a surrogate pair is JSON, and no text that could be sent.
        try:
            json.dumps(value, ensure_ascii=False).encode()
        except UnicodeEncodeError:
            raise _Wrong("a text holds half a character (a lone surrogate)") from None
    return _job(value)


def _job(value: Mapping[str, Any]) -> Job:
    unknown = value.keys() - _CHECKS.keys()
    if unknown:
        key = sorted(unknown)[0]
        raise _Wrong(f"unknown key {key!r}{did_you_mean(key, KEYS)}; a line has {', '.join(KEYS)}")
    for key, given in value.items():
        check = _CHECKS[key]
        if type(given) not in check.types and not (given is None and key != "name"):
            raise _Wrong(f"{key!r} must be {check.text}, not {_kind(given)}")
    if "name" not in value:
        raise _Wrong("the job has no 'name'")
    priority = value.get("priority")
    if priority is not None and priority not in PRIORITIES:
        raise _Wrong(
            f"'priority' must be from {PRIORITIES.start} to {PRIORITIES.stop - 1}, not {priority}"
        )
    return Job(
        value["name"],
        value.get("args") or (),
        value.get("kwargs") or {},
        id=value.get("id"),
        priority=priority,
        delay_s=_seconds("delay", value.get("delay")),
        deadline_s=_seconds("deadline", value.get("deadline")),
        headers=value.get("headers"),
    )


def _seconds(key: str, value: Any) -> float | None:
    if value is None:
        return None
    if isinstance(value, str):
        try:
            return parse_duration(value).total_seconds()
        except ValueError as exc:
            raise _Wrong(f"{key!r}: {exc}") from None
    if not 0 <= value < 1e12:
        raise _Wrong(f"{key!r} must be 0 or more seconds, not {value}")
    return float(value)


def _with_id(job: Job, id: str) -> Job:
    # Faster than dataclasses.replace, for every line of a large file.
    return Job(
        job.name,
        job.args,
        job.kwargs,
        id=id,
        priority=job.priority,
        delay_s=job.delay_s,
        deadline_s=job.deadline_s,
        headers=job.headers,
    )


@dataclass(frozen=True, slots=True)
class _Check:
    types: tuple[type, ...]
    text: str


_DURATION = _Check((str, int, float), 'a duration such as "30s", or seconds')
_CHECKS = {
    "name": _Check((str,), "a text"),
    "args": _Check((list,), "a list"),
    "kwargs": _Check((dict,), "an object"),
    "id": _Check((str,), "a text"),
    "priority": _Check((int,), "a whole number"),
    "delay": _DURATION,
    "deadline": _DURATION,
    "headers": _Check((dict,), "an object"),
}
_KINDS = {
    dict: "an object",
    list: "a list",
    str: "a text",
    bool: "true or false",
    int: "a number",
    float: "a number",
}


def _kind(value: Any) -> str:
    return _KINDS.get(type(value), "null")
