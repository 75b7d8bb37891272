"""Reads a policy file: from bytes on disk to a Policy, or to every mistake in it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from autoscaler.policy.schema import Policy
from autoscaler.policy.semantics import findings
from lb.decode import Finding, decode
from lb.routing.scorers import WEIGHTS
from lb.runtimes import RUNTIMES
from lb.yaml_document import read_document, read_file


@dataclass(frozen=True, slots=True)
class LoadedPolicy:
    """A policy and the file that it came from."""

    policy: Policy
    path: Path
    digest: str
    """Hex SHA-256 of the text; tells whether a file that was touched did change."""

    @property
    def directory(self) -> Path:
        """Where `file:` secrets and relative paths live. Not resolved: a mounted ConfigMap swaps what is behind it."""
        return self.path.absolute().parent


def load(path: Path) -> LoadedPolicy:
    """Read and check a policy file. Raises lb.yaml_document.DocumentError with all problems."""
    text = read_file(path)
    return LoadedPolicy(parse(text), path, hashlib.sha256(text.encode()).hexdigest())


def parse(text: str) -> Policy:
    """A policy from its text. Raises DocumentError."""
    return decode(Policy, read_document(text), check)


def check(policy: Policy) -> Iterator[Finding]:
    """What is wrong with a policy beyond its types."""
    return findings(policy, runtimes=RUNTIMES, scorers=WEIGHTS)
