"""DM222 incomplete-inventory: what it says, where, and when it is silent."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from devmap.inventory.model import Inventory
    from tests.validators.conftest import ContextOf, FindingsOf

TEXT = "version: 1\nmodel: {manifest: example.manifest.yaml}\nmax_memory: {0: 2GB}\n"


def test_each_note_is_a_finding(context_of: ContextOf, findings_of: FindingsOf, example: Inventory) -> None:
    noted = dataclasses.replace(example, notes=("no table knows 'own'", "buffers are unknown"))
    found = findings_of(context_of(TEXT, inventory=noted), "DM222")
    assert [(finding.path, finding.message, finding.severity) for finding in found] == [
        (("model", "manifest"), "buffers are unknown", "note"),
        (("model", "manifest"), "no table knows 'own'", "note"),
    ]


def test_it_is_silent_without_notes(context_of: ContextOf, findings_of: FindingsOf) -> None:
    assert findings_of(context_of(TEXT), "DM222") == ()
