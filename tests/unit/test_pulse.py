"""When a daemon counts as dead: its loop is stuck, not busy, and not without RabbitMQ."""

from __future__ import annotations

from consumers.pulse import Pulse


class Clock:
    """Seconds that pass when they are told to."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_a_loop_that_turns_lives_and_one_that_does_not_is_dead() -> None:
    clock = Clock()
    pulse = Pulse(stuck_s=30, clock=clock)
    for _ in range(10):
        clock.now += 29
        assert pulse.problem() is None
        pulse.beat()
    clock.now += 31
    assert pulse.problem() == "the loop has not turned for 31 s"
    pulse.beat()
    assert pulse.problem() is None


def test_a_loop_that_runs_a_job_lives_for_as_long_as_the_job_may_run() -> None:
    clock = Clock()
    pulse = Pulse(stuck_s=30, clock=clock)
    pulse.busy(600)
    clock.now += 629
    assert pulse.problem() is None
    clock.now += 2
    assert pulse.problem() == "a job runs for 631 s, and may run for 600 s"
    pulse.free()
    assert pulse.problem() is None


def test_a_job_without_a_limit_may_take_for_ever() -> None:
    clock = Clock()
    pulse = Pulse(clock=clock)
    pulse.busy(None)
    clock.now += 1e6
    assert pulse.problem() is None


def test_the_end_of_a_job_is_a_turn_of_the_loop() -> None:
    clock = Clock()
    pulse = Pulse(stuck_s=30, clock=clock)
    pulse.busy(None)
    clock.now += 1000
    pulse.free()
    clock.now += 29
    assert pulse.problem() is None
    clock.now += 2
    assert pulse.problem() is not None


def test_a_trouble_is_over_when_the_loop_turns_again_and_not_with_an_attempt() -> None:
    pulse = Pulse()
    pulse.trouble = "connection refused"
    pulse.beat()
    assert pulse.trouble == "connection refused"
    pulse.turned()
    assert pulse.trouble == ""
