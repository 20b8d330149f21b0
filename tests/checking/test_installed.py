"""Rule packs come from installed distributions: a folder that is checked brings no code along."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from typing import TYPE_CHECKING

import pytest

from devmap.checking.installed import is_installed, places_of
from devmap.checking.registry import load_rules
from devmap.checking.settings import Settings
from devmap.errors import UsageError

if TYPE_CHECKING:
    from pathlib import Path

PACK = """\
    from pathlib import Path
    from devmap.findings.model import Rule, Severity

    Path({ran!r}).touch()
    ALL_RULES = (Rule("EVL001", "evil-rule", Severity.NOTE, "s", "w", "", "", check=lambda _context: ()),)
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A checkout with settings that name a module beside them; the file `ran` tells that it was imported."""
    (tmp_path / "devmap.toml").write_text('rules = ["evil_pack"]\n')
    (tmp_path / "evil_pack.py").write_text(textwrap.dedent(PACK).format(ran=str(tmp_path / "ran")))
    (tmp_path / "m.manifest.yaml").write_text(
        'version: 1\nmodules: {"": M, a: Linear}\ntensors: {a.weight: "float32[2, 2]"}\n'
    )
    (tmp_path / "x.devmap.yaml").write_text(
        "version: 1\nmodel: {manifest: m.manifest.yaml}\nmax_memory: {0: 1GB}\n"
    )
    return tmp_path


def run(folder: Path, *command: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *command],
        cwd=folder,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.parametrize(
    ("command", "path"),
    [
        (("-m", "devmap", "validate", "."), ""),
        (("-m", "devmap", "validate", "."), "."),
        (("-m", "devmap", "rules"), "."),
        (("-m", "devmap", "explain", "DM201"), "."),
        (("-m", "pytest", "--devmap", "-p", "no:cacheprovider"), ""),
    ],
)
def test_a_pack_of_the_working_folder_is_never_imported(
    folder: Path, command: tuple[str, ...], path: str
) -> None:
    told = run(folder, *command, PYTHONPATH=path)
    assert told.returncode not in {0, 1}, told.stdout
    assert "evil_pack" in told.stderr
    assert not (folder / "ran").exists()


def test_with_allow_code_it_is(folder: Path) -> None:
    told = run(folder, "-m", "devmap", "validate", ".", "--allow-code", PYTHONPATH=str(folder))
    assert (told.returncode, told.stderr) == (0, "")
    assert (folder / "ran").exists()
    assert "EVL001" in run(folder, "-m", "devmap", "rules", "--allow-code", PYTHONPATH=str(folder)).stdout


@pytest.mark.parametrize("name", ["click", "yaml", "difflib", "devmap_validators"])
def test_a_file_named_like_a_library_is_not_imported(folder: Path, name: str) -> None:
    (folder / "devmap.toml").unlink()
    (folder / f"{name}.py").write_text(f"import pathlib; pathlib.Path({str(folder / 'ran')!r}).touch()\n")
    told = run(folder, "-m", "devmap", "validate", ".")
    assert (told.returncode, told.stderr) == (0, "")
    assert not (folder / "ran").exists()


def test_what_pip_installed_is_installed() -> None:
    assert is_installed("click")
    assert is_installed("click.core")
    assert not is_installed("no_such_module_anywhere")
    assert places_of("no_such_module_anywhere") == ()


def test_what_is_installed_to_be_edited_is_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    site, source = tmp_path / "site", tmp_path / "source"
    info = site / "team_rules-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: team-rules\nVersion: 1.0\n")
    (info / "top_level.txt").write_text("team_rules_pack\n")
    (info / "direct_url.json").write_text(f'{{"url": "{source.as_uri()}", "dir_info": {{"editable": true}}}}')
    source.mkdir()
    for name in ("team_rules_pack", "another_pack"):
        (source / f"{name}.py").write_text("ALL_RULES = ()\n")
    monkeypatch.syspath_prepend(str(source))
    assert not is_installed("team_rules_pack")
    monkeypatch.setattr("devmap.checking.installed._site_folders", lambda: (site,))
    assert is_installed("team_rules_pack")
    assert not is_installed("another_pack")  # beside it, but none of what was installed
    load_rules(Settings(packs=("team_rules_pack",)))
    with pytest.raises(UsageError, match="not an installed distribution"):
        load_rules(Settings(packs=("another_pack",)))


def test_metadata_in_the_working_folder_installs_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    info = tmp_path / "fake_pack-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: fake-pack\nVersion: 1.0\n")
    (info / "top_level.txt").write_text("fake_pack\n")
    (info / "direct_url.json").write_text(
        f'{{"url": "{tmp_path.as_uri()}", "dir_info": {{"editable": true}}}}'
    )
    (tmp_path / "fake_pack.py").write_text("ALL_RULES = ()\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.chdir(tmp_path)
    assert not is_installed("fake_pack")
