"""Calls to the API server: each with a deadline, all at a pace, errors by what a caller can do about them."""

from __future__ import annotations

import asyncio
import json
import random
import ssl
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from enum import StrEnum
from typing import Any
from urllib.parse import urlencode

import aiohttp
from kubernetes.aio.client.api_client import ApiClient
from kubernetes.aio.client.exceptions import ApiException
from kubernetes.aio.config import ConfigException

from lb.clock import SYSTEM_CLOCK, Clock
from lb.errors import SettingsError
from lb.kube.access import Access, configuration
from lb.kube.errors import (
    KubeError,
    NotYetError,
    UnavailableError,
    UnreachableError,
    error_from,
)
from lb.kube.pace import Pace
from lb.kube.shape import WHOLE, Decode, Shape

DEADLINE_S = 10.0
"""For one call: the API server itself gives up on ordinary requests after a minute, long after we need an answer."""
PAGE = 500
"""Objects per page of a list, as client-go asks."""
WATCH_S = 240.0
"""After this the server ends a watch and we ask again: below five minutes, the client library's own limit."""
BUDGET = "DisruptionBudget"
"""Cause of a refused eviction: an answer about one pod, and no sign of a server in trouble."""
MOST_EVENT_BYTES = 16 << 20
"""Longest event; etcd takes no object above 1.5 MiB, so a longer one is no event."""

_NO_ANSWER = (
    aiohttp.ClientError,
    OSError,
    ValueError,
    SettingsError,
    ApiException,
    ConfigException,  # a credential plugin of the kubeconfig that failed
    RuntimeError,  # the session was closed by another call, which met a certificate that is not valid
)
"""What a call may end with besides an answer."""

Object = dict[str, Any]
Query = Mapping[str, str | int | bool]


class PatchKind(StrEnum):
    """How the body of a PATCH is meant."""

    MERGE = "application/merge-patch+json"
    STRATEGIC = "application/strategic-merge-patch+json"
    JSON = "application/json-patch+json"


@dataclass(frozen=True, slots=True)
class Listing:
    """A collection as it was at one instant."""

    items: tuple[Object, ...]
    resource_version: str


@dataclass(frozen=True, slots=True)
class Event:
    """One line of a watch."""

    kind: str
    """ADDED, MODIFIED, DELETED or BOOKMARK."""
    object: Object


