"""Group B, second half: methods, versions, upgrades, hop-by-hop headers and bodies that are not what they seem."""

from __future__ import annotations

import gzip
import json
import os
import random
import resource
import time

import pytest

from lb.request import RequestInfo, SurfaceName
from lb.surfaces import SURFACES
from tests.lb.catalogue.client import chat, get, post
from tests.lb.catalogue.conftest import MakeWorld
from tests.lb.catalogue.rows import (
    BODY,
    HOST,
    LENGTH,
    refused,
)
from tests.lb.catalogue.upstream import (
    Connection,
    reply,
)
from tests.lb.catalogue.wire import Request


@pytest.mark.parametrize(
    "line", [b"CONNECT example.com:443 HTTP/1.1\r\n", b"CONNECT / HTTP/1.1\r\n", b"GET a:80 HTTP/1.1\r\n"]
)
async def test_b10_there_is_no_tunnel(make_world: MakeWorld, line: bytes) -> None:
    world = await make_world()
    response = await refused(world, line + HOST + b"\r\n", (400, 405, 501))
    assert response.status != 200


@pytest.mark.parametrize("method", ["GET", "POST", "HEAD"])
async def test_b11_an_asterisk_is_for_options_alone(make_world: MakeWorld, method: str) -> None:
    world = await make_world()
    client = await world.client()
    await client.send(get("*", method=method))
    response = await client.response(head_only=method == "HEAD")
    assert response is not None
    assert response.status == 400


VERSIONS = {
    "0.9": b"GET /v1/models\r\n",
    "0.9 named": b"GET /v1/models HTTP/0.9\r\n" + HOST + b"\r\n",
    "2 preface": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00",
    "2.0": b"GET /v1/models HTTP/2.0\r\n" + HOST + b"\r\n",
    "9.9": b"GET /v1/models HTTP/9.9\r\n" + HOST + b"\r\n",
    "lower case": b"GET /v1/models http/1.1\r\n" + HOST + b"\r\n",
    "1.32": b"GET /v1/models HTTP/1.32\r\n" + HOST + b"\r\n",
    "1.": b"GET /v1/models HTTP/1.\r\n" + HOST + b"\r\n",
    "1": b"GET /v1/models HTTP/1\r\n" + HOST + b"\r\n",
    "01.1": b"GET /v1/models HTTP/01.1\r\n" + HOST + b"\r\n",
    "1.2": b"GET /v1/models HTTP/1.2\r\n" + HOST + b"\r\n",
    "other protocol": b"GET /v1/models ICY/1.1\r\n" + HOST + b"\r\n",
    "rtsp": b"DESCRIBE /v1/models RTSP/1.0\r\n" + HOST + b"\r\n",
    "two spaces": b"GET /v1/models  HTTP/1.1\r\n" + HOST + b"\r\n",
    "trailing space": b"GET /v1/models HTTP/1.1 \r\n" + HOST + b"\r\n",
}


@pytest.mark.parametrize("version", VERSIONS)
async def test_b12_other_versions_are_refused(make_world: MakeWorld, version: str) -> None:
    world = await make_world(timeouts={"head_s": 0.5})
    await refused(world, VERSIONS[version], (400, 408, 501, 505))


METHODS = [
    b"post",
    b"Post",
    b"FOO",
    b"G3T",
    b"GE\x00T",
    b"TRACE",
    b"TRACK",
    b"PROPFIND",
    b"M-SEARCH",
    b"SOURCE",
    b"",
    b"GET,",
    b"(",
]


@pytest.mark.parametrize("method", METHODS)
async def test_b13_garbage_methods_are_refused(make_world: MakeWorld, method: bytes) -> None:
    world = await make_world()
    await refused(
        world, method + b" /v1/chat/completions HTTP/1.1\r\n" + HOST + LENGTH + b"\r\n" + BODY, (400, 405, 501)
    )


async def test_b13_a_method_of_a_megabyte_is_read_in_bounds(make_world: MakeWorld) -> None:
    world = await make_world()
    client = await world.client()
    await client.send(b"A" * 1_000_000)
    response = await client.response()
    assert response is None or response.status in (400, 414, 501)
    await client.ended()
    assert not world.upstreams[0].connections


