"""The handle of a producing process (`tests.faults.producing`)."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path
from types import TracebackType
from typing import Self

from broker.connection import Address
from tests.conftest import ROOT
from tests.waiting import until


class Producer:
    """A process that publishes what it is allowed to, and is gone when it is left.

    Args:
        topology: path of its file.
        address: where it publishes.
        folder: for its account and what it says on its standard error.
        threads: how many publish one job at a time; 0 lets one publish many.
        timeout_s: of each publish.
    """

    def __init__(
        self,
        topology: Path,
        address: Address,
        folder: Path,
        *,
        threads: int = 0,
        timeout_s: float = 30.0,
    ) -> None:
        self.account = folder / "account.jsonl"
        self.allowed = 0
        self.handed_over = 0
        self._flushed = threading.Event()
        self._errors = (folder / "producer.err").open("w+")
        command = [sys.executable, "-m", "tests.faults.producing", str(topology), address.url]
        command += [str(self.account), "--threads", str(threads), "--timeout-s", str(timeout_s)]
        self._process = subprocess.Popen(
            command,
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
            bufsize=1,
        )
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def allow(self, leg: str, job: str, count: int) -> None:
        """Let it publish so many more of a job."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{leg} {job} {count}\n")
        self.allowed += count

    def wait_handed_over(self, count: int, *, timeout_s: float = 60) -> None:
        """Wait until it has handed over about so many jobs since it began."""
        until(
            lambda: self.handed_over >= count // 20 * 20 or self._process.poll() is not None,
            timeout_s=timeout_s,
            what=f"{count} jobs to be handed over, after {self.handed_over}",
        )
        assert self._process.poll() is None, self._said()

    def settle(self, *, timeout_s: float = 60) -> None:
        """Wait until nothing is under way."""
        assert self._process.stdin is not None
        self._flushed.clear()
        self._process.stdin.write("flush\n")
        assert self._flushed.wait(timeout_s), self._said()

    def finish(self, *, timeout_s: float = 60) -> None:
        """Let it end by itself once every outcome is known."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        assert self._process.wait(timeout_s) == 0, self._said()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()
        self._reader.join()
        for file in (self._process.stdin, self._process.stdout, self._errors):
            if file is not None:
                file.close()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if line == "flushed\n":
                self._flushed.set()
            else:
                self.handed_over = int(line)

    def _said(self) -> str:
        self._errors.seek(0)
        return self._errors.read()
