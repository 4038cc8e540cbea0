"""Who stops a worker that runs with --reload tells it once: told twice it would end at once."""

from __future__ import annotations

import os
import signal
from typing import Any

import pytest

from consumers import reload
from consumers.reload import Reloader


class StandIn:
    """A child that hears what it is told."""

    heard: list[int]
    code = 0

    def __init__(self, *_: Any) -> None:
        type(self).heard = []
        # As a service manager may: while the worker has only begun.
        os.kill(os.getpid(), signal.SIGTERM)

    def tell(self, number: int = signal.SIGTERM) -> None:
        self.heard.append(number)

    def wait(self, timeout_s: float) -> None:
        assert self.heard


class Signalled(StandIn):
    """One whose stop is asked for when it runs."""

    def __init__(self, *_: Any) -> None:
        type(self).heard = []


@pytest.mark.parametrize("when", ["beginning", "running"])
def test_a_worker_is_told_once_to_stop(tmp_path, monkeypatch, when: str) -> None:
    child = StandIn if when == "beginning" else Signalled
    monkeypatch.setattr(reload, "Child", child)
    reloader = Reloader([], {}, watched=[tmp_path], grace_s=1.0)
    if when == "running":
        watch = reloader._changes

        def changes() -> Any:
            os.kill(os.getpid(), signal.SIGTERM)
            return watch()

        monkeypatch.setattr(reloader, "_changes", changes)
    assert reloader.run() == 0
    assert child.heard == [signal.SIGTERM]
