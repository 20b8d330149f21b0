"""DM203 straddling-class: what it says, where, and when it is silent."""

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
            HEAD
            + "device_map: {'': 0, model.layers.1.mlp.up_proj.weight: 1}\nmax_memory: {0: 2GB, 1: 2GB}\n",
            [
                (
                    ("device_map", "model.layers.1.mlp.up_proj.weight"),
                    (
                        "'model.layers.1' is a LlamaDecoderLayer, which may not be split, but lies on "
                        "device 0 and device 1 "
                        "('self_attn.q_proj.weight' on device 0, 'mlp.up_proj.weight' on device 1)"
                    ),
                )
            ],
        ),
        (
            HEAD + "device_map: {'': 0, 'model.layers.*.self_attn': 1}\nmax_memory: {0: 2GB, 1: 2GB}\n",
            [
                (
                    ("device_map", "model.layers.*.self_attn"),
                    (
                        "'model.layers.0' is a LlamaDecoderLayer, which may not be split, but lies on "
                        "device 0 and device 1 "
                        "('self_attn.q_proj.weight' on device 1, 'mlp.gate_proj.weight' on device 0), "
                        "and 3 other blocks up to 'model.layers.3'"
                    ),
                )
            ],
        ),
        # blocks that other keys tear are told apart; the caret is under the key that takes a part out, not
        # under the longest text
        (
            HEAD + "device_map: {'': 0, 'model.layers[0000-0001].mlp': 1, 'model.layers[0002-0003]': 1, "
            "model.layers.2.mlp: 0}\n"
            "max_memory: {0: 2GB, 1: 2GB}\n",
            [
                (
                    ("device_map", "model.layers[0000-0001].mlp"),
                    (
                        "'model.layers.0' is a LlamaDecoderLayer, which may not be split, but lies on "
                        "device 0 and device 1 "
                        "('self_attn.q_proj.weight' on device 0, 'mlp.gate_proj.weight' on device 1), "
                        "and 1 other block up to 'model.layers.1'"
                    ),
                ),
                (
                    ("device_map", "model.layers.2.mlp"),
                    (
                        "'model.layers.2' is a LlamaDecoderLayer, which may not be split, but lies on "
                        "device 0 and device 1 "
                        "('self_attn.q_proj.weight' on device 1, 'mlp.gate_proj.weight' on device 0)"
                    ),
                ),
            ],
        ),
        (  # of many devices three examples are enough
            HEAD + "device_map: {'': 0, model.layers.1.mlp: 1, model.layers.1.input_layernorm: 2, "
            "model.layers.1.post_attention_layernorm: cpu}\nmax_memory: {0: 2GB, 1: 2GB, 2: 2GB, cpu: 2GB}\n",
            [
                (
                    ("device_map", "model.layers.1.post_attention_layernorm"),
                    (
                        "'model.layers.1' is a LlamaDecoderLayer, which may not be split, but lies on "
                        "device 0, device 1, device 2 and cpu "
                        "('self_attn.q_proj.weight' on device 0, 'mlp.gate_proj.weight' on device 1, "
                        "'input_layernorm.weight' on device 2)"
                    ),
                )
            ],
        ),
    ],
)
def test_it_says_what_is_wrong_and_where(
    text: str, said: list[tuple[DocumentPath, str]], context_of: ContextOf, findings_of: FindingsOf
) -> None:
    assert [(finding.path, finding.message) for finding in findings_of(context_of(text), "DM203")] == said


@pytest.mark.parametrize(
    "text",
    [
        HEAD + "device_map: {'': 0, model.layers.1.mlp: 0}\nmax_memory: {0: 2GB, 1: 2GB}\n",
        HEAD
        + "device_map: {'': 0, model.layers.1.mlp: 1}\nno_split_module_classes: []\nmax_memory: {0: 2GB, "
        "1: 2GB}\n",
        # The next block begins where this one ends, on another device.
        HEAD
        + "device_map: {'': 0, model.layers.1.mlp: 0, model.layers.2: 1}\nmax_memory: {0: 2GB, 1: 2GB}\n",
    ],
)
def test_it_is_silent(text: str, context_of: ContextOf, findings_of: FindingsOf) -> None:
    assert findings_of(context_of(text), "DM203") == ()
