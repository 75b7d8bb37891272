"""What only the kernel knows or does."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import socket
import struct
import termios

_LINGER_ZERO = struct.pack("ii", 1, 0)


def unsent_bytes(transport: asyncio.Transport) -> int:
    """Bytes that the peer has not acknowledged, in the transport's buffer and in the kernel's.

    The transport's own count stands still for minutes behind a slow reader, because the kernel takes more only when a
    third of its buffer is free; this one shows each byte taken.
    """
    unsent = transport.get_write_buffer_size()
    sock = transport.get_extra_info("socket")
    if sock is not None:
        with contextlib.suppress(OSError, ValueError):
            unsent += int.from_bytes(fcntl.ioctl(sock.fileno(), termios.TIOCOUTQ, bytes(4)), "little")
    return unsent


def reset(transport: asyncio.Transport) -> None:
    """Close with a TCP reset."""
    sock = transport.get_extra_info("socket")
    if sock is not None:
        with contextlib.suppress(OSError):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_ZERO)
    transport.abort()
