"""Reading a request's head: strict, bounded, and already in the form in which it is passed on.

llhttp (through httptools) judges syntax and framing. What it lets pass and a replica might read differently is
refused here: a second Host, look-alike names with underscores, framing headers nominated by `Connection`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Protocol

import httptools

from lb.errors import ProxyError, Reason
from lb.settings import LimitSettings

_METHODS = frozenset({"GET", "POST", "HEAD", "OPTIONS", "PUT", "DELETE", "PATCH"})
_HOST = re.compile(rb"(?:[A-Za-z0-9._~%!$&'()*+;=-]+|\[[0-9A-Fa-f:.]+\])(?::[0-9]*)?")
_NOT_CONTROL = bytes(b for b in range(256) if b in b"\t\r\n" or (b > 0x1F and b != 0x7F))
_TARGET_FORBIDDEN = re.compile(rb"[^\x21-\x7e]|#")

# What is done with a header. Names not listed are passed on unchanged.
_DROP, _HOST_H, _LENGTH, _ENCODING, _CONNECTION, _EXPECT, _AUTH, _KEEP, _FORWARDED, _UPGRADE = range(1, 11)
_ACTIONS: dict[bytes, int] = {
    b"host": _HOST_H, b"content-length": _LENGTH, b"transfer-encoding": _ENCODING, b"connection": _CONNECTION,
    b"expect": _EXPECT, b"authorization": _AUTH, b"x-api-key": _AUTH, b"api-key": _AUTH, b"upgrade": _UPGRADE,
    b"te": _DROP, b"trailer": _DROP, b"keep-alive": _DROP, b"proxy-connection": _DROP, b"proxy-authorization": _DROP,
    b"proxy-authenticate": _DROP, b"http2-settings": _DROP,
    b"x-forwarded-for": _FORWARDED, b"x-forwarded-proto": _FORWARDED, b"x-forwarded-host": _FORWARDED,
    b"x-real-ip": _FORWARDED, b"forwarded": _FORWARDED, b"x-request-id": _FORWARDED,
    b"content-type": _KEEP, b"content-encoding": _KEEP,
}  # fmt: skip
_NOT_REMOVABLE = frozenset(
    {
        b"content-length",
        b"host",
        b"transfer-encoding",
        b"authorization",
        b"content-type",
        b"content-encoding",
        b"expect",
    }
)
_PLAIN_CONNECTION = {b"keep-alive": None, b"close": None, b"": None}


_CHUNKED_HEAD = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"


class Chunks(Protocol):
    """Where the pieces of a chunked body go."""

    complete: bool
    chunks: int
    overrun: bool
    """Bytes of a further request came behind the body."""

    def on_data(self, data: bytes) -> None:
        """A piece of the body."""


class Head:
    """One request's head; nobody writes to it once `HeadReader.read` returned it."""

    __slots__ = (
        "auth", "chunked", "connection", "content_length", "expect_continue", "fields", "forwarded", "host", "http11",
        "keep_alive", "kept", "lines", "method", "method_bytes", "path", "target", "upgrade",
    )  # fmt: skip

    def __init__(self) -> None:
        self.method = ""
        self.method_bytes = b""
        self.target = b""
        """Origin-form, byte for byte as the client wrote it."""
        self.path = ""
        """The target without its query."""
        self.http11 = True
        self.keep_alive = True
        self.content_length = -1
        """-1: none was given."""
        self.chunked = False
        self.expect_continue = False
        self.upgrade = b""
        self.connection: bytes | None = None
        self.host: bytes | None = None
        self.lines: list[bytes] = []
        """Header lines to pass on, each with its CRLF."""
        self.fields = 0
        self.kept: dict[bytes, bytes] = {}
        """Values that someone here reads, by lower-case name."""
        self.auth: list[tuple[bytes, bytes]] = []
        self.forwarded: list[tuple[bytes, bytes]] = []


