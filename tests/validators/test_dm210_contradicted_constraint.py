"""DM210 contradicted-constraint: what it says, where, and when it is silent."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from devmap.config.faults import DocumentPath
    from tests.validators.conftest import ContextOf, FindingsOf

HEAD = "version: 1\nmodel: {manifest: example.manifest.yaml}\n"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            HEAD + "device_map: {'': 0}\nforbid: {0: [model.layers.0.mlp]}\nmax_memory: {0: 2GB, 1: 2GB}\n",
            [
                (
                    ("forbid", "0", 0),
                    "'model.layers.0.mlp' is forbidden on device 0, and the device map puts 'model.layers.0.mlp.gate_proj.weight' there",
                )
            ],
        ),
        (
            HEAD + "device_map: {'': 0, model.norm: 1}\nsame_device: [[model.norm, lm_head]]\nmax_memory: {0: 2GB, 1: 2GB}\n",
            [(("same_device", 0), "'model.norm' and 'lm_head' must share a device, and the device map puts them on device 0 and device 1")],
        ),
    ],
)
def test_it_says_what_is_wrong_and_where(
    text: str, said: list[tuple[DocumentPath, str]], context_of: ContextOf, findings_of: FindingsOf
) -> None:
    assert [(finding.path, finding.message) for finding in findings_of(context_of(text), "DM210")] == said


@pytest.mark.parametrize(
    "text",
    [
        HEAD + "device_map: auto\nforbid: {0: [lm_head]}\nsame_device: [[model.norm, lm_head]]\nmax_memory: {0: 2GB, 1: 2GB}\n",
    ],
)
def test_it_is_silent(text: str, context_of: ContextOf, findings_of: FindingsOf) -> None:
    assert findings_of(context_of(text), "DM210") == ()
