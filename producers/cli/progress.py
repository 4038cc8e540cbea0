"""What is known of a call while it is waited for: a bar on stderr, on a terminal only."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from broker.reply import Accepted, Progress
    from producers.caller import Call


class CallBar:
    """Shows that a call waits, that a worker has begun with it, and how far that is."""

    def __init__(self) -> None:
        self.shown = sys.stderr.isatty()
        self._progress: Any = None
        if self.shown:
            from rich.console import Console
            from rich.progress import BarColumn, SpinnerColumn, TaskProgressColumn, TextColumn
            from rich.progress import Progress as Bar

            self._progress = Bar(
                SpinnerColumn(),
                TextColumn("{task.description}", markup=False),
                BarColumn(),
                TaskProgressColumn(),
                console=Console(stderr=True),
                transient=True,
                # stdout is for the result.
                redirect_stdout=False,
                redirect_stderr=False,
            )
            self._task = self._progress.add_task("waiting for a worker", total=None)

    def __enter__(self) -> Self:
        if self._progress is not None:
            self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._progress is not None:
            self._progress.stop()

    def follow(self, call: Call) -> None:
        """Show what a call that was submitted with ``news=True`` tells."""
        if self._progress is not None:
            call.on_accepted(self._accepted)
            call.on_progress(self._told)

    def _accepted(self, accepted: Accepted) -> None:
        worker = f" at {accepted.worker}" if accepted.worker else ""
        self._progress.update(self._task, description=f"running{worker}")

    def _told(self, progress: Progress) -> None:
        news: dict[str, Any] = {}
        if progress.text is not None:
            # Of the task's own, which may be anything.
            news["description"] = "".join(each for each in progress.text if each.isprintable())
        if progress.fraction is not None:
            news |= {"completed": progress.fraction, "total": 1.0}
        self._progress.update(self._task, **news)
