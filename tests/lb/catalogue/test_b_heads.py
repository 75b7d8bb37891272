"""Group B, first half: lines, names, targets and hosts that are not proper HTTP."""

from __future__ import annotations

import pytest

from tests.lb.catalogue.client import chat
from tests.lb.catalogue.conftest import MakeWorld
from tests.lb.catalogue.rows import (
    BODY,
    HOST,
    LENGTH,
    LINE,
    refused,
    with_headers,
)

BARE_LF = {
    "request line": b"POST /v1/chat/completions HTTP/1.1\n" + HOST + LENGTH + b"\r\n" + BODY,
    "header line": with_headers(b"X-A: 1\n"),
    "last line": LINE + HOST + LENGTH + b"\n" + BODY,
    "every line": (LINE + HOST + LENGTH + b"\r\n").replace(b"\r\n", b"\n") + BODY,
    "empty line": LINE + HOST + LENGTH + b"\n\n" + BODY,
}


@pytest.mark.parametrize("where", BARE_LF)
async def test_b01_a_bare_lf_is_refused(make_world: MakeWorld, where: str) -> None:
    world = await make_world(timeouts={"head_s": 0.5})
    await refused(world, BARE_LF[where], (400, 408))


BARE_CR = {
    "request line": b"POST /v1/chat\r/completions HTTP/1.1\r\n" + HOST + LENGTH + b"\r\n" + BODY,
    "header value": with_headers(b"X-A: 1\rX-B: 2\r\n"),
    "header line end": with_headers(b"X-A: 1\r"),
    "doubled": with_headers(b"X-A: 1\r\r\n"),
    "chunk line": LINE + HOST + b"Transfer-Encoding: chunked\r\n\r\n5\r\rhello\r\n0\r\n\r\n",
    "chunk end": LINE + HOST + b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\r0\r\n\r\n",
}


@pytest.mark.parametrize("where", BARE_CR)
async def test_b02_a_bare_cr_is_refused(make_world: MakeWorld, where: str) -> None:
    world = await make_world()
    await refused(world, BARE_CR[where])


CONTROLS = [byte for byte in (*range(0x20), 0x7F) if byte not in b"\t\r\n"]


@pytest.mark.parametrize("byte", CONTROLS)
async def test_b03_a_control_byte_in_a_value_is_refused(make_world: MakeWorld, byte: int) -> None:
    world = await make_world()
    await refused(world, with_headers(b"X-A: a" + bytes([byte]) + b"b\r\n"))


@pytest.mark.parametrize("fold", [b"X-A: 1\r\n 2\r\n", b"X-A: 1\r\n\t2\r\n", b"X-A:\r\n 2\r\n"])
async def test_b04_a_folded_header_is_refused(make_world: MakeWorld, fold: bytes) -> None:
    world = await make_world()
    await refused(world, with_headers(fold))


SPACES = {
    "before colon": with_headers(b"X-A : 1\r\n"),
    "tab before colon": with_headers(b"X-A\t: 1\r\n"),
    "before length's colon": LINE + HOST + b"Content-Length : %d\r\n\r\n" % len(BODY) + BODY,
    "leading on the first header": LINE + b" " + HOST + LENGTH + b"\r\n" + BODY,
    "leading tab on the first header": LINE + b"\tX-A: 1\r\n" + HOST + LENGTH + b"\r\n" + BODY,
    "leading on a later header": with_headers(b" X-A: 1\r\n"),
}


@pytest.mark.parametrize("where", SPACES)
async def test_b05_spaces_around_names_are_refused(make_world: MakeWorld, where: str) -> None:
    world = await make_world()
    await refused(world, SPACES[where])


