"""Each message of a batch is counted by itself, as it ends."""

from __future__ import annotations

import pytest

from broker.topology import Topology
from producers.publisher import Publisher
from tests.end_to_end.test_worker_health import RUN, with_pools
from tests.probes import ANYWHERE, Probe
from tests.waiting import until

TASKS = """
from consumers.job import GiveUp, TryAgain, current_jobs, job

@job("test.batch", batch=20, wait="200ms")
def batch(kind: list[str]) -> list[object]:
    return [end(each, job.attempt) for each, job in zip(kind, current_jobs(), strict=True)]

def end(kind, attempt):
    if kind == "hopeless":
        return GiveUp("not ever")
    if kind == "again" and attempt == 1:
        return TryAgain("not now")
    return kind
"""
JOB = '  test.batch: {task: "many:batch", exchange: jobs, routing_key: normal.batch}\n'


@pytest.mark.parametrize("name", ["normal", "threaded"])
def test_the_metrics_of_batches_add_up(provisioned, start, tmp_path, name) -> None:
    (tmp_path / "many.py").write_text(TASKS)
    with_pools(provisioned)
    head, workers, tail = provisioned.path.read_text().partition("workers:")
    provisioned.path.write_text(head.rstrip() + "\n" + JOB + workers + tail)
    daemon = start(*RUN, name, "--health", ANYWHERE)
    probe = Probe.of_log(lambda: daemon.log)
    probe.until_ready()
    kinds = ["fine"] * 40 + ["again"] * 7 + ["hopeless"] * 3
    with Publisher(Topology.load(provisioned.path), provisioned.url) as publisher:
        list(publisher.publish_many(("test.batch", (), {"kind": kind}) for kind in kinds))

    def outcomes() -> dict[tuple[str, ...], float]:
        return probe.worker("jobs_total", "job_name", "outcome")

    until(lambda: outcomes().get(("test.batch", "done")) == 47, timeout_s=30, what="the batches")
    until(
        lambda: probe.worker("dead_letters_total") == {(): 3}, timeout_s=30, what="the dead letters"
    )
    assert outcomes() == {
        ("test.batch", "done"): 47,
        ("test.batch", "retried"): 7,
        ("test.batch", "dead"): 3,
    }
    assert probe.worker("received_total") == {(): 57}
    assert probe.worker("wait_seconds_count") == {(): 50}
    assert probe.worker("run_seconds_count") == {(): 57}
    assert probe.worker("in_flight") == probe.worker("running") == {}
