"""The devices of a check: real accelerators, or simulated ones on which the whole check is rehearsed."""

from __future__ import annotations

import contextlib
import importlib.metadata
import os
import platform
import resource
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from devmap.testing import simulated_devices

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["Machine", "host_peak_bytes", "on_machine", "versions"]

_SIMULATED_BYTES = 400_000_000


@dataclass(frozen=True)
class Machine:
    """What the sections run on."""

    kind: str
    """torch's word for the devices: `cuda`, `xpu`, or `sim`."""
    count: int

    @property
    def is_simulated(self) -> bool:
        """Whether numbers are real and times are not."""
        return self.kind == "sim"

    @property
    def module(self) -> Any:
        """Torch's own module for this kind, with its memory figures; never asked for on simulated devices."""
        return torch.get_device_module(self.kind)

    def device(self, index: int = 0) -> torch.device:
        """Return a device by its index."""
        return torch.device(self.kind, index)

    def synchronize(self) -> None:
        """Wait for all devices."""
        if not self.is_simulated:
            for index in range(self.count):
                self.module.synchronize(self.device(index))

    def empty_cache(self) -> None:
        """Give back what torch's allocator keeps, and start to count peaks anew."""
        if not self.is_simulated:
            self.module.empty_cache()
            for index in range(self.count):
                self.module.reset_peak_memory_stats(self.device(index))

    def describe(self) -> dict[str, Any]:
        """Return names, memory and links of the devices."""
        if self.is_simulated:
            return {"kind": "sim", "count": self.count, "names": ["simulated on the CPU"] * self.count}
        pairs = [(a, b) for a in range(self.count) for b in range(self.count) if a != b]
        peers = (
            {f"{a}->{b}": bool(torch.cuda.can_device_access_peer(a, b)) for a, b in pairs}
            if self.kind == "cuda"
            else {}
        )
        return {
            "kind": self.kind,
            "count": self.count,
            "names": [str(self.module.get_device_name(index)) for index in range(self.count)],
            "total_bytes": [
                self.module.get_device_properties(index).total_memory for index in range(self.count)
            ],
            "peer_access": peers,
        }


@contextlib.contextmanager
def on_machine(*, simulated: bool) -> Iterator[Machine]:
    """Yield this machine's accelerators, or two simulated ones.

    Raises:
        SystemExit: when none is there.
    """
    if simulated:
        with simulated_devices({0: _SIMULATED_BYTES, 1: _SIMULATED_BYTES}, activations=False):
            yield Machine("sim", 2)
        return
    found = torch.accelerator.current_accelerator(check_available=True)
    if found is None:
        raise SystemExit("this machine has no accelerator; rehearse with --simulated")
    yield Machine(found.type, torch.get_device_module(found.type).device_count())


def versions() -> dict[str, str]:
    """Return what the figures depend on."""
    names = ("torch", "transformers", "accelerate", "safetensors", "pydantic", "diffusers", "torch-devmap")
    found = {"python": platform.python_version(), "system": platform.platform(), "cores": str(os.cpu_count())}
    for name in names:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = "absent"
    found["cuda"] = str(torch.version.cuda)
    return found


def host_peak_bytes() -> int:
    """Return the most resident memory that this process has had, mapped pages of files included."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
