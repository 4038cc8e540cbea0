"""Where RabbitMQ is, connections to it, and where library errors become ours."""

from __future__ import annotations

import os
import socket
import ssl
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, quote, unquote, urlsplit

from broker.errors import (
    AccessRefused,
    InvalidURL,
    RabbitryError,
    Unreachable,
    VirtualHostMissing,
)

if TYPE_CHECKING:
    import kombu

    from broker.topology import Topology

DEFAULT_URL = "amqp://guest:guest@localhost:5672/"
DEFAULT_VHOST = "/"
# RabbitMQ's own convention: AMQP 5672 and management 15672, TLS 5671 and 15671.
MANAGEMENT_PORT_OFFSET = 10_000
CONNECT_TIMEOUT_S = 10.0
HEARTBEAT_S = 20


@dataclass(frozen=True, slots=True)
class Address:
    """Where RabbitMQ is and as whom to log in.

    Attributes:
        host: name or IP address.
        port: the AMQP port.
        user, password: credentials; the password never appears in `repr` or `redacted`.
        vhost: name of the virtual host, or None where the URL does not say.
        tls: the verification options of an ``amqps://`` URL, or None.
        management_url: base of the management API, such as ``http://localhost:15672``.
    """

    host: str
    port: int
    user: str
    password: str = field(repr=False)
    vhost: str | None = None
    tls: Mapping[str, str] | None = None
    management_url: str = ""

    @classmethod
    def parse(cls, url: str, *, management_url: str | None = None) -> Address:
        """Read an AMQP URI (https://www.rabbitmq.com/docs/uri-spec).

        Args:
            url: ``amqp[s]://user:password@host:port/vhost``; a path of ``/`` or none names no
                virtual host, ``/%2F`` names the one called ``/``. ``amqps`` takes the query
                keys ``cacertfile``, ``certfile``, ``keyfile``, ``verify=verify_none`` and
                ``server_name_indication``.
            management_url: base of the management API where it does not follow from the URL.

        Raises:
            InvalidURL: the URL cannot be read.
        """
        try:
            parts = urlsplit(url)
            port = parts.port
        except ValueError as exc:
            raise InvalidURL(f"the URL of RabbitMQ cannot be read: {exc}") from None
        if parts.scheme not in ("amqp", "amqps", "pyamqp"):
            raise InvalidURL(
                f"the URL of RabbitMQ must begin with amqp:// or amqps://, not {parts.scheme!r}"
            )
        if not parts.hostname:
            raise InvalidURL("the URL of RabbitMQ names no host; write amqp://user:pw@host:port/")
        secure = parts.scheme == "amqps"
        port = port or (5671 if secure else 5672)
        path = parts.path.removeprefix("/")
        query = {key: values[-1] for key, values in parse_qs(parts.query).items()}
        if management_url is None:
            host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
            scheme = "https" if secure else "http"
            management_url = f"{scheme}://{host}:{port + MANAGEMENT_PORT_OFFSET}"
        return cls(
            host=parts.hostname,
            port=port,
            user=unquote(parts.username or "guest"),
            password=unquote(parts.password or ("guest" if not parts.username else "")),
            vhost=unquote(path) if path else None,
            tls=query if secure else None,
            management_url=management_url.rstrip("/"),
        )

    def with_vhost(self, name: str) -> Address:
        """Return the same address in another virtual host."""
        return replace(self, vhost=name)

    @property
    def vhost_name(self) -> str:
        """The virtual host to open, ``/`` where none is named."""
        return self.vhost if self.vhost is not None else DEFAULT_VHOST

    @property
    def url(self) -> str:
        """The address as a URL, password included: for connecting, never for printing."""
        return self._render(quote(self.password, safe=""))

    @property
    def redacted(self) -> str:
        """The address as a URL without its password."""
        return self._render("***")

    def _render(self, password: str) -> str:
        scheme = "amqp" if self.tls is None else "amqps"
        host = f"[{self.host}]" if ":" in self.host else self.host
        vhost = "" if self.vhost is None else quote(self.vhost, safe="")
        query = "&".join(f"{key}={quote(value)}" for key, value in (self.tls or {}).items())
        return f"{scheme}://{quote(self.user, safe='')}:{password}@{host}:{self.port}/{vhost}" + (
            f"?{query}" if query else ""
        )

    def ssl_context(self) -> ssl.SSLContext | None:
        """Return the TLS context of an ``amqps`` address, or None.

        Raises:
            InvalidURL: a certificate or key file cannot be read.
        """
        if self.tls is None:
            return None
        try:
            context = ssl.create_default_context(cafile=self.tls.get("cacertfile"))
            if "certfile" in self.tls:
                context.load_cert_chain(self.tls["certfile"], self.tls.get("keyfile"))
        except OSError as exc:
            raise InvalidURL(f"the certificates in the URL cannot be read: {exc}") from exc
        if self.tls.get("verify") == "verify_none":
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        return context


