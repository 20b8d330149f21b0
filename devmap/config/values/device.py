"""Devices: where bytes can live, parsed once from what people write."""

from __future__ import annotations

import enum
import re
from dataclasses import dataclass, field
from functools import total_ordering
from typing import TYPE_CHECKING

from devmap.config.values.words import shown

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = [
    "CPU",
    "DEVICE_PATTERN",
    "DISK",
    "NODE_PATTERN",
    "Device",
    "Tier",
    "device_name",
    "device_names",
    "device_words",
    "parse_device",
]


class Tier(enum.IntEnum):
    """Kinds of memory, from the fastest to the slowest; a model fills them in this order."""

    ACCELERATOR = 0
    CPU = 1
    DISK = 2


@total_ordering
@dataclass(frozen=True, slots=True)
class Device:
    """One device.

    Accelerators compare by index: `cuda:1`, `xpu:1` and `1` are the same device of one machine. Where a
    config names several machines, a device is one node's: `a/0`, `b/cpu`.

    Devices sort in tier order: accelerators by index, then cpu, then disk; those of a node stand together.
    """

    tier: Tier
    index: int = 0
    backend: str | None = field(default=None, compare=False)
    """What torch calls this kind of accelerator (`cuda`, `xpu`, `sim`), where the config said so."""
    node: str | None = None
    """The name of the node that it is of; None where there is one machine, or where every node is meant."""

    def __hash__(self) -> int:
        # Planning asks for it a million times; what dataclasses generate is 4 times slower.
        own = self.tier * 1_000_003 + self.index
        return own if self.node is None else own ^ hash(self.node)

    def __lt__(self, other: Device) -> bool:
        return (self.node or "", self.tier, self.index) < (other.node or "", other.tier, other.index)

    @property
    def is_accelerator(self) -> bool:
        """Whether kernels run here on something other than the CPU."""
        return self.tier is Tier.ACCELERATOR

    @property
    def plain(self) -> int | str:
        """The value that accelerate's and transformers' device maps use: an int, `cpu` or `disk`.

        Text with the node's name before it for a device of a node, which those maps do not know.
        """
        local = self.index if self.tier is Tier.ACCELERATOR else self.tier.name.lower()
        return local if self.node is None else f"{self.node}/{local}"

    def on(self, node: str | None) -> Device:
        """Return the device of the same name on a node; with None the device as its own node calls it."""
        if node == self.node:
            return self
        if node is None and not self.is_accelerator:
            return CPU if self.tier is Tier.CPU else DISK  # planning compares these by identity first
        return Device(self.tier, self.index, self.backend, node)

    def __str__(self) -> str:
        return str(self.plain)


CPU = Device(Tier.CPU)
DISK = Device(Tier.DISK)

_TORCH_DEVICE = re.compile(r"(?P<backend>[a-z][a-z0-9_]*)(?::(?P<index>[0-9]{1,6}))?\Z")
_INDEX = re.compile(r"[0-9]{1,6}\Z")
_BACKENDS = (
    "cuda",
    "xpu",
    "mps",
    "hip",
    "npu",
    "hpu",
    "mtia",
    "musa",
    "mlu",
    "xla",
    "maia",
    "vulkan",
    "openreg",
    "privateuseone",
    "sim",
)
"""Names that stand for the first device of their kind. A name with an index may be any: torch lets backends
register their own."""

_NOT_FOR_WEIGHTS = (
    "cpu",
    "disk",
    "meta",
    "gpu",
    "auto",
    "balanced",
    "balanced_low_0",
    "sequential",
    "fastest",
    "none",
    "null",
)

NODE_PATTERN = r"[A-Za-z][A-Za-z0-9_-]{0,62}"
"""The name of a node: what a host name's first label may be, and `_`."""

DEVICE_PATTERN = (
    rf"^(?:{NODE_PATTERN}/)?(?:[0-9]{{1,6}}|cpu|disk|(?:{'|'.join(_BACKENDS)})"
    rf"|(?!(?:{'|'.join(_NOT_FOR_WEIGHTS)}):)[a-z][a-z0-9_]*:[0-9]{{1,6}})$"
)
"""The same as a regular expression for JSON Schema."""

