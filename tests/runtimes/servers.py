"""How each real runtime is started. Ready is awaited by the caller, as some tests look at what comes before."""

from __future__ import annotations

import os
from pathlib import Path

from tests.runtimes.cache import CACHE, executable
from tests.runtimes.processes import free_port, running

HERE = Path(__file__).parent
MODEL = "tiny"
"""The name under which every language model is served, so that different engines can stand in one pool."""
SLOTS = 2
"""Requests that each of them runs at once."""


def llamacpp(tmp: Path, *extra: str, model: str = "useful", slots: int = SLOTS) -> running:
    port = free_port()
    command = [
        executable("llamacpp"), "-m", CACHE / "models" / f"{model}.gguf", "--alias", MODEL, "--host", "127.0.0.1",
        "--port", str(port), "-np", str(slots), "-c", str(4096 * slots), "-t", "1", "--slots", *extra,
    ]  # fmt: skip
    return running("llamacpp", command, tmp / f"llamacpp-{port}.log", port)


def ollama(tmp: Path) -> running:
    port = free_port()
    folder = tmp / f"ollama-{port}"
    folder.mkdir()
    env = {
        "OLLAMA_HOST": f"127.0.0.1:{port}",
        "OLLAMA_MODELS": str(folder),
        "OLLAMA_NUM_PARALLEL": str(SLOTS),
        "OLLAMA_KEEP_ALIVE": "10m",
        "HOME": str(folder),
    }
    return running("ollama", [executable("ollama"), "serve"], tmp / f"ollama-{port}.log", port, env)


def vllm(tmp: Path, *extra: str) -> running:
    port = free_port()
    command = [
        executable("vllm"), "-m", "vllm.entrypoints.openai.api_server", "--model", CACHE / "models" / "hf",
        "--served-model-name", MODEL, "--load-format", "dummy", "--dtype", "float32", "--enforce-eager",
        "--host", "127.0.0.1", "--port", str(port), "--max-model-len", "4096", "--max-num-seqs", str(SLOTS),
        "--kv-cache-memory-bytes", str(64 << 20), "--enable-server-load-tracking", *extra,
    ]  # fmt: skip
    env = {
        # Two instances would share one core otherwise.
        "VLLM_CPU_OMP_THREADS_BIND": "nobind",
        "OMP_NUM_THREADS": "1",
        "HF_HUB_OFFLINE": "1",
        "VLLM_NO_USAGE_STATS": "1",
    }
    return running("vllm", command, tmp / f"vllm-{port}.log", port, env)


class TritonPorts:
    """Triton listens on three."""

    def __init__(self) -> None:
        self.http, self.grpc, self.metrics = free_port(), free_port(), free_port()


def triton(tmp: Path, ports: TritonPorts, *extra: str) -> running:
    packages = next((CACHE / "triton").glob("venv/lib/*/site-packages"))
    home = packages / "pytriton" / "tritonserver"
    command: list[str | Path] = [
        home / "bin" / "tritonserver", "--model-repository", HERE / "triton_models",
        "--backend-directory", home / "backends", "--exit-timeout-secs", "30",
    ]  # fmt: skip
    for name in ("http", "grpc", "metrics"):
        command += [f"--{name}-address", "127.0.0.1", f"--{name}-port", str(getattr(ports, name))]
    env = {
        "LD_LIBRARY_PATH": str(packages / "nvidia_pytriton.libs"),
        "PYTHONPATH": str(packages),
        "PATH": f"{executable('triton').parent}:{os.environ['PATH']}",
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    return running("triton", [*command, *extra], tmp / f"triton-{ports.http}.log", ports.http, env)


def mlserver(tmp: Path, metrics_port: int) -> running:
    port = free_port()
    env = {
        "MLSERVER_HTTP_PORT": str(port),
        "MLSERVER_GRPC_PORT": str(free_port()),
        "MLSERVER_METRICS_PORT": str(metrics_port),
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    command = [executable("mlserver"), "start", HERE / "mlserver_models"]
    return running("mlserver", command, tmp / f"mlserver-{port}.log", port, env)
