"""A service of the operator's starts and ends replicas: `GET` asks it what is there, `POST` brings it one action."""

from __future__ import annotations

import asyncio
import hashlib
import logging

import aiohttp
import msgspec

from autoscaler.action import Action, GiveUp, ScaleUp
from autoscaler.actuator import ActuatorError, Observation
from autoscaler.policy.actuators import WebhookSettings
from autoscaler.wire import ANSWER_BYTES, action_document, found_ready, read_observation, verb
from lb.clock import Clock

log = logging.getLogger(__name__)

_GONE = (404, 410)
_EXISTS = 409
_SHOWN = 300
_REMEMBERED = 10_000
"""Replicas whose last action is remembered; the one that was acted on longest ago is forgotten first."""
_MOST_LATER_S = 600.0
"""A service that asks for more patience than this is asked again all the same."""


class WebhookActuator:
    """See the module. `token`: sent as a bearer token; `epoch` differs between two lives of the process."""

    def __init__(self, pool: str, settings: WebhookSettings, token: str | None, clock: Clock, epoch: str) -> None:
        self._pool = pool
        self._settings = settings
        self._headers = {"Accept": "application/json"}
        if token is not None:
            self._headers["Authorization"] = f"Bearer {token}"
        self._clock = clock
        self._keys = Keys(epoch)
        self._session: aiohttp.ClientSession | None = None

    async def observe(self) -> Observation:
        """What the service lists."""
        status, body, later_s = await self._ask("GET")
        if status != 200:
            raise self._refusal("GET", status, body, later_s)
        seen, faults = read_observation(body, self._clock.monotonic(), self._settings.url)
        for fault in faults:
            log.warning("pool %s: %s said what cannot be read: %s", self._pool, self._settings.url, fault)
        return seen

    async def apply(self, action: Action) -> None:
        """Any 2xx says that it is done or begun; so do 409 to a start (it exists) and 404, 410 to the rest (gone)."""
        if isinstance(action, GiveUp) and found_ready(action, await self.observe()):
            return
        headers = {"Idempotency-Key": self._keys.key(action), "Content-Type": "application/json"}
        status, body, later_s = await self._ask("POST", msgspec.json.encode(action_document(action)), headers)
        starts = isinstance(action, ScaleUp)
        if 200 <= status < 300 or (starts and status == _EXISTS) or (not starts and status in _GONE):
            return
        raise self._refusal(f"POST of {verb(action)}", status, body, later_s)

    async def close(self) -> None:
        """Close the connections."""
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def _ask(
        self, method: str, data: bytes | None = None, headers: dict[str, str] | None = None
    ) -> tuple[int, bytes, float | None]:
        """Status, body, and after how many seconds to come back if it says so."""
        url, timeout_s = self._settings.url, self._settings.timeout_s
        try:
            async with asyncio.timeout(timeout_s):
                # No redirect: it would take the token elsewhere.
                async with self._open().request(
                    method, url, data=data, headers=headers, allow_redirects=False
                ) as response:
                    body = await _read(response)
                    return response.status, body, _later_s(response.headers.get("Retry-After", ""))
        except TimeoutError:
            raise ActuatorError(f"{url} did not answer within {timeout_s:g} s") from None
        except (aiohttp.ClientError, OSError) as error:
            raise ActuatorError(f"{url} cannot be asked: {str(error) or type(error).__name__}") from None

    def _open(self) -> aiohttp.ClientSession:
        if self._session is None:
            # A connection of its own each time: ticks are longer apart than idle connections live.
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(force_close=True),
                cookie_jar=aiohttp.DummyCookieJar(),
                timeout=aiohttp.ClientTimeout(total=None),
                headers={**self._headers, "User-Agent": "tidegate"},
                trust_env=False,
            )
        return self._session

    def _refusal(self, what: str, status: int, body: bytes, later_s: float | None) -> ActuatorError:
        said = body[:_SHOWN].decode(errors="replace").strip() or "it said nothing"
        return ActuatorError(f"{self._settings.url} answered {status} to {what}: {said}", retry_after_s=later_s)


class Keys:
    """Idempotency keys: the same for the repetition of an action, another one for its next occurrence.

    A start is known by its names, for ever. A replica may be drained, taken back and drained again, which is something
    else than draining it twice in a row.
    """

    def __init__(self, epoch: str) -> None:
        self._epoch = epoch
        self._last: dict[str, tuple[str, int]] = {}

    def key(self, action: Action) -> str:
        """At most 64 characters that any header takes."""
        if isinstance(action, ScaleUp):
            return self._hash("scale_up", action.pool, action.kind, *sorted(action.start_ids))
        subject = action.start_id or action.replica or "" if isinstance(action, GiveUp) else action.replica
        last, count = self._last.pop(subject, ("", 0))
        word = verb(action)
        count += word != last
        self._last[subject] = (word, count)
        if len(self._last) > _REMEMBERED:
            del self._last[next(iter(self._last))]
        return self._hash(self._epoch, word, action.pool, subject, str(count))

    @staticmethod
    def _hash(*parts: str) -> str:
        return hashlib.sha256("\0".join(parts).encode()).hexdigest()


async def _read(response: aiohttp.ClientResponse) -> bytes:
    body = bytearray()
    async for part in response.content.iter_any():
        body += part
        if len(body) > ANSWER_BYTES:
            response.close()
            raise ActuatorError(f"{response.url} answered with more than {ANSWER_BYTES >> 20} MiB")
    return bytes(body)


def _later_s(value: str) -> float | None:
    """Retry-After in seconds; dates are rare and ignored."""
    return min(float(value), _MOST_LATER_S) if value.isascii() and value.isdigit() and len(value) < 10 else None
