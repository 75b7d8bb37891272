"""Who may speak to the admin API, and that a web page open in an operator's browser may not."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import logging
from collections.abc import Awaitable, Callable, Mapping

import msgspec
from aiohttp import web

from lb.address import is_loopback

log = logging.getLogger(__name__)

OPEN_PATHS = frozenset({"/healthz", "/readyz", "/metrics"})
"""Asked by kubelets and Prometheus, which bring no token; they tell no secret and change nothing."""
READ_S = 10.0
"""A request of this API is a few hundred bytes; who needs longer for it is not answered."""

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

_SAFE_HEADERS = {
    "Cache-Control": "no-store",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'",
}


class AdminError(Exception):
    """A request of the admin API that is answered with an error."""

    def __init__(self, status: int, code: str, message: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message
        self.headers = headers or {}


def json_response(value: object, status: int = 200, headers: Mapping[str, str] | None = None) -> web.Response:
    """Any record as JSON: data classes and enums by their content, NaN and infinity as null, the unknown as text."""
    body = msgspec.json.encode(value, enc_hook=str)
    return web.Response(body=body, status=status, headers=headers, content_type="application/json")


def error_response(error: AdminError) -> web.Response:
    return json_response({"error": {"code": error.code, "message": error.message}}, error.status, error.headers)


class Guard:
    """Middleware: checks the caller, then turns every error into JSON."""

    def __init__(self, token: str | None, listen_host: str) -> None:
        self._digest = hashlib.sha256(token.encode()).digest() if token is not None else None
        self._listen_host = listen_host

    @web.middleware
    async def middleware(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        response = await self._answer(request, handler)
        response.headers.update(_SAFE_HEADERS)
        return response

    async def _answer(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        try:
            if request.path not in OPEN_PATHS or request.method not in ("GET", "HEAD"):
                self._check(request)
            async with asyncio.timeout(READ_S):
                await request.read()
            return await handler(request)
        except AdminError as error:
            return error_response(error)
        except TimeoutError:
            return error_response(AdminError(408, "request_timeout", f"the request took longer than {READ_S:g} s"))
        except web.HTTPException as error:
            headers = {"Allow": error.headers["Allow"]} if "Allow" in error.headers else None
            code = error.reason.lower().replace(" ", "_")
            return error_response(AdminError(error.status, code, f"{request.method} {error.reason}", headers))
        except ConnectionError:
            raise
        except Exception:
            log.exception("the admin API failed", extra={"method": request.method, "path": request.path})
            return error_response(AdminError(500, "internal", "Tidegate failed to answer this; the log says why"))

    def _check(self, request: web.Request) -> None:
        if self._digest is not None:
            scheme, _, token = request.headers.get("Authorization", "").partition(" ")
            given = hashlib.sha256(token.strip().encode("utf-8", "surrogateescape")).digest()
            if scheme.lower() != "bearer" or not hmac.compare_digest(given, self._digest):
                raise AdminError(
                    401,
                    "unauthorized",
                    "send the admin token as `Authorization: Bearer`",
                    {"WWW-Authenticate": "Bearer"},
                )
        if "Origin" in request.headers or request.headers.get("Sec-Fetch-Site", "none") not in ("none", "same-origin"):
            raise AdminError(403, "forbidden", "this API is not for web pages")
        if self._digest is None and not self._is_own_host(request.headers.get("Host", "")):
            raise AdminError(
                403, "forbidden", "the Host header names another machine; use the address that is listened on"
            )
        has_body = bool(request.content_length) or "Transfer-Encoding" in request.headers
        if has_body and request.content_type != "application/json":
            raise AdminError(415, "unsupported_media_type", "send Content-Type: application/json")

    def _is_own_host(self, authority: str) -> bool:
        bracketed = authority.startswith("[") and "]" in authority
        host = authority[1:].partition("]")[0] if bracketed else authority.partition(":")[0]
        return host == self._listen_host or is_loopback(host.lower())