NAMES = [
    b": value\r\n", b"no colon\r\n", b"\r", b"X A: 1\r\n", b"X(A): 1\r\n", b"X/A: 1\r\n", b"X@A: 1\r\n", b"X[A]: 1\r\n",
    b"X{A}: 1\r\n", b'X"A": 1\r\n', b"X,A: 1\r\n", b"X;A: 1\r\n", b"X<A>: 1\r\n", b"X=A: 1\r\n", b"X?A: 1\r\n",
    b"X\\A: 1\r\n", b"X\xe9A: 1\r\n", b"X\x00A: 1\r\n", b"X\x80: 1\r\n", b"\xff\xfe: 1\r\n",
]  # fmt: skip


@pytest.mark.parametrize("line", NAMES)
async def test_b06_a_name_that_is_no_token_is_refused(make_world: MakeWorld, line: bytes) -> None:
    world = await make_world()
    await refused(world, with_headers(line))


@pytest.mark.parametrize(
    "target",
    [b"/v1/ch\xc3\xa9", b"/v1/\xff", b"/v1/\x01", b"/v1/\x00", b"/v1/a\tb", b"/v1/a b", b"/v1/\x7f", b"/\x1b[31m"],
)
async def test_b07_bytes_in_the_target_that_need_encoding_are_refused(make_world: MakeWorld, target: bytes) -> None:
    world = await make_world()
    await refused(world, b"POST " + target + b" HTTP/1.1\r\n" + HOST + LENGTH + b"\r\n" + BODY)


@pytest.mark.parametrize("query", ["?a=%2e%2F%C3%A9", "?a=b;c=%25&x=%00", "?q=%e4%f6&%41=A"])
async def test_b07_percent_encoding_is_kept_byte_for_byte(make_world: MakeWorld, query: str) -> None:
    world = await make_world()
    response = await world.ask(chat(path="/v1/chat/completions" + query))
    assert response.status == 200
    assert world.upstreams[0].requests[0].target == "/v1/chat/completions" + query


HOSTS = {
    "missing": b"",
    "two": b"Host: a\r\nHost: b\r\n",
    "two equal": b"Host: a\r\nHost: a\r\n",
    "comma": b"Host: a,b\r\n",
    "user": b"Host: user@a\r\n",
    "path": b"Host: a/b\r\n",
    "space": b"Host: a b\r\n",
    "query": b"Host: a?b\r\n",
    "port": b"Host: a:port\r\n",
    "bracket": b"Host: [::1\r\n",
    "non-ascii": b"Host: \xc3\xa9\r\n",
    "backslash": b"Host: a\\b\r\n",
}


@pytest.mark.parametrize("kind", HOSTS)
async def test_b08_a_host_that_is_none_is_refused(make_world: MakeWorld, kind: str) -> None:
    world = await make_world()
    await refused(world, LINE + HOSTS[kind] + LENGTH + b"\r\n" + BODY)


@pytest.mark.parametrize("authority", ["evil.example", "169.254.169.254", "127.0.0.1:1", "tidegate.test"])
async def test_b09_an_absolute_target_goes_to_the_chosen_replica_as_a_path(
    make_world: MakeWorld, authority: str
) -> None:
    world = await make_world()
    response = await world.ask(chat(path=f"http://{authority}/v1/chat/completions?x=1"))
    assert response.status == 200
    [request] = world.upstreams[0].requests
    assert request.target == "/v1/chat/completions?x=1"
    assert request.get("host") == f"127.0.0.1:{world.upstreams[0].address[1]}"


@pytest.mark.parametrize(
    "target", ["http://", "http:///v1/chat/completions", "http://a@b/v1/chat/completions", "ftp://a/v1", "file:///etc/passwd",
    "http://a b/", "//evil/v1/chat/completions", "v1/chat/completions", "?x", "gopher://a:70/_"]
)  # fmt: skip
async def test_b09_odd_targets_are_refused_and_never_500(make_world: MakeWorld, target: str) -> None:
    world = await make_world()
    response = await world.ask(chat(path=target))
    assert response.status in (400, 404, 405)
    assert not world.upstreams[0].requests
