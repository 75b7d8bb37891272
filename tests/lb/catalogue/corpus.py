"""A corpus of hostile raw requests, made by crossing every way that framing, names, hosts, lines and targets go wrong.

Each payload is one connection's worth of bytes. It is not said here how it must be answered: it is judged by what
reaches a replica, and by whether the answer blames the server. `compliant` ones must be served.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product

BODY = b'{"model":"m","messages":[{"role":"user","content":"hi"}]}'
SMUGGLED = b"POST /v1/completions?smuggled HTTP/1.1\r\nHost: evil\r\nContent-Length: 0\r\n\r\n"
CHUNKED_BODY = b"%x\r\n%b\r\n0\r\n\r\n" % (len(BODY), BODY)
EXTENDED_BODY = b"".join(b"1;x=y\r\n%c\r\n" % byte for byte in BODY) + b"0\r\n\r\n"
LINE = b"POST /v1/chat/completions HTTP/1.1\r\n"
HOST = b"Host: tidegate.test\r\n"


@dataclass(frozen=True)
class Payload:
    name: str
    data: bytes
    compliant: bool = False


def _request(*lines: bytes, line: bytes = LINE, host: bytes = HOST, body: bytes = BODY) -> bytes:
    return line + host + b"".join(entry + b"\r\n" for entry in lines) + b"\r\n" + body


LENGTH = b"Content-Length: %d" % len(BODY)
NAME_SPELLINGS = [
    b"%b", b"%b ", b" %b", b"\t%b", b"%b\t", b"x%b", b"%bx", b"%b\x00", b"\x00%b", b"%b\x0b", b"\x0c%b", b"%b\xa0",
    b"\xef\xbb\xbf%b", b'"%b"', b"%b:", b":%b", b"%b\r", b"%b\n", b"X: y\n%b", b"X: y\r%b", b"X:\r\n%b",
    b"X: y\r\n %b", b"%b\\", b"(%b)",
]  # fmt: skip
LENGTH_VALUES = [
    b"%d", b"+%d", b"-%d", b" %d", b"%d ", b"\t%d", b"0%d", b"0x%d", b"%d,%d", b"%d, %d", b"%d;", b"%d.0", b"%de0",
    b"%d_0", b"'%d'", b'"%d"', b"%d\x00", b"\x00%d", b"%d\x0b", b"%d a", b"%d\xd9\xa0", b"1%d",
    b"1%d%d%d%d%d%d%d%d%d%d",
]  # fmt: skip
ENCODINGS = [
    b"chunked", b"Chunked", b"CHUNKED", b" chunked", b"chunked ", b"\tchunked", b"xchunked", b"chunkedx",
    b"chunked, chunked", b"chunked,chunked", b"gzip, chunked", b"chunked, gzip", b"identity", b"identity, chunked",
    b"chunked, identity", b"chunked;q=1", b"chunked; a=b", b",chunked", b"chunked,", b", chunked", b"\x0bchunked",
    b"chunked\x0b", b"\x0cchunked", b"chunked\x00", b"\x00chunked", b'"chunked"', b"'chunked'", b"chunk ed",
    b"chu\tnked", b"chunked\xa0", b"\xc2\xa0chunked", b"cow", b"", b" ", b"trailers", b"x", b"chunked\r\n\tx",
    b"\r\n chunked", b"chunked\nX: y", b"chunked\rX: y", b"chun\xe2\x80\x8bked", b"[chunked]", b"chunked=1",
]  # fmt: skip
LOOK_ALIKES = [
    b"Transfer_Encoding: chunked", b"transfer_encoding: chunked", b"Content_Length: 5",
    b"Transfer-Encoding_: chunked", b"Transfer.Encoding: chunked", b"TransferEncoding: chunked",
    b"Content-Length_: 5", b"Contentlength: 5", b"Content_length: 0", b"X-Transfer-Encoding: chunked",
    b"X_Forwarded_For: 1.1.1.1", b"HTTP-Content-Length: 5", b"Transfer-Encoding\\: chunked", b"Upgrade_: h2c",
    b"Connection_: close", b"TE_: trailers",
]  # fmt: skip
HOSTS = [
    b"", b"Host:\r\n", b"Host: \r\n", b"Host: a\r\nHost: b\r\n", b"Host: a\r\nhost: a\r\n", b"Host: a,b\r\n",
    b"Host: a b\r\n", b"Host: a@b\r\n", b"Host: a/b\r\n", b"Host: a?b\r\n", b"Host: a#b\r\n", b"Host: a\\b\r\n",
    b"Host: a:b\r\n", b"Host: a:1:2\r\n", b"Host: [::1\r\n", b"Host: ::1\r\n", b"Host: \x00a\r\n",
    b"Host: a\x00\r\n", b"Host: \xff\r\n", b"Host : a\r\n", b" Host: a\r\n", b"Host: a\r\n b\r\n",
    b"Host: a\tb\r\n", b"Host: http://a\r\n", b"Host: <a>\r\n", b"X-Host: a\r\n", b"H\x6fst: a\r\n",
    b"Host_: a\r\n", b"Host: a;b\r\n", b'Host: "a"\r\n',
]  # fmt: skip
CHUNK_BODIES = [
    b"5\r\nhello\r\n0\r\n\r\n", b"5\nhello\r\n0\r\n\r\n", b"5\r\nhello\n0\r\n\r\n", b"5\r\nhello\r\n0\n\n",
    b"5\rhello\r\n0\r\n\r\n", b"5\r\nhello\r\r\n0\r\n\r\n", b"5\r\nhello0\r\n\r\n", b"5\r\nhelloX\r\n0\r\n\r\n",
    b"4\r\nhello\r\n0\r\n\r\n", b"6\r\nhello\r\n0\r\n\r\n", b"+5\r\nhello\r\n0\r\n\r\n",
    b"-5\r\nhello\r\n0\r\n\r\n", b"0x5\r\nhello\r\n0\r\n\r\n", b"5_\r\nhello\r\n0\r\n\r\n",
    b" 5\r\nhello\r\n0\r\n\r\n", b"5 \r\nhello\r\n0\r\n\r\n", b"5\t\r\nhello\r\n0\r\n\r\n",
    b"\r\nhello\r\n0\r\n\r\n", b"g\r\nhello\r\n0\r\n\r\n", b"5;\r\nhello\r\n0\r\n\r\n",
    b"5;a\r\nhello\r\n0\r\n\r\n", b"5;a=b\r\nhello\r\n0\r\n\r\n", b"5; a=b\r\nhello\r\n0\r\n\r\n",
    b'5;a="b\r\n"\r\nhello\r\n0\r\n\r\n', b"5;a\x00\r\nhello\r\n0\r\n\r\n", b"5;a\nb\r\nhello\r\n0\r\n\r\n",
    b"5;a\rb\r\nhello\r\n0\r\n\r\n", b"5 ;a\r\nhello\r\n0\r\n\r\n", b"00000005\r\nhello\r\n0\r\n\r\n",
    b"0000000000000005\r\nhello\r\n0\r\n\r\n", b"00000000000000000005\r\nhello\r\n0\r\n\r\n",
    b"10000000000000005\r\nhello\r\n0\r\n\r\n", b"ffffffffffffffff\r\nhello\r\n0\r\n\r\n",
    b"7fffffffffffffff\r\nhello\r\n", b"5\r\nhello\r\n0\r\nX: y\r\n\r\n",
    b"5\r\nhello\r\n0\r\nContent-Length: 5\r\n\r\n", b"5\r\nhello\r\n0\r\nTransfer-Encoding: chunked\r\n\r\n",
    b"5\r\nhello\r\n0\r\nX : y\r\n\r\n", b"5\r\nhello\r\n0\r\n X: y\r\n\r\n", b"5\r\nhello\r\n0\r\nX: y\n\r\n",
    b"5\r\nhello\r\n0\r\n\n", b"5\r\nhello\r\n00\r\n\r\n", b"5\r\nhello\r\n0;x\r\n\r\n",
    b"5\r\nhello\r\n0 \r\n\r\n", b"0\r\n\r\n", b"0\n\n", b"0\r\n", b"", b"5\r\nhel",
    b"5\xd9\xa5\r\nhello\r\n0\r\n\r\n", b"0\r\nX\r\n\r\n", b"5\r\nhello\r\n0\r\n\r", b"5\r\nhello\r\n-0\r\n\r\n",
]  # fmt: skip
TARGETS = [
    b"/v1/chat/completions", b"/v1//chat/completions", b"/v1/./chat/completions", b"/v1/../v1/chat/completions",
    b"//v1/chat/completions", b"/v1/chat/completions/", b"/v1/chat%2fcompletions", b"/v1/chat/%63ompletions",
    b"/v1/chat/completions%00", b"/v1/chat/completions%20", b"/v1/chat/completions;x",
    b"/v1/chat/completions?%0d%0aX: y", b"/v1/chat/completions#x", b"/v1/chat/completions\\", b"/v1\\chat",
    b"/v1/chat completions", b"/v1/chat\tcompletions", b"/v1/\x00", b"/v1/\xff", b"*", b"",
    b"http://evil/v1/chat/completions", b"https://evil/v1/chat/completions", b"http://a@evil/v1/chat/completions",
    b"http:///v1/chat/completions", b"evil:80", b"evil", b"?x", b"/v1/chat/completions?" + b"a" * 9000, b"/metrics",
    b"/flush_cache", b"/update_weights_from_disk", b"/v1/chat/completions/../../metrics", b"/%2e%2e/metrics",
]  # fmt: skip
METHODS = [
    b"GET",
    b"HEAD",
    b"POST",
    b"PUT",
    b"DELETE",
    b"OPTIONS",
    b"PATCH",
    b"TRACE",
    b"CONNECT",
    b"post",
    b"FOO",
    b"G\x00T",
    b"GET\t",
    b" GET",
    b"G(T",
    b"",
]
VERSIONS = [
    b"HTTP/1.1", b"HTTP/1.0", b"HTTP/0.9", b"HTTP/2.0", b"HTTP/9.9", b"http/1.1", b"HTTP/1.", b"HTTP/1",
    b"HTTP/1.10", b"HTTP/01.1", b"HTTP /1.1", b"HTTP/1.1 ", b"HTTP/ 1.1", b"HTP/1.1", b"", b"HTTP/1.1\x00",
    b"HTTP/1,1", b"HTTPS/1.1", b"HTTP/-1.1", b"HTTP/1.1.1", b"ICY/1.0",
]  # fmt: skip
CONNECTIONS = [
    b"close", b"keep-alive", b"Upgrade", b"upgrade, close", b"content-length", b"host", b"transfer-encoding",
    b"close, content-length", b"x-nominated", b"te", b"authorization", b"close\x00", b"close, close", b",", b"\xff",
    b"keep-alive, transfer-encoding, host",
]  # fmt: skip


def _filled(pattern: bytes) -> bytes:
    return pattern.replace(b"%d", b"%d" % len(BODY))


def framing() -> Iterator[Payload]:
    """Lengths and encodings, alone and against each other."""
    for number, value in enumerate(LENGTH_VALUES):
        yield Payload(f"length-{number}", _request(b"Content-Length: " + _filled(value)))
    for number, value in enumerate(ENCODINGS):
        yield Payload(f"encoding-{number}", _request(b"Transfer-Encoding: " + value, body=CHUNKED_BODY))
        for order in (0, 1):
            lines = [b"Transfer-Encoding: " + value, b"Content-Length: %d" % len(CHUNKED_BODY)]
            yield Payload(f"both-{number}-{order}", _request(*(reversed(lines) if order else lines), body=CHUNKED_BODY))
        smuggling = b"0\r\n\r\n" + SMUGGLED
        lines = [b"Content-Length: %d" % len(smuggling), b"Transfer-Encoding: " + value]
        yield Payload(f"te-cl-{number}", _request(*lines, body=smuggling))
    for (n1, first), (n2, second) in product(enumerate(LENGTH_VALUES[:12]), repeat=2):
        lines = [b"Content-Length: " + _filled(first), b"Content-Length: " + _filled(second)]
        yield Payload(f"lengths-{n1}-{n2}", _request(*lines, body=BODY + SMUGGLED))
    for (n1, first), (n2, second) in product(enumerate(ENCODINGS[:14]), repeat=2):
        lines = [b"Transfer-Encoding: " + first, b"Transfer-Encoding: " + second]
        yield Payload(f"encodings-{n1}-{n2}", _request(*lines, body=CHUNKED_BODY))


def names() -> Iterator[Payload]:
    """Framing headers under names that some parsers take for them."""
    headers = [b"Content-Length", b"Transfer-Encoding", b"Host", b"Connection", b"Upgrade", b"Expect"]
    values = [LENGTH.partition(b": ")[2], b"chunked", b"evil", b"close", b"h2c", b"100-continue"]
    for (number, spelling), (header, value) in product(enumerate(NAME_SPELLINGS), zip(headers, values, strict=True)):
        odd = spelling.replace(b"%b", header) + b": " + value
        for kind, lines in {"alone": [odd], "after": [LENGTH, odd], "before": [odd, LENGTH]}.items():
            name = f"name-{number}-{header.decode()}-{kind}"
            yield Payload(name, _request(*lines, body=CHUNKED_BODY if kind == "alone" else BODY))
    for number, line in enumerate(LOOK_ALIKES):
        yield Payload(f"look-alike-{number}", _request(LENGTH, line))
        yield Payload(f"look-alike-first-{number}", _request(line, LENGTH))
        yield Payload(f"look-alike-chunked-{number}", _request(b"Transfer-Encoding: chunked", line, body=CHUNKED_BODY))


def lines() -> Iterator[Payload]:
    """Request lines, hosts, line ends and bytes that do not belong."""
    for number, host in enumerate(HOSTS):
        for version in (b"1.1", b"1.0"):
            line = LINE.replace(b"1.1", version)
            yield Payload(f"host-{number}-{version.decode()}", _request(LENGTH, line=line, host=host))
    for number, target in enumerate(TARGETS):
        yield Payload(f"target-{number}", _request(LENGTH, line=b"POST " + target + b" HTTP/1.1\r\n"))
        yield Payload(f"target-get-{number}", _request(line=b"GET " + target + b" HTTP/1.1\r\n", body=b""))
    for (number, method), target in product(enumerate(METHODS), (b"/v1/chat/completions", b"/v1/models")):
        line = method + b" " + target + b" HTTP/1.1\r\n"
        yield Payload(f"method-{number}-{target.decode()}", _request(LENGTH, line=line, body=BODY))
        yield Payload(f"method-smuggling-{number}-{target.decode()}", _request(LENGTH, line=line, body=SMUGGLED))
    for number, version in enumerate(VERSIONS):
        line = b"POST /v1/chat/completions " + version + b"\r\n"
        yield Payload(f"version-{number}", _request(LENGTH, line=line))
        yield Payload(f"version-te-{number}", _request(b"Transfer-Encoding: chunked", line=line, body=CHUNKED_BODY))
    for number, value in enumerate(CONNECTIONS):
        yield Payload(f"connection-{number}", _request(LENGTH, b"Connection: " + value, b"X-Nominated: 1"))
        yield Payload(f"connection-up-{number}", _request(LENGTH, b"Connection: " + value, b"Upgrade: websocket"))
    for byte in [*range(0x20), 0x7F, 0x80, 0xFF]:
        spot = bytes([byte])
        yield Payload(f"byte-value-{byte}", _request(LENGTH, b"X-A: a" + spot + b"b"))
        yield Payload(f"byte-name-{byte}", _request(LENGTH, b"X" + spot + b"A: ab"))
        yield Payload(f"byte-target-{byte}", _request(LENGTH, line=b"POST /v1/" + spot + b" HTTP/1.1\r\n"))
        yield Payload(f"byte-first-{byte}", spot + _request(LENGTH))
    good = _request(LENGTH)
    ends = [index for index in range(len(good) - len(BODY)) if good[index : index + 2] == b"\r\n"]
    for number, index in enumerate(ends):
        for kind, end in enumerate(
            [b"\n", b"\r", b"\r\r\n", b"\n\r\n", b"\n\n", b"\r\n\r", b"\x0b", b"\r\x00\n", b" \r\n "]
        ):
            yield Payload(f"line-end-{number}-{kind}", good[:index] + end + good[index + 2 :])


def chunks() -> Iterator[Payload]:
    """Chunked bodies, alone and with a further request behind them."""
    for number, body in enumerate(CHUNK_BODIES):
        for kind, tail in {"alone": b"", "then": SMUGGLED}.items():
            yield Payload(f"chunk-{number}-{kind}", _request(b"Transfer-Encoding: chunked", body=body + tail))
        yield Payload(f"chunk-{number}-get", _request(
            b"Transfer-Encoding: chunked", line=b"GET /v1/models HTTP/1.1\r\n", body=body
        ))  # fmt: skip


def compliant() -> Iterator[Payload]:
    """What must be served, however unusual."""
    for number, data in enumerate(
        [
            _request(LENGTH),
            b"\r\n" + _request(LENGTH),
            _request(b"content-length:%d" % len(BODY)),
            _request(b"CONTENT-LENGTH:  %d \t" % len(BODY)),
            _request(b"Transfer-Encoding: chunked", body=CHUNKED_BODY),
            _request(b"transfer-encoding:Chunked", body=CHUNKED_BODY),
            _request(b"Transfer-Encoding: chunked", body=EXTENDED_BODY),
            _request(LENGTH, b"X-Empty:"),
            _request(LENGTH, b"X-Latin: caf\xe9"),
            _request(LENGTH, b"X-Tab: a\tb"),
            _request(LENGTH, b"X-1!#$%&'*+.^`|~: odd but a token"),
            _request(LENGTH, b"Connection: close"),
            _request(LENGTH, b"Connection: keep-alive, X-Gone", b"X-Gone: 1"),
            _request(LENGTH, b"Cookie: a=b; c=d"),
            _request(LENGTH, host=b"Host: [::1]:8080\r\n"),
            _request(LENGTH, host=b"hOST: a-b.c_d\r\n"),
            _request(LENGTH, line=b"POST /v1/chat/completions?a=%2e%2F&b=c HTTP/1.1\r\n"),
            _request(LENGTH, line=b"POST http://other/v1/chat/completions HTTP/1.1\r\n"),
            _request(LENGTH, line=LINE.replace(b"1.1", b"1.0")),
            _request(LENGTH, line=LINE.replace(b"1.1", b"1.0"), host=b""),
            _request(LENGTH, b"TE: trailers", b"Connection: TE"),
        ]
    ):  # fmt: skip
        yield Payload(f"compliant-{number}", data, compliant=True)


def corpus() -> list[Payload]:
    """Every payload once."""
    seen: dict[bytes, Payload] = {}
    for generator in (compliant, framing, names, lines, chunks):
        for payload in generator():
            seen.setdefault(payload.data, payload)
    return list(seen.values())
