from __future__ import annotations

from pathlib import Path

import pytest

from devmap.errors import CheckpointError
from devmap.inventory.stored.hub import find_checkpoint, hub_cache


def cached(cache: Path, name: str, revision: str = "abc") -> Path:
    home = cache / f"models--{name.replace('/', '--')}"
    snapshot = home / "snapshots" / revision
    snapshot.mkdir(parents=True)
    (home / "refs").mkdir()
    (home / "refs" / "main").write_text(revision)
    return snapshot


@pytest.fixture(autouse=True)
def no_hub_variables(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "HF_HOME", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))


def test_a_path_is_relative_to_the_folder_and_wins_over_a_hub_id(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    cached(tmp_path / "hub", "org/name")
    (tmp_path / "configs" / "org" / "name").mkdir(parents=True)
    assert find_checkpoint("org/name", folder=tmp_path / "configs") == tmp_path / "configs" / "org" / "name"
    assert find_checkpoint(str(tmp_path), folder=Path("/nowhere")) == tmp_path


def test_a_tilde_is_the_home_folder(tmp_path: Path) -> None:
    (tmp_path / "home" / "models").mkdir(parents=True)
    assert find_checkpoint("~/models", folder=Path()) == tmp_path / "home" / "models"


@pytest.mark.parametrize(
    ("variable", "below"),
    [
        ("HF_HUB_CACHE", ""),
        ("HUGGINGFACE_HUB_CACHE", ""),
        ("HF_HOME", "hub"),
        ("XDG_CACHE_HOME", "huggingface/hub"),
    ],
)
def test_a_hub_id_is_found_where_the_environment_says(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, variable: str, below: str
) -> None:
    monkeypatch.setenv(variable, str(tmp_path / "x"))
    snapshot = cached(tmp_path / "x" / below, "org/name")
    assert find_checkpoint("org/name", folder=tmp_path) == snapshot


def test_the_default_cache_is_in_the_home_folder(tmp_path: Path) -> None:
    assert hub_cache() == tmp_path / "home" / ".cache" / "huggingface" / "hub"
    snapshot = cached(hub_cache(), "gpt2")
    assert find_checkpoint("gpt2", folder=tmp_path) == snapshot


def test_nothing_is_downloaded_and_the_error_says_how_to(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError) as caught:
        find_checkpoint("org/name", folder=tmp_path)
    assert str(tmp_path / "org" / "name") in caught.value.message
    assert "models--org--name" in caught.value.message
    assert "hf download org/name" in caught.value.help


@pytest.mark.parametrize("name", ["./absent", "/absent/x", "a/b/c", "x.safetensors"])
def test_what_can_only_be_a_path_is_not_looked_up_on_the_hub(tmp_path: Path, name: str) -> None:
    with pytest.raises(CheckpointError) as caught:
        find_checkpoint(name, folder=tmp_path)
    assert "hf download" not in caught.value.help


def test_a_cache_without_its_snapshot_is_as_good_as_none(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    cached(tmp_path / "hub", "org/name").rmdir()
    with pytest.raises(CheckpointError, match="neither"):
        find_checkpoint("org/name", folder=tmp_path)
