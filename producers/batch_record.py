"""What a run over a file of jobs has got confirmed, so that the next one can skip it.

The record lies beside the file, as ``FILE.progress``: a JSON object a line. It says how far the
run came, which lines up to there were not confirmed, and a digest of those that were: they must
be in the file as they were, or the file is another one. A line is written only after RabbitMQ has
confirmed what it says, so a run that is killed leaves a record that says too little, never too
much; what it does not say is sent again, with the same id.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import secrets
import time
from pathlib import Path
from typing import Any
from uuid import UUID

from broker.errors import InvalidData, InvalidInput
from producers.batch import Line, read_lines

KIND = "rabbitry publish"
VERSION = 1
# How much a killed run may have to send again, and how much a loss of power.
WRITE_S = 0.1
SYNC_S = 1.0


class Record:
    """The record of a run over one file; use `open_record`.

    Attributes:
        path: of the record.
        upto: every line up to this one was dealt with.
        failed: lines up to there that were not confirmed.
        finished: whether the earlier run came to the end, with every line confirmed.
    """

    def __init__(self, path: Path, descriptor: int) -> None:
        self.path = path
        self.upto = 0
        self.failed: set[int] = set()
        self.finished = False
        self._descriptor = descriptor
        self._salt = ""
        self._chain = b""
        self._mended: dict[int, str] = {}
        self._news: dict[str, Any] = {"failed": [], "mended": {}}
        self._dirty = False
        self._written_at = self._synced_at = time.monotonic()

    # -- reading ------------------------------------------------------------------------

    def read(self) -> bool:
        """Take over what an earlier run has written; False where there is nothing of use."""
        size_bytes = os.fstat(self._descriptor).st_size
        found, good_bytes = _entries(os.pread(self._descriptor, size_bytes, 0))
        # What a killed run has half written must not spoil what is written behind it.
        os.ftruncate(self._descriptor, good_bytes)
        entries = iter(found)
        head = next(entries, None)
        if head is None or head.get("kind") != KIND:
            return False
        if head.get("version") != VERSION:
            raise InvalidData(
                f"{self.path} is of version {head.get('version')}, this rabbitry reads {VERSION};"
                " upgrade rabbitry"
            )
        self._salt = str(head["salt"])
        for entry in entries:
            self.finished = bool(entry.get("finished"))
            self.upto = int(entry["upto"])
            self._chain = bytes.fromhex(entry["digest"])
            self.failed |= set(entry["failed"])
            for number, digest in entry["mended"].items():
                self._mended[int(number)] = str(digest)
                self.failed.discard(int(number))
        return True

    def is_of(self, path: Path) -> bool:
        """Whether the lines that were confirmed are in a file, as they were."""
        chain, number = b"", 0
        with path.open("rb") as stream:
            for line in read_lines(stream, wanted=lambda _: False):
                number = line.number
                if number > self.upto:
                    break
                if number in self._mended:
                    if self._mended[number] != line.digest.hex():
                        return False
                elif number not in self.failed:
                    chain = _linked(chain, line.digest)
                if number == self.upto:
                    break
        return number >= self.upto and chain == self._chain

    # -- writing ------------------------------------------------------------------------

    def begin(self) -> None:
        """Forget an earlier run."""
        self.upto, self._chain, self._salt = 0, b"", secrets.token_hex(16)
        self.failed.clear()
        self._mended.clear()
        os.ftruncate(self._descriptor, 0)
        self._append({"kind": KIND, "version": VERSION, "salt": self._salt})
        os.fsync(self._descriptor)

    def skips(self, line: Line) -> bool:
        """Whether an earlier run got this line confirmed."""
        return line.number <= self.upto and line.number not in self.failed

    def id_of(self, line: Line) -> str:
        """Return the id of a line's job: the same in each attempt of this run."""
        text = f"{self._salt} {line.number} ".encode()
        return str(UUID(bytes=hashlib.sha256(text + line.digest).digest()[:16], version=5))

    def done(self, line: Line, *, confirmed: bool) -> None:
        """Note a line; in the order of the file."""
        if line.number <= self.upto:
            if confirmed and line.number in self.failed:
                self.failed.discard(line.number)
                self._mended[line.number] = line.digest.hex()
                self._news["mended"][line.number] = line.digest.hex()
                self._dirty = True
            return
        self.upto = line.number
        self._dirty = True
        if confirmed:
            self._chain = _linked(self._chain, line.digest)
        else:
            self.failed.add(line.number)
            self._news["failed"].append(line.number)
        if line.number & 63 == 0 and time.monotonic() - self._written_at > WRITE_S:
            self.write()

    def write(self) -> None:
        """Write down what is new."""
        if self._dirty:
            self._append({"upto": self.upto, "digest": self._chain.hex(), **self._news})
            self._news = {"failed": [], "mended": {}}
            self._dirty = False
        self._written_at = now = time.monotonic()
        if now - self._synced_at > SYNC_S:
            os.fsync(self._descriptor)
            self._synced_at = now

    def close(self, *, finished: bool) -> None:
        """End the record; `finished` where the run came to the end of the file."""
        if finished and not self.failed:
            self._news["finished"] = self._dirty = True
        self.write()
        os.fsync(self._descriptor)
        os.close(self._descriptor)

    def _append(self, entry: dict[str, Any]) -> None:
        os.write(self._descriptor, json.dumps(entry).encode() + b"\n")


def open_record(path: Path, *, resume: bool, restart: bool) -> Record | None:
    """Open the record of a run over a file.

    Args:
        path: of the file of jobs.
        resume: go on where an earlier run ended.
        restart: begin anew, whatever an earlier run got confirmed.

    Returns:
        The record; None where none can be kept, which matters only to `resume`.

    Raises:
        InvalidInput: another run is under way, or an earlier one was not finished and neither
            `resume` nor `restart` is given.
        InvalidData: the record is of another file, or cannot be read.
    """
    place = path.with_name(f"{path.name}.progress")
    try:
        descriptor = os.open(place, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
    except OSError as exc:
        if resume:
            raise InvalidData(f"{place} cannot be opened: {exc.strerror}") from None
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        raise InvalidInput(
            f"another run is publishing {path}; wait for its end, then --resume"
        ) from None
    record = Record(place, descriptor)
    try:
        # The records' own garbage counts as none: there is nothing to go on from.
        known = not restart and record.read()
        same = known and record.is_of(path)
        if known and resume and not same:
            raise InvalidData(
                f"{path} is not the file that {place} is the record of: lines that were confirmed"
                " have changed; --restart publishes every line"
            )
        if same and record.upto and not resume and not record.finished:
            confirmed = record.upto - len(record.failed)
            raise InvalidInput(
                f"an earlier run of {path} dealt with {record.upto} lines, {confirmed} of them"
                " for good; --resume skips those, --restart publishes every line again"
            )
        if not same or (not resume and record.finished):
            record.begin()
    except BaseException:
        os.close(descriptor)
        raise
    return record


def _entries(content: bytes) -> tuple[list[dict[str, Any]], int]:
    """Return the whole lines at the beginning, and how many bytes they take."""
    entries: list[dict[str, Any]] = []
    good_bytes = 0
    for text in content.split(b"\n")[:-1]:
        try:
            entry = json.loads(text)
        except ValueError:
            break  # cut short when the run or the machine ended
        if not isinstance(entry, dict):
            break
        entries.append(entry)
        good_bytes += len(text) + 1
    return entries, good_bytes


def _linked(chain: bytes, digest: bytes) -> bytes:
    return hashlib.sha256(chain + digest).digest()
