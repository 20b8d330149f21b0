"""DM303 mixed-backends: what it says, where, and when it is silent."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.validators.conftest import ContextOf, FindingsOf

HEAD = "version: 1\nmodel: {manifest: example.manifest.yaml}\n"


def test_the_caret_is_under_the_device(context_of: ContextOf, findings_of: FindingsOf) -> None:
    text = HEAD + "device_map: {'': 'xpu:0', lm_head: 'cuda:1'}\nmax_memory: {'cuda:1': 2GB}\n"
    found = findings_of(context_of(text), "DM303")
    assert [
        (finding.position.start.line, finding.position.start.column) for finding in found if finding.position
    ] == [(3, 36), (4, 14)]
