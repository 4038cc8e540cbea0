"""Tells systemd how a daemon is: ready, stopping, alive. See sd_notify(3)."""

from __future__ import annotations

import contextlib
import os
import socket
import threading
from collections.abc import Callable, Mapping

_VARIABLES = ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID")


class Notifier:
    """Speaks to the socket that systemd has named; does nothing where it has named none.

    Args:
        environ: of the process.
        pid: of the process.
    """

    def __init__(self, environ: Mapping[str, str] = os.environ, *, pid: int | None = None) -> None:
        address = environ.get("NOTIFY_SOCKET", "")
        # An abstract socket's name begins with a zero byte, for which systemd writes @.
        self._address = "\0" + address[1:] if address.startswith("@") else address
        asked_us, of = environ.get("WATCHDOG_USEC", ""), environ.get("WATCHDOG_PID", "")
        ours = not of or of == str(os.getpid() if pid is None else pid)
        self.watchdog_s = int(asked_us) / 1e6 if asked_us.isdigit() and ours else None

    def tell(self, **state: str | int) -> None:
        """Tell it a state, such as ``READY=1``; a systemd that does not listen is no trouble."""
        if not self._address:
            return
        text = "\n".join(f"{name}={value}" for name, value in state.items())
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
            sock.setblocking(False)
            sock.sendto(text.encode(), self._address)

    def watch(self, is_alive: Callable[[], bool]) -> None:
        """Say from now on that the process is alive, twice in the time that systemd gives it.

        Args:
            is_alive: asked each time; where it is not, nothing is said, and systemd restarts it.
        """
        watchdog_s = self.watchdog_s
        if not self._address or watchdog_s is None:
            return
        ended = threading.Event()

        def run() -> None:
            while not ended.wait(watchdog_s / 2):
                if is_alive():
                    self.tell(WATCHDOG=1)

        threading.Thread(target=run, name="rabbitry-watchdog", daemon=True).start()


def without_systemd(environ: Mapping[str, str]) -> dict[str, str]:
    """Return an environment for processes that systemd did not ask to tell it anything."""
    return {name: value for name, value in environ.items() if name not in _VARIABLES}