_OF_NODE = re.compile(rf"(?P<node>{NODE_PATTERN})/(?P<device>[a-z0-9_:]+)\Z")


def parse_device(value: object) -> Device:
    """Parse an int, `cpu`, `disk` or a torch device string (`cuda:1`, `mps`), a node's name before it or not.

    >>> parse_device("cuda:1") == parse_device(1) == parse_device("1")
    True
    >>> str(parse_device("a/cuda:1")), str(parse_device("b/cpu"))
    ('a/1', 'b/cpu')

    Raises:
        ValueError: with a sentence for people, when the value names no device.
    """
    if isinstance(value, Device):
        return value
    if isinstance(value, bool) or not isinstance(value, int | str):
        msg = f"expected a device, found {shown(value)}"
        raise ValueError(msg)  # noqa: TRY004 - what pydantic turns into a located error
    if isinstance(value, int):
        if value < 0:
            msg = f"device index {value} is negative"
            raise ValueError(msg)
        return Device(Tier.ACCELERATOR, value)
    of_node = _OF_NODE.match(value)
    return _parse_name(value) if of_node is None else _parse_name(of_node["device"]).on(of_node["node"])


def _parse_name(text: str) -> Device:
    if text in {"cpu", "disk"}:
        return CPU if text == "cpu" else DISK
    if _INDEX.match(text):
        return Device(Tier.ACCELERATOR, int(text))
    match = _TORCH_DEVICE.match(text)
    if (
        match is None
        or match["backend"] in _NOT_FOR_WEIGHTS
        or (match["index"] is None and match["backend"] not in _BACKENDS)
    ):
        msg = (
            f"{shown(text)} is not a valid device; expected an index such as 0, 'cpu', "
            "'disk' or a torch device such as 'cuda:0'"
        )
        raise ValueError(msg)
    return Device(Tier.ACCELERATOR, int(match["index"] or 0), match["backend"])


# What sentences call devices.


_FEW = 2
"""Accelerators in a row up to which each is named."""


def device_name(device: object) -> str:
    """Return the name of a device or of another target of a map: `device 0`, `cpu`, `disk`, `balanced`.

    An index of a plain device map is taken for its accelerator.
    """
    is_accelerator = device.is_accelerator if isinstance(device, Device) else isinstance(device, int)
    return f"device {device}" if is_accelerator else str(device)


def device_words(device: Device) -> str:
    """Return the words for a device inside a sentence: `device 0`, `the CPU`, `the disk`."""
    if device.node is not None and not device.is_accelerator:
        return f"{device_words(device.on(None))} of node {device.node}"
    return {CPU: "the CPU", DISK: "the disk"}.get(device) or device_name(device)


def device_names(devices: Iterable[Device], word: str = "and") -> str:
    """Several devices in tier order, with accelerators whose indices follow each other as one range.

    `none` for none.

    >>> from devmap.config.values.device import parse_device
    >>> device_names([parse_device(key) for key in (0, 1, "cpu")])
    'device 0, device 1 and cpu'
    >>> device_names([parse_device(key) for key in (0, 1, 2, 3, 6)], "or")
    'devices 0 to 3 or device 6'
    """
    stretches: list[list[Device]] = []
    for device in sorted(set(devices)):
        if (
            stretches
            and device.is_accelerator
            and stretches[-1][-1].is_accelerator
            and device.index == stretches[-1][-1].index + 1
            and device.node == stretches[-1][-1].node
        ):
            stretches[-1].append(device)
        else:
            stretches.append([device])
    named: list[str] = []
    for stretch in stretches:
        if len(stretch) > _FEW:
            named.append(f"devices {stretch[0]} to {stretch[-1].index}")
        else:
            named += [device_name(device) for device in stretch]
    if not named:
        return "none"
    *first, last = named
    return f"{', '.join(first)} {word} {last}" if first else last
