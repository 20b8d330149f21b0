"""Files that some version wrote are read by later ones, or refused by name.

What stands in a folder here never changes.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from safetensors import safe_open

from devmap.api.checks.validation import validate_text
from devmap.errors import LockError, ManifestError
from devmap.inventory.manifests.manifest import parse_manifest, read_manifest
from devmap.plan.lock import parse_lock, read_lock
from devmap.runtime.storage.offload_folder import write_block
from devmap.runtime.storage.weights import Weight

HERE = Path(__file__).parent
LATER = b"version: 2"


def test_a_lock_of_version_1_is_read_and_unedited() -> None:
    lock = read_lock(HERE / "1" / "x.devmap.lock.yaml")
    assert (lock.version, lock.is_hand_edited) == (1, False)
    assert lock.device_map


def test_a_manifest_of_version_1_is_read() -> None:
    inventory = read_manifest(HERE / "1" / "m.manifest.yaml")
    assert inventory.modules[""] == "BertModel"
    assert sum(tensor.nbytes for tensor in inventory.tensors.values() if tensor.persistent) == 90_852_864


def test_what_a_later_version_wrote_is_refused_by_its_version() -> None:
    lock = (HERE / "1" / "x.devmap.lock.yaml").read_bytes().replace(b"version: 1", LATER)
    with pytest.raises(LockError, match="version 1, found '2'"):
        parse_lock(lock, "x.devmap.lock.yaml")
    manifest = (HERE / "1" / "m.manifest.yaml").read_bytes().replace(b"version: 1", LATER)
    with pytest.raises(ManifestError) as caught:
        parse_manifest(manifest, "m.manifest.yaml")
    assert "'version: 1', found '2'" in caught.value.problems[0].message
    codes = [finding.code for finding in validate_text(LATER + b"\nmodel: {}\n", "x.devmap.yaml").findings]
    assert "DM109" in codes


def test_an_offload_folder_of_version_1_is_used_as_it_is(tmp_path: Path) -> None:
    folder = tmp_path / "offload"
    shutil.copytree(HERE / "1" / "offload", folder)
    (file,) = folder.iterdir()
    before = file.stat().st_mtime_ns
    weights = [
        Weight("blocks.0.weight", (4, 3), torch.float32, "parameter", live=torch.arange(12.0).view(4, 3)),
        Weight("blocks.0.bias", (4,), torch.bfloat16, "parameter", live=torch.ones(4, dtype=torch.bfloat16)),
    ]
    written = write_block(weights, str(folder))
    assert {stored.file for weight in written for stored, _ in weight.stored} == {file}
    assert file.stat().st_mtime_ns == before
    with safe_open(file, framework="pt") as content:
        assert content.get_tensor("blocks.0.weight").equal(torch.arange(12.0).view(4, 3))


def test_a_file_of_an_offload_folder_that_is_not_what_its_name_says_is_written_anew(tmp_path: Path) -> None:
    (file,) = (HERE / "1" / "offload").iterdir()
    (tmp_path / file.name).write_bytes(file.read_bytes()[:-1] + b"\x01")
    weights = [
        Weight("blocks.0.weight", (4, 3), torch.float32, "parameter", live=torch.arange(12.0).view(4, 3)),
        Weight("blocks.0.bias", (4,), torch.bfloat16, "parameter", live=torch.ones(4, dtype=torch.bfloat16)),
    ]
    write_block(weights, str(tmp_path))
    assert (tmp_path / file.name).read_bytes() == file.read_bytes()
