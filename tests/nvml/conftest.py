"""A real shared object that stands in for the driver's library, and what drives it."""

from __future__ import annotations

import _ctypes
import ctypes
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from nvml.driver import Driver
from nvml.drivers.fake import FakeDriver
from nvml.drivers.nvidia import NvidiaDriver
from nvml.health import NodeHistory, fold
from nvml.sample import NodeSnapshot
from nvml.sanity import sanitise
from nvml.settings import HealthSettings

SOURCE = Path(__file__).parent / "stub" / "libnvidia_ml.c"
VARIANTS = {"current": [], "old": ["-DOLD_DRIVER", '-DSTUB_VERSION="450.80.02"']}


def build_library(folder: Path, flags: list[str]) -> Path:
    """Compiles the stub as `folder/libnvidia-ml.so.1`, with the soname that the real library has."""
    compiler = next((found for name in ("cc", "gcc", "clang") if (found := shutil.which(name))), None)
    if compiler is None:
        why = "these tests build a libnvidia-ml.so.1 and need a C compiler: install gcc or clang"
        if os.environ.get("CI"):
            pytest.fail(why)
        pytest.skip(why)
    folder.mkdir(parents=True, exist_ok=True)
    target = folder / "libnvidia-ml.so.1"
    command = [compiler, "-shared", "-fPIC", "-O1", "-Wall", "-Werror", "-D_GNU_SOURCE", *flags]
    command += ["-Wl,-soname,libnvidia-ml.so.1", "-o", str(target), str(SOURCE)]
    built = subprocess.run(command, capture_output=True, text=True, check=False)
    assert built.returncode == 0, f"{' '.join(command)}\n{built.stderr}"
    return target


class Stub:
    """The loaded stub. `say` scripts it; it forgets everything between tests."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._library: ctypes.CDLL = ctypes.CDLL(str(path))
        self._library.stub_step.restype = ctypes.c_long
        self._library.stub_calls.restype = ctypes.c_long
        self.say("reset")

    def say(self, *commands: str) -> None:
        for command in commands:
            assert self._library.stub_command(command.encode()) == 0, f"the stub does not understand {command!r}"

    def close(self) -> None:
        """Unloads it. While it is loaded, every load by its soname gets this one."""
        _ctypes.dlclose(self._library._handle)

    @property
    def step(self) -> int:
        """Samples taken so far."""
        return int(self._library.stub_step())

    @property
    def calls(self) -> int:
        return int(self._library.stub_calls())

    @property
    def event_sets(self) -> int:
        """Event sets that exist now."""
        return int(self._library.stub_event_sets())


@pytest.fixture(scope="session")
def libraries(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The stub in each variant, by name."""
    folder = tmp_path_factory.mktemp("nvml")
    return {name: build_library(folder / name, flags) for name, flags in VARIANTS.items()}


@pytest.fixture
def stub(libraries: dict[str, Path]) -> Iterator[Stub]:
    """The stub with all of today's symbols."""
    library = Stub(libraries["current"])
    yield library
    library.close()


@pytest.fixture
def old_stub(libraries: dict[str, Path]) -> Iterator[Stub]:
    """The stub without the symbols that came with driver 510."""
    library = Stub(libraries["old"])
    yield library
    library.close()


class Bench:
    """A driver and the fold behind it, one sample at a time on a clock of its own: the sampler without its thread."""

    def __init__(self, driver: Driver, settings: HealthSettings | None = None) -> None:
        self.driver = driver
        self.settings = settings or HealthSettings()
        self.history = NodeHistory()
        self.now = 1000.0
        self.ports: frozenset[int] | None = None
        self.version = driver.open()

    def sample(self, times: int = 1, every_s: float = 1.0) -> NodeSnapshot:
        for _ in range(times):
            self.now += every_s
            samples = tuple(sanitise(sample) for sample in self.driver.read(self.now))
            self.history, snapshot = fold(
                self.history, samples, self.now, self.settings, driver_version=self.version, replica_ports=self.ports
            )
        return snapshot


@pytest.fixture
def watch() -> Iterator[Callable[..., Bench]]:
    """Opens a driver for step-by-step sampling, and closes it after the test."""
    opened: list[Driver] = []

    def open_bench(source: Stub | Driver, settings: HealthSettings | None = None) -> Bench:
        driver = NvidiaDriver(source.path) if isinstance(source, Stub) else source
        opened.append(driver)
        return Bench(driver, settings)

    yield open_bench
    for driver in opened:
        driver.close()


def _real_driver() -> Driver:
    return NvidiaDriver(Path(found) if (found := os.environ.get("TIDEGATE_TEST_NVML")) else None)


KINDS = ["stub", "old_stub", "fake"] + (["real"] if os.environ.get("TIDEGATE_TEST_GPU") else [])


@pytest.fixture(params=KINDS)
def any_driver(request: pytest.FixtureRequest) -> Iterator[Driver]:
    """Each source of readings in turn; the machine's own driver too when TIDEGATE_TEST_GPU is set (`make test-gpu`)."""
    driver: Driver
    if request.param == "fake":
        driver = FakeDriver()
    elif request.param == "real":
        driver = _real_driver()
    else:
        stub = request.getfixturevalue(request.param)
        stub.say("gpus 2", f"proc 0 {os.getpid()} 1073741824")
        driver = NvidiaDriver(stub.path)
    yield driver
    driver.close()
