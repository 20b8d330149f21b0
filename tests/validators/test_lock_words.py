"""Findings about the lock of a profile stand at the profile, and name the command that writes that lock."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from devmap.api.checks.validation import validate
from devmap.api.resolution import resolve_file
from devmap.plan.lock import lock_path, write_lock

EXAMPLE = Path(__file__).parents[2] / "validators" / "devmap_validators" / "example.manifest.yaml"
TEXT = """\
version: 1
model: {manifest: example.manifest.yaml}
max_memory: {0: 2GB}
profiles:
  more room: {max_memory: {0: 3GB}}
"""


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    shutil.copy(EXAMPLE, tmp_path)
    path = Path("my config.devmap.yaml")
    path.write_text(TEXT, encoding="utf-8")
    return path


def told(config: Path, *, profile: str | None = None, locked: bool = False) -> list[tuple[str, int, str]]:
    """Code, line and help of each finding about a lock."""
    found = validate([str(config)], profile=profile, locked=locked).findings
    about_locks = [finding for finding in found if finding.code.startswith("DM5")]
    return [
        (finding.code, finding.position.start.line if finding.position else 0, finding.help)
        for finding in about_locks
    ]


def test_each_stale_lock_is_named_with_its_own_command(config: Path) -> None:
    for profile in (None, "more room"):
        write_lock(resolve_file(config, profile=profile)[0], lock_path(config, profile))
    assert told(config) == []
    config.write_text(
        TEXT.replace("max_memory: {0: 2GB}", "headroom: 1%\nmax_memory: {0: 2GB}"), encoding="utf-8"
    )
    assert told(config) == [
        ("DM501", 1, "devmap resolve 'my config.devmap.yaml' --lock, and read its diff"),
        (
            "DM501",
            6,
            "devmap resolve 'my config.devmap.yaml' --profile 'more room' --lock, and read its diff",
        ),
    ]


def test_a_lock_that_is_missing_is_asked_for_with_the_profile_that_was_picked(config: Path) -> None:
    assert told(config, locked=True) == [
        ("DM505", 1, "devmap resolve 'my config.devmap.yaml' --lock, and check the file in")
    ]
    (missing,) = told(config, profile="more room", locked=True)
    assert missing == (
        "DM505",
        5,
        "devmap resolve 'my config.devmap.yaml' --profile 'more room' --lock, and check the file in",
    )
