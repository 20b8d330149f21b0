"""DM306 integer-dtype: what it says, where, and when it is silent."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import pytest

from devmap.inventory.model import Inventory, Tensor

if TYPE_CHECKING:
    from devmap.config.yaml.faults import DocumentPath
    from tests.validators.conftest import ContextOf, FindingsOf


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            (
                "version: 1\nmodel: {manifest: example.manifest.yaml, dtype: uint4}\nmax_memory: {0: 2GB, 1: "
                "2GB}\n"
            ),
            [(("model", "dtype"), "weights cannot be converted to uint4 by a cast")],
        ),
        (
            (
                "version: 1\nmodel: {manifest: example.manifest.yaml, dtype: float8_e5m2}\nmax_memory: {0: "
                "2GB, 1: 2GB}\n"
            ),
            [(("model", "dtype"), "a cast to float8_e5m2 loses most digits, and few kernels compute in it")],
        ),
    ],
)
def test_it_says_what_is_wrong_and_where(
    text: str, said: list[tuple[DocumentPath, str]], context_of: ContextOf, findings_of: FindingsOf
) -> None:
    assert [(finding.path, finding.message) for finding in findings_of(context_of(text), "DM306")] == said


@pytest.mark.parametrize(
    "text",
    [
        "version: 1\nmodel: {manifest: example.manifest.yaml, dtype: half}\nmax_memory: {0: 2GB, 1: 2GB}\n",
    ],
)
def test_it_is_silent(text: str, context_of: ContextOf, findings_of: FindingsOf) -> None:
    assert findings_of(context_of(text), "DM306") == ()


def test_a_cast_to_float8_is_a_warning_unless_the_checkpoint_holds_it(
    context_of: ContextOf, findings_of: FindingsOf, example: Inventory
) -> None:
    text = (
        "version: 1\nmodel: {manifest: example.manifest.yaml, dtype: float8_e4m3fn}\nmax_memory: {0: 2GB}\n"
    )
    name = "model.layers.0.mlp.up_proj.weight"
    quantised = dataclasses.replace(
        example, tensors={**example.tensors, name: Tensor(name, (8, 8), "float8_e4m3fn")}
    )
    assert findings_of(context_of(text, inventory=quantised), "DM306") == ()
    for known in ({}, {"inventory": None, "plan": None}):
        (finding,) = findings_of(context_of(text, **known), "DM306")
        assert (finding.severity, finding.help) == (
            "warning",
            "use a checkpoint that was quantised with scales, or bfloat16",
        )
