"""Files that some version wrote are read by later ones, or refused by name.

What stands in a folder here never changes.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from devmap.api.checks.validation import validate_text
from devmap.errors import LockError, ManifestError
from devmap.inventory.manifests.manifest import parse_manifest, read_manifest
from devmap.plan.lock import parse_lock, read_lock

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
