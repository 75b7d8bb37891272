"""The unmodified OpenAI SDK against our errors: what it raises."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from threading import Thread

import openai
import pytest

from lb.request import SurfaceName
from lb.surfaces import SURFACES
from lb.surfaces.progress import closing

CHUNK = (
    b'data: {"id":"c","object":"chat.completion.chunk","created":1,"model":"m",'
    b'"choices":[{"index":0,"delta":{"content":"hi"},"finish_reason":null}]}\n\n'
)
MESSAGES = [{"role": "user", "content": "x"}]


Answering = Callable[..., openai.OpenAI]


@pytest.fixture
def client() -> Iterator[Answering]:
    """`client(status, body)`: an SDK client whose every request is answered with that."""
    answer: dict[str, object] = {}

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["content-length"]))
            self.send_response(answer["status"])  # type: ignore[arg-type]
            self.send_header("content-type", str(answer["kind"]))
            self.end_headers()
            self.wfile.write(answer["body"])  # type: ignore[arg-type]

        def log_message(self, *parts: object) -> None:
            return

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()

    def make(status: int, body: bytes, kind: str = "application/json") -> openai.OpenAI:
        answer.update(status=status, body=body, kind=kind)
        return sdk

    with openai.OpenAI(api_key="k", base_url=f"http://127.0.0.1:{server.server_port}/v1", max_retries=0) as sdk:
        yield make
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.mark.parametrize(
    ("status", "raised"),
    [
        (400, openai.BadRequestError),
        (401, openai.AuthenticationError),
        (403, openai.PermissionDeniedError),
        (404, openai.NotFoundError),
        (429, openai.RateLimitError),
        (503, openai.InternalServerError),
    ],
)
def test_statuses_raise_what_users_catch(status: int, raised: type[openai.APIStatusError], client: Answering) -> None:
    body = SURFACES[SurfaceName.CHAT].error_body(status, "queue_full", "no room")
    with pytest.raises(raised) as caught:
        client(status, body).chat.completions.create(model="m", messages=MESSAGES)  # type: ignore[arg-type]
    assert caught.value.code == "queue_full"
    assert "no room" in caught.value.message


def stream(sdk: openai.OpenAI) -> Iterator[str | None]:
    for chunk in sdk.chat.completions.create(model="m", messages=MESSAGES, stream=True):  # type: ignore[arg-type]
        yield chunk.choices[0].delta.content


def test_an_error_in_mid_stream_raises_after_the_tokens(client: Answering) -> None:
    event = SURFACES[SurfaceName.CHAT].error_event("upstream_reset", "the replica is gone")
    received = stream(client(200, CHUNK + CHUNK + event, "text/event-stream"))
    assert [next(received), next(received)] == ["hi", "hi"]
    with pytest.raises(openai.APIError, match="the replica is gone"):
        next(received)


def test_an_error_after_half_an_event_raises(client: Answering) -> None:
    api = SURFACES[SurfaceName.CHAT]
    half = CHUNK + CHUNK[:40]
    body = half + closing(half, api.stream_format) + api.error_event("upstream_reset", "gone")
    received = stream(client(200, body, "text/event-stream"))
    assert next(received) == "hi"
    with pytest.raises((openai.APIError, ValueError)):
        next(received)


def test_an_error_in_a_responses_stream_raises(client: Answering) -> None:
    event = SURFACES[SurfaceName.RESPONSES].error_event("upstream_reset", "the replica is gone")
    made = client(200, event, "text/event-stream").responses.create(model="m", input="x", stream=True)
    with pytest.raises(openai.APIError, match="the replica is gone"):
        list(made)
