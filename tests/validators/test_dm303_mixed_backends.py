"""DM303 mixed-backends: what it says, where, and when it is silent."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from devmap.config.yaml.faults import DocumentPath
    from tests.validators.conftest import ContextOf, FindingsOf

HEAD = "version: 1\nmodel: {manifest: example.manifest.yaml}\n"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            HEAD + "device_map: {'': 'xpu:0'}\nmax_memory: {'cuda:0': 2GB}\n",
            [
                (
                    ("max_memory", "cuda:0"),
                    "'cuda:0' beside 'xpu' devices: one process runs on one kind of accelerator",
                )
            ],
        ),
        (
            HEAD + "device_map: {'': 0, lm_head: 'xpu:0', model.norm: 'cuda:1'}\n"
            "max_memory: {0: 2GB, 'cuda:1': 2GB}\nforbid: {'mps:0': [lm_head]}\n",
            [
                (
                    ("device_map", "model.norm"),
                    "'cuda:1' beside 'xpu' devices: one process runs on one kind of accelerator",
                ),
                (
                    ("max_memory", "cuda:1"),
                    "'cuda:1' beside 'xpu' devices: one process runs on one kind of accelerator",
                ),
                (
                    ("forbid", "mps:0"),
                    "'mps:0' beside 'xpu' devices: one process runs on one kind of accelerator",
                ),
            ],
        ),
    ],
)
def test_it_says_what_is_wrong_and_where(
    text: str, said: list[tuple[DocumentPath, str]], context_of: ContextOf, findings_of: FindingsOf
) -> None:
    assert [(finding.path, finding.message) for finding in findings_of(context_of(text), "DM303")] == said


@pytest.mark.parametrize(
    "text",
    [
        HEAD + "device_map: {'': 'xpu:0', lm_head: 1}\nmax_memory: {0: 2GB, 1: 2GB}\n",
    ],
)
def test_it_is_silent(text: str, context_of: ContextOf, findings_of: FindingsOf) -> None:
    assert findings_of(context_of(text), "DM303") == ()


def test_the_caret_is_under_the_device(context_of: ContextOf, findings_of: FindingsOf) -> None:
    text = HEAD + "device_map: {'': 'xpu:0', lm_head: 'cuda:1'}\nmax_memory: {'cuda:1': 2GB}\n"
    found = findings_of(context_of(text), "DM303")
    assert [
        (finding.position.start.line, finding.position.start.column) for finding in found if finding.position
    ] == [(3, 36), (4, 14)]
