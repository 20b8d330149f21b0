"""DM217 unreadable-manifest: what it says, where, and when it is silent."""

from __future__ import annotations

from typing import TYPE_CHECKING

from devmap.errors import CheckpointError, InventoryError, ManifestError

if TYPE_CHECKING:
    from tests.validators.conftest import ContextOf, FindingsOf

TEXT = "version: 1\nmodel: {manifest: ../nowhere.manifest.yaml}\nmax_memory: {0: 2GB}\n"


def test_it_names_the_file(context_of: ContextOf, findings_of: FindingsOf) -> None:
    (finding,) = findings_of(context_of(TEXT), "DM217")
    assert finding.path == ("model", "manifest")
    assert "nowhere.manifest.yaml" in finding.message
    assert "devmap inspect" in finding.help


def test_it_is_silent_for_a_checkpoint_and_for_a_good_manifest(
    context_of: ContextOf, findings_of: FindingsOf
) -> None:
    assert findings_of(context_of(TEXT, inventory_error=CheckpointError("no")), "DM217") == ()
    assert findings_of(context_of(TEXT.replace("../nowhere", "example")), "DM217") == ()


def test_a_config_that_names_no_model_at_all_is_the_affair_of_dm214(
    context_of: ContextOf, findings_of: FindingsOf
) -> None:
    text = "version: 1\nmodel: {dtype: bfloat16}\nmax_memory: {0: 2GB}\n"
    error = ManifestError("the config names no model")
    assert [finding.code for finding in findings_of(context_of(text, inventory_error=error))] == ["DM214"]


def test_a_factory_that_fails_is_said_at_the_factory(context_of: ContextOf, findings_of: FindingsOf) -> None:
    text = "version: 1\nmodel: {factory: 'pack.models:build'}\nmax_memory: {0: 2GB}\n"
    error = InventoryError("pack.models has no build")
    (finding,) = findings_of(context_of(text, inventory_error=error, allow_code=True), "DM217")
    assert (finding.path, finding.message) == (("model", "factory"), "pack.models has no build")
    assert finding.help == "write it anew: devmap inspect CHECKPOINT -o MANIFEST"
