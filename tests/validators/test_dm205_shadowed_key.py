"""DM205 shadowed-key: what it says, where, and when it is silent."""

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
            HEAD + "device_map: {model.norm: 1, model.norm.weight: 0, '': 0}\nmax_memory: {0: 2GB, 1: 2GB}\n",
            [
                (
                    ("device_map", "model.norm"),
                    "'model.norm' has no effect: 'model.norm.weight' covers everything below it",
                )
            ],
        ),
        (
            HEAD
            + "device_map: {'model.layers.*': 1, 'model.layers[0-3]': 0, '': 0}\nmax_memory: {0: 2GB, 1: "
            "2GB}\n",
            [
                (
                    ("device_map", "model.layers.*"),
                    "'model.layers.*' has no effect: 'model.layers[0-3]' covers everything below it",
                )
            ],
        ),
        (  # each that is shadowed; of the others only those that took something from it
            HEAD + "device_map: {'': 0, model.norm: 1, model.norm.weight: 0, lm_head: 0, model.layers.0: 1, "
            "'model.layers.0.*': 0, "
            "model.layers.0.mlp: 1, model.layers.0.self_attn: 1}\nmax_memory: {0: 2GB, 1: 2GB}\n",
            [
                (
                    ("device_map", "model.norm"),
                    "'model.norm' has no effect: 'model.norm.weight' covers everything below it",
                ),
                (
                    ("device_map", "model.layers.0"),
                    (
                        "'model.layers.0' has no effect: 'model.layers.0.*', 'model.layers.0.mlp', "
                        "'model.layers.0.self_attn' "
                        "cover everything below it"
                    ),
                ),
            ],
        ),
        (
            HEAD + "device_map: {'': 0, model.norm: 1, 'model.norm.*': 1, model.norm.weight: 0}\nmax_memory: "
            "{0: 2GB, 1: 2GB}\n",
            [
                (
                    ("device_map", "model.norm"),
                    "'model.norm' has no effect: 'model.norm.weight' covers everything below it",
                ),
                (
                    ("device_map", "model.norm.*"),
                    "'model.norm.*' has no effect: 'model.norm.weight' covers everything below it",
                ),
            ],
        ),
        (
            HEAD + "device_map: {'': 0, model.layers.0.mlp: 1, 'model.layers.*.mlp.*': 0}\nmax_memory: {0: "
            "2GB, 1: 2GB}\n",
            [
                (
                    ("device_map", "model.layers.0.mlp"),
                    "'model.layers.0.mlp' has no effect: 'model.layers.*.mlp.*' covers everything below it",
                )
            ],
        ),
    ],
)
def test_it_says_what_is_wrong_and_where(
    text: str, said: list[tuple[DocumentPath, str]], context_of: ContextOf, findings_of: FindingsOf
) -> None:
    assert [(finding.path, finding.message) for finding in findings_of(context_of(text), "DM205")] == said


@pytest.mark.parametrize(
    "text",
    [
        HEAD + "device_map: {model: 0, lm_head: 0, '': 1}\nmax_memory: {0: 2GB, 1: 2GB}\n",
        HEAD
        + "device_map: {'model.layers.*': 1, 'model.layers[0-2]': 0, '': 0}\nmax_memory: {0: 2GB, 1: 2GB}\n",
    ],
)
def test_it_is_silent(text: str, context_of: ContextOf, findings_of: FindingsOf) -> None:
    assert findings_of(context_of(text), "DM205") == ()
