"""A worker's log: text for people, or one JSON object a line for machines."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from consumers.current import current_job

TEXT, JSON = "text", "json"
# One line for each delivery of a job that ended; in text Celery's own two lines say the same.
ENDED = logging.getLogger("rabbitry.ended")
# Of a record: what a line of JSON says beside its message.
FIELDS = "rabbitry_fields"
_TRACER = "celery.app.trace"
_CELERY_S_LINES = (_TRACER, "celery.worker.strategy")
# Celery's, which takes its place when it starts.
_EARLY_FORMAT = "[%(asctime)s: %(levelname)s/%(processName)s] %(message)s"


class JsonFormatter(logging.Formatter):
    """One object a line; what is logged while a job runs names the job."""

    def format(self, record: logging.LogRecord) -> str:
        """Return a record as JSON."""
        fields: dict[str, Any] = {
            "at": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
        }
        told: Mapping[str, Any] | None = getattr(record, FIELDS, None)
        if told is not None:
            fields |= told
        elif (job := current_job()) is not None:
            fields |= {"job": job.name, "id": job.id, "attempt": job.attempt}
        if record.exc_info:
            fields["error"] = self.formatException(record.exc_info)
        fields["process"] = record.process
        return json.dumps(fields, ensure_ascii=False, default=str)


def is_news(record: logging.LogRecord) -> bool:
    """Say whether a line of Celery's tells more than ours about the same: of rejects it does not.

    How a job failed, or that it is cancelled, is logged where that is decided; Celery adds the
    traceback of the exception that it is told by.
    """
    from celery.exceptions import Reject

    from consumers.failure.failure import Failure

    exc = record.exc_info[1] if record.exc_info else None
    return not (isinstance(exc, Reject) and isinstance(exc.reason, Failure))


def set_up(*, level: str, format: str) -> None:
    """Log to stderr from now on, also in the processes that run jobs.

    Args:
        level: ``DEBUG``, ``INFO``, ``WARNING`` or ``ERROR``.
        format: ``text`` or ``json``.
    """
    handler = logging.StreamHandler(sys.stderr)
    root = logging.getLogger()
    root.setLevel(level)
    root.handlers[:] = [handler]
    logging.getLogger(_TRACER).addFilter(is_news)
    # A line for each request, also at INFO.
    logging.getLogger("httpx").setLevel(max(root.level, logging.WARNING))
    if format == TEXT:
        handler.setFormatter(logging.Formatter(_EARLY_FORMAT))
        ENDED.setLevel(logging.WARNING)
        return
    handler.setFormatter(JsonFormatter())
    logging.captureWarnings(True)
    if root.level > logging.DEBUG:
        for name in _CELERY_S_LINES:
            logging.getLogger(name).setLevel(logging.WARNING)
    # Here: who only looks after workers does without Celery.
    from celery import signals

    # It sets up no logging where somebody else does.
    signals.setup_logging.connect(_keep, weak=False)


def _keep(**_: Any) -> bool:
    return True


def log_ended(
    job: str,
    id: str,
    queue: str,
    outcome: str,
    *,
    attempt: int,
    waited_s: float | None,
    ran_s: float | None,
) -> None:
    """Log how one delivery of a job ended.

    Args:
        job: its name.
        id: of its message.
        queue: that it came from.
        outcome: as `JobObserver.ended` has it.
        attempt: 1 for the first.
        waited_s: seconds since it was published, or due, until it was here.
        ran_s: how long it ran, seconds.
    """
    if not ENDED.isEnabledFor(logging.INFO):
        return
    fields = {
        "job": job,
        "id": id,
        "attempt": attempt,
        "queue": queue,
        "outcome": outcome,
        "waited_s": None if waited_s is None else round(waited_s, 6),
        "ran_s": None if ran_s is None else round(ran_s, 6),
    }
    ENDED.info("job %s (%s) ended: %s", job, id, outcome, extra={FIELDS: fields})
