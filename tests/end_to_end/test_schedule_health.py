"""A scheduler answers probes and Prometheus, whether it leads or waits."""

from __future__ import annotations

import json
import signal

from tests.end_to_end.schedulers import Schedulers
from tests.end_to_end.test_schedule import schedulers
from tests.probes import ANYWHERE, Probe
from tests.waiting import until

__all__ = ["schedulers"]


def test_the_one_that_leads_and_the_next_one_are_ready(schedulers: Schedulers) -> None:
    schedulers.env["RABBITRY_HEALTH"] = ANYWHERE
    schedulers.start(2)
    schedulers.wait_all()
    leader = schedulers.leader()
    (other,) = [each for each in schedulers.processes if each is not leader]
    leading = Probe.of_log(lambda: schedulers.log(leader))
    waiting = Probe.of_log(lambda: schedulers.log(other))
    for probe, state in ((leading, "leading"), (waiting, "waiting")):
        until(
            lambda probe=probe, state=state: json.loads(probe.get("/readyz")[1])["state"] == state,
            timeout_s=20,
            what=f"one that is {state}",
        )
        assert probe.code("/readyz") == probe.code("/livez") == 200
    schedulers.wait_ticks(2)
    ticks = leading.total("rabbitry_schedule_ticks_total", "schedule", "outcome")
    assert list(ticks) == [("second", "routed")]
    assert ticks["second", "routed"] >= 2
    assert leading.total("rabbitry_schedule_late_seconds_count")[()] >= 2
    assert leading.total("rabbitry_schedule_leads") == {(): 1}
    assert waiting.total("rabbitry_schedule_leads") == {}
    leader.send_signal(signal.SIGTERM)
    assert leader.wait(20) == 0
    until(
        lambda: waiting.total("rabbitry_schedule_leads") == {(): 1},
        timeout_s=20,
        what="the other one to lead",
    )
    assert waiting.total("rabbitry_schedule_terms_total") == {(): 1}
