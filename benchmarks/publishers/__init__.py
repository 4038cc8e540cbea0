"""The publishers that are measured, each a process of its own.

``python -m benchmarks.publishers NAME`` reads an `Order` from standard input, does it, and prints
what it took. `published` starts that; other questions fill their queues and measure their
publishers with it, too. Each does what its library's documentation advises for many messages, with
the settings that it comes with. All messages are persistent. Connecting is not measured.
"""

from __future__ import annotations

from benchmarks.publishers.order import SIZE_BYTES, Order, Taken
from benchmarks.publishers.start import C, needs, published

__all__ = ["SIZE_BYTES", "C", "Order", "Taken", "needs", "published"]
