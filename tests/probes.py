"""Asks daemons for their health, as an orchestrator and Prometheus would."""

from __future__ import annotations

import re
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Callable

from prometheus_client.parser import text_string_to_metric_families

from tests.waiting import until

# Where a daemon is to answer: at a free port, which its log names.
ANYWHERE = "127.0.0.1:0"


class Probe:
    """Asks one daemon.

    Args:
        url: where it answers.
    """

    def __init__(self, url: str) -> None:
        self.url = url

    @classmethod
    def of_log(cls, log: Callable[[], str]) -> Probe:
        """Wait until a daemon has logged where it answers."""
        found = until(
            lambda: re.search(r"health: (http://\S+)/livez", log()), 40, "the address in the log"
        )
        return cls(found[1])

    def get(self, path: str, **headers: str) -> tuple[int, str]:
        """Return code and body; 0 and the reason where nobody answers."""
        request = urllib.request.Request(f"{self.url}{path}", headers=headers)
        try:
            with urllib.request.urlopen(request, timeout=10) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as exc:
            return exc.code, exc.read().decode()
        except OSError as exc:
            return 0, str(exc)

    def code(self, path: str) -> int:
        """Return the code of an answer."""
        return self.get(path)[0]

    def until_ready(self) -> None:
        """Wait until the daemon is ready."""
        until(lambda: self.code("/readyz") == 200, timeout_s=60, what="the daemon to be ready")

    def total(self, metric: str, *by: str) -> dict[tuple[str, ...], float]:
        """Return the sums of a metric's samples that are not 0, by labels."""
        found: Counter[tuple[str, ...]] = Counter()
        for family in text_string_to_metric_families(self.get("/metrics")[1]):
            for sample in family.samples:
                if sample.name == metric:
                    found[tuple(sample.labels[label] for label in by)] += sample.value
        return {key: value for key, value in found.items() if value}

    def worker(self, metric: str, *by: str) -> dict[tuple[str, ...], float]:
        """Return a metric of a worker's."""
        return self.total(f"rabbitry_worker_{metric}", *by)
