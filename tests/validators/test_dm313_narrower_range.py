"""DM313 narrower-range: what it says, where, and when it is silent."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from devmap.inventory.model import Inventory
    from tests.validators.conftest import ContextOf, FindingsOf

TEXT = "version: 1\nmodel: {manifest: example.manifest.yaml, dtype: float16}\nmax_memory: {0: 2GB}\n"


def test_it_counts_what_loses_its_range(context_of: ContextOf, findings_of: FindingsOf) -> None:
    (finding,) = findings_of(context_of(TEXT), "DM313")
    assert finding.path == ("model", "dtype")
    assert (
        finding.message
        == "39 tensors of bfloat16 would become float16, whose largest value is 65,504: larger ones become "
        "infinite"
    )


def test_it_is_silent_where_nothing_is_converted_or_nothing_was_wider(
    context_of: ContextOf, findings_of: FindingsOf, example: Inventory
) -> None:
    assert findings_of(context_of(TEXT.replace("float16", "bfloat16")), "DM313") == ()
    assert findings_of(context_of(TEXT.replace(", dtype: float16", "")), "DM313") == ()
    tensors = {name: tensor._replace(dtype="float16") for name, tensor in example.tensors.items()}
    stored_so = dataclasses.replace(example, tensors=tensors)
    assert findings_of(context_of(TEXT, inventory=stored_so), "DM313") == ()
