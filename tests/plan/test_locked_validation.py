"""`devmap validate --locked` tells stale, hand-edited, foreign, damaged and missing locks apart.

For each profile its own.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from devmap.api.checks.validation import validate
from devmap.api.resolution import resolve, resolve_file
from devmap.config.document import read_config
from devmap.config.model.machines import preset
from devmap.inventory.model import Inventory
from devmap.plan.lock import lock_path, write_lock

EXAMPLES = Path(__file__).parent.parent.parent / "examples"
CONFIG = """\
version: 1
model: {manifest: m.manifest.yaml}
device_map: balanced
max_memory: {0: 10GB, 1: 10GB}
profiles:
  wide: {max_memory: {0: 20GB}}
"""


@pytest.fixture
def config(tmp_path: Path) -> Path:
    shutil.copy(EXAMPLES / "llama-2-7b.manifest.yaml", tmp_path / "m.manifest.yaml")
    path = tmp_path / "a.devmap.yaml"
    path.write_text(CONFIG, encoding="utf-8", newline="\n")
    return path


def lock(config: Path, profile: str | None = None) -> Path:
    path = lock_path(config, profile)
    write_lock(resolve_file(config, profile=profile)[0], path)
    return path


def codes(config: Path, *, profile: str | None = None, locked: bool = True) -> list[str]:
    """The codes of the lock's family."""
    found = validate([str(config)], profile=profile, locked=locked)
    return [finding.code for finding in found.findings if finding.code.startswith("DM5")]


def change(path: Path, old: str, new: str) -> None:
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new, 1), encoding="utf-8", newline="\n")


def test_a_missing_lock_is_asked_for_and_a_fresh_one_is_fine(config: Path) -> None:
    assert codes(config) == ["DM505"]
    assert codes(config, locked=False) == []
    lock(config)
    assert codes(config) == []


def test_a_lock_of_an_earlier_config_is_stale(config: Path) -> None:
    lock(config)
    change(config, "balanced", "auto")
    assert codes(config) == ["DM501"]


def test_what_does_not_change_the_plan_leaves_the_lock_fresh(config: Path) -> None:
    lock(config)
    change(config, "device_map: balanced", "# a comment\npolicies: []\ndevice_map: 'balanced'")
    assert codes(config) == []


def test_an_edited_lock_is_told_from_a_stale_one(config: Path) -> None:
    path = lock(config)
    change(path, "lm_head: 1", "lm_head: 0")
    assert codes(config) == ["DM502"]


def test_a_lock_with_other_line_ends_is_not_an_edited_one(config: Path) -> None:
    path = lock(config)
    path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n"))
    assert codes(config) == []


def test_a_lock_of_another_model_is_told_from_a_stale_one(config: Path) -> None:
    lock(config)
    shutil.copy(EXAMPLES / "gpt2-xl.manifest.yaml", config.parent / "m.manifest.yaml")
    assert codes(config) == ["DM503"]


def test_a_damaged_lock_is_told_with_its_line(config: Path) -> None:
    path = lock(config)
    change(path, "version: 1", "version: 99")
    assert codes(config) == ["DM504"]
    path.write_bytes(b"\xff\xfe")
    assert codes(config) == ["DM504"]


def test_each_profile_is_compared_with_its_own_lock(config: Path) -> None:
    lock(config)
    assert lock(config, "wide").name == "a.wide.devmap.lock.yaml"
    assert codes(config) == []
    assert codes(config, profile="wide") == []
    change(config, "wide: {max_memory: {0: 20GB}}", "wide: {max_memory: {0: 19GB}}")
    assert codes(config) == ["DM501"]
    assert codes(config, profile="wide") == ["DM501"]
    assert "with profile 'wide'" in next(
        finding.message
        for finding in validate([str(config)], locked=True).findings
        if finding.code == "DM501"
    )


def test_a_picked_profile_needs_a_lock_of_its_own(config: Path) -> None:
    lock(config)
    assert codes(config) == []
    assert codes(config, profile="wide") == ["DM505"]


@pytest.mark.parametrize(
    "keys", ["headroom: 20%", "workload: server", "max_memory: {0: 80%, 1: 70%, cpu: 50%}"]
)
def test_a_lock_fixes_the_budgets_that_a_config_leaves_to_the_machine(config: Path, keys: str) -> None:
    change(config, "device_map: balanced\n", "device_map: auto\n")
    change(config, "max_memory: {0: 10GB, 1: 10GB}", keys)
    change(config, "profiles:\n  wide: {max_memory: {0: 20GB}}\n", "")
    parsed = read_config(config)
    inventory = Inventory.from_manifest(config.parent / "m.manifest.yaml")
    path = lock_path(config)
    write_lock(resolve(parsed, inventory, machine=preset("2x4090")), path)
    assert codes(config) == []
    change(config, "device_map: auto", "device_map: sequential")
    assert codes(config) == ["DM501"]


def test_the_findings_are_errors_and_say_what_to_run(config: Path) -> None:
    path = lock(config)
    change(config, "balanced", "auto")
    finding = next(
        finding for finding in validate([str(config)], locked=True).findings if finding.code == "DM501"
    )
    assert finding.severity.value == "error"
    assert "devmap resolve" in finding.help
    assert path.exists()
