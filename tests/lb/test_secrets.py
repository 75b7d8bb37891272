"""Secret references: where they may point, and that no secret is ever shown."""

from __future__ import annotations

from pathlib import Path

import pytest

from lb.errors import SettingsError
from lb.secrets import check_reference, is_exposed, resolve

CANARY = "canary-5d41402abc4b2a76"


def test_env_and_file_are_resolved(tmp_path: Path) -> None:
    (tmp_path / "token").write_text(f"{CANARY}\n")
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "token").write_text(CANARY)
    assert resolve("env:TOKEN", tmp_path, {"TOKEN": CANARY}) == CANARY
    assert resolve("file:token", tmp_path, {}) == CANARY
    assert resolve("file:sub/token", tmp_path, {}) == CANARY


@pytest.mark.parametrize("reference", ["", CANARY, "env:", "env:A B", "env:1A", "vault:x", "file:", "file:a\0b"])
def test_malformed_references_are_refused_without_showing_them(reference: str) -> None:
    with pytest.raises(SettingsError) as caught:
        check_reference(reference)
    assert CANARY not in str(caught.value)


@pytest.mark.parametrize(
    "reference", ["file:../token", "file:/etc/passwd", "file:a/../../token", "file:..", "file:a/../b", "file://x"]
)
def test_h12_traversal_is_refused(reference: str, tmp_path: Path) -> None:
    directory = tmp_path / "etc"
    directory.mkdir()
    (tmp_path / "token").write_text(CANARY)
    with pytest.raises(SettingsError, match=r"without \.\."):
        resolve(reference, directory, {})


def test_h12_a_symlink_out_of_the_directory_is_refused(tmp_path: Path) -> None:
    directory = tmp_path / "etc"
    directory.mkdir()
    (tmp_path / "token").write_text(CANARY)
    (directory / "token").symlink_to("../token")
    (directory / "up").symlink_to("..")
    for reference in ("file:token", "file:up/token"):
        with pytest.raises(SettingsError, match="leads out of the policy's directory"):
            resolve(reference, directory, {})


def test_h12_a_neighbour_with_the_same_prefix_is_outside(tmp_path: Path) -> None:
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc-other").mkdir()
    (tmp_path / "etc-other" / "token").write_text(CANARY)
    (tmp_path / "etc" / "token").symlink_to("../etc-other/token")
    with pytest.raises(SettingsError, match="leads out"):
        resolve("file:token", tmp_path / "etc", {})


def test_symlinks_inside_are_followed(tmp_path: Path) -> None:
    """A mounted Kubernetes Secret: the file is a link to `..data/file`, and `..data` one to a dated directory."""
    (tmp_path / "..2024").mkdir()
    (tmp_path / "..2024" / "token").write_text(CANARY)
    (tmp_path / "..data").symlink_to("..2024")
    (tmp_path / "token").symlink_to("..data/token")
    assert resolve("file:token", tmp_path, {}) == CANARY


@pytest.mark.parametrize("reference", ["env:MISSING_SECRET", "file:missing-secret"])
def test_h13_a_missing_secret_is_named_and_nothing_else(reference: str, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=f"the secret {reference} is missing") as caught:
        resolve(reference, tmp_path, {"OTHER": CANARY})
    assert CANARY not in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"\n", b"two\nlines", b"a\0b", b"\xff\xfe", b"x" * 70_000])
def test_unusable_contents_are_refused_without_showing_them(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "token").write_bytes(content)
    with pytest.raises(SettingsError) as caught:
        resolve("file:token", tmp_path, {})
    assert "the secret file:token" in str(caught.value)
    assert len(str(caught.value)) < 200


def test_a_file_needs_a_policy_beside_which_it_lies() -> None:
    with pytest.raises(SettingsError, match="needs a policy file"):
        resolve("file:token", None, {})


def test_files_that_everybody_can_read_are_noticed(tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text(CANARY)
    token.chmod(0o644)
    assert is_exposed("file:token", tmp_path)
    token.chmod(0o640)
    assert not is_exposed("file:token", tmp_path)
    assert not is_exposed("env:TOKEN", tmp_path)
    assert not is_exposed("file:none", tmp_path)
