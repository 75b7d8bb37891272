"""Addresses that a replica added over the API must not have (L10)."""

from __future__ import annotations

from ipaddress import ip_address

import pytest

from lb.targets import refuse_address, refuse_addresses, refuse_host


@pytest.mark.parametrize(
    "host",
    [
        "169.254.169.254",
        "169.254.0.1",
        "fe80::1",
        "fe80::1%eth0",
        "::ffff:169.254.169.254",
        "64:ff9b::a9fe:a9fe",
        "2002:a9fe:a9fe::1",
        "fd00:ec2::254",
        "100.100.100.200",
        "168.63.129.16",
        "0.0.0.0",
        "::",
        "224.0.0.1",
        "ff02::1",
        "255.255.255.255",
        "metadata.google.internal",
        "METADATA.google.internal.",
        "x.metadata.google.internal",
        "metadata",
        "instance-data",
        "kubernetes.default.svc",
    ],
)
def test_l10_metadata_services_and_no_hosts_are_refused(host: str) -> None:
    assert refuse_host(host) is not None


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1",
        "::1",
        "10.0.0.5",
        "192.168.1.4",
        "fd12::7",
        "203.0.113.9",
        "100.64.0.1",
        "vllm-0.vllm.svc",
        "gpu-7",
    ],
)
def test_places_where_replicas_live_are_allowed(host: str) -> None:
    assert refuse_host(host) is None


def test_l10_a_name_is_judged_by_every_address_it_has() -> None:
    assert refuse_addresses("gpu-7", ["10.0.0.5", "fd12::7"]) is None
    assert refuse_addresses("rebind.example", ["10.0.0.5", "169.254.169.254"]) == (
        "'rebind.example' resolves to 169.254.169.254: "
        "169.254.169.254 is link-local or a metadata service, not a replica"
    )
    assert refuse_addresses("odd", ["not an address"]) is not None


def test_an_allowed_host_is_let_through() -> None:
    assert refuse_host("169.254.7.7", ("169.254.7.7",)) is None
    assert refuse_addresses("GPU-7.", ["169.254.7.7"], ("gpu-7",)) is None
    assert refuse_host("169.254.7.8", ("169.254.7.7",)) is not None


def test_the_refusal_names_the_address() -> None:
    assert refuse_address(ip_address("169.254.169.254")) == (
        "169.254.169.254 is link-local or a metadata service, not a replica"
    )
