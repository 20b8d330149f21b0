"""DM305 upcast: what it says, where, and when it is silent."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from devmap.inventory.model import Inventory, Tensor, TensorKind

if TYPE_CHECKING:
    from tests.validators.conftest import ContextOf, FindingsOf


def model_of(*tensors: tuple[int, str, TensorKind]) -> Inventory:
    """One tensor of each number of elements, dtype and kind."""
    names = [f"t{place}.w" for place in range(len(tensors))]
    held = {
        name: Tensor(name, (count,), dtype, kind)
        for name, (count, dtype, kind) in zip(names, tensors, strict=True)
    }
    return Inventory({"": "Net", **{name.removesuffix(".w"): "Part" for name in names}}, held)


FLOAT32 = "version: 1\nmodel: {manifest: example.manifest.yaml, dtype: float32}\nmax_memory: {0: 2GB}\n"


@pytest.mark.parametrize(
    ("tensors", "stored"),
    [
        # A quarter more is worth a word, and the dtype that most of what grows is stored in is the one to
        # write.
        ([(100, "bfloat16", "parameter"), (150, "float32", "parameter")], "bfloat16"),
        (
            [(60, "bfloat16", "parameter"), (60, "bfloat16", "parameter"), (100, "float16", "parameter")],
            "bfloat16",
        ),
        ([(100, "float16", "parameter"), (60, "bfloat16", "parameter")], "float16"),
        (
            [(100, "bfloat16", "parameter"), (90, "float16", "parameter"), (100, "float16", "buffer")],
            "bfloat16",
        ),  # buffers stay
        (
            [(100, "bfloat16", "parameter"), (151, "float32", "parameter")],
            None,
        ),  # a few narrow ones among wide ones
        ([(100, "int8", "parameter"), (100, "float16", "buffer")], None),  # nothing of it is converted
        ([(100, "float64", "parameter")], None),
    ],
)
def test_what_grows_by_a_quarter_or_more_is_said(
    tensors: list[tuple[int, str, TensorKind]],
    stored: str | None,
    context_of: ContextOf,
    findings_of: FindingsOf,
) -> None:
    found = findings_of(context_of(FLOAT32, inventory=model_of(*tensors), plan=None), "DM305")
    helps = [f"write dtype: {stored}, or leave it out, unless the wider numbers are needed (training)"]
    assert [finding.help for finding in found] == (helps if stored is not None else [])


def test_it_is_silent_without_a_model_or_a_dtype(context_of: ContextOf, findings_of: FindingsOf) -> None:
    assert (
        findings_of(
            context_of(FLOAT32.replace("manifest: example.manifest.yaml", "checkpoint: ./none")), "DM305"
        )
        == ()
    )
    assert findings_of(context_of(FLOAT32.replace(", dtype: float32", "")), "DM305") == ()
