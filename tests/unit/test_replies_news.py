"""Progress is told as seldom as people look, its last always, partial results without exception."""

from __future__ import annotations

import copy
import json
import pickle
from collections.abc import Callable
from dataclasses import asdict, fields
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from broker.errors import InvalidInput
from broker.message import CALL, DEADLINE
from broker.reply import ACCEPTED, PROGRESS, progress_of
from consumers.current import CurrentJob, job_of
from consumers.replies_news import News, Sending


class Line:
    """Notes what is told; its clock and its timers are set by hand."""

    def __init__(self, *, interval_s: float = 1.0) -> None:
        self.now = 100.0
        self.told: list[Any] = []
        self.timers: list[tuple[float, Callable[[], None]]] = []
        self.receipt = SimpleNamespace(done=True)
        sending: Any = Sending(self._tell, lambda when, work: self.timers.append((when, work)))
        self.news = News(sending, interval_s=interval_s, clock=lambda: self.now)
        request = SimpleNamespace(id="1", delivery_info={}, get={CALL: True}.get)
        self.job = job_of("test.job", request, news=self.news)

    def _tell(self, state: str, value: Any) -> Any:
        assert state == PROGRESS or value is None
        self.told.append(state if value is None else value["fraction"] or value["partial"])
        return self.receipt

    def at(self, now: float) -> None:
        self.now = now
        due = [each for each in self.timers if each[0] <= now]
        self.timers = [each for each in self.timers if each[0] > now]
        for _, work in due:
            work()


def test_the_first_is_told_at_once_and_the_latest_when_its_time_has_come() -> None:
    line = Line()
    line.news.accepted()
    for fraction in (0.1, 0.2, 0.3):
        line.job.progress(fraction)
    assert line.told == [ACCEPTED, 0.1]
    line.at(100.5)
    assert line.told == [ACCEPTED, 0.1]
    line.at(101)
    assert line.told == [ACCEPTED, 0.1, 0.3]
    line.at(110)
    assert line.told == [ACCEPTED, 0.1, 0.3]
    line.job.progress(0.4)
    assert line.told == [ACCEPTED, 0.1, 0.3, 0.4]


def test_a_busy_task_sends_no_more_than_there_is_time_for() -> None:
    line = Line(interval_s=0.05)
    for step in range(1, 10_001):
        line.at(100 + step / 1000)
        line.job.progress(step / 10_000)
    line.news.close()
    assert 150 <= len(line.told) <= 202
    assert line.told[-1] == 1.0
    assert line.told == sorted(line.told)


def test_the_last_is_told_before_the_result_and_nothing_after_it() -> None:
    line = Line()
    line.job.progress(0.1)
    line.job.progress(0.9)
    line.news.close()
    assert line.told == [0.1, 0.9]
    line.job.progress(0.95)
    line.at(200)
    assert line.told == [0.1, 0.9]


def test_partial_results_are_never_left_out_and_keep_their_place() -> None:
    line = Line()
    line.job.progress(0.1)
    line.job.progress(0.2)
    for part in ("a", "b", "c"):
        line.job.progress(partial=part)
    line.job.progress(0.3)
    line.news.close()
    assert line.told == [0.1, 0.2, "a", "b", "c", 0.3]


def test_while_rabbitmq_takes_nothing_progress_waits_and_does_not_pile_up() -> None:
    line = Line()
    line.receipt.done = False
    line.job.progress(0.1)
    for second in range(101, 150):
        line.job.progress(second / 1000)
        line.at(second)
        assert len(line.timers) <= 1
    assert line.told == [0.1]
    line.receipt.done = True
    line.at(151)
    assert line.told == [0.1, 0.149]


def test_progress_that_makes_no_sense_is_refused_also_where_nobody_listens() -> None:
    job = job_of("test.job", SimpleNamespace(id="1", delivery_info={}, get={DEADLINE: None}.get))
    assert isinstance(job, CurrentJob)
    job.progress(0.5, text="half", partial=[1])
    for fraction in (-0.1, 1.01, float("nan"), "much"):
        with pytest.raises(InvalidInput, match="fraction"):
            job.progress(fraction)
    with pytest.raises(InvalidInput, match="text"):
        job.progress(text=3)


def test_a_job_that_tells_is_a_value_like_any_other() -> None:
    job = Line().job
    assert asdict(job).keys() == {each.name for each in fields(CurrentJob)}
    assert json.loads(json.dumps(asdict(job)))["id"] == "1"
    assert copy.deepcopy(job) == job
    assert pickle.loads(pickle.dumps(job)) == job


def test_progress_may_be_a_number_of_numpys() -> None:
    value = progress_of(np.float32(0.5), None, None)
    assert type(value["fraction"]) is float
    assert value == {"fraction": 0.5, "text": None, "partial": None}
