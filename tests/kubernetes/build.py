"""Builds the Kubernetes control plane of the tests into a cache; what is there is kept.

    python tests/kubernetes/build.py [MODULE ...]

Needs Go, and nothing of Python but its standard library. Ends with 1 if something could not be built.
A cold build takes about twelve minutes on two cores; progress is shown.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))
from tests.kubernetes.cache import MODULES, PROGRAMS, cache_folder, folder, missing

KUBERNETES = ("1", "36", "3")
_VERSION = "k8s.io/component-base/version"
# Without these the server calls itself v0.0.0-master+$Format, and clients that look at the version stumble.
_STAMP = (
    f"-X {_VERSION}.gitVersion=v{'.'.join(KUBERNETES)} -X {_VERSION}.gitMajor={KUBERNETES[0]} "
    f"-X {_VERSION}.gitMinor={KUBERNETES[1]}"
)
TARGETS: dict[str, tuple[str, str, str]] = {
    # module: (what is built, where it goes inside the folder, extra linker flags)
    "etcd": ("go.etcd.io/etcd/server/v3", "etcd", ""),
    "kwok": ("sigs.k8s.io/kwok/cmd/kwok", "kwok", ""),
    "k8s": ("tool", "", _STAMP),
    "karpenter": ("sigs.k8s.io/karpenter/kwok", "karpenter-kwok", ""),
}
MANIFESTS: dict[str, tuple[str, str, tuple[str, ...]]] = {
    # module: (Go module that ships them, folder in the cache, files inside that module)
    "kwok": (
        "sigs.k8s.io/kwok",
        "stages",
        (
            "kustomize/stage/node/fast/node-initialize.yaml",
            "kustomize/stage/node/heartbeat-with-lease/node-heartbeat-with-lease.yaml",
            "kustomize/stage/pod/fast/pod-complete.yaml",
            "kustomize/stage/pod/fast/pod-delete.yaml",
            "kustomize/stage/pod/fast/pod-ready.yaml",
        ),
    ),
    "karpenter": ("sigs.k8s.io/karpenter", "crds", ("pkg/apis/crds/*.yaml", "kwok/apis/crds/*.yaml")),
}
_SHOW_S = 10.0
_TAIL_LINES = 15


class BuildError(Exception):
    """Why one module cannot be built here."""


def main(modules: list[str]) -> int:
    unknown = [module for module in modules if module not in TARGETS]
    if unknown:
        sys.stderr.write(f"no module is called {unknown[0]!r}; there are {', '.join(TARGETS)}\n")
        return 2
    cache_folder().mkdir(parents=True, exist_ok=True)
    say(f"Control plane in {cache_folder()} (kept between runs)")
    with (cache_folder() / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # two builds at once would take twice the memory for the same files
        wanted = [module for module in modules or TARGETS if module in missing()]
        failed = 0
        for module in wanted:
            try:
                build(module)
            except BuildError as error:
                failed += 1
                say(f"{module}: CANNOT BE BUILT: {error}")
        if not wanted:
            say("all of it is there")
    return 1 if failed else 0


def build(module: str) -> None:
    """Build beside the final place and rename, so that what is in place is whole. Raises BuildError."""
    if shutil.which("go") is None:
        raise BuildError("go is not installed; Go 1.26 or newer builds it")
    final = folder(module)
    partial = final.with_name(final.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    package, output, flags = TARGETS[module]
    go(
        module, partial, "build", "-trimpath", "-buildvcs=false", f"-ldflags=-s -w {flags}", "-o",
        f"{partial}/{output}", package,
    )  # fmt: skip
    if module in MANIFESTS:
        source, place, patterns = MANIFESTS[module]
        shipped = Path(go(module, partial, "list", "-m", "-f", "{{.Dir}}", source).strip())
        (partial / place).mkdir()
        for path in (path for pattern in patterns for path in shipped.glob(pattern)):
            shutil.copyfile(path, partial / place / path.name)
    absent = [name for name in PROGRAMS[module] if not (partial / name).exists()]
    if absent:
        raise BuildError(f"go built no {', '.join(absent)}")
    shutil.rmtree(final, ignore_errors=True)
    partial.rename(final)


def go(module: str, partial: Path, *arguments: str) -> str:
    """Run go at low priority in a module's folder, with a line of progress. Returns stdout; raises BuildError."""
    log = partial / "build.log"
    started = time.monotonic()
    shown = started
    with log.open("ab") as errors:
        process = subprocess.Popen(
            ["nice", "-n", "10", "go", *arguments],
            cwd=MODULES / f"tools-{module}",
            env=os.environ | {"CGO_ENABLED": "0", "GOFLAGS": "-mod=readonly"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
        )
        while True:
            try:
                output, _ = process.communicate(timeout=1)
                break
            except subprocess.TimeoutExpired:
                if time.monotonic() - shown >= _SHOW_S:
                    shown = time.monotonic()
                    say(f"{module}: go {arguments[0]}, {shown - started:.0f} s")
    lines = log.read_text(errors="replace").splitlines()
    if process.returncode:
        raise BuildError(f"go {arguments[0]} ended with {process.returncode}:\n" + "\n".join(lines[-_TAIL_LINES:]))
    if arguments[0] == "build":
        say(f"{module}: built in {time.monotonic() - started:.0f} s")
    return output


def say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