async def test_b14_a_fragment_is_refused(make_world: MakeWorld) -> None:
    world = await make_world()
    await refused(world, chat(path="/v1/chat/completions#top"))


async def test_b15_a_tls_hello_on_the_plain_port_is_refused(make_world: MakeWorld) -> None:
    world = await make_world(timeouts={"head_s": 0.5})
    hello = bytes.fromhex("16030100c8010000c40303") + random.Random(1).randbytes(190)
    await refused(world, hello)


@pytest.mark.parametrize("seed", range(8))
async def test_b15_random_bytes_are_refused(make_world: MakeWorld, seed: int) -> None:
    world = await make_world(timeouts={"head_s": 0.3})
    await refused(world, random.Random(seed).randbytes(2000), (400, 408, 414, 431, 501))


@pytest.mark.parametrize("upgrade", ["websocket", "h2c", "HTTP/2.0", "TLS/1.3", "websocket, h2c", "foo"])
@pytest.mark.parametrize("connection", ["Upgrade", "keep-alive, Upgrade", "upgrade, HTTP2-Settings"])
async def test_b16_an_upgrade_is_not_passed_on(make_world: MakeWorld, upgrade: str, connection: str) -> None:
    world = await make_world()
    headers = f"Connection: {connection}\r\nUpgrade: {upgrade}\r\nHTTP2-Settings: AAMAAABkAAQAoAAAAAIAAAAA\r\n"
    response = await world.ask(chat(headers=headers))
    assert response.status in (200, 426, 501)
    for request in world.upstreams[0].requests:
        assert request.get("upgrade") is None
        assert request.get("http2-settings") is None
        assert request.body == BODY


async def test_b16_a_websocket_upgrade_of_a_plain_path_is_not_switched(make_world: MakeWorld) -> None:
    world = await make_world()

    async def switch(connection: Connection, request: Request) -> None:
        await connection.send(
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\nraw"
        )

    world.upstreams[0].script = switch
    response = await world.ask(chat(headers="Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: x\r\n"))
    assert response.status in (426, 501, 502)


HOP = {
    "TE": "trailers",
    "Trailer": "X-T",
    "Keep-Alive": "timeout=5",
    "Proxy-Connection": "keep-alive",
    "Proxy-Authorization": "Basic c2VjcmV0",
    "X-Nominated": "yes",
}


async def test_b17_headers_for_one_hop_are_not_passed_to_the_replica(make_world: MakeWorld) -> None:
    world = await make_world()
    headers = "".join(f"{name}: {value}\r\n" for name, value in HOP.items())
    response = await world.ask(chat(headers=f"Connection: keep-alive, X-Nominated\r\n{headers}X-Kept: yes\r\n"))
    assert response.status == 200
    [request] = world.upstreams[0].requests
    for name in (*HOP, "Connection"):
        assert request.get(name.lower()) is None, name
    assert request.get("x-kept") == "yes"


async def test_b17_headers_for_one_hop_are_not_passed_to_the_client(make_world: MakeWorld) -> None:
    world = await make_world()

    async def chatty(connection: Connection, request: Request) -> None:
        await connection.send(
            reply(
                headers=b"Connection: keep-alive, X-Nominated\r\nX-Nominated: yes\r\nKeep-Alive: timeout=5\r\n"
                b"Proxy-Authenticate: Basic\r\nTE: x\r\nTrailer: X-T\r\nUpgrade: h2c\r\nX-Kept: yes\r\n"
            )
        )

    world.upstreams[0].script = chatty
    response = await world.ask(chat())
    for name in ("x-nominated", "keep-alive", "proxy-authenticate", "te", "trailer", "upgrade", "connection"):
        assert response.get(name) is None, name
    assert response.get("x-kept") == "yes"


@pytest.mark.parametrize(
    "name", ["content-length", "Host", "authorization", "Transfer-Encoding", "content-type", "Expect"]
)
async def test_b18_connection_cannot_name_what_is_not_for_one_hop(make_world: MakeWorld, name: str) -> None:
    world = await make_world()
    await refused(world, chat(headers=f"Connection: close, {name}\r\n"))


