"""The RabbitMQ of a test run: the one that is named, one in a container, or a private node."""

from __future__ import annotations

import contextlib
import os
import secrets
import socket
import warnings
from dataclasses import dataclass, field
from pathlib import Path

from broker.connection import Address
from broker.errors import RabbitryError
from broker.local.engine import images_of
from broker.local.state import NEWEST, SERIES, Home, Series, WayName, private_folder
from broker.local.way import Say
from broker.management import Management, version_key

URL_VARIABLE = "RABBITRY_TEST_URL"
MANAGEMENT_URL_VARIABLE = "RABBITRY_TEST_MANAGEMENT_URL"
# Which RabbitMQ to run against; the newest where it is not set.
SERIES_VARIABLE = "RABBITRY_TEST_SERIES"

AMQP_PORT, MANAGEMENT_PORT = 5672, 15672
ENGINE_TIMEOUT_S = 20
# So often what is started here tells management of its queues and connections. By default it is
# every 5 s, and whoever waits for a count waits for as long.
TELLS_MS = 1000
HERE: tuple[WayName, ...] = ("path", "debian")
_TELLS = ("collect_statistics_interval", "quorum_tick_interval")


class NoRabbitMQ(Exception):
    """No RabbitMQ for the tests; the text says what was tried."""


@dataclass(frozen=True)
class RabbitMQ:
    """A RabbitMQ that the tests may use as administrator.

    Attributes:
        management_url: base of its management API.
        version: as it tells itself, such as ``4.3.6``.
        way: how it was come by, for the head of the report.
    """

    management_url: str
    version: str
    way: str
    base_url: str = field(repr=False)

    def address(self, vhost: str | None = None) -> Address:
        """Return its address, in a virtual host where one is named."""
        address = Address.parse(self.base_url, management_url=self.management_url)
        return address if vhost is None else address.with_vhost(vhost)

    def knows(self, since: str) -> bool:
        """Say whether it is of a version or newer: what it lacks, tests ask for otherwise."""
        return version_key(self.version) >= version_key(since)

    def url(self, vhost: str | None = None) -> str:
        """Return its AMQP URL, password included."""
        return self.address(vhost).url


def find(home: Home, ending: contextlib.ExitStack, say: Say) -> RabbitMQ:
    """Find or start a RabbitMQ.

    Args:
        home: where a private node of this run may live.
        ending: what ends at the end of the run whatever was started here.
        say: told what takes its time.

    Raises:
        NoRabbitMQ: there is none, or the one that is named does not answer.
    """
    series = _series()
    named = os.environ.get(URL_VARIABLE)
    if named:
        try:
            address = Address.parse(named, management_url=os.environ.get(MANAGEMENT_URL_VARIABLE))
            return checked(_described(address, URL_VARIABLE), series)
        except RabbitryError as exc:
            raise NoRabbitMQ(f"{URL_VARIABLE} names a RabbitMQ that cannot be used: {exc}") from exc
    try:
        return _in_container(ending, series or NEWEST)
    except NoRabbitMQ as exc:
        no_container = exc
    try:
        return checked(_private(home, ending, say, series), series)
    except RabbitryError as exc:
        raise NoRabbitMQ(
            f"no RabbitMQ{f' {series}' if series else ''} for the tests: {no_container}, and a"
            f" private one did not start: {exc}; set {URL_VARIABLE}"
        ) from exc


def is_asked_for() -> bool:
    """Say whether tests that need a RabbitMQ must not be skipped where there is none."""
    return any(os.environ.get(name) for name in ("CI", URL_VARIABLE, SERIES_VARIABLE))


def _series() -> Series | None:
    asked = os.environ.get(SERIES_VARIABLE)
    if not asked:
        return None
    for series in SERIES:
        if series == asked:
            return series
    raise NoRabbitMQ(f"{SERIES_VARIABLE} is {asked!r}; there are: {', '.join(SERIES)}")


def checked(found: RabbitMQ, series: Series | None) -> RabbitMQ:
    """Return a RabbitMQ of the series that is asked for. Raises NoRabbitMQ for another one."""
    if series is not None and not found.version.startswith(f"{series}."):
        raise NoRabbitMQ(f"{SERIES_VARIABLE} is {series}, and {found.way} is {found.version}")
    return found


def _described(address: Address, way: str) -> RabbitMQ:
    with Management(address) as management:
        version = management.get("overview")["rabbitmq_version"]
    return RabbitMQ(
        management_url=address.management_url, version=version, way=way, base_url=address.url
    )


