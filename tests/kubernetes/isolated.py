"""Runs a program in a network namespace with nothing but loopback, from which one port leads out.

    python -m tests.kubernetes.isolated PORT PROGRAM [ARGUMENT ...]

For programs that listen on all addresses and cannot be told not to. 127.0.0.1:PORT in there is 127.0.0.1:PORT out here.
Needs no rights where user namespaces are allowed, and root otherwise.
"""

from __future__ import annotations

import array
import asyncio
import contextlib
import ctypes
import fcntl
import os
import signal
import socket
import struct
import sys

_CLONE_NEWUSER = 0x10000000
_CLONE_NEWNET = 0x40000000
_PR_SET_PDEATHSIG = 1
_SIOCSIFFLAGS = 0x8914
_IFF_UP_RUNNING = 0x41
_LIBC = ctypes.CDLL(None, use_errno=True)


def main(port: int, command: list[str]) -> int:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    parent = os.getpid()
    child = os.fork()
    if child == 0:
        try:
            _become(theirs, port, command, parent)
        finally:
            os._exit(127)
    theirs.close()
    _, fds, _, _ = socket.recv_fds(ours, 1, 1)
    if not fds:
        return 1
    _watch_over(child)
    listener = socket.socket(fileno=fds[0])
    listener.setblocking(False)
    asyncio.run(_relay(listener, port))
    return 0


def _become(theirs: socket.socket, port: int, command: list[str], parent: int) -> None:
    """In the child: leave the network, hand out a listener that is in the new one, and become the program."""
    flags = _CLONE_NEWNET if os.geteuid() == 0 else _CLONE_NEWNET | _CLONE_NEWUSER
    if _LIBC.unshare(flags) != 0:
        raise OSError(ctypes.get_errno(), "no network namespace: this needs root or user namespaces")
    # After that: gaining rights in the new namespace clears it.
    _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        return
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        fcntl.ioctl(control, _SIOCSIFFLAGS, struct.pack("16sh14x", b"lo", _IFF_UP_RUNNING))
    listener = socket.create_server(("127.0.0.1", port))
    theirs.sendmsg([b"x"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [listener.fileno()]))])
    listener.close()
    os.execv(command[0], command)


def _watch_over(child: int) -> None:
    """End with the program."""

    def ended(*_: object) -> None:
        with contextlib.suppress(ChildProcessError):
            if os.waitpid(child, os.WNOHANG)[0] == child:
                os._exit(1)

    signal.signal(signal.SIGCHLD, ended)


async def _relay(listener: socket.socket, port: int) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            out_reader, out_writer = await asyncio.open_connection("127.0.0.1", port)
        except OSError:
            writer.close()
            return
        await asyncio.gather(_pump(reader, out_writer), _pump(out_reader, writer))

    server = await asyncio.start_server(serve, sock=listener)
    async with server:
        await server.serve_forever()


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while data := await reader.read(65_536):
            writer.write(data)
            await writer.drain()
    with contextlib.suppress(OSError):
        writer.close()


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), sys.argv[2:]))