class KubeApi:
    """One caller. `for_pool` makes others with a pace of their own over the same connections.

    `path` is always that of the API, without a query: `/apis/apps/v1/namespaces/ns/deployments/llm/scale`.
    """

    def __init__(
        self,
        access: Access,
        *,
        clock: Clock = SYSTEM_CLOCK,
        rng: random.Random | None = None,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        deadline_s: float = DEADLINE_S,
        connection: _Connection | None = None,
    ) -> None:
        self._access = access
        self._clock = clock
        self._rng = rng or random.Random()
        self._sleep = sleep
        self._deadline_s = deadline_s
        self._connection = connection or _Connection(access)
        self.pace = Pace(self._rng)

    def for_pool(self) -> KubeApi:
        """Another caller whose errors do not slow this one down, nor the other way round."""
        return KubeApi(
            self._access,
            clock=self._clock,
            rng=self._rng,
            sleep=self._sleep,
            deadline_s=self._deadline_s,
            connection=self._connection,
        )

    async def close(self) -> None:
        """End the connections, of all that share them."""
        await self._connection.close()

    async def get(self, path: str, query: Query | None = None) -> Object:
        return await self.call("GET", path, query)

    async def create(self, path: str, body: Object, *, field_manager: str | None = None) -> Object:
        """POST to a collection, or to a subresource such as `eviction` or `token`."""
        return await self.call("POST", path, _managed(field_manager), body)

    async def replace(self, path: str, body: Object, *, field_manager: str | None = None) -> Object:
        """PUT; with `metadata.resourceVersion` in the body ConflictError says that it has changed."""
        return await self.call("PUT", path, _managed(field_manager), body)

    async def patch(
        self, path: str, body: Any, kind: PatchKind = PatchKind.MERGE, *, field_manager: str | None = None
    ) -> Object:
        """PATCH; a `metadata.resourceVersion` in a merge patch is a precondition as in `replace`."""
        return await self.call("PATCH", path, _managed(field_manager), body, content_type=kind)

    async def apply(self, path: str, body: Object, *, field_manager: str, force: bool = False) -> Object:
        """Server-side apply. ConflictError where another manager owns a field, unless forced."""
        query: Query = {"fieldManager": field_manager, "force": force}
        return await self.call("PATCH", path, query, body, content_type="application/apply-patch+yaml")

    async def delete(self, path: str, body: Object | None = None) -> Object:
        """DELETE; `body` are DeleteOptions, such as preconditions."""
        return await self.call("DELETE", path, None, body)

    async def list_all(
        self, path: str, query: Query | None = None, *, patient: bool = False, shape: Shape = WHOLE
    ) -> Listing:
        """All pages of a collection, or an error: never a part of it."""
        items: list[Object] = []
        more: str | None = None
        while True:
            asked = {**(query or {}), "limit": PAGE} | ({"continue": more} if more else {})
            page = await self.call("GET", path, asked, patient=patient, decode=shape.page)
            metadata = page.get("metadata")
            found = page.get("items")
            if not isinstance(metadata, dict) or not isinstance(found, list | None):
                self.pace.failed(self._clock.monotonic(), growing=True)
                raise UnavailableError(f"GET {path}: the answer is no list")
            items += found or []
            more = metadata.get("continue")
            if not more:
                return Listing(tuple(items), str(metadata.get("resourceVersion") or ""))

    async def call(
        self,
        method: str,
        path: str,
        query: Query | None = None,
        body: Any = None,
        *,
        content_type: str = "application/json",
        patient: bool = False,
        decode: Decode = json.loads,
    ) -> Object:
        """One call. Raises KubeError. `patient`: wait as long as the pace wants, else NotYetError says how long."""
        async with self._asked(method, path, query, body, content_type, patient, self._deadline_s) as response:
            answer = decode(await response.read())
        if not isinstance(answer, dict):
            raise UnavailableError(f"{method} {path}: the answer is no object", status=response.status)
        return answer

    async def watch(
        self,
        path: str,
        query: Query | None = None,
        *,
        resource_version: str,
        idle_s: float,
        watch_s: float = WATCH_S,
        opened: Callable[[], None] = lambda: None,
        shape: Shape = WHOLE,
    ) -> AsyncGenerator[list[Event], None]:
        """Events after `resource_version`, those that came together in one list, bookmarks among them.

        Ends when the server ends it, or when nothing came for `idle_s`: a connection that died silently looks so.
        Raises KubeError; GoneError where the version is too old. `opened` is called once the server has agreed.
        """
        asked = {
            **(query or {}),
            "watch": True,
            "allowWatchBookmarks": True,
            "resourceVersion": resource_version,
            "timeoutSeconds": max(1, round(watch_s)),
        }
        began = self._clock.monotonic()
        events = 0
        async with self._asked("GET", path, asked, None, "application/json", True, None) as response:
            opened()
            rest = b""
            while True:
                try:
                    async with asyncio.timeout(idle_s):
                        data = await response.content.readany()
                except TimeoutError:
                    return
                if not data:
                    break
                *lines, rest = (rest + data).split(b"\n")
                if len(rest) > MOST_EVENT_BYTES:
                    raise UnavailableError(f"watch {path}: an event of more than {MOST_EVENT_BYTES} bytes")
                batch = [_event(line, path, shape.event) for line in lines if line.strip()]
                events += len(batch)
                if batch:
                    yield batch
            if not events and self._clock.monotonic() - began < min(1.0, watch_s / 2):
                raise UnavailableError(f"watch {path}: ended at once")

    @asynccontextmanager
    async def _asked(
        self,
        method: str,
        path: str,
        query: Query | None,
        body: Any,
        content_type: str,
        patient: bool,
        deadline_s: float | None,
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """Wait for the call's turn, ask, and note how it went. Without a deadline only the answer's head has one."""
        # Asked again after each wait: what another call has met meanwhile may have made it longer.
        while (wait_s := self.pace.wait_s(self._clock.monotonic())) > 0.0:
            if wait_s > self._deadline_s and not patient:
                raise NotYetError(f"{method} {path}: not before {wait_s:.1f} s, after errors", retry_after_s=wait_s)
            await self._sleep(wait_s)
        self.pace.take(self._clock.monotonic())
        try:
            async with asyncio.timeout(self._deadline_s) as timer:
                response = await self._connection.send(method, path, query, body, content_type)
                try:
                    if response.status >= 400:
                        what = f"{method} {path}"
                        raise error_from(
                            response.status, await response.read(), response.headers.get("Retry-After"), what
                        )
                    self.pace.succeeded(self._clock.monotonic())
                    if deadline_s is None:
                        timer.reschedule(None)
                    yield response
                finally:
                    response.close() if deadline_s is None else response.release()
        except KubeError as error:
            growing = error.lasting and BUDGET not in error.causes
            self.pace.failed(self._clock.monotonic(), growing=growing, retry_after_s=error.retry_after_s)
            raise
        except TimeoutError:
            self.pace.failed(self._clock.monotonic(), growing=True)
            raise UnreachableError(f"{method} {path}: no answer within {self._deadline_s} s") from None
        except _NO_ANSWER as error:
            self.pace.failed(self._clock.monotonic(), growing=True)
            if isinstance(error, aiohttp.ClientConnectorCertificateError | ssl.SSLError):
                await self._connection.close()  # the authority may have been replaced: its file is read again
            raise UnreachableError(f"{method} {path}: {str(error) or type(error).__name__}") from None


class _Connection:
    """The client and its connections, made when the first call needs them."""

    def __init__(self, access: Access) -> None:
        self._access = access
        self._client: ApiClient | None = None
        self._making = asyncio.Lock()

    async def send(
        self, method: str, path: str, query: Query | None, body: Any, content_type: str
    ) -> aiohttp.ClientResponse:
        client = await self._ready()
        headers = {"Accept": "application/json", "Content-Type": content_type, "User-Agent": "tidegate"}
        await client.update_params_for_auth(headers, [], ["BearerToken"], path, method, body)
        url = client.configuration.host.rstrip("/") + path
        if query:
            url += "?" + urlencode({key: _text(value) for key, value in query.items()})
        answer = await client.rest_client.request(  # type: ignore[no-untyped-call]
            method, url, headers=headers, body=body, _request_timeout=aiohttp.ClientTimeout(total=None)
        )
        response: aiohttp.ClientResponse = answer.response
        return response

    async def close(self) -> None:
        client, self._client = self._client, None
        if client is not None:
            await client.close()  # type: ignore[no-untyped-call]

    async def _ready(self) -> ApiClient:
        async with self._making:
            if self._client is None:
                client = ApiClient(await configuration(self._access))
                session = client.rest_client._create_pool_manager()  # noqa: SLF001  as its docstring allows
                # Otherwise it would send GET and PUT once more by itself when a kept connection turns out to be closed:
                # past our pace, and a PUT that has been carried out would come back as a conflict with itself.
                session._retry_connection = False  # noqa: SLF001
                client.rest_client.pool_manager = session
                self._client = client
            return self._client


def _managed(field_manager: str | None) -> Query | None:
    return None if field_manager is None else {"fieldManager": field_manager}


def _text(value: str | int | bool) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _event(line: bytes, path: str, decode: Decode) -> Event:
    """Raises KubeError for an event that reports one, and UnavailableError for what is no event."""
    try:
        found = decode(line)
        kind, changed = str(found["type"]), found["object"]
    except (ValueError, KeyError, TypeError):
        raise UnavailableError(f"watch {path}: {line[:80]!r} is no event") from None
    if not isinstance(changed, dict):
        raise UnavailableError(f"watch {path}: {line[:80]!r} holds no object")
    if kind == "ERROR":
        code = changed.get("code")
        raise error_from(code if isinstance(code, int) else 500, changed, None, f"watch {path}")
    return Event(kind, changed)