def _in_container(ending: contextlib.ExitStack, series: Series) -> RabbitMQ:
    """Start a container by testcontainers."""
    import docker
    from docker.errors import DockerException

    _try_socket(os.environ.get("DOCKER_HOST") or "unix:///var/run/docker.sock")
    try:
        with contextlib.closing(docker.from_env(timeout=ENGINE_TIMEOUT_S)) as engine:
            engine.ping()
            image = _local_image(engine, images_of(series))
    except (DockerException, OSError):
        raise NoRabbitMQ("no container engine answers") from None
    # Read when testcontainers is imported. The container is ended below, so no second image
    # need watch over it.
    os.environ.setdefault("TESTCONTAINERS_RYUK_DISABLED", "true")
    if os.environ.get("DOCKER_HOST", "unix:").startswith("unix:"):
        # It takes the address of the engine's bridge otherwise, which is not loopback.
        os.environ.setdefault("TESTCONTAINERS_CONNECTION_MODE", "docker_host")
        os.environ.setdefault("TESTCONTAINERS_HOST_OVERRIDE", "127.0.0.1")
    with warnings.catch_warnings():
        # Its RabbitMQ module still uses what its core has deprecated.
        warnings.filterwarnings(
            "ignore", "The @wait_container_is_ready decorator", DeprecationWarning
        )
        from testcontainers.community.rabbitmq import RabbitMqContainer

    # `guest` is let in from inside the container only.
    user, password = "tests", secrets.token_urlsafe(16)
    container = RabbitMqContainer(image, AMQP_PORT, user, password, "/")
    container.with_exposed_ports(AMQP_PORT, MANAGEMENT_PORT)
    arguments = " ".join(f"-rabbit {name} {TELLS_MS}" for name in _TELLS)
    container.with_env("RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS", arguments)
    ending.callback(container.stop)
    container.start()
    host = container.get_container_host_ip()
    address = Address.parse(
        f"amqp://{user}:{password}@{host}:{container.get_exposed_port(AMQP_PORT)}/",
        management_url=f"http://{host}:{container.get_exposed_port(MANAGEMENT_PORT)}",
    )
    # AMQP answers a moment before management does.
    return _described_once_ready(address, f"testcontainers, {image}")


def _try_socket(host: str) -> None:
    """Connect to the engine's socket; the client would leave its own open where nobody answers."""
    if not host.startswith("unix:"):
        return
    with contextlib.closing(socket.socket(socket.AF_UNIX)) as probe:
        try:
            probe.connect(host.removeprefix("unix:").removeprefix("//"))
        except OSError:
            raise NoRabbitMQ("no container engine answers") from None


def _described_once_ready(address: Address, way: str) -> RabbitMQ:
    from tests.waiting import until

    failure: list[RabbitryError] = []

    def described() -> RabbitMQ | None:
        try:
            return _described(address, way)
        except RabbitryError as exc:
            failure[:] = [exc]
            return None

    found = until(described, timeout_s=60, what=f"management; {failure}")
    assert found is not None
    return found


def _local_image(engine, images: list[str]) -> str:
    """Return the first image the engine has, else what it can pull."""
    from docker.errors import APIError, ImageNotFound

    for image in images:
        with contextlib.suppress(ImageNotFound):
            engine.images.get(image)
            return image
    try:
        engine.images.pull(images[-1])
    except (APIError, OSError):
        raise NoRabbitMQ(
            f"the container engine has neither {' nor '.join(images)} and cannot pull the latter"
        ) from None
    return images[-1]


def _private(home: Home, ending: contextlib.ExitStack, say: Say, series: Series | None) -> RabbitMQ:
    """Start a private node in a home of its own."""
    from broker import local

    ending.callback(local.down, home, purge=True)
    let_tell_soon(home, series)
    state = local.up(home, series=series, say=say)
    address = Address.parse(state.url, management_url=state.management_url)
    return _described(address, f"private node, way {state.way}")


def let_tell_soon(home: Home, series: Series | None = None) -> None:
    """Let a private node that is not in a container tell soon, from its first start on."""
    settings = ", ".join(f"{{{name}, {TELLS_MS}}}" for name in _TELLS)
    for way in HERE:
        folder = home.folder(way, series)
        private_folder(folder)
        (folder / "advanced.config").write_text(f"[{{rabbit, [{settings}]}}].\n")


def home_of_run(folder: Path) -> Home:
    """Return a home in a folder that shares the fetched roots with the user's own."""
    return Home(path=folder, roots=Home.default().roots)
