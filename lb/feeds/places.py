"""Which machine a host name means: this one, or that of a peer. Addresses are compared, names are looked up for it."""

from __future__ import annotations

import asyncio
import functools
import ipaddress
import socket
from collections.abc import Callable, Iterable

from lb.address import is_loopback

REFRESH_S = 30.0
"""Names are looked up again this often; nodes change their addresses rarely, and a tie is a hint and no route."""
_LOOKUP_S = 5.0
_PORT = 9
"""Any port does: nothing is sent to it."""


class Places:
    """Addresses by host name. Only `learn` waits for a name server; everybody else uses what is known."""

    def __init__(self, is_own: Callable[[str], bool] | None = None) -> None:
        """`is_own(address)`: whether this machine has that IP address; None: ask the kernel."""
        self._is_own = is_own or has_address
        self._known: dict[str, frozenset[str]] = {}
        self._own: dict[str, bool] = {}
        """By host, until names are looked up again."""

    def addresses(self, host: str) -> frozenset[str]:
        """Empty while the name is not known."""
        literal = _literal(host)
        return frozenset((literal,)) if literal is not None else self._known.get(host, frozenset())

    def is_own(self, host: str) -> bool:
        """Whether `host` is this machine."""
        own = self._own.get(host)
        if own is None:
            addresses = (host, *self.addresses(host))
            own = self._own[host] = any(map(is_loopback, addresses)) or any(map(self._is_own, addresses[1:]))
        return own

    async def learn(self, hosts: Iterable[str]) -> bool:
        """Look the names among `hosts` up, and forget all others. A name that cannot be looked up keeps what is known
        of it. True: something is different from before."""
        names = {host for host in hosts if _literal(host) is None and not is_loopback(host)}
        before = self._known
        found = await asyncio.gather(*(_look_up(name) for name in names))
        self._known = {
            name: self._known.get(name, frozenset()) if addresses is None else addresses
            for name, addresses in zip(names, found, strict=True)
        }
        self._own = {}
        return before != self._known


def has_address(address: str) -> bool:
    """Whether the kernel counts `address` among this machine's own: it would speak to it from that very address.

    Nothing is sent. Binding to it would tell less: `net.ipv4.ip_nonlocal_bind` lets every address be bound.
    """
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.connect((address, _PORT))
            return _literal(str(probe.getsockname()[0])) == address
    except OSError:
        return False


async def _look_up(name: str) -> frozenset[str] | None:
    try:
        async with asyncio.timeout(_LOOKUP_S):
            found = await asyncio.get_running_loop().getaddrinfo(name, None, type=socket.SOCK_STREAM)
    except (OSError, TimeoutError, UnicodeError):
        return None
    return frozenset(literal for _, _, _, _, at in found if (literal := _literal(str(at[0]))) is not None)


@functools.lru_cache(maxsize=4096)
def _literal(host: str) -> str | None:
    """An IP address in the one form in which addresses are compared, or None for a name."""
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return None
    inner = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return str(inner or address)
