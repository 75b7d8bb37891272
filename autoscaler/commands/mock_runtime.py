"""`tidegate mock-runtime`: a simulated inference runtime on a real socket."""

from __future__ import annotations

from typing import Annotated

import typer

from autoscaler.mock.errors import FaultError
from autoscaler.mock.fault import Fault, parse_fault
from autoscaler.mock.settings import MockSettings
from autoscaler.sim.replica_model import ReplicaModel

_DEFAULTS = ReplicaModel()


def duration_s(text: str) -> float:
    """A duration from the command line (`30s`), in seconds."""
    from pydantic import TypeAdapter, ValidationError

    from lb.settings.durations import Seconds

    try:
        return TypeAdapter[float](Seconds).validate_python(text)
    except ValidationError as error:
        raise typer.BadParameter(error.errors()[0]["msg"].removeprefix("Value error, ")) from None


def _fault(text: str) -> Fault:
    try:
        return parse_fault(text)
    except FaultError as error:
        raise typer.BadParameter(str(error)) from None


def mock_runtime(
    port: Annotated[int, typer.Option(help="Port of the first replica; 0: any free one (printed).")] = 8000,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    count: Annotated[int, typer.Option(min=1, help="Replicas in this process, on consecutive ports.")] = 1,
    model: Annotated[str, typer.Option(help="Name of the model it serves.")] = "mock-model",
    speed: Annotated[float, typer.Option(min=0.01, help="Model seconds per wall second.")] = 1.0,
    slow_factor: Annotated[float, typer.Option(min=0.01, help="Every step takes this many times longer.")] = 1.0,
    prefix_cache: Annotated[bool, typer.Option(help="Skip prompt blocks that were computed before.")] = False,
    kv_tokens: Annotated[int, typer.Option(min=16, help="KV memory in tokens.")] = _DEFAULTS.kv_tokens,
    max_running: Annotated[int, typer.Option(min=1, help="Requests in a batch.")] = _DEFAULTS.max_running,
    output_tokens: Annotated[int, typer.Option(min=1, help="Length of an answer that the request leaves open.")] = 128,
    flush: Annotated[str, typer.Option(help="Least wall time between two events of a stream.")] = "10ms",
    start_up: Annotated[str, typer.Option(help="Model time until it is up.")] = "0s",
    start_up_503: Annotated[
        bool, typer.Option("--start-up-503", help="While starting, answer 503 instead of refusing connections.")
    ] = False,
    warm_up: Annotated[str, typer.Option(help="Model time after start-up in which steps take 3 times longer.")] = "0s",
    fault: Annotated[
        str, typer.Option(help="Fail from the start: hang, stall, reset, status:status=503,count=3, slow, ...")
    ] = "none",
    drain: Annotated[str, typer.Option(help="Wall time that SIGTERM leaves to running requests.")] = "30s",
    instant: Annotated[
        bool, typer.Option(help="Answer at once without any model, to measure what is in front.")
    ] = False,
    stream_interval: Annotated[str, typer.Option(help="Pace of streams with --instant.")] = "20ms",
) -> None:
    """Simulate an inference runtime: continuous batching in model time, OpenAI's API, vLLM's metrics, faults on demand.

    Send true output lengths as `x-mock-output-tokens`, or `max_tokens` with `ignore_eos`. `POST /mock/fault` with
    `{"kind": "hang"}` makes it fail, `{"kind": "none"}` makes it well again.
    """
    settings = MockSettings(
        host=host,
        port=port,
        count=count,
        name=model,
        replica=ReplicaModel(
            slow_factor=slow_factor, prefix_cache=prefix_cache, kv_tokens=kv_tokens, max_running=max_running
        ),
        speed=speed,
        flush_s=duration_s(flush),
        default_output_tokens=output_tokens,
        start_up_s=duration_s(start_up),
        start_up_refuses=not start_up_503,
        warm_up_s=duration_s(warm_up),
        drain_s=duration_s(drain),
        instant=instant,
        stream_interval_s=duration_s(stream_interval),
        fault=_fault(fault),
    )

    def announce(ports: list[int]) -> None:
        for one in ports:
            typer.echo(f"listening on http://{host}:{one}")

    import uvloop

    from autoscaler.mock.server import serve

    try:
        uvloop.run(serve(settings, announce))
    except OSError as error:
        typer.echo(f"cannot listen on {host}:{port}: {error.strerror}", err=True)
        raise typer.Exit(1) from None


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("mock-runtime")(mock_runtime)
