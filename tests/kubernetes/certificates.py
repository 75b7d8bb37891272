"""One authority, one serving certificate and the service accounts' key, made by openssl for one run."""

from __future__ import annotations

import subprocess
from pathlib import Path

SERVED_AS = "IP:127.0.0.1,IP:10.0.0.1,DNS:localhost,DNS:kubernetes,DNS:kubernetes.default"
"""10.0.0.1 is the first address of the service range: what a pod is told that the API server is."""


def make(directory: Path) -> None:
    """Write `ca.crt`, `server.crt`, `server.key` and `sa.key` into `directory`."""
    extensions = directory / "server.ext"
    extensions.write_text(f"subjectAltName={SERVED_AS}\nextendedKeyUsage=serverAuth\nbasicConstraints=CA:FALSE\n")
    key = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")
    authority = ("-addext", "basicConstraints=critical,CA:TRUE", "-addext", "keyUsage=critical,keyCertSign,cRLSign")
    _openssl(
        directory, "req", "-x509", *key, "-keyout", "ca.key", "-out", "ca.crt", "-days", "2", "-subj", "/CN=test-ca",
        *authority,
    )  # fmt: skip
    _openssl(directory, "req", *key, "-keyout", "server.key", "-out", "server.csr", "-subj", "/CN=kube-apiserver")
    _openssl(
        directory, "x509", "-req", "-in", "server.csr", "-CA", "ca.crt", "-CAkey", "ca.key", "-CAcreateserial",
        "-out", "server.crt", "-days", "2", "-extfile", extensions.name,
    )  # fmt: skip
    _openssl(directory, "ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", "sa.key")


def _openssl(directory: Path, *arguments: str) -> None:
    subprocess.run(["openssl", *arguments], cwd=directory, check=True, capture_output=True)
