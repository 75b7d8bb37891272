"""Replicas from a watched file and from a fixed list."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from pathlib import Path

import pytest

from lb.clock import Clock
from lb.endpoint import Endpoint
from lb.settings import BackendSettings, DnsSource, FileSource, KubernetesSource, LbSettings
from lb.source import unique
from lb.sources import SOURCES, build_sources
from lb.sources.file import ReplicaFile, parse_backends
from lb.sources.static import StaticBackends
from lb.yaml_document import DocumentError

CLOCK = Clock(lambda: 7.0, lambda: 0.0)


class Pushes(list[list[str]]):
    def __call__(self, endpoints: Sequence[Endpoint]) -> None:
        self.append([endpoint.url for endpoint in endpoints])


def watched(directory: Path, name: str = "replicas.yaml") -> ReplicaFile:
    return ReplicaFile(FileSource(path=name, interval_s=0.01), directory, CLOCK)


def test_a_list_or_a_mapping_in_yaml_or_json() -> None:
    expected = Endpoint(id="http://a:1", host="a", port=1, models=("m",), zone="z", weight=2.0)
    entry = {"url": "http://a:1", "models": ["m"], "zone": "z", "weight": 2}
    for text in (
        "- {url: 'http://a:1', models: [m], zone: z, weight: 2}",
        "backends:\n  - url: http://a:1\n    models: [m]\n    zone: z\n    weight: 2\n",
        json.dumps([entry]),
        json.dumps({"backends": [entry]}, indent="\t"),
    ):
        assert parse_backends(text) == (expected,)
    assert parse_backends("") == ()
    assert parse_backends("[]") == ()


def test_a_wrong_file_names_every_mistake() -> None:
    with pytest.raises(DocumentError) as caught:
        parse_backends("- url: http://a:1\n  wieght: 2\n- url: nonsense\n- {}\n")
    assert [(problem.line, problem.path) for problem in caught.value.problems] == [
        (2, "backends[0].wieght"),
        (3, "backends[1].url"),
        (4, "backends[2].url"),
    ]


def test_a_changed_file_is_pushed_once(tmp_path: Path) -> None:
    file, pushes = tmp_path / "replicas.yaml", Pushes()
    source = watched(tmp_path)
    file.write_text("- url: http://a:1\n")
    source.look(pushes)
    source.look(pushes)
    file.write_text("- url: http://a:1\n- url: http://b:1\n")
    source.look(pushes)
    assert pushes == [["http://a:1"], ["http://a:1", "http://b:1"]]
    assert (source.state.endpoints, source.state.refreshed_at, source.state.error) == (2, 7.0, None)


@pytest.mark.parametrize("text", ["- url: [", "- url: nonsense", "\x00", "- {url: 'http://a:1', typo: 1}"])
def test_an_invalid_file_leaves_the_last_good_set_and_says_so(tmp_path: Path, text: str) -> None:
    file, pushes = tmp_path / "replicas.yaml", Pushes()
    source = watched(tmp_path)
    file.write_text("- url: http://a:1\n")
    source.look(pushes)
    file.write_text(text)
    source.look(pushes)
    assert pushes == [["http://a:1"]]
    assert str(file) in (source.state.error or "")
    file.write_text("- url: http://a:1\n")
    source.look(pushes)
    assert source.state.error is None
    assert len(pushes) == 1, "nothing changed"


def test_a_missing_file_is_no_empty_list(tmp_path: Path) -> None:
    file, pushes = tmp_path / "replicas.yaml", Pushes()
    source = watched(tmp_path)
    source.look(pushes)
    assert pushes == []
    assert "No such file" in (source.state.error or "")
    file.write_text("- url: http://a:1\n")
    source.look(pushes)
    file.unlink()
    source.look(pushes)
    assert pushes == [["http://a:1"]]


def test_a_symlink_swap_is_one_push(tmp_path: Path) -> None:
    """How Kubernetes updates a mounted ConfigMap: `..data` is a symlink that is renamed over."""
    for version, host in (("v1", "a"), ("v2", "b")):
        (tmp_path / version).mkdir()
        (tmp_path / version / "replicas.yaml").write_text(f"- url: http://{host}:1\n")
    (tmp_path / "..data").symlink_to("v1")
    (tmp_path / "replicas.yaml").symlink_to("..data/replicas.yaml")
    source, pushes = watched(tmp_path), Pushes()
    source.look(pushes)
    (tmp_path / "..new").symlink_to("v2")
    (tmp_path / "..new").rename(tmp_path / "..data")
    source.look(pushes)
    source.look(pushes)
    assert pushes == [["http://a:1"], ["http://b:1"]]


def test_f10_the_same_address_counts_once() -> None:
    entries = "- {url: 'http://a:1', weight: 3}\n- url: http://a:1/\n- url: http://a:1/v2\n"
    assert [(endpoint.url, endpoint.weight) for endpoint in parse_backends(entries)] == [
        ("http://a:1", 3.0),
        ("http://a:1/v2", 1.0),
    ]
    endpoints = [Endpoint(id=str(port), host="a", port=port) for port in (1, 2, 1, 3)]
    assert [endpoint.id for endpoint in unique(endpoints)] == ["1", "2", "3"]
    assert [endpoint.id for endpoint in unique(endpoints, most=2)] == ["1", "2"]


async def test_sources_run_until_they_are_cancelled(tmp_path: Path) -> None:
    (tmp_path / "replicas.yaml").write_text("- url: http://b:1\n")
    settings = LbSettings(
        backends=(BackendSettings(url="http://a:1"),), files=(FileSource(path="replicas.yaml", interval_s=0.01),)
    )
    sources, pushes = build_sources(settings, tmp_path, CLOCK), Pushes()
    assert [source.name for source in sources] == ["static", "file:replicas.yaml"]
    tasks = [asyncio.create_task(source.run(pushes)) for source in sources]
    await asyncio.sleep(0.05)
    assert pushes == [["http://a:1"], ["http://b:1"]]
    assert not any(task.done() for task in tasks)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert all(task.cancelled() for task in tasks)


def test_every_kind_of_source_is_built_from_its_settings(tmp_path: Path) -> None:
    settings = LbSettings(
        backends=(BackendSettings(url="http://a:1"),),
        files=(FileSource(path="f"),),
        dns=(DnsSource(name="n", port=1, nameservers=("127.0.0.1",)),),
        kubernetes=(KubernetesSource(service="n"),),
    )
    for kind, build in SOURCES.items():
        assert build(LbSettings(), tmp_path, CLOCK) == []
        (source,) = build(settings, tmp_path, CLOCK)
        assert source.name.split(":")[0] == kind
    assert StaticBackends(settings.backends, CLOCK).endpoints[0].id == "http://a:1"
