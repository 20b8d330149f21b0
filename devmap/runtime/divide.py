"""Blocks that execute on the CPU and are larger than host memory may hold: streamed module by module instead of as a whole.

On an accelerator a block of any size goes through the ring in parts, since its slot is on the device. On the CPU host memory
is where the block runs, so what is brought in at a time has to be smaller: the modules inside it that hold tensors.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from devmap.config.device import DISK
from devmap.runtime.arrange import Block

if TYPE_CHECKING:
    from collections.abc import Iterator

    from devmap.runtime.survey import Spot

__all__ = ["divided"]


def divided(block: Block, limit_bytes: int) -> Iterator[Block]:
    """The block, or the blocks that take its place where it is too large."""
    placement = block.placement
    if placement.home != DISK or placement.executes_on.is_accelerator or not block.is_module or block.nbytes <= limit_bytes:
        yield block
        return
    weights = {weight.name: weight for weight in block.weights}
    by_module: dict[str, list[Spot]] = {}
    for spot in block.spots:
        by_module.setdefault(spot.module, []).append(spot)
    for path, spots in by_module.items():
        owners = dict.fromkeys(spot.owner for spot in spots)
        yield Block(placement._replace(path=path), tuple(weights[owner] for owner in owners), tuple(spots), is_module=True)
