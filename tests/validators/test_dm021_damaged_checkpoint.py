"""DM021 damaged-checkpoint: each damaged file is named, at the config's `checkpoint`."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from devmap.api.checks.validation import validate

if TYPE_CHECKING:
    from pathlib import Path

CONFIG = "version: 1\nmodel: {checkpoint: ./weights}\nmax_memory: {0: 2GB}\n"


def test_missing_shards_and_headers_past_the_end_are_named(tmp_path: Path) -> None:
    weights = tmp_path / "weights"
    weights.mkdir()
    index = {"weight_map": {"a": "model-1.safetensors", "b": "model-2.safetensors"}}
    (weights / "model.safetensors.index.json").write_text(json.dumps(index), encoding="utf-8")
    (weights / "model-1.safetensors").write_bytes((1000).to_bytes(8, "little") + b"{}")
    config = tmp_path / "c.devmap.yaml"
    config.write_text(CONFIG, encoding="utf-8")
    findings = validate([str(config)]).findings
    assert {finding.code for finding in findings} == {"DM021", "DM216"}
    assert all(finding.path == ("model", "checkpoint") for finding in findings)
    said = [finding.message for finding in findings if finding.code == "DM021"]
    assert any("model-1.safetensors" in message for message in said)
    assert any("model-2.safetensors" in message for message in said)
