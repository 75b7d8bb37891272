"""What can fail at the start or at a reload, in sentences that say what to do."""

from __future__ import annotations

import errno
import socket
import ssl
from pathlib import Path

from autoscaler.errors import StartError
from autoscaler.policy.load import LoadedPolicy
from lb.address import parse_address
from lb.settings import LbSettings
from lb.yaml_document import DocumentError


def require_files(settings: LbSettings) -> None:
    """Raise StartError for a certificate or key that cannot be opened; what the TLS library says names no file."""
    tls = settings.tls
    for field in ("certificate", "key", "client_ca") if tls is not None else ():
        name = getattr(tls, field)
        try:
            if name is not None:
                Path(name).open("rb").close()
        except OSError as error:
            raise StartError(f"lb.tls.{field}: {name}: {error.strerror}") from None


def in_words(error: Exception, loaded: LoadedPolicy) -> str:
    """Why a policy was refused, in one line."""
    if isinstance(error, DocumentError):
        return "; ".join(problem.text(loaded.path.name) for problem in error.problems[:20])
    if isinstance(error, ssl.SSLError):
        return f"lb.tls: the certificate or its key cannot be used: {error.reason or error}"
    return str(error)


def cannot_listen(what: str, address: str, option: str, error: OSError | UnicodeError) -> StartError:
    """A sentence for each of the usual reasons, with what to do."""
    number = error.errno if isinstance(error, OSError) else None
    _, port = parse_address(address)
    if number == errno.EADDRINUSE:
        return StartError(
            f"{what} cannot listen on {address}: another process does. Find it with `ss -ltnp sport = :{port}`, or "
            f"choose another address ({option}, or `listen` in the policy)"
        )
    if number == errno.EACCES:
        return StartError(
            f"{what} may not listen on {address}: ports below 1024 need CAP_NET_BIND_SERVICE; choose a higher one"
        )
    if number == errno.EADDRNOTAVAIL or isinstance(error, UnicodeError | socket.gaierror):
        return StartError(f"{what} cannot listen on {address}: no interface of this machine has that address")
    return StartError(f"{what} cannot listen on {address}: {getattr(error, 'strerror', None) or error}")
