"""The how-to on health as it stands: its commands, its file, and the metrics that it names."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from broker.management import Management
from broker.topology import Topology
from consumers.metrics import JobMetrics, registry_of
from consumers.presence import presences_in
from consumers.schedule.metrics import ScheduleMetrics
from tests.docs import ROOT, blocks, commands
from tests.end_to_end.test_worker_health import free_port
from tests.probes import Probe
from tests.provision import topology_of
from tests.waiting import until

PAGE = Path("docs/how-to/health.md")
PORT = "9808"


def exposed() -> dict[str, set[str]]:
    """Return the names of all metrics, each with its labels."""
    worker = JobMetrics(
        info={"worker": "w", "pool": "p", "version": "v"}, slots=1, consuming=lambda: {"q": True}
    )
    worker.received("j", "q", waited_s=1.0, redelivered=False)
    worker.began("j", "q")
    worker.ended("j", "q", "done", ran_s=1.0)
    worker.dead_lettered("q", "limit")
    registry = CollectorRegistry()
    scheduler = ScheduleMetrics(registry)
    scheduler.ticked("s", "routed", 0.1)
    scheduler.skipped("s", 1)
    found: dict[str, set[str]] = {}
    for each in (registry_of(worker), registry):
        for family in text_string_to_metric_families(generate_latest(each).decode()):
            suffix = {"counter": "_total"}.get(family.type, "")
            name = family.name + suffix
            labels = {label for sample in family.samples for label in sample.labels} - {"le"}
            # When a counter began: the library adds it by itself.
            if name.startswith("rabbitry_") and not name.endswith("_created"):
                found[name] = labels
    return found


def test_the_tables_name_all_metrics_with_their_labels_and_no_others() -> None:
    rows = re.findall(r"^\| `(rabbitry_\w+)(?:\{([\w,]+)\})?` \|", (ROOT / PAGE).read_text(), re.M)
    told = {name: set(labels.split(",")) if labels else set() for name, labels in rows}
    assert told == exposed()


def test_the_queries_name_metrics_that_there_are() -> None:
    (section,) = re.findall(r"^## Worth a look.*", (ROOT / PAGE).read_text(), re.M | re.S)
    named = set(re.findall(r"rabbitry_\w+", section))
    assert len(named) >= 8
    assert {name.removesuffix("_bucket") for name in named} <= set(exposed())


def test_the_files_key_is_read(tmp_path) -> None:
    first, _ = blocks(PAGE, "yaml")
    _, path = topology_of(tmp_path)
    path.write_text(path.read_text().partition("workers:")[0] + first)
    assert Topology.load(path).workers["normal"].health == f"127.0.0.1:{PORT}"


def test_the_commands_work_as_they_stand(provisioned, start, env, tmp_path) -> None:
    port = str(free_port())
    run, *others = [command.replace(PORT, port) for command in commands(PAGE)]
    assert run.endswith(" &")
    start(*run.removesuffix(" &").split())
    Probe(f"http://127.0.0.1:{port}").until_ready()
    with Management(provisioned.address) as management:
        # Its statistics are a moment behind, and may tell of another of its consumers before.
        queues = provisioned.topology.workers["normal"].queues
        until(lambda: presences_in(management, queues), timeout_s=30, what="RabbitMQ to list it")
    printed = {}
    for command in others:
        done = subprocess.run(
            ["bash", "-ec", command],
            env={**env, "RABBITRY_TOPOLOGY": str(provisioned.path)},
            cwd=tmp_path,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert done.returncode == 0, f"{command}: {done.stderr}"
        printed[command.replace(port, PORT)] = done.stdout
    assert len(printed) == 6
    example = json.loads(blocks(PAGE, "json")[0])
    ready = json.loads(printed["curl --silent --fail http://127.0.0.1:9808/readyz"])
    assert (ready.keys(), ready["queues"].keys()) == (example.keys(), example["queues"].keys())
    assert "normal" in printed["rabbitry worker list"]
