"""The web applications in examples/, as one command each, asked by a real HTTP client."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from broker.connection import Address
from broker.management import Management
from tests.end_to_end.websites import CO2, ROOT, SUNSPOTS, Site
from tests.rabbitmq import RabbitMQ

from web import lowess, requests  # isort: skip


COMMANDS = {"wsgi": ["examples/wsgi/app.py"], "django": ["examples/django/manage.py", "serve"]}
START_TIMEOUT_S = 60
STOP_TIMEOUT_S = 30
MARK = "RABBITRY_EXAMPLE_TEST"
# Minutes, for what does not run to its end.
ENDLESS = {"resamples": 5000, "passes": 10, "window": 301}


@pytest.fixture(scope="module")
def web_vhost(rabbitmq: RabbitMQ) -> Iterator[str]:
    """A virtual host that the tests of this module share."""
    name = f"ex-{uuid.uuid4().hex[:12]}"
    yield name
    with Management(rabbitmq.address()) as management:
        management.delete("vhosts", name)
        for each in management.get("global-parameters"):
            value = each["value"]
            if isinstance(value, dict) and value.get("vhost") == name:
                management.delete("global-parameters", each["name"])


@pytest.fixture(scope="module", params=COMMANDS)
def site(
    request: pytest.FixtureRequest,
    rabbitmq: RabbitMQ,
    web_vhost: str,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Site]:
    """An example, started by its one command; Ctrl-C ends it and all that it started."""
    log = tmp_path_factory.mktemp(request.param) / "stderr"
    value = uuid.uuid4().hex
    with log.open("w") as stderr:
        process = subprocess.Popen(
            [sys.executable, *COMMANDS[request.param], "--port", "0"],
            cwd=ROOT,
            env={
                **os.environ,
                MARK: value,
                "RABBITRY_URL": rabbitmq.url(web_vhost),
                "RABBITRY_MANAGEMENT_URL": rabbitmq.management_url,
            },
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=stderr,
            text=True,
            start_new_session=True,
        )
    try:
        assert process.stdout is not None
        address = process.stdout.readline().strip()  # ends with the process, at the latest
        assert address, log.read_text()
        with httpx.Client(base_url=address, timeout=START_TIMEOUT_S, trust_env=False) as client:
            yield Site(client, process)
        process.send_signal(signal.SIGINT)
        assert process.wait(STOP_TIMEOUT_S) == 130, log.read_text()
        assert "Traceback" not in log.read_text()
        assert running(value) == []
        assert reply_queues(rabbitmq.address(web_vhost)) == []
    finally:
        for pid in running(value):  # only where a test has failed
            os.kill(pid, signal.SIGKILL)
        process.wait()
        process.stdout.close()


def reply_queues(address: Address) -> list[str]:
    """Return the queues of callers that have not deleted theirs."""
    with Management(address) as management:
        queues = management.get("queues", address.vhost_name)
    return [each["name"] for each in queues if each["name"].startswith("rabbitry.reply.")]


def running(value: str) -> list[int]:
    """Return what runs with the mark of an example."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if f"{MARK}={value}".encode() in (folder / "environ").read_bytes().split(b"\0"):
                found.append(int(folder.name))
        except OSError:
            continue  # it has ended, or is not ours to look at
    return found


def plain_lowess(series: np.ndarray, window: int, passes: int) -> np.ndarray:
    """Robust local regression by numpy's polyfit, one place after the other."""
    there = np.flatnonzero(np.isfinite(series))
    values, robust, curve = series[there], np.ones(len(there)), np.empty(len(series))
    for _ in range(passes + 1):
        for place in range(len(series)):
            away = np.abs(there - place)
            near = np.sort(np.argsort(away, kind="stable")[:window])
            tricube = (1 - (away[near] / (away[near].max() * 1.001)) ** 3) ** 3
            weights = np.sqrt(tricube * robust[near])
            curve[place] = np.polyfit(there[near] - place, values[near], 1, w=weights)[1]
        off = np.abs(values - curve[there])
        robust = np.square(1 - np.square(np.clip(off / (6 * np.median(off)), 0, 1)))
    return curve


def test_the_page_and_its_data_come_from_one_place(site):
    page = site.client.get("")
    assert page.status_code == 200
    assert "EventSource" in page.text
    assert "//" not in page.text.replace("http://www.w3.org/2000/svg", "").replace("// ", "")
    assert site.client.get("data/co2.csv").content == CO2
    assert site.client.get("data/../README.md").status_code == 404


def test_an_answer_comes_at_once_and_the_result_is_numpys_own(site):
    seconds = 1.0
    for _ in range(20):  # the first makes the connection; others use the machine too
        began = time.monotonic()
        id = site.submit(SUNSPOTS, window=11, resamples=20)
        seconds = min(seconds, time.monotonic() - began)
        if seconds < 0.1:
            break
    assert seconds < 0.1
    result = site.result(id)
    series = requests.read_column(SUNSPOTS, "SUNACTIVITY")
    np.testing.assert_allclose(result["smoothed"], plain_lowess(series, 11, 2), atol=1e-9)
    own = lowess.curve_with_band(series, window=11, passes=2, resamples=20)
    for name in ("smoothed", "low", "high"):
        assert result[name] == own[name].tolist()
    assert result["ran_s"] >= 0


