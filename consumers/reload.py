"""`worker run --reload`: a worker for development, begun anew when its code changes."""

from __future__ import annotations

import importlib.util
import logging
import signal
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import FrameType

from broker.errors import WorkerError
from broker.topology import Topology
from consumers.child import Child, Lifeline

logger = logging.getLogger("rabbitry.reload")

# Beyond the grace, within which the worker ends.
SLACK_S = 1.5
# Editors write a file more than once.
_QUIET_MS = 200


class Reloader:
    """Runs one command, and again in order whenever a file changes.

    A change that Python cannot read is told, and the next one waited for; so is the end of the
    worker itself, which is how a wrong import or topology shows.

    Args:
        command: arguments of ``rabbitry``.
        environment: added to the process's environment.
        watched: folders and files.
        grace_s: how long the worker may take to stop.

    Raises:
        WorkerError: what watches files is not installed.
    """

    def __init__(
        self,
        command: Sequence[str],
        environment: Mapping[str, str],
        *,
        watched: Iterable[Path],
        grace_s: float,
    ) -> None:
        if importlib.util.find_spec("watchfiles") is None:
            raise WorkerError(
                "--reload takes watchfiles, which is not installed;"
                " `pip install 'rabbitry[reload]'`"
            )
        self._command = command
        self._environment = environment
        self._watched = [path for path in watched if path.exists()]
        self._grace_s = grace_s
        self._lifeline = Lifeline()
        self._child: Child | None = None
        self._told: Child | None = None
        self._stop = threading.Event()

    def run(self) -> int:
        """Run until told to stop; returns the exit code of the last process."""
        numbers = (signal.SIGTERM, signal.SIGINT)
        previous = {number: signal.signal(number, self._on_signal) for number in numbers}
        try:
            self._begin()
            for changed in self._changes():
                if self._is_readable(changed):
                    logger.info("%s changed: the worker begins anew", _names(changed))
                    self._end()
                    self._begin()
            return self._end()
        finally:
            self._end()
            self._lifeline.close()
            for number, handler in previous.items():
                signal.signal(number, handler)

    def _on_signal(self, _number: int, _frame: FrameType | None) -> None:
        self._stop.set()
        # A second signal is passed on, too.
        self._tell()

    def _tell(self) -> None:
        self._told = child = self._child
        if child is not None:
            child.tell()

    def _begin(self) -> None:
        if not self._stop.is_set():
            self._child = Child(self._command, self._environment, self._lifeline)

    def _end(self) -> int:
        child = self._child
        if child is None:
            return 0
        if self._told is not child:
            # Told twice it would end at once.
            self._tell()
        child.wait(self._grace_s + SLACK_S)
        return child.code or 0

    def _changes(self) -> Iterator[list[Path]]:
        from watchfiles import PythonFilter, watch

        extra = [str(path) for path in self._watched if path.is_file()]
        for changes in watch(
            # A folder: editors replace files, and a watch on one would end with it.
            *{path if path.is_dir() else path.parent for path in self._watched},
            watch_filter=PythonFilter(extra_extensions=[Path(each).suffix for each in extra]),
            step=_QUIET_MS,
            stop_event=self._stop,
            rust_timeout=500,
            raise_interrupt=False,
        ):
            # Beside the topology file there may be others that are none of ours.
            yield sorted(
                path
                for path in {Path(name) for _, name in changes}
                if path.suffix == ".py" or str(path) in extra
            )

    def _is_readable(self, changed: list[Path]) -> bool:
        for path in changed:
            if path.suffix != ".py" or not path.exists():
                continue
            try:
                compile(path.read_bytes(), str(path), "exec")
            except (SyntaxError, ValueError) as exc:
                line = f":{exc.lineno}" if isinstance(exc, SyntaxError) else ""
                logger.error("%s%s: %s; the worker goes on as it was", path, line, exc)
                return False
        return bool(changed)


def watched_of(topology: Topology, path: Path) -> list[Path]:
    """Return what a worker's code stands in: the folders of its tasks, and the topology file."""
    found = {path.resolve()}
    for job in topology.jobs.values():
        if job.task is None:
            continue
        module, _, _ = job.task.partition(":")
        # Found without importing: what is wrong with it is for the worker to say.
        first = Path.cwd() / module.partition(".")[0]
        if first.is_dir():
            found.add(first)
            continue
        if first.with_suffix(".py").exists():
            found.add(Path.cwd())
            continue
        try:
            spec = importlib.util.find_spec(module.partition(".")[0])
        except (ImportError, ValueError):
            spec = None
        if spec is not None and spec.origin is not None:
            found.add(Path(spec.origin).parent)
    return sorted(found)


def _names(changed: list[Path]) -> str:
    return ", ".join(path.name for path in changed)
