"""The one door to aiohttp's client: small GETs to replicas that may be slow, broken or hostile."""

from __future__ import annotations

import asyncio
import socket
import ssl
from types import TracebackType
from typing import Self

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult

from lb.runtime import Answer
from lb.targets import refuse_addresses

BODY_BYTES = 1 << 20
"""Most that is read of an answer; what follows is not fetched."""
_KEEP_ALIVE_S = 4.0
"""llama.cpp and uvicorn close idle connections after 5 s; reusing one just then costs a failed probe."""
_HEADER_BYTES = 16 << 10
_CONNECTIONS = 512
"""Sockets for probes and readings together: two for each of 200 replicas, and some that hang."""

_STALL_S = 0.25
"""A deadline noticed this much too late says more about us than about the replica."""

REFUSED = "connection refused"
"""Reason of a FetchError where nobody listens: the one failure that shows that the process is not there."""


class FetchError(Exception):
    """No answer; the message says why in a few words for people: `connection refused`, `timed out after 2 s`."""


class OwnStallError(FetchError):
    """The deadline passed while our own event loop stood still: nothing is known of the replica."""


class ForbiddenAddressError(OSError):
    """A name means an address that no replica can have."""


class CheckingResolver(AbstractResolver):
    """Looks names up and refuses those that mean a metadata service."""

    def __init__(self) -> None:
        self._resolver = aiohttp.ThreadedResolver()

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        found = await self._resolver.resolve(host, port, family)
        refusal = refuse_addresses(host, [one["host"] for one in found])
        if refusal is not None:
            raise ForbiddenAddressError(refusal)
        return found

    async def close(self) -> None:
        await self._resolver.close()


class ProbeClient:
    """Requests to replicas' own documents.

    Follows no redirect (it would leave the replica), keeps no cookie, unpacks nothing (a kilobyte may hold a gigabyte),
    reads no proxy from the environment, and gives up at the deadline whatever the replica is doing.
    """

    def __init__(self, *, tls: ssl.SSLContext | None = None, fresh: bool = False) -> None:
        """`tls`: for https replicas; None verifies against the system's authorities. `fresh`: connect anew for each
        request, for probes: a llama.cpp that was told to stop has closed its port and still says `ok` on
        connections that it had before."""
        self._tls = tls
        self._fresh = fresh
        self._session: aiohttp.ClientSession | None = None
        self._guarded: aiohttp.ClientSession | None = None

    async def open(self) -> None:
        """Make ready on the running loop."""
        self._session = self._new_session()
        self._guarded = self._new_session(CheckingResolver())

    def _new_session(self, resolver: AbstractResolver | None = None) -> aiohttp.ClientSession:
        connector = aiohttp.TCPConnector(
            resolver=resolver,
            limit=_CONNECTIONS,
            force_close=self._fresh,
            keepalive_timeout=None if self._fresh else _KEEP_ALIVE_S,
            ttl_dns_cache=5,
            ssl=self._tls if self._tls is not None else True,
        )
        return aiohttp.ClientSession(
            connector=connector,
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(total=None),
            headers={"Accept-Encoding": "identity", "User-Agent": "tidegate"},
            auto_decompress=False,
            trust_env=False,
            max_line_size=_HEADER_BYTES,
            max_field_size=_HEADER_BYTES,
        )

    async def __aenter__(self) -> Self:
        await self.open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close every connection; requests in flight end with FetchError."""
        for session in (self._session, self._guarded):
            if session is not None:
                await session.close()
        self._session = self._guarded = None

    async def fetch(
        self,
        url: str,
        *,
        timeout_s: float,
        method: str = "GET",
        authorization: str | None = None,
        limit_bytes: int = BODY_BYTES,
        tls_name: str | None = None,
        guarded: bool = False,
    ) -> Answer:
        """One answer, its body cut at `limit_bytes`. Raises FetchError.

        `tls_name`: what the certificate must be for, where the URL has only an address. `guarded`: not where the name
        means an address that no replica can have.
        """
        session = self._guarded if guarded else self._session
        if session is None:
            raise FetchError("the client is closed")
        headers = {"Authorization": authorization} if authorization else None
        loop = asyncio.get_running_loop()
        started = loop.time()
        try:
            async with asyncio.timeout(timeout_s):
                async with session.request(
                    method,
                    url,
                    headers=headers,
                    allow_redirects=False,
                    server_hostname=tls_name,
                    # An empty JSON object is what Triton's and MLServer's listings want to be asked with.
                    json={} if method == "POST" else None,
                ) as response:
                    body, truncated = await _read(response, limit_bytes)
                    if response.headers.get("Content-Encoding", "identity").lower() not in ("", "identity"):
                        raise FetchError("the answer is compressed, which was not asked for")
                    return Answer(response.status, body, response.headers.get("Server", ""), truncated)
        except TimeoutError:
            late_s = loop.time() - started - timeout_s
            if late_s > _STALL_S:
                raise OwnStallError(f"our own event loop stood still for {late_s:.1f} s") from None
            raise FetchError(f"timed out after {timeout_s:g} s") from None
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise FetchError(_reason(error)) from None


async def _read(response: aiohttp.ClientResponse, limit_bytes: int) -> tuple[bytes, bool]:
    parts: list[bytes] = []
    size = 0
    async for part in response.content.iter_any():
        parts.append(part)
        size += len(part)
        if size > limit_bytes:
            # The rest is not drained: that would be to read what must not be read.
            response.close()
            return b"".join(parts)[:limit_bytes], True
    return b"".join(parts), False


def _reason(error: Exception) -> str:
    """Few words, no address: the reader knows which replica it is about."""
    if isinstance(error, aiohttp.ClientConnectorDNSError):
        if isinstance(error.os_error, ForbiddenAddressError):
            return str(error.os_error)[:200]
        return "its name cannot be resolved"
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        return f"its certificate is not accepted: {error.certificate_error}"[:200]
    if isinstance(error, aiohttp.ClientSSLError):
        return "TLS handshake failed"
    if isinstance(error, aiohttp.ClientConnectorError):
        cause = error.os_error
        return REFUSED if isinstance(cause, ConnectionRefusedError) else _os_reason(cause)
    if isinstance(error, aiohttp.ServerDisconnectedError):
        return "closed the connection without an answer"
    if isinstance(error, aiohttp.ClientPayloadError):
        return "closed the connection in the middle of its answer"
    if isinstance(error, aiohttp.ClientResponseError):
        return f"not HTTP: {error.message}"[:120]
    if isinstance(error, OSError):
        return _os_reason(error)
    return f"{type(error).__name__}: {error}"[:120]


def _os_reason(error: OSError) -> str:
    if isinstance(error, ConnectionResetError):
        return "connection reset"
    return (error.strerror or type(error).__name__).lower()
