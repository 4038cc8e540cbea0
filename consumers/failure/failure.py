"""Why a job failed, as it travels from the process that ran it to the one that decides."""

from __future__ import annotations

import traceback
from dataclasses import dataclass
from typing import Any

from broker.case_file import MESSAGE_BYTES, TRACEBACK_BYTES, Reason, bounded

# Of a traceback's frames: the last ones, where it happened.
_FRAMES = 12


@dataclass(frozen=True, slots=True)
class Failure:
    """One failed attempt, or a message that is none.

    Attributes:
        reason: why, were this the end of it.
        error: qualified name of the exception's class, or "".
        message: a sentence.
        traceback: a short one, or "".
    """

    reason: Reason
    error: str = ""
    message: str = ""
    traceback: str = ""

    def __str__(self) -> str:
        return ": ".join(filter(None, (self.error.rpartition(".")[2], self.message)))

    @property
    def reply(self) -> tuple[dict[str, Any], str | None]:
        """The error and its traceback as they stand in a reply to a call."""
        module, _, name = self.error.rpartition(".")
        error = {"exc_type": name or "Failure", "exc_message": [self.message], "exc_module": module}
        return error, self.traceback or None

    @classmethod
    def of(cls, reason: Reason, exc: BaseException, *, with_traceback: bool = True) -> Failure:
        """Return the failure that an exception is.

        Args:
            reason: why.
            exc: the exception.
            with_traceback: whether where it was raised helps anybody.
        """
        text = ""
        if with_traceback and exc.__traceback__ is not None:
            text = "".join(traceback.format_exception(exc, limit=-_FRAMES)).rstrip()
        return cls(
            reason,
            f"{type(exc).__module__}.{type(exc).__qualname__}",
            bounded(_text_of(exc), MESSAGE_BYTES),
            bounded(text, TRACEBACK_BYTES),
        )


def _text_of(exc: BaseException) -> str:
    try:
        return str(exc)
    # An exception of the user's whose own __str__ fails.
    except Exception:  # noqa: BLE001
        return f"<{type(exc).__name__} that cannot be written as text>"
