"""Which files are configs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from devmap.checking.discovery import find_configs
from devmap.errors import UsageError

if TYPE_CHECKING:
    from pathlib import Path


def make(folder: Path, *names: str) -> None:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("version: 1\n")


def test_configs_are_found_in_folders_and_nothing_else(tmp_path: Path) -> None:
    make(
        tmp_path,
        "b.devmap.yaml",
        "a/c.devmap.yml",
        "a/c.devmap.lock.yaml",
        "a/c.manifest.yaml",
        "a/other.yaml",
        ".hidden/d.devmap.yaml",
        "a/.e.devmap.yaml",
        "env/pyvenv.cfg",
        "env/lib/f.devmap.yaml",
        "node_modules/g.devmap.yaml",
    )
    found = [path.removeprefix(f"{tmp_path}/") for path in find_configs([tmp_path])]
    assert found == ["a/c.devmap.yml", "b.devmap.yaml"]


def test_a_file_is_taken_whatever_its_name_and_each_once(tmp_path: Path) -> None:
    make(tmp_path, "x.yaml", "y.devmap.yaml")
    assert find_configs([tmp_path / "x.yaml", tmp_path / "y.devmap.yaml", tmp_path]) == [
        str(tmp_path / "x.yaml"),
        str(tmp_path / "y.devmap.yaml"),
    ]


def test_loops_of_links_end(tmp_path: Path) -> None:
    make(tmp_path, "a/x.devmap.yaml")
    (tmp_path / "a" / "loop").symlink_to(tmp_path)
    assert find_configs([tmp_path]) == [str(tmp_path / "a" / "x.devmap.yaml")]


def test_excluded_files_are_left_out_of_folders_alone(tmp_path: Path) -> None:
    make(tmp_path, "x.devmap.yaml", "y.devmap.yaml")
    assert find_configs([tmp_path], excluded=lambda name: "x." in name) == [str(tmp_path / "y.devmap.yaml")]
    assert find_configs([tmp_path / "x.devmap.yaml"], excluded=lambda _name: True) == [
        str(tmp_path / "x.devmap.yaml")
    ]


def test_nothing_found_is_a_usage_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no config in"):
        find_configs([tmp_path])
    with pytest.raises(UsageError, match="no such file or folder"):
        find_configs([tmp_path / "no"])
