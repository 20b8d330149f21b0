"""DM207 redundant-key: what it says, where, and when it is silent."""

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
            HEAD + "device_map: {'model.layers[0-1]': 0, '': 0}\nmax_memory: {0: 2GB, 1: 2GB}\n",
            [
                (
                    ("device_map", "model.layers[0-1]"),
                    "'model.layers[0-1]' goes to device 0, as the key \"\" says already",
                )
            ],
        ),
        (
            HEAD
            + "device_map: {model: 1, model.norm: 1, '': 0, model.embed_tokens: 0}\nmax_memory: {0: 2GB, "
            "1: 2GB}\n",
            [(("device_map", "model.norm"), "'model.norm' goes to device 1, as 'model' says already")],
        ),
        (
            HEAD + "device_map: {'': 0, 'model.layers.*': 1, 'model.layers[0-3]': 0, model.norm: 0, "
            "'model.layers.0': 0}\n"
            "max_memory: {0: 2GB, 1: 2GB}\n",
            [
                (
                    ("device_map", "model.layers[0-3]"),
                    "'model.layers[0-3]' goes to device 0, as the key \"\" says already",
                ),
                (("device_map", "model.norm"), "'model.norm' goes to device 0, as the key \"\" says already"),
                (
                    ("device_map", "model.layers.0"),
                    "'model.layers.0' goes to device 0, as the key \"\" says already",
                ),
            ],
        ),
        (
            HEAD + "device_map: {'': 0, model.layers.1: 1, 'model.layers.*.mlp': 0, model.layers.1.mlp: "
            "0}\nmax_memory: {0: 2GB, 1: 2GB}\n",
            [
                (
                    ("device_map", "model.layers.*.mlp"),
                    "'model.layers.*.mlp' goes to device 0, as the key \"\" says already",
                )
            ],
        ),
    ],
)
def test_it_says_what_is_wrong_and_where(
    text: str, said: list[tuple[DocumentPath, str]], context_of: ContextOf, findings_of: FindingsOf
) -> None:
    assert [(finding.path, finding.message) for finding in findings_of(context_of(text), "DM207")] == said


@pytest.mark.parametrize(
    "text",
    [
        HEAD + "device_map: {model: auto, '': auto}\nmax_memory: {0: 2GB, 1: 2GB}\n",
        HEAD + "device_map: {model.norm: 1, '': 0}\nmax_memory: {0: 2GB, 1: 2GB}\n",
    ],
)
def test_it_is_silent(text: str, context_of: ContextOf, findings_of: FindingsOf) -> None:
    assert findings_of(context_of(text), "DM207") == ()
