"""Every error that devmap raises on purpose.

    DevmapError
    |-- UsageError             the command line or a call is wrong
    |-- ConfigError            a config cannot be read, or is wrong; lists every problem
    |-- InventoryError         a model cannot be described
    |   |-- CheckpointError    a checkpoint is absent, damaged or in a format that is refused
    |   |-- ManifestError      a manifest file is wrong
    |   `-- QuantizationError  a model cannot be quantised as its config asks
    |-- LockError              a lock file cannot be read, or does not belong to this config
    |-- DeviceMapError         a device map does not fit its model; lists every problem (a ValueError too)
    |-- ResolutionError        no plan fits; says what is missing in bytes
    |-- DeviceError            a device is not there, or cannot do what is asked
    |   `-- OutOfMemoryError   an allocation past a device's budget (a MemoryError too)
    |-- LoadError              a plan cannot be applied to a model; lists every problem
    |-- StreamError            a weight could not be brought in while the model ran
    `-- RankError              ranks of a run over several processes do not agree, or one failed

Errors carry data; what a person reads is rendered in `devmap.report`. `str(error)` is short but useful in a
REPL.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = [
    "CheckpointError",
    "ConfigError",
    "DeviceError",
    "DeviceMapError",
    "DevmapError",
    "InventoryError",
    "LoadError",
    "LockError",
    "ManifestError",
    "OutOfMemoryError",
    "Problem",
    "QuantizationError",
    "RankError",
    "RankFault",
    "ResolutionError",
    "StreamError",
    "UsageError",
]


class Problem(Protocol):
    """What every entry of an error's list of problems has: a rule's code and a message."""

    @property
    def code(self) -> str:
        """The rule's code, such as `DM201`."""

    @property
    def message(self) -> str:
        """What is wrong, in a sentence."""


class DevmapError(Exception):
    """The base of all errors of devmap.

    `message` is the sentence, `help` what to do next (may be empty), `problems` the single faults where there
    are several. `path` is the key of the config that is to blame, where a single one is.
    """

    path: tuple[str | int, ...] = ()

    # The word users see.
    def __init__(self, message: str, *, help: str = "", problems: Sequence[Problem] = ()) -> None:  # noqa: A002
        super().__init__(message)
        self.message = message
        self.help = help
        self.problems = tuple(problems)

    def __str__(self) -> str:
        lines = [self.message]
        for problem in self.problems:
            hint = getattr(problem, "label", "") or getattr(problem, "help", "")
            lines.append(f"  {problem.code} {problem.message}" + (f" ({hint})" if hint else ""))
        if self.help:
            lines.append(f"  help: {self.help}")
        return "\n".join(lines)


class UsageError(DevmapError):
    """The command line or a call is wrong."""


class ConfigError(DevmapError):
    """A config cannot be read, or is wrong; `problems` lists every fault with its place."""


class InventoryError(DevmapError):
    """A model cannot be described; `component` names it where a config has several."""

    component: str = ""


class CheckpointError(InventoryError):
    """A checkpoint is absent, damaged or in a format that is refused."""


class ManifestError(InventoryError):
    """A manifest file is wrong."""


class QuantizationError(InventoryError):
    """A model cannot be quantised as its config asks."""


class LockError(DevmapError):
    """A lock file cannot be read, or does not belong to this config."""


class DeviceMapError(DevmapError, ValueError):
    """A device map does not fit its model; `problems` lists every finding."""


class ResolutionError(DevmapError):
    """No plan fits.

    `shortfall_bytes` is what is missing over all tiers together, `shortfall_by_device` the bytes that a
    device would need more, were it raised alone (plain keys; a device that no raise of its own helps is
    absent). `changes` are the cheapest edits that make it fit, each checked by planning with it, and
    `overrides` holds for each of them what `--set` takes.
    """

    def __init__(
        self,
        message: str,
        *,
        help: str = "",  # noqa: A002 - the word users see
        problems: Sequence[Problem] = (),
        shortfall_bytes: int = 0,
        shortfall_by_device: Mapping[int | str, int] | None = None,
        changes: Sequence[str] = (),
        overrides: Sequence[Sequence[str]] = (),
        path: tuple[str | int, ...] = (),
    ) -> None:
        super().__init__(message, help=help, problems=problems)
        self.path = path
        self.shortfall_bytes = shortfall_bytes
        self.shortfall_by_device = dict(shortfall_by_device or {})
        self.changes = tuple(changes)
        self.overrides = tuple(tuple(arguments) for arguments in overrides)

    def __str__(self) -> str:
        return "\n".join([super().__str__(), *(f"  fits with: {change}" for change in self.changes)])


class DeviceError(DevmapError):
    """A device is not there, or cannot do what is asked."""


class OutOfMemoryError(DeviceError, MemoryError):
    """An allocation past a device's budget; all figures in bytes."""

    def __init__(self, device: str, *, requested_bytes: int, used_bytes: int, budget_bytes: int) -> None:
        free = max(0, budget_bytes - used_bytes)
        super().__init__(
            f"{device}: out of memory: {requested_bytes:,} bytes asked, {free:,} of {budget_bytes:,} free",
            help="lower max_memory for this device or raise its budget",
        )
        self.device = device
        self.requested_bytes = requested_bytes
        self.used_bytes = used_bytes
        self.budget_bytes = budget_bytes


class LoadError(DevmapError):
    """A plan cannot be applied to a model; `problems` lists every missing, unexpected or misshapen tensor."""


class StreamError(DevmapError):
    """A weight could not be brought in while the model ran; the message names the file and the offset."""


@dataclass(frozen=True, slots=True)
class RankFault:
    """What is wrong with one rank."""

    rank: int
    host: str
    """Empty where nobody knows it."""
    cause: str

    def __str__(self) -> str:
        return f"rank {self.rank}{f' ({self.host})' if self.host else ''}: {self.cause}"


class RankError(DevmapError):
    """Ranks of a run over several processes do not agree, or one of them failed; the same on every rank.

    `faults` names each rank with its host and the cause.
    """

    def __init__(self, faults: Sequence[RankFault], *, help: str = "") -> None:  # noqa: A002 - the word users see
        super().__init__("; ".join(map(str, faults)), help=help)
        self.faults = tuple(faults)