class HeadReader:
    """Turns the bytes of heads into `Head`s; one per connection, as llhttp's parser is bound to it.

    `watched`: lower-case names of further headers whose values are wanted in `Head.kept` (they are passed on too).
    """

    def __init__(self, limits: LimitSettings, watched: Iterable[str] = ()) -> None:
        self._limits = limits
        self._actions = _ACTIONS | {name.lower().encode(): _KEEP for name in watched}
        self._head = Head()
        self._parser: httptools.HttpRequestParser | None = None
        self.body: Chunks | None = None
        """Who takes the body that `feed_chunked` reads."""

    def check_partial(self, data: bytes | bytearray) -> None:
        """Refuse early what can no longer become a good head; raises ProxyError."""
        limits = self._limits
        line_end = data.find(b"\r\n")
        if len(data) > limits.request_line_bytes and not 0 <= line_end <= limits.request_line_bytes:
            raise ProxyError(Reason.URI_TOO_LONG, 414, "the request line is too long", close=True)
        if len(data) > limits.head_bytes:
            raise ProxyError(Reason.HEADERS_TOO_LARGE, 431, "the request head is too large", close=True)
        self._check_bytes(data, data.endswith(b"\r"))

    def read(self, raw: bytes) -> Head:
        """Parse one whole head, from the request line to the empty line; raises ProxyError.

        The parser behind it is then ready for `feed_chunked` if `Head.chunked`.
        """
        limits = self._limits
        if len(raw) > limits.request_line_bytes and not 0 <= raw.find(b"\r\n") <= limits.request_line_bytes:
            raise ProxyError(Reason.URI_TOO_LONG, 414, "the request line is too long", close=True)
        if len(raw) > limits.head_bytes:
            raise ProxyError(Reason.HEADERS_TOO_LARGE, 431, "the request head is too large", close=True)
        self._check_bytes(raw, False)
        if raw.count(b" ", 0, raw.find(b"\r\n")) != 2:
            raise _bad("the request line is not METHOD TARGET VERSION with one space between")
        head = self._head = Head()
        parser = httptools.HttpRequestParser(self)
        try:
            parser.feed_data(raw)
        except httptools.HttpParserUpgrade:
            pass
        except httptools.HttpParserInvalidMethodError:
            raise _bad("the method is not one of HTTP's") from None
        except httptools.HttpParserCallbackError as error:
            raise (error.__context__ if isinstance(error.__context__, ProxyError) else _bad(str(error))) from None
        except httptools.HttpParserError as error:
            raise _bad(str(error)) from None
        head.method_bytes = parser.get_method()
        head.method = head.method_bytes.decode("ascii")
        self._check_version(parser.get_http_version(), head)
        head.keep_alive = parser.should_keep_alive()
        # Kept only while a body needs it: parser and reader hold each other, and only the garbage collector parts them.
        self._parser = parser if head.chunked else None
        self._check(head)
        return head

    def begin_chunked(self, body: Chunks) -> None:
        """Stand before a chunked body, also when its head was known and not read."""
        self.body = None
        self.read(_CHUNKED_HEAD)
        self.body = body

    def feed_chunked(self, data: bytes) -> None:
        """Feed bytes of a chunked body; they come to `body`. Raises ProxyError on broken framing."""
        assert self._parser is not None
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as error:
            raise _bad(f"the chunked body is broken: {error}") from None

    # llhttp's callbacks -------------------------------------------------------------------------------------------

    def close(self) -> None:
        """No more will be read: let go of what holds the reader."""
        self._parser = self.body = None

    def on_url(self, target: bytes) -> None:
        self._head.target = target

    def on_header(self, name: bytes, value: bytes) -> None:
        if self.body is not None:
            return  # a trailer: dropped, as nothing behind a proxy may depend on one
        head = self._head
        head.fields += 1
        lower = name.lower()
        action = self._actions.get(lower)
        if action is None:
            if b"_" in lower and lower.replace(b"_", b"-") in self._actions:
                raise _bad(f"{name[:40].decode('ascii')} looks like a header that it is not")
            head.lines.append(b"%b: %b\r\n" % (name, value))
            if len(name) + len(value) > self._limits.header_bytes:
                raise ProxyError(Reason.HEADERS_TOO_LARGE, 431, "a header is too large", close=True)
            return
        if len(value) > self._limits.header_bytes:
            raise ProxyError(Reason.HEADERS_TOO_LARGE, 431, "a header is too large", close=True)
        self._special(action, head, lower, name, value)

    def on_body(self, data: bytes) -> None:
        if self.body is not None:
            self.body.on_data(data)

    def on_chunk_header(self) -> None:
        if self.body is not None:
            self.body.chunks += 1

    def on_message_begin(self) -> None:
        if self.body is not None and self.body.complete:
            self.body.overrun = True

    def on_message_complete(self) -> None:
        if self.body is not None:
            self.body.complete = True

    # ---------------------------------------------------------------------------------------------------------------

    def _special(self, action: int, head: Head, lower: bytes, name: bytes, value: bytes) -> None:
        if action == _KEEP:
            head.kept[lower] = value
            head.lines.append(b"%b: %b\r\n" % (name, value))
        elif action == _HOST_H:
            if head.host is not None:
                raise _bad("there is more than one Host header")
            head.host = value.strip()
        elif action == _LENGTH:
            text = value.strip()
            if head.content_length >= 0 or not text.isdigit() or len(text) > 18:
                raise _bad("Content-Length is not one plain number")
            head.content_length = int(text)
        elif action == _ENCODING:
            if value.strip().lower() != b"chunked":
                raise ProxyError(
                    Reason.NOT_IMPLEMENTED, 501, "no transfer encoding but chunked is understood", close=True
                )
            head.chunked = True
        elif action == _CONNECTION:
            head.connection = value if head.connection is None else head.connection + b"," + value
        elif action == _EXPECT:
            if value.strip().lower() != b"100-continue":
                raise ProxyError(Reason.EXPECTATION_FAILED, 417, "only Expect: 100-continue is understood", close=True)
            head.expect_continue = True
        elif action == _AUTH:
            head.auth.append((lower, value))
        elif action == _FORWARDED:
            head.forwarded.append((lower, value))
        elif action == _UPGRADE:
            head.upgrade = value.strip().lower()

    @staticmethod
    def _check_bytes(data: bytes | bytearray, partial: bool) -> None:
        line_feeds = data.count(b"\n")
        pairs = data.count(b"\r\n")
        if line_feeds != pairs or data.count(b"\r") != pairs + partial:
            raise _bad("a line must end in CR LF, and neither may stand alone")
        if data.translate(None, _NOT_CONTROL):
            raise _bad("the request head has control characters")

    @staticmethod
    def _check_version(version: str, head: Head) -> None:
        if version == "1.1":
            return
        if version != "1.0":
            raise ProxyError(
                Reason.VERSION_NOT_SUPPORTED, 505, "only HTTP/1.1 and HTTP/1.0 are spoken here", close=True
            )
        head.http11 = False
        if head.chunked:
            raise _bad("HTTP/1.0 has no transfer encoding")

    def _check(self, head: Head) -> None:
        if head.fields > self._limits.headers:
            raise ProxyError(Reason.HEADERS_TOO_LARGE, 431, "there are too many headers", close=True)
        if head.method not in _METHODS:
            raise ProxyError(Reason.NOT_IMPLEMENTED, 501, f"{head.method[:20]} is not supported", close=True)
        if head.host is None:
            if head.http11:
                raise _bad("there is no Host header")
        elif not _HOST.fullmatch(head.host) and not (head.host == b"" and not head.http11):
            raise _bad("the Host header is not a host")
        if head.connection is not None and head.connection not in _PLAIN_CONNECTION:
            self._drop_nominated(head)
        self._set_target(head)

    @staticmethod
    def _drop_nominated(head: Head) -> None:
        """RFC 9110 7.6.1: what `Connection` names is for this hop alone."""
        assert head.connection is not None
        nominated = {token.strip().lower() for token in head.connection.split(b",")}
        nominated -= {b"", b"close", b"keep-alive", b"upgrade"}
        if nominated & _NOT_REMOVABLE:
            raise _bad("Connection names a header that is not for one hop")
        if nominated:
            head.lines = [line for line in head.lines if line.partition(b":")[0].lower() not in nominated]
            for name in nominated:
                head.kept.pop(name, None)

    @staticmethod
    def _set_target(head: Head) -> None:
        target = head.target
        if not target.startswith(b"/"):
            if target == b"*":
                if head.method != "OPTIONS":
                    raise _bad("only OPTIONS may ask for *")
                head.path = "*"
                return
            # Absolute form: its authority is for policy only; the request goes to the replica that we choose.
            scheme, sep, rest = target.partition(b"://")
            authority, slash, path = rest.partition(b"/")
            if scheme.lower() not in (b"http", b"https") or not sep or not _HOST.fullmatch(authority):
                raise _bad("the request target is not a path")
            target = head.target = slash + path if slash else b"/"
        if _TARGET_FORBIDDEN.search(target):
            raise _bad("the request target has characters that must be percent-encoded")
        head.path = target.partition(b"?")[0].decode("ascii")


def _bad(message: str) -> ProxyError:
    return ProxyError(Reason.BAD_REQUEST, 400, message, close=True)
