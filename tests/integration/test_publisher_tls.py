"""Publishing over TLS, where the socket gives and takes records and not bytes."""

from __future__ import annotations

import shutil
import socket
import ssl
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from broker.contracts import Job
from broker.receipt import Routed
from producers.publisher import Publisher
from tests.integration.conftest import Provisioned
from tests.provision import ready_in


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make a key and a certificate for 127.0.0.1, in one file."""
    openssl = shutil.which("openssl")
    assert openssl, "openssl makes the certificate of this test"
    path = tmp_path_factory.mktemp("tls") / "server.pem"
    key = path.with_suffix(".key")
    subprocess.run(
        [
            *(openssl, "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"),
            *("-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1"),
            *("-keyout", str(key), "-out", str(path)),
        ],
        check=True,
        capture_output=True,
    )
    path.write_text(path.read_text() + key.read_text())
    return path


@pytest.fixture
def tls_port(certificate: Path, provisioned: Provisioned) -> Iterator[int]:
    """Take TLS connections and pass what they say on to RabbitMQ."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    with socket.create_server(("127.0.0.1", 0)) as listening:
        threading.Thread(
            target=serve, args=(listening, context, provisioned.address), daemon=True
        ).start()
        yield listening.getsockname()[1]


def serve(listening: socket.socket, context: ssl.SSLContext, address: object) -> None:
    while True:
        try:
            plain, _ = listening.accept()
        except OSError:
            return
        near = context.wrap_socket(plain, server_side=True)
        far = socket.create_connection((address.host, address.port))  # type: ignore[attr-defined]
        for one, other in ((near, far), (far, near)):
            threading.Thread(target=pass_on, args=(one, other), daemon=True).start()


def pass_on(one: socket.socket, other: socket.socket) -> None:
    try:
        while data := one.recv(65536):
            other.sendall(data)
        other.shutdown(socket.SHUT_RDWR)
    except OSError:
        return
    finally:
        one.close()


def test_small_and_large_jobs_arrive_over_tls(
    provisioned: Provisioned, certificate: Path, tls_port: int
) -> None:
    address = provisioned.address
    url = (
        f"amqps://{address.user}:{address.password}@127.0.0.1:{tls_port}/{address.vhost_name}"
        f"?cacertfile={certificate}"
    )
    large = np.arange(500_000, dtype=np.float64)
    jobs = [Job("demo.echo", (number,)) for number in range(3000)]
    jobs[1000] = jobs[2000] = Job("demo.echo", (large,))
    with Publisher(provisioned.topology, url) as publisher:
        publisher.publish("demo.echo").wait()
        outcomes = [receipt.outcome for receipt in publisher.publish_many(jobs)]
        # Alone, and after a pause: nothing of it waits in a buffer.
        publisher.publish("demo.echo", large).wait(20)
    assert all(isinstance(outcome, Routed) for outcome in outcomes)
    assert ready_in(address, "jobs.normal") == 3002
