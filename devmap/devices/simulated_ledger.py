"""The byte ledger of a simulated device: what its tensors take, against a budget."""

from __future__ import annotations

import threading
import weakref
from dataclasses import dataclass
from typing import TYPE_CHECKING

from devmap.errors import OutOfMemoryError

if TYPE_CHECKING:
    import torch

__all__ = ["Ledger"]


@dataclass(slots=True)
class _Entry:
    nbytes: int
    is_held: bool


class Ledger:
    """Bytes of the live storages of one device.

    Views share a storage and count once; a storage leaves when it is collected.

    Two kinds of bytes: *held* ones were allocated through a backend (weights, slots) or belong to an
    `nn.Parameter`; everything else (results of operations, inputs, buffers) is *transient*. The budget bounds
    both together, or the held bytes alone where `counts_activations` is false: then the plan's budget can be
    given as it stands, and the peak of the transient bytes is reported beside it.
    """

    def __init__(self, name: str, budget_bytes: int, *, counts_activations: bool = True) -> None:
        self.name = name
        self.budget_bytes = budget_bytes
        self.counts_activations = counts_activations
        self.held_bytes = 0
        self.held_peak_bytes = 0
        self.transient_bytes = 0
        self.transient_peak_bytes = 0
        self.peak_bytes = 0
        self._entries: dict[int, _Entry] = {}
        self._lock = threading.RLock()  # a finalizer may run inside any of these methods

    @property
    def used_bytes(self) -> int:
        """Held and transient bytes together."""
        return self.held_bytes + self.transient_bytes

    @property
    def charged_bytes(self) -> int:
        """The bytes that count against the budget."""
        return self.used_bytes if self.counts_activations else self.held_bytes

    def require(self, nbytes: int) -> None:
        """Refuse bytes that the budget has no room for.

        Raises:
            OutOfMemoryError: with the figures.
        """
        if self.charged_bytes + nbytes > self.budget_bytes:
            raise OutOfMemoryError(
                self.name,
                requested_bytes=nbytes,
                used_bytes=self.charged_bytes,
                budget_bytes=self.budget_bytes,
            )

    def count(self, storage: torch.UntypedStorage, *, held: bool = False) -> None:
        """Count a storage from now until it is collected.

        One that grew counts anew; one that is held stays held.

        Raises:
            OutOfMemoryError: when the budget has no room for it; then it does not count.
        """
        key, nbytes = id(storage), storage.nbytes()
        with self._lock:
            entry = self._entries.get(key)
            if entry is not None and entry.nbytes == nbytes and (entry.is_held or not held):
                return
            held = held or (entry is not None and entry.is_held)
            charged_before = 0 if entry is None else entry.nbytes * (entry.is_held or self.counts_activations)
            if held or self.counts_activations:
                self.require(nbytes - charged_before)
            if entry is None:
                weakref.finalize(storage, self._forget, key).atexit = False
            else:
                self._add(-entry.nbytes, held=entry.is_held)
            self._entries[key] = _Entry(nbytes, held)
            self._add(nbytes, held=held)

    def reset_peaks(self) -> None:
        """Start the peaks anew from what is used now."""
        with self._lock:
            self.held_peak_bytes, self.transient_peak_bytes, self.peak_bytes = (
                self.held_bytes,
                self.transient_bytes,
                self.used_bytes,
            )

    def _add(self, nbytes: int, *, held: bool) -> None:
        if held:
            self.held_bytes += nbytes
            self.held_peak_bytes = max(self.held_peak_bytes, self.held_bytes)
        else:
            self.transient_bytes += nbytes
            self.transient_peak_bytes = max(self.transient_peak_bytes, self.transient_bytes)
        self.peak_bytes = max(self.peak_bytes, self.used_bytes)

    def _forget(self, key: int) -> None:
        with self._lock:
            entry = self._entries.pop(key)
            self._add(-entry.nbytes, held=entry.is_held)
