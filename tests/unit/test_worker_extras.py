"""What takes a library that is not there says which one, and how to get it."""

from __future__ import annotations

import importlib.util

import pytest

from broker.errors import WorkerError
from broker.topology import Topology
from consumers.green import begin_again, is_patched
from consumers.reload import Reloader, watched_of
from tests.provision import REFERENCE


@pytest.fixture
def bare(monkeypatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _name: None)


def test_reload_takes_watchfiles(bare) -> None:
    with pytest.raises(WorkerError, match=r"pip install 'rabbitry\[reload\]'"):
        Reloader(["worker", "run", "high"], {}, watched=[], grace_s=1.0)


def test_the_pool_gevent_takes_gevent(bare) -> None:
    assert not is_patched()
    with pytest.raises(WorkerError, match=r"worker 'high'.*pip install 'rabbitry\[gevent\]'"):
        begin_again("high")


def test_the_folders_of_the_tasks_and_the_file_are_watched() -> None:
    watched = watched_of(Topology.load(REFERENCE), REFERENCE)
    assert REFERENCE in watched
    assert [path.name for path in watched if path.is_dir()] == ["consumers"]