ODD_JSON = {
    "not json": b"hello",
    "empty": b"",
    "cut": b'{"model": "m", "messages": [',
    "array": b"[1, 2]",
    "null": b"null",
    "wrong types": b'{"model": 7, "messages": "x", "max_tokens": "many", "stream": "yes"}',
    "utf-16": '{"model": "m"}'.encode("utf-16"),
    "invalid utf-8": b'{"model": "m", "messages": [{"content": "\xff\xfe"}]}',
    "lone surrogate": b'{"model": "\\ud800"}',
    "deep arrays": b'{"model": "m", "messages": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    "deep objects": b'{"model": "m", "x": ' + b'{"a":' * 100_000 + b"1" + b"}" * 100_000 + b"}",
    "duplicate keys": b'{"model": "m", "model": "other", "messages": []}',
    "huge number": b'{"model": "m", "max_tokens": ' + b"9" * 10_000 + b"}",
    "float": b'{"model": "m", "max_tokens": 1e308, "n": -1}',
    "nan": b'{"model": "m", "max_tokens": NaN}',
    "nul": b'{"model": "m\\u0000", "messages": []}',
}


@pytest.mark.parametrize("kind", ODD_JSON)
async def test_b19_odd_bodies_are_refused_as_json_or_passed_byte_for_byte(make_world: MakeWorld, kind: str) -> None:
    world = await make_world(control=False)
    body = ODD_JSON[kind]
    started = time.process_time()
    response = await world.ask(post(body))
    assert time.process_time() - started < 0.5
    if world.upstreams[0].requests:
        assert response.status == 200
        assert world.upstreams[0].requests[0].body == body
    else:
        assert response.status in (400, 404)
        assert json.loads(response.body)["error"]["message"]


@pytest.mark.parametrize("kind", ["deep arrays", "deep objects", "huge number"])
def test_b19_odd_bodies_cost_little(kind: str) -> None:

    rounds = []
    for _ in range(5):
        started = time.process_time()
        SURFACES[SurfaceName.CHAT].read_request(ODD_JSON[kind], RequestInfo("r"))
        rounds.append(time.process_time() - started)
    assert min(rounds) < 0.05


async def test_b20_a_compressed_body_is_passed_on_and_never_inflated(make_world: MakeWorld) -> None:
    world = await make_world(control=False)  # its model cannot be read, so any replica might get it
    bomb = gzip.compress(b"\0" * 200_000_000, 9)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    response = await world.ask(post(bomb, headers="Content-Encoding: gzip\r\n"))
    assert response.status in (200, 415)
    if response.status == 200:
        assert world.upstreams[0].requests[0].body == bomb
        assert world.upstreams[0].requests[0].get("content-encoding") == "gzip"
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000  # kB; the bomb itself is 200 MB


async def test_b21_a_multipart_upload_is_streamed_through_untouched(make_world: MakeWorld) -> None:
    world = await make_world(limits={"buffer_bytes": 65_536})
    audio = os.urandom(1_000_000)
    boundary = "----tidegate"
    body = (
        f'--{boundary}\r\nContent-Disposition: form-data; name="model"\r\n\r\nm\r\n'
        f'--{boundary}\r\nContent-Disposition: form-data; name="file"; filename="a.wav"\r\n'
        "Content-Type: audio/wav\r\n\r\n"
    ).encode() + audio + f"\r\n--{boundary}--\r\n".encode()  # fmt: skip
    head = f"Content-Type: multipart/form-data; boundary={boundary}\r\nContent-Length: {len(body)}\r\n\r\n"
    request = b"POST /v1/audio/transcriptions HTTP/1.1\r\n" + HOST + head.encode() + body
    response = await world.ask(request)
    assert response.status == 200
    assert world.upstreams[0].requests[0].body == body
    assert world.upstreams[0].requests[0].get("content-type") == f"multipart/form-data; boundary={boundary}"


TWINS = [
    "Transfer_Encoding: chunked", "Content_Length: 5", "X_Forwarded_For: 1.2.3.4", "X_Real_IP: 1.2.3.4",
    "X_Api_Key: k", "X-Forwarded_For: 1.2.3.4", "Proxy_Authorization: x", "X_Request_Id: 1", "content_type: text/plain",
]  # fmt: skip


@pytest.mark.parametrize("line", TWINS)
async def test_b22_look_alikes_with_underscores_are_refused(make_world: MakeWorld, line: str) -> None:
    world = await make_world()
    await refused(world, chat(headers=line + "\r\n"))
