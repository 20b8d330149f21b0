"""DM020 wrong-manifest: each fault of a manifest in its place there."""

from __future__ import annotations

from typing import TYPE_CHECKING

from devmap.api.checks.validation import validate

if TYPE_CHECKING:
    from pathlib import Path

CONFIG = "version: 1\nmodel: {manifest: m.manifest.yaml}\nmax_memory: {0: 2GB}\n"


def test_every_fault_of_the_manifest_stands_in_its_place(tmp_path: Path) -> None:
    manifest = "version: 1\nmodules: {'': Net}\ntensors:\n  a: float17[2]\n  b: float32[x]\n"
    (tmp_path / "m.manifest.yaml").write_text(manifest, encoding="utf-8")
    config = tmp_path / "c.devmap.yaml"
    config.write_text(CONFIG, encoding="utf-8")
    findings = validate([str(config)]).findings
    placed = [
        (finding.code, finding.position.file, finding.position.start.line)
        for finding in findings
        if finding.position
    ]
    manifest_path = str(tmp_path / "m.manifest.yaml")
    assert placed == [("DM217", str(config), 2), ("DM020", manifest_path, 4), ("DM020", manifest_path, 5)]
    assert {finding.path for finding in findings} == {("model", "manifest")}
    assert not any(finding.message.startswith(manifest_path) for finding in findings)


def test_a_manifest_that_is_no_yaml_says_where(tmp_path: Path) -> None:
    (tmp_path / "m.manifest.yaml").write_text("version: 1\ntensors: [\n", encoding="utf-8")
    config = tmp_path / "c.devmap.yaml"
    config.write_text(CONFIG, encoding="utf-8")
    (finding,) = [finding for finding in validate([str(config)]).findings if finding.code == "DM020"]
    assert finding.position is not None
    assert finding.position.file.endswith("m.manifest.yaml")
    assert finding.message.startswith("not YAML")
