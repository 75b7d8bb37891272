"""`host:port` as it is written in a policy or on the command line."""

from __future__ import annotations

import ipaddress

from lb.errors import SettingsError


def parse_address(text: str) -> tuple[str, int]:
    """Split a listen address into (host, port): `127.0.0.1:8080`, `[::1]:8080`, `localhost:8080`, `:8080` (all IPv4).

    Port 0 lets the kernel choose. Raises SettingsError.
    """
    host, colon, port = text.rpartition(":")
    if not colon or not port.isascii() or not port.isdigit() or int(port[:6]) > 65_535:
        raise SettingsError(f"{text!r} is not an address to listen on; write host:port such as 127.0.0.1:8080")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
        if not _is_ip(host, 6):
            raise SettingsError(f"{host!r} is not an IPv6 address; write [::1]:8080")
    elif ":" in host:
        raise SettingsError(f"{text!r} is ambiguous; put the IPv6 address in brackets: [{host}]:{port}")
    elif any(character.isspace() or character in "/@?#" for character in host):
        raise SettingsError(f"{text!r} is not an address to listen on; write host:port such as 127.0.0.1:8080")
    return host or "0.0.0.0", int(port)


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach `host`. A name other than localhost counts as reachable from outside."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def show_address(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _is_ip(text: str, version: int) -> bool:
    try:
        return ipaddress.ip_address(text).version == version
    except ValueError:
        return False
