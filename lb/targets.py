"""Which addresses a replica may have when it is added over the API: none that answer with a machine's credentials.

They are checked when it is added and, as names can be made to mean something else a moment later, before each
connection (`Endpoint.guarded`).

Loopback and private networks are where replicas live, so they are allowed. Refused are link-local addresses, where
every cloud has its metadata service, the known metadata addresses outside that range, and addresses that are no host's.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

METADATA_NAMES = frozenset(
    {
        "metadata", "metadata.google.internal", "metadata.goog", "metadata.azure.internal", "metadata.tencentyun.com",
        "instance-data", "instance-data.ec2.internal", "kubernetes.default.svc", "kubernetes.default",
    }
)  # fmt: skip
_METADATA = (
    ip_network("169.254.0.0/16"),  # link-local: AWS, GCP, Azure, OpenStack, OCI
    ip_network("fe80::/10"),
    ip_network("100.100.100.200/32"),  # Alibaba Cloud
    ip_network("168.63.129.16/32"),  # Azure's wire server
    ip_network("192.0.0.192/32"),  # Oracle Cloud, classic
    ip_network("fd00:ec2::254/128"),  # AWS over IPv6
    ip_network("fd20:ce::254/128"),  # GCP over IPv6
)
_NAT64 = ip_network("64:ff9b::/96")

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network


def is_name(host: str) -> bool:
    """Whether this is looked up; what it leads to can change, an address cannot."""
    return _literal(host) is None


def is_allowed(host: str, allowed: Iterable[str]) -> bool:
    """Whether this host is let through whatever it is."""
    return host.lower().rstrip(".") in {entry.lower().rstrip(".") for entry in allowed}


def refuse_host(host: str, allowed: Iterable[str] = ()) -> str | None:
    """Why a replica must not have this host name or literal address; None: it may. `allowed`: hosts let through."""
    name = host.lower().rstrip(".")
    if is_allowed(host, allowed):
        return None
    if name in METADATA_NAMES or name.endswith(".metadata.google.internal"):
        return f"{host!r} is a metadata or control service, not a replica"
    address = _literal(name)
    return refuse_address(address) if address is not None else None


def refuse_addresses(host: str, addresses: Sequence[str], allowed: Iterable[str] = ()) -> str | None:
    """The same for what the host resolves to: one bad address spoils the name."""
    if is_allowed(host, allowed):
        return None
    for text in addresses:
        address = _literal(text)
        refusal = refuse_address(address) if address is not None else f"{text!r} is not an address"
        if refusal is not None:
            return refusal if text == host else f"{host!r} resolves to {text}: {refusal}"
    return None


def refuse_address(address: Address) -> str | None:
    """Why no replica can be at this address; None: one can."""
    for form in _forms(address):
        if any(form.version == network.version and form in network for network in _METADATA):
            return f"{address} is link-local or a metadata service, not a replica"
        if form.is_multicast or form.is_unspecified or form == IPv4Address("255.255.255.255"):
            return f"{address} is not the address of one host"
    return None


def _forms(address: Address) -> list[Address]:
    """The address and the IPv4 address that it carries inside, if it does."""
    forms: list[Address] = [address]
    if isinstance(address, IPv6Address):
        inner = address.ipv4_mapped or address.sixtofour
        if inner is None and address in _NAT64:
            inner = IPv4Address(int(address) & 0xFFFF_FFFF)
        if inner is not None:
            forms.append(inner)
    return forms


def _literal(text: str) -> Address | None:
    try:
        return ip_address(text.partition("%")[0])
    except ValueError:
        return None
