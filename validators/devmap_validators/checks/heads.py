"""Which of several tied names is a model's output head, and which its embedding."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from devmap.inventory.model import Inventory

__all__ = ["head_of", "is_head_and_embedding"]

_HEADS = frozenset({"lm_head", "embed_out", "proj_out", "output", "head", "score", "decoder"})
_EMBEDDINGS = ("embed", "wte", "shared", "tok_")


def is_head_and_embedding(inventory: Inventory, names: Sequence[str]) -> bool:
    """Return whether tied tensors are those of an output head and an input embedding, by class or by name."""
    others = [name for name in names if name != head_of(names)]
    return _is_head(head_of(names)) and any(_is_embedding(inventory, name) for name in others)


def head_of(names: Sequence[str]) -> str:
    """Return the name that looks most like an output head's; the last where none does."""
    return next((name for name in names if _is_head(name)), names[-1])


def _is_head(name: str) -> bool:
    return bool(_HEADS.intersection(name.split(".")[-2:-1]))


def _is_embedding(inventory: Inventory, name: str) -> bool:
    module = name.rpartition(".")[0]
    return inventory.modules.get(module, "").endswith("Embedding") or module.rpartition(".")[2].startswith(
        _EMBEDDINGS
    )
