"""DM213 tied-head-apart: what it says, where, and when it is silent."""

from __future__ import annotations

from typing import TYPE_CHECKING

from devmap.inventory.model import Inventory, Tensor

if TYPE_CHECKING:
    from tests.validators.conftest import ContextOf, FindingsOf

HEAD = "version: 1\nmodel: {manifest: example.manifest.yaml}\n"


def test_each_head_is_told_with_the_first_name_that_lies_elsewhere(
    context_of: ContextOf, findings_of: FindingsOf
) -> None:
    paths = {
        "norm_a": "Norm",
        "norm_b": "Norm",
        "enc.embed_tokens": "Embedding",
        "dec.embed_tokens": "Embedding",
        "dec.lm_head": "Linear",
    }
    more = {"wte": "Embedding", "score": "Linear"}
    modules = {"": "Model", "enc": "Encoder", "dec": "Decoder", **paths, **more}
    names = [f"{path}.weight" for path in (*paths, *more)]
    ties = (tuple(names[:2]), tuple(names[2:5]), tuple(names[5:]))
    inventory = Inventory(
        modules, {name: Tensor(name, (1_000_000,), "bfloat16") for name in names}, ties=ties
    )
    text = (
        HEAD + "device_map: {'': 0, norm_a: 1, dec.embed_tokens: 1, score: 1}\nmax_memory: {0: 2GB, 1: 2GB}\n"
    )
    found = findings_of(context_of(text, inventory=inventory), "DM213")
    assert [(finding.path[1], finding.message) for finding in found] == [
        (
            "dec.embed_tokens",
            (
                "the output head 'dec.lm_head' is on device 0, and the embedding 'dec.embed_tokens' that "
                "it is tied to on device 1; "
                "the copy costs 2.0 MB"
            ),
        ),
        (
            "score",
            (
                "the output head 'score' is on device 1, and the embedding "
                "'wte' that it is tied to on device "
                "0; the copy costs 2.0 MB"
            ),
        ),
    ]
