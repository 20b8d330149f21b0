"""DM407 everything-on-disk: what it says, where, and when it is silent."""

from __future__ import annotations

from typing import TYPE_CHECKING

from devmap.inventory.model import Inventory
from devmap.plan.model import Plan

if TYPE_CHECKING:
    from tests.validators.conftest import ContextOf, FindingsOf

HEAD = "version: 1\nmodel: {manifest: example.manifest.yaml}\n"


def test_without_a_plan_the_map_itself_shows_it(context_of: ContextOf, findings_of: FindingsOf) -> None:
    text = "version: 1\nmodel: {manifest: example.manifest.yaml, dtype: float32}\ndevice_map: {KEYS}\n"
    said = {
        "{'': disk}": ["all weights lie on disk: each pass reads 3.8 GB"],
        "{'': disk, model.norm: disk}": ["all weights lie on disk: each pass reads 3.8 GB"],
        "{model: disk}": [],
        "{'': disk, model.norm: 0}": [],
        "{}": [],
    }
    for keys, messages in said.items():
        context = context_of(text.replace("{KEYS}", keys))
        assert context.plan is None
        assert [finding.message for finding in findings_of(context, "DM407")] == messages


def test_a_model_without_weights_lies_nowhere(context_of: ContextOf, findings_of: FindingsOf) -> None:
    empty = Inventory({"": "Net"}, {})
    text = "version: 1\nmodel: {manifest: example.manifest.yaml}\ndevice_map: {'': disk}\n"
    for plan in (None, Plan({}, (), (), "manual")):
        assert findings_of(context_of(text, inventory=empty, plan=plan), "DM407") == ()


def test_a_strategy_that_leaves_all_on_disk_is_said(context_of: ContextOf, findings_of: FindingsOf) -> None:
    (finding,) = findings_of(context_of(HEAD + "device_map: auto\nmax_memory: {disk: 2GB}\n"), "DM407")
    assert finding.message == "all weights lie on disk: each pass reads 1.9 GB"
