"""Weights that a model's code ties, and whose checkpoint stores them apart with values of their own.

A head that was fine-tuned by itself is saved beside the embeddings that the config still ties it to.
Transformers reads both, and leaves them apart where they differ.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from devmap.runtime.initial_values import twin_of
from devmap.runtime.storage.files import read_once

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import nn

    from devmap.inventory.model import Inventory
    from devmap.inventory.stored.header import StoredTensor

__all__ = ["untie_what_differs"]

_CHUNK_BYTES = 8 << 20


def untie_what_differs(model: nn.Module, inventory: Inventory) -> tuple[str, ...]:
    """Give names of a tie a parameter of their own on meta where the checkpoint has other bytes for them.

    Returns these names. Reads what is stored twice, and nothing else.
    """
    checkpoint, mapping = inventory.checkpoint, inventory.mapping
    assert checkpoint is not None
    assert mapping is not None
    apart: list[str] = []
    for first, *others in inventory.ties:
        kept = mapping.pieces.get(first)
        for name in others:
            own = mapping.pieces.get(name)
            if not kept or not own or own == kept:
                continue
            whole = len(own) == len(kept) == 1 and own[0].is_whole and kept[0].is_whole
            if whole and _same_bytes(checkpoint.tensors[kept[0].stored], checkpoint.tensors[own[0].stored]):
                continue
            path, _, key = name.rpartition(".")
            table = model.get_submodule(path)._parameters  # noqa: SLF001 - torch offers no public way
            tensor = table.get(key)
            if tensor is not None:
                table[key] = twin_of(tensor, "meta")  # type: ignore[assignment]  # a parameter's is one
                apart.append(name)
    return tuple(apart)


def _same_bytes(one: StoredTensor, two: StoredTensor) -> bool:
    if (one.shape, one.dtype, one.nbytes) != (two.shape, two.dtype, two.nbytes):
        return False
    return all(a == b for a, b in zip(*map(_chunks, (one, two)), strict=True))


def _chunks(tensor: StoredTensor) -> Iterator[bytearray]:
    for start in range(0, tensor.nbytes, _CHUNK_BYTES):
        yield read_once(tensor.file, tensor.offset + start, min(_CHUNK_BYTES, tensor.nbytes - start))
