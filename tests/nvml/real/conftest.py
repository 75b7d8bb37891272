"""Tests on this machine's own card. They are left out of the ordinary run; `make test-gpu` names this folder."""

from __future__ import annotations

import ctypes
import time
from collections.abc import Callable, Iterator

import pytest

from nvml.drivers.nvidia import NvidiaDriver
from nvml.owners import OwnerResolver
from nvml.sample import NodeSnapshot
from nvml.sampler import Sampler
from nvml.settings import NvmlSettings

# A naive matrix product, one thread an element: c = a b, all n by n, single precision. Compiled by the driver for
# the card at hand.
PTX = b"""
.version 7.0
.target sm_75
.address_size 64
.visible .entry matmul(.param .u64 pa, .param .u64 pb, .param .u64 pc, .param .u32 pn)
{
    .reg .pred %p<4>;
    .reg .b32 %r<12>;
    .reg .f32 %f<4>;
    .reg .b64 %d<12>;
    ld.param.u64 %d1, [pa];
    ld.param.u64 %d2, [pb];
    ld.param.u64 %d3, [pc];
    ld.param.u32 %r1, [pn];
    mov.u32 %r2, %ctaid.x;
    mov.u32 %r3, %ntid.x;
    mov.u32 %r4, %tid.x;
    mad.lo.s32 %r5, %r2, %r3, %r4;
    mov.u32 %r6, %ctaid.y;
    setp.ge.u32 %p1, %r5, %r1;
    @%p1 bra DONE;
    mul.lo.u32 %r7, %r6, %r1;
    mul.wide.u32 %d4, %r7, 4;
    add.s64 %d5, %d1, %d4;
    mul.wide.u32 %d6, %r5, 4;
    add.s64 %d7, %d2, %d6;
    mul.wide.u32 %d8, %r1, 4;
    mov.f32 %f1, 0f00000000;
    mov.u32 %r8, 0;
LOOP:
    setp.ge.u32 %p2, %r8, %r1;
    @%p2 bra STORE;
    ld.global.f32 %f2, [%d5];
    ld.global.f32 %f3, [%d7];
    fma.rn.f32 %f1, %f2, %f3, %f1;
    add.s64 %d5, %d5, 4;
    add.s64 %d7, %d7, %d8;
    add.u32 %r8, %r8, 1;
    bra LOOP;
STORE:
    add.u32 %r9, %r7, %r5;
    mul.wide.u32 %d9, %r9, 4;
    add.s64 %d10, %d3, %d9;
    st.global.f32 [%d10], %f1;
DONE:
    ret;
}
\0"""


class Card:
    """The first CUDA device, through the driver API: allocations of known size, and work."""

    def __init__(self) -> None:
        self._cuda = ctypes.CDLL("libcuda.so.1")
        self._context = ctypes.c_void_p()
        device = ctypes.c_int()
        self._do("cuInit", 0)
        self._do("cuDeviceGet", ctypes.byref(device), 0)
        self._do("cuDevicePrimaryCtxRetain", ctypes.byref(self._context), device)
        self._do("cuCtxSetCurrent", self._context)
        self._device = device

    def _do(self, name: str, *arguments: object) -> None:
        code = getattr(self._cuda, name)(*arguments)
        assert code == 0, f"{name} gave CUDA error {code}"

    def take(self, size: int) -> ctypes.c_uint64:
        address = ctypes.c_uint64()
        self._do("cuMemAlloc_v2", ctypes.byref(address), ctypes.c_size_t(size))
        return address

    def give_back(self, address: ctypes.c_uint64) -> None:
        self._do("cuMemFree_v2", address)

    def multiply(self, n: int, seconds: float) -> None:
        """Matrix products of n by n, one after the other, for a time."""
        module, function = ctypes.c_void_p(), ctypes.c_void_p()
        self._do("cuModuleLoadData", ctypes.byref(module), PTX)
        self._do("cuModuleGetFunction", ctypes.byref(function), module, b"matmul")
        matrices = [self.take(4 * n * n) for _ in range(3)]
        for matrix in matrices:
            self._do("cuMemsetD32_v2", matrix, ctypes.c_uint(0), ctypes.c_size_t(n * n))
        size = ctypes.c_uint32(n)
        arguments = (ctypes.c_void_p * 4)(*[ctypes.addressof(a) for a in (*matrices, size)])
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            for _ in range(4):
                self._do("cuLaunchKernel", function, (n + 255) // 256, n, 1, 256, 1, 1, 0, None, arguments, None)
            self._do("cuCtxSynchronize")
        for matrix in matrices:
            self.give_back(matrix)
        self._do("cuModuleUnload", module)

    def close(self) -> None:
        self._do("cuDevicePrimaryCtxRelease_v2", self._device)


@pytest.fixture(scope="module")
def card() -> Iterator[Card]:
    found = Card()
    yield found
    found.close()


@pytest.fixture
def sampler() -> Iterator[Sampler]:
    settings = NvmlSettings()
    made = Sampler(NvidiaDriver(), settings, OwnerResolver(settings.owners_refresh_s))
    node = made.step()
    assert node.fault is None, node.detail
    assert node.gpus
    yield made
    made.stop()


@pytest.fixture
def wait_for(sampler: Sampler) -> Callable[[Callable[[NodeSnapshot], bool], float], NodeSnapshot]:
    """Samples every 200 ms until the condition holds."""

    def wait(condition: Callable[[NodeSnapshot], bool], seconds: float) -> NodeSnapshot:
        until = time.monotonic() + seconds
        while not condition(node := sampler.step()):
            assert time.monotonic() < until, node
            time.sleep(0.2)
        return node

    return wait
