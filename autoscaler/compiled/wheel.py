"""A wheel that brings its build along."""

from __future__ import annotations

import base64
import hashlib
import sys
import sysconfig
import zipfile
from pathlib import Path


def bring_along(wheel: Path, folder: Path) -> Path:
    """Replace `wheel` by one for this platform with the build in `folder` in it; returns its path."""
    python = f"cp{sys.version_info[0]}{sys.version_info[1]}"
    platform = sysconfig.get_platform().replace("-", "_").replace(".", "_")
    tag = f"{python}-{python}{sys.abiflags}-{platform}"
    distribution, version = wheel.name.split("-")[:2]
    info = f"{distribution}-{version}.dist-info"
    made = wheel.with_name(f"{distribution}-{version}-{tag}.whl")
    record: list[str] = []
    with zipfile.ZipFile(wheel) as old, zipfile.ZipFile(made, "w", zipfile.ZIP_DEFLATED) as new:

        def add(name: str | zipfile.ZipInfo, data: bytes) -> None:
            new.writestr(name, data)
            sha = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
            record.append(f"{name if isinstance(name, str) else name.filename},sha256={sha},{len(data)}\n")

        for item in old.infolist():
            if item.filename == f"{info}/WHEEL":
                add(item, _for_platform(old.read(item).decode(), tag).encode())
            elif item.filename != f"{info}/RECORD":
                add(item, old.read(item))
        for path in sorted(folder.rglob("*")):
            if path.is_file() and "__pycache__" not in path.parts:
                add(f"autoscaler/compiled/{folder.name}/{path.relative_to(folder).as_posix()}", path.read_bytes())
        new.writestr(f"{info}/RECORD", f"{''.join(record)}{info}/RECORD,,\n")
    if made != wheel:
        wheel.unlink()
    return made


def _for_platform(text: str, tag: str) -> str:
    lines = [line for line in text.splitlines() if line and not line.startswith(("Tag:", "Root-Is-Purelib:"))]
    return "\n".join([*lines, "Root-Is-Purelib: false", f"Tag: {tag}", ""])
