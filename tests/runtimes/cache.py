"""Where the built runtimes lie."""

from __future__ import annotations

import os
from pathlib import Path

RUNTIMES = ("llamacpp", "vllm", "triton", "mlserver", "ollama")
"""In the order in which they are built: Ollama needs llama.cpp's sources, all need the models."""


def cache_folder() -> Path:
    """`TIDEGATE_RUNTIMES_CACHE`, or a folder of the user's cache."""
    chosen = os.environ.get("TIDEGATE_RUNTIMES_CACHE")
    if chosen:
        return Path(chosen)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "tidegate" / "runtimes"


CACHE = cache_folder()


def built(name: str) -> bool:
    """Whether `build.py` has finished it; the stamp is written last."""
    return (CACHE / name / "built").exists()


def executable(name: str) -> Path:
    """What is started."""
    return {
        "llamacpp": CACHE / "llamacpp" / "build" / "bin" / "llama-server",
        "ollama": CACHE / "ollama" / "bin" / "ollama",
        "vllm": CACHE / "vllm" / "venv" / "bin" / "python",
        "triton": CACHE / "triton" / "venv" / "bin" / "python",
        "mlserver": CACHE / "mlserver" / "venv" / "bin" / "mlserver",
    }[name]
