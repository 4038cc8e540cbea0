"""Whether a daemon's loop turns, as it says itself; read by the thread that answers probes."""

from __future__ import annotations

import time
from collections.abc import Callable

# Between two turns of the loop there may be so much: longer, and the daemon is stuck for good.
# A probe that fails has the daemon restarted, so that this is generous.
STUCK_S = 30.0
# The loop is made to turn so often, jobs or not.
BEAT_S = 1.0


class Pulse:
    """What the loop tells of itself; it writes, others read.

    Args:
        stuck_s: seconds without a turn after which it is taken for dead.
        clock: seconds, monotonic.

    Attributes:
        trouble: why RabbitMQ could not be used when it was last tried, or "".
    """

    def __init__(
        self, *, stuck_s: float = STUCK_S, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.trouble = ""
        self._stuck_s = stuck_s
        self._clock = clock
        self._turned_at = clock()
        self._busy: tuple[float, float | None] | None = None

    def turned(self) -> None:
        """Note a turn of the loop that consumes: all is well with RabbitMQ."""
        self.trouble = ""
        self.beat()

    def beat(self) -> None:
        """Note a sign of life, such as an attempt to connect."""
        self._turned_at = self._clock()

    def busy(self, limit_s: float | None) -> None:
        """Note that the loop itself runs a job from now on, and turns again after it.

        Args:
            limit_s: how long that may last, seconds; None for as long as it likes.
        """
        self._busy = (self._clock(), limit_s)

    def free(self) -> None:
        """Note that the job is over."""
        self.beat()
        self._busy = None

    def problem(self) -> str | None:
        """Return why the loop is taken for dead, or None while it is not."""
        busy, turned_at, now = self._busy, self._turned_at, self._clock()
        if busy is not None:
            began_at, limit_s = busy
            if limit_s is None or now - began_at <= limit_s + self._stuck_s:
                return None
            return f"a job runs for {now - began_at:.0f} s, and may run for {limit_s:g} s"
        if now - turned_at <= self._stuck_s:
            return None
        return f"the loop has not turned for {now - turned_at:.0f} s"
