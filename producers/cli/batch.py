"""`rabbitry jobs publish --from`: a line a job."""

from __future__ import annotations

import contextlib
import json
import signal
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any, BinaryIO

import click

from broker.cli import Session, note
from broker.errors import InvalidInput

if TYPE_CHECKING:
    from producers.batch_record import Record
    from producers.batch_run import Result, Stop, Tally
    from producers.publisher import Publisher

STDIN = "-"
# How long an interrupted run waits for the confirms of what it has sent.
INTERRUPTED_S = 5.0
DRAW_S = 0.1
WORDS = ("routed", "accepted", "unroutable", "rejected", "unknown", "wrong", "skipped")


def publish_from(
    session: Session,
    source: str,
    *,
    resume: bool,
    restart: bool,
    strict: bool,
    outbox: str | None,
    timeout_s: float,
) -> int:
    """Publish the jobs of a file and return the exit code."""
    from producers.batch import open_lines, read_lines
    from producers.batch_record import open_record
    from producers.batch_run import Stop, publish_lines
    from producers.publisher import Publisher

    if source == STDIN and (resume or restart):
        raise InvalidInput(
            "what comes through a pipe cannot be resumed; save it as a file, and give that"
        )
    topology = session.load_topology()
    stream: BinaryIO = sys.stdin.buffer if source == STDIN else open_lines(Path(source))
    record: Record | None = None
    tally: Tally | None = None
    try:
        if source != STDIN and Path(source).is_file():
            record = open_record(Path(source), resume=resume, restart=restart)
            if record is None:
                note(f"no record can be kept beside {source}: --resume will not be possible")
        elif resume:
            raise InvalidInput(f"{source} is not a plain file, and cannot be resumed")
        with Publisher(topology, session.url, outbox=outbox) as publisher:
            if outbox is None:
                publisher.connect(timeout_s=timeout_s)
            stop = Stop()
            lines = read_lines(
                stream,
                wanted=lambda line: record is None or not record.skips(line),
                id_of=None if record is None else record.id_of,
            )
            started = time.monotonic()
            with _stopping(stop, publisher), _Display(source, stream, session.json) as display:
                tally = publish_lines(
                    publisher,
                    lines,
                    record=record,
                    timeout_s=timeout_s,
                    strict=strict,
                    stop=stop,
                    tell=display.tell,
                )
            seconds = time.monotonic() - started
    finally:
        if record is not None:
            record.close(finished=tally is not None and tally.finished and not tally.interrupted)
        if source != STDIN:
            stream.close()
    # With --json stdout is for the results alone.
    click.echo(_summary(source, tally, seconds), err=session.json)
    if tally.exit_code and record is not None and (record.failed or not tally.finished):
        note("--resume publishes what is not confirmed, after what is wrong has been mended")
    return tally.exit_code


@contextlib.contextmanager
def _stopping(stop: Stop, publisher: Publisher) -> Iterator[None]:
    """Let Ctrl-C end the reading, wait a little for confirms, and still account for all."""
    from producers.batch_run import Stopped

    def interrupted(_number: int, _frame: FrameType | None) -> None:
        if stop.requested:
            raise KeyboardInterrupt
        stop.requested = True
        note(f"stopping: waiting at most {INTERRUPTED_S:g} s for what is on its way")
        timer.start()
        if stop.reading:
            raise Stopped

    timer = threading.Timer(INTERRUPTED_S, publisher.close, kwargs={"timeout_s": 0.0})
    timer.daemon = True
    before = signal.signal(signal.SIGINT, interrupted)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
        timer.cancel()


class _Display:
    """Results as they come: lines of JSON on stdout, a bar on a terminal, sentences on stderr."""

    def __init__(self, source: str, stream: BinaryIO, as_json: bool) -> None:
        self._source = source
        self._json = as_json
        self._progress: Any = None
        self._drawn_at = 0.0
        if sys.stderr.isatty():
            self._progress, self._task = _bar(source)

    def __enter__(self) -> _Display:
        if self._progress is not None:
            self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._progress is not None:
            self._progress.stop()
        sys.stdout.flush()

    def tell(self, result: Result, tally: Tally) -> None:
        """Print a result."""
        if self._json:
            document = {
                "id": result.id,
                "name": None if result.job is None else result.job.name,
                "outcome": result.outcome,
                "reason": result.reason,
            }
            sys.stdout.write(json.dumps(document, ensure_ascii=False) + "\n")
        if result.outcome == "wrong" or (result.reason and not self._json):
            self._say(f"{self._source}:{result.line.number}: {result.reason}")
        now = time.monotonic()
        if now - self._drawn_at >= DRAW_S:
            self._drawn_at = now
            sys.stdout.flush()
            if self._progress is not None:
                self._progress.update(
                    self._task, completed=result.line.end, counts=_counts(tally), jobs=tally.lines
                )

    def _say(self, text: str) -> None:
        if self._progress is None:
            note(text)
        else:
            self._progress.console.print(text, markup=False, highlight=False, soft_wrap=True)


def _bar(source: str) -> tuple[Any, Any]:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, ProgressColumn, SpinnerColumn, Task, TextColumn
    from rich.text import Text

    class Rate(ProgressColumn):
        def render(self, task: Task) -> Text:
            return Text(f"{task.fields['jobs'] / max(task.elapsed or 0.0, 1e-9):,.0f} jobs/s")

    size = Path(source).stat().st_size if Path(source).is_file() else None
    columns: list[Any] = [SpinnerColumn(), TextColumn("{task.fields[counts]}"), Rate()]
    if size:
        columns[1:1] = [BarColumn(), TextColumn("{task.percentage:>3.0f}%")]
    progress = Progress(
        *columns,
        console=Console(stderr=True),
        transient=True,
        # stdout is for the results.
        redirect_stdout=False,
        redirect_stderr=False,
    )
    return progress, progress.add_task("", total=size, counts="", jobs=0)


def _counts(tally: Tally) -> str:
    found = [f"{tally.counts[word]:,} {word}" for word in WORDS if tally.counts[word]]
    return ", ".join(found) or "no jobs"


def _summary(source: str, tally: Tally, seconds: float) -> str:
    sent = sum(tally.counts[word] for word in WORDS[:5])
    rate = f" in {seconds:.1f} s ({sent / seconds:,.0f} jobs/s)" if sent and seconds > 0 else ""
    text = f"{source}: {_counts(tally)}{rate}"
    if tally.resent:
        text += f"; {tally.resent:,} were sent again, with the same ids"
    if not tally.finished:
        text += f"; read up to line {tally.lines:,}, nothing behind it was sent"
    return text
