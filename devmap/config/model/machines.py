"""Machines that a config may name: `2x4090`, `8xh100-80gb`.

Published figures; `devmap doctor` measures the real ones.

Memory is what CUDA reports as total or a little below it. FLOP rates are dense tensor-core rates with float32
accumulation, float32 without TF32; where a data sheet gives a rate with sparsity, half of it stands here.
Sources: NVIDIA's data sheets of the A100 (312 and 19.5 TFLOP/s; 1,555 and 2,039 GB/s), H100 SXM and H200 (989
and 67; 3,350 and 4,800), L4 (121, 30.3; 300), L40S (362, 91.6; 864), T4 (65, 8.1; 320), V100 SXM2 (125, 15.7;
900) and RTX A6000 (309.7 with sparsity, 38.7; 768); its Ada white paper for the RTX 4090 (165.2, 82.6; 1,008)
and the RTX 6000 Ada (364, 91.1; 960); its GA102 white paper for the RTX 3090 (71, 35.6; 936). The A10G, which
only AWS has, shares the A10's 600 GB/s; NVIDIA publishes no FLOP rates for it, so those are other people's.

Copies from the host: PCIe 3.0 x16 about 12 GB/s, 4.0 x16 about 25 GB/s, 5.0 x16 about 50 GB/s, in practice.
Host memory is plausible for such a machine, not published: its bandwidth is about 80% of two channels of
DDR5-5600 for desktop cards, of six of DDR4-2933 beside T4 and V100, of eight of DDR4-3200 beside the other
server cards, of eight of DDR5-4800 beside H100 and H200. So are the CPU's FLOP rate and the disk: `devmap
doctor -o machine.yaml` measures yours.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from devmap.config.model.placement_config import MachineDevice, MachineProfile
from devmap.config.values.device import CPU, DISK, Device, Tier
from devmap.config.values.size import Bytes

__all__ = ["PRESETS", "preset"]

_GIB = 1 << 30
_COUNTS = (1, 2, 4, 8)


@dataclass(frozen=True, slots=True)
class _Card:
    """One accelerator: GiB of memory, TFLOP/s in half precision and float32.

    GB/s of its memory and from the host; GiB and GB/s there.
    """

    gib: float
    half: float
    single: float
    memory: float
    host: float
    host_gib: int = 64
    host_memory: float = 160
    has_bfloat16: bool = True


_CARDS = {
    "t4": _Card(14.5, 65, 8.1, 320, 12, 32, 110, has_bfloat16=False),
    "v100-16gb": _Card(15.7, 125, 15.7, 900, 12, 60, 110, has_bfloat16=False),
    "v100-32gb": _Card(31.7, 125, 15.7, 900, 12, 96, 110, has_bfloat16=False),
    "a10g": _Card(22, 70, 31.5, 600, 25, 60),
    "l4": _Card(22, 121, 30.3, 300, 25, 60),
    "a100-40gb": _Card(39.4, 312, 19.5, 1555, 25, 120),
    "a100-80gb": _Card(79.1, 312, 19.5, 2039, 25, 160),
    "h100-80gb": _Card(79.1, 989, 67, 3350, 50, 200, 240),
    "h200": _Card(139.8, 989, 67, 4800, 50, 250, 240),
    "l40s": _Card(44.5, 362, 91.6, 864, 25, 96),
    "rtx6000-ada": _Card(47.4, 364, 91.1, 960, 25, 96),
    "a6000": _Card(47.4, 155, 38.7, 768, 25, 96),
    "3090": _Card(23.6, 71, 35.6, 936, 25, 64, 80),
    "4090": _Card(23.5, 165.2, 82.6, 1008, 25, 64, 80),
}
_ALIASES = {
    "a100": "a100-80gb",
    "h100": "h100-80gb",
    "v100": "v100-16gb",
    "rtx3090": "3090",
    "rtx4090": "4090",
}
_NAME = re.compile(r"(?:(?P<count>[1-9][0-9]?)x)?(?P<card>[a-z0-9-]+)\Z")


def preset(name: str) -> MachineProfile | None:
    """Return the machine of this name, None where there is none.

    A card as in `PRESETS`, with a count of up to 16 before it.

    >>> [str(device) for device in preset("2x4090").devices]
    ['0', '1', 'cpu', 'disk']
    """
    match = _NAME.match(name.strip().lower())
    if match is None:
        return None
    card = _CARDS.get(_ALIASES.get(match["card"], match["card"]))
    count = int(match["count"] or 1)
    return None if card is None or count > 16 else _machine(name, card, count)


def _machine(name: str, card: _Card, count: int) -> MachineProfile:
    flops = {"float16": card.half * 1e12, "float32": card.single * 1e12}
    if card.has_bfloat16:
        flops["bfloat16"] = card.half * 1e12
    accelerator = MachineDevice(
        memory=Bytes(int(card.gib * _GIB)),
        flops=flops,
        memory_bandwidth=card.memory * 1e9,
        host_to_device=card.host * 1e9,
    )
    host = MachineDevice(
        memory=Bytes(card.host_gib * _GIB * count),
        flops={"float32": 1.5e12, "bfloat16": 1.5e12},
        memory_bandwidth=card.host_memory * 1e9,
    )
    disk = MachineDevice(memory=Bytes(10**12), disk=3.0e9)
    devices = {Device(Tier.ACCELERATOR, index): accelerator for index in range(count)}
    return MachineProfile(name=name, devices={**devices, CPU: host, DISK: disk})


PRESETS = tuple(f"{count}x{card}" for card in _CARDS for count in _COUNTS)
"""The names that `preset` knows, with the usual counts."""
