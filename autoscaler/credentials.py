"""The secrets that a policy refers to, read when it takes effect."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from lb.feeds.node_scraper import Peer
from lb.secrets import is_exposed, resolve
from lb.settings import LbSettings


@dataclass(frozen=True, slots=True)
class Credentials:
    """Secrets in the clear; kept out of every log and dump by having no representation."""

    admin_token: str | None = field(default=None, repr=False)
    upstream_key: str | None = field(default=None, repr=False)
    peer_tokens: Mapping[str, str] = field(default_factory=dict, repr=False)
    """By the peer's URL, for those that want one."""

    @property
    def upstream_authorization(self) -> str | None:
        """The header value that replicas want."""
        return f"Bearer {self.upstream_key}" if self.upstream_key is not None else None


def read_credentials(settings: LbSettings, directory: Path | None) -> Credentials:
    """Look every reference up. Raises SettingsError, naming the reference, for the first that is missing."""
    key = settings.forwarding.upstream_key if settings.forwarding.upstream_authorization == "replace" else None
    return Credentials(
        admin_token=None if settings.admin.token is None else resolve(settings.admin.token, directory, os.environ),
        upstream_key=None if key is None else resolve(key, directory, os.environ),
        peer_tokens={peer.url: resolve(peer.token, directory, os.environ) for peer in settings.peers if peer.token},
    )


def exposed_secrets(settings: LbSettings, directory: Path | None) -> Iterator[str]:
    """References to secret files that every user of the machine can read."""
    peers = (peer.token for peer in settings.peers)
    for reference in (settings.admin.token, settings.forwarding.upstream_key, *peers):
        if reference is not None and is_exposed(reference, directory):
            yield reference


def peers_of(settings: LbSettings, credentials: Credentials) -> list[Peer]:
    """The peers of a policy with what each wants to be asked with."""
    tokens = credentials.peer_tokens
    return [Peer(peer, f"Bearer {tokens[peer.url]}" if peer.url in tokens else None) for peer in settings.peers]
