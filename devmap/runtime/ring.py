"""A ring of host slabs that disk reads go through on their way to accelerators.

Reading runs ahead of the device's slots: a block may lie in the ring before a slot is free for it. A slab is taken back from
a block that was read ahead when another one is needed at once, so the ring can never be full of guesses.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    import torch

    from devmap.runtime.readers import Reading
    from devmap.runtime.units import Unit

__all__ = ["Ring", "Staged"]


@dataclass(eq=False)
class Staged:
    """One slab of the ring."""

    slab: torch.Tensor
    unit: Unit | None = None
    reading: Reading | None = None
    taken: bool = False
    """Whether its block is on the way to the device now."""


@dataclass(eq=False)
class Ring:
    """The slabs, shared by all accelerators."""

    slabs: Sequence[Staged]
    _free: threading.Condition = field(default_factory=threading.Condition)

    @property
    def nbytes(self) -> int:
        """Bytes of all slabs."""
        return sum(each.slab.numel() for each in self.slabs)

    def stage(self, unit: Unit) -> bool:
        """Start to read a block ahead if a slab is free; False if none is."""
        with self._free:
            if any(each.unit is unit for each in self.slabs):
                return True
            staged = next((each for each in self.slabs if each.unit is None), None)
            if staged is not None:
                _start(staged, unit)
            return staged is not None

    def take(self, unit: Unit) -> Staged:
        """The slab of a block, being filled; waits for one, and takes it from a block that was only read ahead."""
        with self._free:
            while True:
                mine = [each for each in self.slabs if each.unit is unit and not each.taken]
                empty = [each for each in self.slabs if each.unit is None]
                ahead = [each for each in self.slabs if not each.taken and each.reading is not None and each.reading.is_done]
                if mine or empty or ahead:
                    staged = (mine or empty or ahead)[0]
                    if not mine:
                        _start(staged, unit)
                    staged.taken = True
                    return staged
                self._free.wait(timeout=0.01 if any(not each.taken for each in self.slabs) else None)

    def release(self, staged: Staged) -> None:
        """Give a slab back whose bytes have arrived on the device, or never will."""
        with self._free:
            staged.unit = staged.reading = None
            staged.taken = False
            self._free.notify_all()

    def settle(self) -> None:
        """Wait until no reader writes into a slab; what was read ahead is forgotten."""
        with self._free:
            waiting = [each for each in self.slabs if each.reading is not None]
        for each in waiting:
            if each.reading is not None:
                each.reading.settle()


def _start(staged: Staged, unit: Unit) -> None:
    staged.unit = unit
    staged.reading = unit.start(staged.slab)
