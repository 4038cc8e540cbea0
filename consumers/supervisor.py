"""`worker run` for several workers: one process each, started again when it ends by itself."""

from __future__ import annotations

import logging
import os
import select
import signal
import socket
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

from broker.errors import EXIT_DONE, EXIT_INTERRUPTED
from consumers.child import Child, Lifeline
from consumers.notify import Notifier

logger = logging.getLogger("rabbitry.supervisor")

# Between the end of a process and the next: doubled each time, until one has lasted.
PAUSE_FIRST_S, PAUSE_MOST_S = 1.0, 30.0
LASTED_S = 60.0
# Beyond the longest grace, within which every worker ends.
SLACK_S = 1.5
_STOPPING = (signal.SIGTERM, signal.SIGINT)
_ENDED_BY_SIGTERM = 128 + signal.SIGTERM


@dataclass(slots=True)
class Post:
    """One worker, whichever process it is at the moment.

    Attributes:
        name: of the worker.
        command: arguments of ``rabbitry`` that run it.
        child: its process; None between two.
        since: when the process began, or the last one ended, by `time.monotonic`.
        pause_s: how long to wait before the next.
        was_ready: whether any of its processes has consumed.
    """

    name: str
    command: Sequence[str]
    child: Child | None = None
    since: float = 0.0
    pause_s: float = PAUSE_FIRST_S / 2
    was_ready: bool = False


class Supervisor:
    """Runs commands side by side until it is told to stop.

    One that ends before it has ever been ready is not started again: what keeps it (bad input, a
    missing queue, a refused user) is for people to mend, and all others are stopped.

    Args:
        commands: by worker, the arguments of ``rabbitry``.
        environment: added to each process's environment.
        grace_s: the longest that any of them takes to stop.
        drains: whether they end by themselves when they have nothing to do.
    """

    def __init__(
        self,
        commands: Mapping[str, Sequence[str]],
        environment: Mapping[str, str],
        *,
        grace_s: float,
        drains: bool = False,
    ) -> None:
        self._posts = [Post(name, command) for name, command in commands.items()]
        self._environment = environment
        self._grace_s = grace_s
        self._drains = drains
        self._lifeline = Lifeline()
        self._notifier = Notifier()
        self._signals = 0
        self._deadline: float | None = None
        self._code = EXIT_DONE

    def run(self) -> int:
        """Run them; returns the exit code of all together.

        0 where all have stopped in order, 130 where a second signal was needed, else the code of
        the first that could not begin.
        """
        # A wake-up descriptor does not block; the loop looks at it as at the workers' words.
        awake, wake = socket.socketpair()
        awake.setblocking(False)
        wake.setblocking(False)
        numbers = (*_STOPPING, signal.SIGCHLD)
        previous = {number: signal.signal(number, self._on_signal) for number in numbers}
        before = signal.set_wakeup_fd(wake.fileno(), warn_on_full_buffer=False)
        try:
            with tempfile.TemporaryDirectory(prefix="rabbitry-") as folder:
                self._words = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
                self._words.setblocking(False)
                self._path = str(Path(folder) / "notify")
                self._words.bind(self._path)
                while not self._turn():
                    select.select([awake, self._words], [], [], self._sleep_s())
                    _drain(awake)
                self._words.close()
        finally:
            for post in self._posts:
                if post.child is not None:
                    post.child.tell()
                    post.child.wait(self._grace_s + SLACK_S)
            signal.set_wakeup_fd(before)
            for number, handler in previous.items():
                signal.signal(number, handler)
            self._lifeline.close()
            awake.close()
            wake.close()
        return EXIT_INTERRUPTED if self._signals > 1 and self._code == EXIT_DONE else self._code

    def _on_signal(self, number: int, _frame: FrameType | None) -> None:
        if number != signal.SIGCHLD:
            self._signals += 1
            self._stop()

    def _stop(self) -> None:
        if self._deadline is None:
            self._deadline = time.monotonic() + self._grace_s + SLACK_S
            self._notifier.tell(STOPPING=1)
        for post in self._posts:
            if post.child is not None:
                post.child.tell()

    def _turn(self) -> bool:
        """Look at every process; returns whether all is over."""
        self._listen()
        now = time.monotonic()
        for post in self._posts:
            if post.child is not None and post.child.code is not None:
                self._ended(post, post.child.code, now)
            elif post.child is None and self._is_due(post, now):
                post.child = Child(
                    post.command, {**self._environment, "NOTIFY_SOCKET": self._path}, self._lifeline
                )
                post.since = now
                if self._deadline is not None:
                    # The signal came between the look and the start.
                    post.child.tell()
        alive = [post for post in self._posts if post.child is not None]
        if self._deadline is not None and now >= self._deadline:
            for post in alive:
                assert post.child is not None
                logger.error("worker %s does not end; it is killed", post.name)
                post.child.wait(0)
        waiting = self._deadline is None and any(self._is_wanted(post) for post in self._posts)
        return not alive and not waiting

    def _ended(self, post: Post, code: int, now: float) -> None:
        lasted_s, post.child = now - post.since, None
        post.since = now
        if self._deadline is not None:
            # One that had not begun to listen is ended by the signal itself.
            stopped = self._signals > 1 or code == _ENDED_BY_SIGTERM
            self._code = self._code or (EXIT_DONE if stopped else code)
        elif not post.was_ready and code != EXIT_DONE:
            logger.error("worker %s cannot begin (exit code %d): all are stopped", post.name, code)
            self._code = code
            self._stop()
        elif self._is_wanted(post):
            post.pause_s = (
                PAUSE_FIRST_S if lasted_s >= LASTED_S else min(post.pause_s * 2, PAUSE_MOST_S)
            )
            logger.warning(
                "worker %s ended with code %d after %.0f s; it begins again in %g s",
                *(post.name, code, lasted_s, post.pause_s),
            )
        else:
            self._code = self._code or code

    def _is_wanted(self, post: Post) -> bool:
        return not (self._drains and post.since > 0 and post.was_ready)

    def _is_due(self, post: Post, now: float) -> bool:
        if self._deadline is not None or not self._is_wanted(post):
            return False
        return post.since == 0 or now - post.since >= post.pause_s

    def _sleep_s(self) -> float | None:
        now = time.monotonic()
        if self._deadline is not None:
            return max(0.0, self._deadline - now)
        due = [
            post.since + post.pause_s
            for post in self._posts
            if post.child is None and self._is_wanted(post)
        ]
        return max(0.0, min(due) - now) if due else None

    def _listen(self) -> None:
        """Read what the workers say to systemd; say it for all when all have said it."""
        was = self._all_ready
        while True:
            try:
                words = dict(
                    line.partition("=")[::2] for line in self._words.recv(4096).decode().split("\n")
                )
            except BlockingIOError:
                break
            for post in self._posts:
                child = post.child
                if child is not None and words.get("MAINPID") == str(child.pid):
                    post.was_ready = post.was_ready or words.get("READY") == "1"
        if self._all_ready and not was:
            names = ", ".join(post.name for post in self._posts)
            self._notifier.tell(READY=1, STATUS=f"runs {names}", MAINPID=os.getpid())
            self._notifier.watch(lambda: True)

    @property
    def _all_ready(self) -> bool:
        return all(post.was_ready for post in self._posts)


def _drain(awake: socket.socket) -> None:
    try:
        while awake.recv(4096):
            pass
    except BlockingIOError:
        return
