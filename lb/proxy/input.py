"""Where all clients are read into: one buffer, emptied in the same step."""

from __future__ import annotations

from typing import Final

_READ_BYTES: Final = 262_144
"""Most that is read of a request at once: a long prompt in one piece."""
_LARGE_BYTES: Final = 8192
"""A read of which head and body are copied apart: to copy a long body twice costs more than to look for its start."""
_CR: Final = 13


class Input:
    """A buffer and copies of what was read into it."""

    __slots__ = ("_view", "buffer")

    def __init__(self) -> None:
        self.buffer = bytearray(_READ_BYTES)
        self._view = memoryview(self.buffer)

    def whole(self, size: int) -> bytes:
        """All that was read."""
        return self._view[:size].tobytes()

    def apart(self, size: int) -> tuple[bytes, bytes]:
        """The same in two pieces; of a long read that begins with a complete head, that head and what is behind it."""
        if size >= _LARGE_BYTES and self.buffer[0] != _CR:
            end = self.buffer.find(b"\r\n\r\n", 0, _LARGE_BYTES) + 4
            if end >= 4:
                return self._view[:end].tobytes(), self._view[end:size].tobytes()
        return self._view[:size].tobytes(), b""
