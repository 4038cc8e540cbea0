"""Where something listens: HOST:PORT."""

from __future__ import annotations

HOST_PORT_PATTERN = r"^(\[[0-9A-Fa-f:.]+\]|[^\[\]:\s]+):[0-9]{1,5}$"


def parse_host_port(text: str) -> tuple[str, int]:
    """Read ``127.0.0.1:9808``, ``[::1]:9808`` or ``localhost:9808``.

    Args:
        text: the host, an IPv6 address in brackets, and the port; 0 stands for a free one.

    Raises:
        ValueError: what is wrong with it.
    """
    host, colon, digits = text.rpartition(":")
    if not colon or not host:
        raise ValueError(f"{text!r} is no HOST:PORT; write 127.0.0.1:9808, or 0.0.0.0:9808 for all")
    bracketed = host.startswith("[") and host.endswith("]")
    if not bracketed and (":" in host or "[" in host or "]" in host):
        raise ValueError(f"{text!r}: an IPv6 address stands in brackets: [::1]:9808")
    if not digits.isascii() or not digits.isdigit() or int(digits) > 65535:
        raise ValueError(f"{text!r}: {digits!r} is no port; 0 to 65535 are")
    host = host[1:-1] if bracketed else host
    if not host or any(each.isspace() for each in host):
        raise ValueError(f"{text!r} names no host")
    return host, int(digits)
