"""The order in which the modules of a model run, where it is not the order in which they were registered."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from devmap.inventory.atoms import Atom
    from devmap.inventory.model import Inventory

__all__ = ["execution_order"]

_AFTER_BLOCKS = frozenset(["final_layer_norm", "final_layernorm", "final_norm", "norm_f", "ln_f", "norm"])
_AT_THE_END = frozenset(["lm_head", "embed_out", "score", "classifier"])


def execution_order(atoms: Sequence[Atom], inventory: Inventory) -> tuple[int, ...]:
    """Return the numbers of atoms in the order in which they run.

    That is the order of registration, but for two habits of models: a last norm that is registered before the
    blocks beside it (OPT's `final_layer_norm`) runs after them, and a head that is registered first runs
    last.
    """
    last_block: dict[str, int] = {}
    for at, atom in enumerate(atoms):
        parts = atom.path.split(".")
        for place, part in enumerate(parts):
            if part.isdecimal() and place > 1:
                last_block[".".join(parts[: place - 1])] = at
                break
    places: list[tuple[int, int]] = []
    for at, atom in enumerate(atoms):
        parent, _, name = atom.path.rpartition(".")
        place = at
        if all(not inventory.tensors[tensor].persistent for tensor in atom.tensors):
            place = -1
        elif name in _AT_THE_END and not parent and at < len(atoms) - 1:
            place = len(atoms)
        elif name in _AFTER_BLOCKS and at < last_block.get(parent, -1):
            place = last_block[parent]
        places.append((place, at))
    return tuple(at for _, at in sorted(places))
