"""What validate refuses, nothing else takes."""

from __future__ import annotations

from pathlib import Path

import pytest

import devmap
from devmap.api.checks.validation import validate
from devmap.api.machine import needs_machine
from devmap.api.resolution import resolve_file
from devmap.checking.settings import Settings
from devmap.findings.model import Severity

FAULTS = Path(__file__).parents[1] / "faults"
FILES = sorted(path.name for path in FAULTS.glob("*.devmap.yaml"))


def about_the_config_itself(code: str) -> bool:
    """Not about a lock beside it, and not about one of its profiles."""
    return not code.startswith("DM5")


@pytest.mark.parametrize("name", FILES)
def test_a_config_with_an_error_is_planned_by_nobody(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(FAULTS)
    findings = validate([name], settings=Settings()).findings
    errors = {
        each.code
        for each in findings
        if each.severity is Severity.ERROR
        and each.suppressed is None
        and about_the_config_itself(each.code)
        and not each.message.startswith("with profile")
    }
    if errors:
        with pytest.raises(devmap.DevmapError):
            resolve_file(name)
    elif not any(each.severity is Severity.ERROR for each in findings) and not needs_machine(
        devmap.read_config(name)
    ):
        plan, inventory = resolve_file(name)
        assert {placement.path for placement in plan.placements} <= {*inventory.modules, *inventory.tensors}


def test_an_integer_dtype_is_refused_by_validate_plan_lock_and_resolve(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    example = FAULTS / "example.manifest.yaml"
    (tmp_path / example.name).write_bytes(example.read_bytes())
    text = "version: 1\nmodel: {manifest: example.manifest.yaml, dtype: int8}\nmax_memory: {0: 2GB}\n"
    Path("x.devmap.yaml").write_text(text, encoding="utf-8")
    assert [each.code for each in validate(["x.devmap.yaml"]).findings] == ["DM306"]
    config = devmap.read_config("x.devmap.yaml")
    with pytest.raises(devmap.ResolutionError, match="cannot be converted to int8 by a cast"):
        devmap.resolve(config, devmap.Inventory.from_manifest(example))


def test_a_policy_that_the_plan_breaks_stops_the_lock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    example = FAULTS / "example.manifest.yaml"
    (tmp_path / example.name).write_bytes(example.read_bytes())
    text = (
        "version: 1\nmodel: {manifest: example.manifest.yaml}\n"
        "max_memory: {0: 1500MB, disk: 100GB}\npolicies: [production]\n"
    )
    Path("x.devmap.yaml").write_text(text, encoding="utf-8")
    with pytest.raises(devmap.ConfigError) as caught:
        resolve_file("x.devmap.yaml")
    assert {problem.code[:3] for problem in caught.value.problems} == {"PRD"}
    assert caught.value.help == "devmap validate x.devmap.yaml"