def test_events_come_one_by_one_while_the_job_runs(site):
    id = site.submit(SUNSPOTS, **ENDLESS)
    with site.events(id) as events:
        heard = []
        while [kind for _, kind, _ in heard].count("progress") < 3:
            heard.append(next(events))
        # Nothing was held back: there are minutes of it to come.
        assert site.client.get(f"jobs/{id}").json()["state"] == "running"
        site.client.delete(f"jobs/{id}")
    assert heard[0][:2] == (1, "accepted")
    fractions = [data["fraction"] for _, kind, data in heard if kind == "progress"]
    assert fractions == sorted(set(fractions))
    assert fractions[-1] < 1


def test_events_come_in_order_to_the_result(site):
    id = site.submit(SUNSPOTS, resamples=40)
    with site.events(id) as events:
        heard = list(events)
    numbers, kinds, data = zip(*heard, strict=True)
    assert list(numbers) == sorted(set(numbers))
    assert kinds[0] == "accepted"
    assert set(kinds[1:-1]) == {"partial", "progress"}
    assert kinds[-2:] == ("progress", "result")
    assert data[-2]["fraction"] == 1
    assert all(
        each.keys() <= {"smoothed", "low", "high"}
        for kind, each in zip(kinds, data, strict=True)
        if kind == "partial"
    )
    assert site.client.get(f"jobs/{id}").json() == {"id": id, "state": "done", "fraction": 1}
    assert site.result(id) == data[-1]  # for whoever asks again
    with site.events(id, after=numbers[-1]) as events:
        assert list(events) == []


def test_two_clients_at_once_get_each_its_own(site):
    def ask(csv: bytes) -> dict[str, Any]:
        return site.result(site.submit(csv, resamples=100))

    with ThreadPoolExecutor(2) as both:
        co2, sunspots = both.map(ask, (CO2, SUNSPOTS))
    for result, csv in ((co2, CO2), (sunspots, SUNSPOTS)):
        own = lowess.curve_with_band(
            requests.read_column(csv, None), window=53, passes=2, resamples=100
        )
        assert result["high"] == own["high"].tolist()


def test_who_leaves_does_not_cancel_and_comes_back_to_what_is_new(site):
    id = site.submit(SUNSPOTS, **ENDLESS)
    with site.events(id) as events:
        last = next(number for number, kind, _ in events if kind == "progress")
    with site.events(id, after=last) as events:
        number, kind, _ = next(events)
        assert number > last
        assert kind in ("progress", "partial")
        assert site.client.get(f"jobs/{id}").json()["state"] == "running"
        site.client.delete(f"jobs/{id}")


def test_who_gives_up_hears_so_and_the_worker_is_free_again(site):
    ids = [site.submit(SUNSPOTS, **ENDLESS) for _ in range(2)]
    for id in ids:
        with site.events(id) as events:
            next(event for event in events if event[1] == "progress")
            assert site.client.delete(f"jobs/{id}").json() == {"id": id, "given_up": True}
            *_, (_, kind, data) = events
        assert kind == "error"
        assert data["error"] == "Cancelled"
        assert site.client.delete(f"jobs/{id}").json()["given_up"] is False
    # Both of the worker's slots were taken, for minutes.
    assert site.result(site.submit(SUNSPOTS, resamples=1))["waited_s"] < 15


BAD = [
    (b"", {}, 400, "Content-Length|CSV"),
    (b"\xff\xfe\x00binary", {}, 400, "not a CSV file in UTF-8"),
    (b"no rows here", {}, 400, "header and rows"),
    (b'a,"b\n1,2\n', {}, 400, "not a CSV file"),
    (b"a,b\n1,2\n3\n", {}, 400, "row 3 has 1 fields"),
    (b"a,b\n1,2\n3,x\n", {}, 400, "row 3: 'x' in column 'b' is not a number"),
    (b"a\n1\n\nnan\n", {}, 400, "at least 3"),
    (SUNSPOTS, {"column": "FLUX"}, 400, "no column 'FLUX'; there are YEAR, SUNACTIVITY"),
    (SUNSPOTS, {"window": "2"}, 400, "window is a whole number from 3 to 301"),
    (SUNSPOTS, {"resamples": "1e9"}, 400, "resamples is a whole number"),
    (SUNSPOTS, {"windoww": "3"}, 400, "no setting 'windoww'"),
    (b"a\n1\n2\n3\n", {"window": "5"}, 400, "more than the column's 3 numbers"),
    (b"a\n" + b"1\n" * 10_001, {}, 413, "at most 10,000"),
    (b"a\n" + b"1\n" * 2_000_000, {}, 413, "at most 524,288"),
]


@pytest.mark.parametrize(("body", "settings", "status", "words"), BAD)
def test_bad_input_is_a_sentence(site, body, settings, status, words):
    answer = site.client.post("jobs", content=body, params=settings)
    assert answer.status_code == status
    assert pytest.approx(1) == len(answer.json()["message"].splitlines())
    assert any(word in answer.json()["message"] for word in words.split("|"))


def test_what_is_not_there_is_404(site):
    for method, path in (("GET", "jobs/x"), ("GET", "jobs/x/events"), ("DELETE", "jobs/x")):
        answer = site.client.request(method, path)
        assert answer.status_code == 404
        assert "this process has no job 'x'" in answer.json()["message"]
    assert site.client.get("nothing").status_code == 404