def resolve_address(
    url: str | None = None,
    *,
    file_url: Callable[[], str | None] | None = None,
    vhost: str | None = None,
    environ: Mapping[str, str] = os.environ,
    private_url: Callable[[], str | None] | None = None,
) -> Address:
    """Find RabbitMQ: the option, RABBITRY_URL, the file, the private node, the default.

    Args:
        url: what the user gave, or None.
        file_url: says ``broker.url`` of the topology file; asked only where it counts, since it
            may need variables that are not set.
        vhost: the file's virtual host; one that is written in the URL wins over it.
        environ: the process's environment.
        private_url: says where the private node runs; `broker.local.private_url` by default.

    Raises:
        InvalidURL: the first URL found cannot be read.
    """
    found = url or environ.get("RABBITRY_URL") or (file_url() if file_url else None)
    if not found:
        if private_url is None:
            from broker.local import private_url as url_of_private_node

            private_url = url_of_private_node
        found = private_url() or DEFAULT_URL
    address = Address.parse(found, management_url=environ.get("RABBITRY_MANAGEMENT_URL") or None)
    if address.vhost is None and vhost is not None:
        address = address.with_vhost(vhost)
    return address


def address_of(topology: Topology, url: str | None = None) -> Address:
    """Find RabbitMQ for a topology; see `resolve_address`.

    Args:
        topology: its virtual host counts unless the URL names one.
        url: what the user gave, or None.

    Raises:
        InvalidURL: the first URL found cannot be read.
        TopologyError: it is the file's, and a variable in it is not set.
    """
    return resolve_address(url, file_url=topology.broker_url, vhost=topology.vhost.name)


def connect(
    address: Address, *, timeout_s: float = CONNECT_TIMEOUT_S, heartbeat_s: int = HEARTBEAT_S
) -> kombu.Connection:
    """Open a kombu connection.

    Args:
        address: where and as whom.
        timeout_s: seconds for the TCP connection and for each step of the handshake.
        heartbeat_s: seconds between heartbeats; 0 switches them off.

    Raises:
        Unreachable, AccessRefused, VirtualHostMissing: see `broker.errors`.
    """
    connection = kombu_connection(address, timeout_s=timeout_s, heartbeat_s=heartbeat_s)
    with translated(address):
        # One attempt: connect() would try again after two seconds, by itself.
        connection.ensure_connection(max_retries=0, reraise_as_library_errors=False)
    return connection


def kombu_connection(
    address: Address, *, timeout_s: float = CONNECT_TIMEOUT_S, heartbeat_s: int = HEARTBEAT_S
) -> kombu.Connection:
    """Return a kombu connection that is not opened yet; see `connect`."""
    import kombu

    options: dict[str, Any] = {}
    # Reads the certificates, and says which cannot be read.
    if address.ssl_context() is not None:
        options["ssl"] = py_amqp_tls(address)
    return kombu.Connection(
        hostname=address.host,
        port=address.port,
        userid=address.user,
        password=address.password,
        virtual_host=address.vhost_name,
        transport="pyamqp",
        connect_timeout=timeout_s,
        heartbeat=heartbeat_s,
        **options,
    )


def py_amqp_tls(address: Address) -> dict[str, Any]:
    """Return the same verification as `Address.ssl_context` in py-amqp's words.

    It makes its context itself, and checks the host's name wherever it is given one.
    """
    tls = address.tls or {}
    options: dict[str, Any] = {"certfile": tls.get("certfile"), "keyfile": tls.get("keyfile")}
    if tls.get("verify") == "verify_none":
        return {**options, "cert_reqs": ssl.CERT_NONE}
    return {
        **options,
        "cert_reqs": ssl.CERT_REQUIRED,
        "ca_certs": tls.get("cacertfile"),
        "server_hostname": tls.get("server_name_indication", address.host),
    }


@contextmanager
def translated(address: Address) -> Iterator[None]:
    """Turn errors of sockets, py-amqp and kombu into those of `broker.errors`.

    Only errors of the *connection* are translated; errors of a channel (404, 406) belong to
    whoever spoke on it and pass through.
    """
    import amqp.exceptions
    from kombu.exceptions import OperationalError

    where = f"{address.host}:{address.port}"
    try:
        yield
    except RabbitryError:
        raise
    except amqp.exceptions.AccessRefused as exc:
        raise AccessRefused(
            f"RabbitMQ at {where} refuses user {address.user!r}: {_reason(exc)};"
            " check the user and password in the URL"
        ) from exc
    except (amqp.exceptions.NotAllowed, amqp.exceptions.NotFound) as exc:
        if "not found" in _reason(exc):
            raise VirtualHostMissing(
                f"RabbitMQ at {where} has no virtual host {address.vhost_name!r};"
                " `rabbitry topology apply` creates the one in the topology"
            ) from exc
        raise AccessRefused(
            f"RabbitMQ at {where} refuses user {address.user!r} in virtual host"
            f" {address.vhost_name!r}: {_reason(exc)}"
        ) from exc
    except (OSError, amqp.exceptions.AMQPError, OperationalError) as exc:
        raise Unreachable(
            f"cannot reach RabbitMQ at {where} ({_os_reason(exc)}); `rabbitry broker up` starts"
            " a private one, --url or RABBITRY_URL names another"
        ) from exc


def _reason(exc: Any) -> str:
    return str(getattr(exc, "reply_text", None) or exc)


def _os_reason(exc: BaseException) -> str:
    if isinstance(exc, socket.gaierror):
        return "the host name is unknown"
    if isinstance(exc, TimeoutError):
        return "no answer in time"
    if isinstance(exc, OSError) and exc.strerror:
        return exc.strerror
    return _reason(exc) or type(exc).__name__
