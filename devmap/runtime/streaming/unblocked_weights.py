"""Streamed weights that sit on a module which is split.

No block brings them in, so they are read when they are used.

What was read last is kept on its device for the next use, in this pass or a later one. A read needs the
weight's bytes there at once anyway, so a cache as large as the largest of them takes no more room than going
without.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["DirectWeights"]

_SMALL_BYTES = 16 << 20
"""Scales, class tokens, position embeddings: together seldom more than this, and less than any block."""


class DirectWeights:
    """The tensors used last, up to a limit in bytes. Safe to use from several threads."""

    def __init__(self, largest_bytes: int) -> None:
        """`largest_bytes` of the weights that it may be asked for."""
        self._limit_bytes = max(largest_bytes, _SMALL_BYTES)
        self._kept: OrderedDict[tuple[str, torch.device], tuple[torch.Tensor, int]] = OrderedDict()
        self._lock = threading.Lock()

    @property
    def nbytes(self) -> int:
        """Bytes that are kept now, on all devices."""
        with self._lock:
            return sum(tensor.nbytes for tensor, _ in self._kept.values())

    def get(self, name: str, device: torch.device, read: Callable[[], torch.Tensor]) -> torch.Tensor:
        """Return a weight on a device; `read` makes it where it is not here, or was written to since."""
        with self._lock:
            found = self._kept.get((name, device))
            # Torch's counter of writes.
            if found is not None and found[0]._version == found[1]:  # noqa: SLF001
                self._kept.move_to_end((name, device))
                if device.type == "cuda":
                    # It was allocated on the stream of its first user. When it is dropped, the allocator has
                    # to wait for the kernels of this one, too.
                    found[0].record_stream(torch.cuda.current_stream(device))
                return found[0]
            self._kept.pop((name, device), None)
        tensor = read()
        with self._lock:
            self._kept[name, device] = tensor, tensor._version  # noqa: SLF001 - as above
            self._make_room()
        return tensor

    def clear(self) -> None:
        """Keep nothing."""
        with self._lock:
            self._kept.clear()

    def _make_room(self) -> None:
        while sum(tensor.nbytes for tensor, _ in self._kept.values()) > self._limit_bytes:
            self._kept.popitem(last=False)
