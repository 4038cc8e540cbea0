"""The one place that speaks HTTP to RabbitMQ: its management API.

https://www.rabbitmq.com/docs/http-api-reference. Nothing is retried: what RabbitMQ
answers is what the caller sees, as a value or as an error of `broker.errors`.
"""

from __future__ import annotations

import json
import re
import ssl
from types import TracebackType
from typing import Any, Self
from urllib.parse import quote

import httpx

from broker.connection import Address
from broker.errors import (
    AccessRefused,
    BrokerUnavailable,
    MissingOnBroker,
    ProvisioningFailed,
    Unreachable,
    UnsupportedBroker,
)

OLDEST_VERSION = "4.0"

# RabbitMQ closes a connection that was idle for 5 s, as httpx would by itself: a request that is
# sent in that moment gets no answer.
_KEPT_S = 2.5

_MANAGEMENT_HINT = (
    "enable RabbitMQ's management plugin (`rabbitmq-plugins enable rabbitmq_management`),"
    " or name its address in RABBITRY_MANAGEMENT_URL"
)


class Management:
    """A client of the management API; a context manager, for one thread.

    Every path is given as segments, each percent-encoded in full, so that names with
    ``/ ~ % # ? @``, blanks and letters of any script go round. Only ``.`` and ``..`` cannot
    be addressed at all: RabbitMQ's web server takes them for folders, encoded or not.
    """

    def __init__(self, address: Address, *, timeout_s: float = 30.0) -> None:
        """Prepare the client; nothing is sent yet.

        Args:
            address: where RabbitMQ's management API is, and as whom to log in.
            timeout_s: seconds for connecting, and for each silence while answering.

        Raises:
            InvalidURL: the certificates named in the URL cannot be read.
        """
        self.address = address
        self._client = httpx.Client(
            auth=httpx.BasicAuth(address.user, address.password),
            timeout=httpx.Timeout(timeout_s, connect=min(timeout_s, 10.0)),
            limits=httpx.Limits(keepalive_expiry=_KEPT_S),
            # False: a proxy in the environment must not catch the traffic to RabbitMQ, and
            # a .netrc must not replace the user.
            trust_env=False,
            verify=_trust(address),
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    # -- requests ---------------------------------------------------------------------

    def get(self, *segments: str, **query: Any) -> Any:
        """Return what stands at a path, decoded from JSON.

        Args:
            segments: names below ``/api``, such as ``"queues", vhost, queue``.
            query: parameters of the query.

        Raises:
            MissingOnBroker: RabbitMQ has no such object.
            Unreachable, AccessRefused, UnsupportedBroker, BrokerUnavailable,
            ProvisioningFailed: see `broker.errors`.
        """
        found = self._request("GET", segments, query=query)
        if found is None:
            raise MissingOnBroker(
                f"RabbitMQ at {self.address.management_url} has no {_what(segments)}"
            )
        return found.value

    def find(self, *segments: str, **query: Any) -> Any | None:
        """Return what stands at a path, or None where RabbitMQ answers 404."""
        found = self._request("GET", segments, query=query)
        return None if found is None else found.value

    def put(self, *segments: str, body: Any = None) -> None:
        """Declare an object. Raises ProvisioningFailed with RabbitMQ's own reason."""
        self._change("PUT", segments, body)

    def post(self, *segments: str, body: Any = None) -> Any:
        """Post to a path and return the answer, or None where it is empty."""
        return self._change("POST", segments, body)

    def delete(self, *segments: str) -> bool:
        """Delete an object; return False where it did not exist."""
        return self._request("DELETE", segments) is not None

    def _change(self, method: str, segments: tuple[str, ...], body: Any) -> Any:
        answer = self._request(method, segments, body={} if body is None else body)
        if answer is None:
            raise ProvisioningFailed(
                f"RabbitMQ cannot {_verb(method)} {_what(segments)}: it, or what it belongs to,"
                " does not exist; `rabbitry topology plan` shows what is missing",
                object=_what(segments),
                reason="not found",
            )
        return answer.value

    # -- version ----------------------------------------------------------------------

    def version(self) -> str:
        """Return RabbitMQ's version, such as ``4.3.6``.

        Raises:
            Unreachable, AccessRefused: nobody answers, or not to this user.
            UnsupportedBroker: what answers is not RabbitMQ's management API.
        """
        overview = self.get("overview")
        version = overview.get("rabbitmq_version") if isinstance(overview, dict) else None
        if not isinstance(version, str):
            raise self._not_rabbitmq("it tells no version")
        return version

    def require(self, version: str | None = None) -> str:
        """Check that RabbitMQ is new enough and return its version.

        Args:
            version: the least version that the topology asks for (``broker.requires``), on
                top of what rabbitry itself needs.

        Raises:
            UnsupportedBroker: RabbitMQ is older.
        """
        found = self.version()
        require_version(found, version, at=self.address.management_url)
        return found

    # -- the wire ---------------------------------------------------------------------

    def _request(
        self,
        method: str,
        segments: tuple[str, ...],
        *,
        query: dict[str, Any] | None = None,
        body: Any = None,
    ) -> _Answer | None:
        base = self.address.management_url
        path = "/".join(quote(segment, safe="") for segment in segments)
        content = None if body is None else json.dumps(body, ensure_ascii=False).encode()
        try:
            response = self._client.request(
                method,
                f"{base}/api/{path}",
                params={key: _query_value(value) for key, value in (query or {}).items()} or None,
                content=content,
                headers={"content-type": "application/json"} if content is not None else None,
            )
        except httpx.TimeoutException as exc:
            raise Unreachable(
                f"RabbitMQ's management API at {base} did not answer {method} /api/{path} in"
                " time; is the node overloaded?"
            ) from exc
        except (httpx.InvalidURL, httpx.UnsupportedProtocol) as exc:
            raise Unreachable(
                f"the management address {base!r} is not a URL ({exc}); RABBITRY_MANAGEMENT_URL"
                " has the form http://host:15672"
            ) from exc
        except httpx.RequestError as exc:
            raise Unreachable(
                f"cannot reach RabbitMQ's management API at {base} ({_cause(exc)});"
                f" {_MANAGEMENT_HINT}"
            ) from exc
        return self._read(method, segments, response)

    def _read(
        self, method: str, segments: tuple[str, ...], response: httpx.Response
    ) -> _Answer | None:
        status = response.status_code
        value = _decode(response)
        if status == 404 and (method != "GET" or _is_json(response)):
            return None
        if response.is_success:
            if method == "GET" and not _is_json(response):
                raise self._not_rabbitmq("it does not answer in JSON")
            return _Answer(value)
        reason = _reason(value, response)
        user, base = self.address.user, self.address.management_url
        if status == 401 and _login_failed(reason):
            raise AccessRefused(
                f"RabbitMQ at {base} refuses user {user!r}: {reason}; check the user and"
                " password in the URL"
            )
        if status in (401, 403):
            raise AccessRefused(
                f"RabbitMQ at {base} does not let user {user!r} {_verb(method)}"
                f" {_what(segments)}: {reason}; give the user the right or the tag for it"
                " (management, policymaker, monitoring or administrator)"
            )
        if status == 404:
            raise self._not_rabbitmq("it has no /api")
        if status >= 500:
            raise BrokerUnavailable(
                f"RabbitMQ at {base} failed on {method} {_what(segments)} with HTTP {status}:"
                f" {reason}; look into its log"
            )
        if method == "GET":
            raise self._not_rabbitmq(f"it answers HTTP {status}: {reason}")
        raise ProvisioningFailed(
            f"RabbitMQ refuses to {_verb(method)} {_what(segments)}: {reason}",
            object=_what(segments),
            reason=reason,
        )

    def _not_rabbitmq(self, why: str) -> UnsupportedBroker:
        return UnsupportedBroker(
            f"what answers at {self.address.management_url} is not RabbitMQ's management API"
            f" ({why}); {_MANAGEMENT_HINT}"
        )


class _Answer:
    """An answer with success; its value may be None."""

    __slots__ = ("value",)

    def __init__(self, value: Any) -> None:
        self.value = value


def require_version(found: str, asked: str | None = None, *, at: str) -> None:
    """Check that a RabbitMQ is new enough.

    Args:
        found: its version.
        asked: the least version that the topology asks for, on top of what rabbitry needs.
        at: its address, without a password.

    Raises:
        UnsupportedBroker: it is older.
    """
    for needed, by in ((OLDEST_VERSION, "rabbitry"), (asked, "the topology file")):
        if needed is not None and version_key(found) < version_key(needed):
            raise UnsupportedBroker(
                f"RabbitMQ at {at} is {found}, {by} requires {needed} or newer; upgrade it, or"
                " name another with --url"
            )


def version_key(version: str) -> tuple[int, ...]:
    """Return the numbers of a version for comparing: ``4.3.6-beta.1`` is ``(4, 3, 6)``."""
    numbers = re.match(r"[0-9]+(?:\.[0-9]+)*", version)
    return tuple(int(part) for part in numbers.group().split(".")) if numbers else ()


def _trust(address: Address) -> ssl.SSLContext | bool:
    """Return what certificates are checked against; True stands for httpx's own authorities."""
    if address.tls is None and address.management_url.startswith("http:"):
        # Nothing is encrypted, so nobody is to be trusted; reading the authorities all the same
        # takes 20 ms of each client.
        return ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    return address.ssl_context() or True


def _query_value(value: Any) -> str:
    return json.dumps(value) if isinstance(value, bool) else str(value)


def _is_json(response: httpx.Response) -> bool:
    return "json" in response.headers.get("content-type", "")


def _decode(response: httpx.Response) -> Any:
    if not response.content or not _is_json(response):
        return None
    try:
        return response.json()
    except ValueError:
        return None


def _reason(value: Any, response: httpx.Response) -> str:
    """Return RabbitMQ's own words on one line."""
    if isinstance(value, dict):
        for key in ("reason", "error"):
            if value.get(key):
                return " ".join(str(value[key]).split())
    return response.reason_phrase or f"HTTP {response.status_code}"


def _login_failed(reason: str) -> bool:
    # RabbitMQ answers 401 both to a wrong password ("Not_Authorized", "User can only log in
    # via localhost") and to a missing right ("Not management user", "Access refused.").
    lowered = reason.lower()
    return lowered in ("not_authorized", "unauthorized") or "log in" in lowered


def _verb(method: str) -> str:
    return {"GET": "read", "PUT": "declare", "POST": "change", "DELETE": "delete"}[method]


def _what(segments: tuple[str, ...]) -> str:
    """Name the object of a path: ``queue 'jobs.high'``."""
    kind, names = segments[0], segments[1:]
    if kind == "bindings" and len(names) >= 5:
        source, destination = names[2], names[4]
        return f"binding from {source!r} to {destination!r}"
    singular = {"policies": "policy", "operator-policies": "operator policy"}.get(
        kind, kind.removesuffix("s").replace("-", " ")
    )
    if not names:
        return kind
    if kind in ("vhosts", "users", "global-parameters"):
        return f"{'virtual host' if kind == 'vhosts' else singular} {names[0]!r}"
    if len(names) == 1:
        return f"{kind} of virtual host {names[0]!r}"
    return f"{singular} {names[-1]!r}"


def _cause(exc: BaseException) -> str:
    """Return the shortest true reason: the operating system's words where there are any."""
    inner: BaseException | None = exc
    while inner is not None:
        if isinstance(inner, OSError) and inner.strerror:
            return inner.strerror
        inner = inner.__cause__ or inner.__context__
    return str(exc) or type(exc).__name__
