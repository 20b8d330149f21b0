"""Changes to a config that make it fit, the cheapest first, each tried by planning with it.

Kinds, by what they cost: a larger budget on a device that is there (fewer bytes first), cpu as a tier, the
disk as a tier, another strategy, less headroom, a lower run dtype, weights quantised while they are loaded, a
smaller batch or sequence, a constraint taken back. The cheapest of each kind comes before a second one of
any, since three raises of the same kind are one idea said three times.
"""

from __future__ import annotations

import enum
import json
from dataclasses import dataclass
from decimal import ROUND_CEILING, Decimal
from itertools import chain, islice
from typing import TYPE_CHECKING

from devmap.config.model.placement_config import Headroom
from devmap.config.model.quantization_settings import QuantizationSettings
from devmap.config.values.device import CPU, DISK, Device, device_name
from devmap.config.values.size import Bytes, Percent
from devmap.config.values.strategy import QuantizationMethod, Strategy, WorkloadKind
from devmap.planning.infeasible.relaxations import smaller_workloads, without_one_constraint
from devmap.planning.problem.budgets import Budget

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from devmap.config.model.placement_config import MachineProfile, PlacementConfig
    from devmap.planning.infeasible.budget_search import BudgetIncrease
    from devmap.planning.problem.model import PlacementProblem

__all__ = ["Change", "ChangeKind", "cheapest_changes", "format_bytes_up"]

_PLANS, _PLANS_IF_LARGE = 24, 4


class ChangeKind(enum.IntEnum):
    """Kinds of changes, the cheapest first."""

    RAISE = 1
    OFFER_CPU = 2
    OFFER_DISK = 3
    STRATEGY = 4
    HEADROOM = 5
    DTYPE = 6
    QUANTIZE = 7
    WORKLOAD = 8
    WISH = 9


@dataclass(frozen=True, slots=True)
class Change:
    """One change: a sentence, what `--set` takes to make it, and the config with it."""

    kind: ChangeKind
    sentence: str
    overrides: tuple[str, ...]
    config: PlacementConfig


def cheapest_changes(
    config: PlacementConfig,
    increase: BudgetIncrease,
    increases: Mapping[Device, int],
    fits: Callable[[PlacementConfig], bool],
    *,
    machine: MachineProfile | None,
    most: int = 3,
) -> tuple[Change, ...]:
    """At most `most` changes with which the config has a plan.

    `fits` plans with a config and says whether that went well.

    `increases` are those of each device alone. Bounded: a few dozen plans for small models, a few for large
    ones.
    """
    problem = increase.problem
    larger = _increases(config, increase, increases, machine)
    first = next((change for change in larger if fits(change.config)), None)
    plans = _PLANS_IF_LARGE if increase.is_large else _PLANS
    kinds: tuple[Iterable[Change], ...] = (
        _offers(config, increase, CPU),
        _offers(config, increase, DISK),
        islice(chain.from_iterable([_strategies(config), _headrooms(config, problem)]), plans),
        _lower_dtypes(config),
        _quantizations(config),
        islice(_workloads(config), plans),
        islice(_constraints(config), plans),
    )
    found = [] if first is None else [first]
    for kind in kinds:
        if len(found) == most:
            break
        found += islice((change for change in kind if fits(change.config)), 1)
    return tuple(
        chain(found, islice((change for change in larger if fits(change.config)), most - len(found)))
    )


def format_bytes_up(nbytes: int) -> str:
    """Return the bytes for people, never below the number: what is typed in must be enough."""
    for unit, scale in (("GB", 10**9), ("MB", 10**6), ("KB", 10**3)):
        if nbytes >= scale:
            tenths = -(-nbytes * 10 // scale)
            return f"{tenths // 10}.{tenths % 10} {unit}"
    return f"{nbytes} B"


def _increases(
    config: PlacementConfig,
    increase: BudgetIncrease,
    increases: Mapping[Device, int],
    machine: MachineProfile | None,
) -> Iterator[Change]:
    """Larger budgets, the fewest bytes on a device first; never more than a machine has that is known."""
    if config.max_memory is None:
        return
    budgets = {
        budget.device: budget
        for budget in increase.problem.budgets
        if config.max_memory.get(budget.device) is not None
    }
    accelerators = tuple(device for device in budgets if device.is_accelerator)
    evenly = (
        increase.smallest(*(budgets[device] for device in accelerators)) if len(accelerators) > 1 else None
    )
    alone = [(nbytes, (device,)) for device, nbytes in increases.items() if device in budgets]
    for nbytes, devices in sorted(
        [*alone, *([(evenly, accelerators)] if evenly else [])],
        key=lambda pair: (pair[0], len(pair[1]), pair[1]),
    ):
        rounded = -(-nbytes // 10**8) * 10**8 if nbytes >= 10**9 else nbytes
        more = rounded if increase.helps(*(budgets[device].raised(rounded) for device in devices)) else nbytes
        amounts = {device: _raised(config, budgets[device], more, machine) for device in devices}
        if all(amount is not None for amount in amounts.values()):
            size = f"{format_bytes_up(more)} ({more:,} bytes)"
            words = (
                f"raise max_memory of {device_name(devices[0])} by {size}"
                if len(devices) == 1
                else f"give every accelerator {size} more in max_memory"
            )
            yield _with_memory(
                config,
                ChangeKind.RAISE,
                {device: amount for device, amount in amounts.items() if amount is not None},
                words,
            )


def _raised(
    config: PlacementConfig, budget: Budget, more: int, machine: MachineProfile | None
) -> Bytes | Percent | None:
    """Return what `max_memory` has to say for so many bytes more.

    None where the machine does not have them.
    """
    known = machine.devices.get(budget.device) if machine is not None else None
    total = (budget.capacity or 0) + more
    if known is not None and total > known.memory:
        return None
    if config.max_memory is not None and isinstance(config.max_memory.get(budget.device), Percent):
        assert known is not None, "a share was resolved with the machine"
        return Percent(
            min(
                (Decimal(total) * 100 / known.memory).quantize(Decimal("0.1"), rounding=ROUND_CEILING),
                Decimal(100),
            )
        )
    return Bytes(total)


def _with_memory(
    config: PlacementConfig, kind: ChangeKind, amounts: Mapping[Device, Bytes | Percent], sentence: str
) -> Change:
    memory = {**(config.max_memory or {}), **amounts}
    overrides = tuple(f"max_memory.{device}={_written(amount)}" for device, amount in amounts.items())
    if any(
        device.backend for device in memory
    ):  # a key may be written in several ways, and two for one device collide
        overrides = (
            f"max_memory={json.dumps({_key(one): _written(value) for one, value in memory.items()})}",
        )
    return Change(kind, sentence, overrides, config.model_copy(update={"max_memory": memory}))


def _key(device: Device) -> str:
    return f"{device.backend}:{device.index}" if device.backend else str(device)


def _written(amount: Bytes | Percent) -> str | int:
    """Return an amount as a config has it: GB with one decimal where that says it to the byte."""
    if isinstance(amount, Percent):
        return str(amount)
    return f"{amount // 10**9}.{amount % 10**9 // 10**8}GB" if amount % 10**8 == 0 and amount else int(amount)


def _offers(config: PlacementConfig, increase: BudgetIncrease, device: Device) -> Iterator[Change]:
    """Yield a tier that is not offered, with as much as it takes."""
    if any(budget.device == device for budget in increase.problem.budgets):
        return
    kind = ChangeKind.OFFER_CPU if device == CPU else ChangeKind.OFFER_DISK
    if config.max_memory is None:
        if device == DISK:
            offload = config.offload.model_copy(update={"folder": "./offload"})
            sentence = "offer the disk: offload.folder ./offload"
            yield Change(
                kind, sentence, ("offload.folder=./offload",), config.model_copy(update={"offload": offload})
            )
        return
    nbytes = increase.smallest(Budget(device, 0))
    if nbytes is not None:
        for total in dict.fromkeys((-(-nbytes // 10**8) * 10**8 if nbytes >= 10**9 else nbytes, nbytes)):
            yield _with_memory(
                config,
                kind,
                {device: Bytes(total)},
                f"offer {device} in max_memory with {format_bytes_up(total)}",
            )


def _strategies(config: PlacementConfig) -> Iterator[Change]:
    """Yield the same map with one other strategy wherever it names one."""
    named = {key: target for key, target in config.device_map.items() if not isinstance(target, Device)}
    for strategy in (Strategy.AUTO, Strategy.BALANCED, Strategy.BALANCED_LOW_0) if named else ():
        if set(named.values()) == {strategy}:
            continue
        device_map = {key: strategy if key in named else target for key, target in config.device_map.items()}
        overrides = (
            (f"device_map={strategy}",)
            if set(config.device_map) == {""}
            else tuple(f"device_map[{key}]={strategy}" for key in named)
        )
        changed = config.model_copy(update={"device_map": device_map})
        yield Change(ChangeKind.STRATEGY, f"place by {strategy} (device_map)", overrides, changed)


def _headrooms(config: PlacementConfig, problem: PlacementProblem) -> Iterator[Change]:
    """Less left free on every accelerator; some, then nothing."""
    most = max(
        (budget.headroom_bytes / budget.capacity for budget in problem.budgets if budget.capacity),
        default=0.0,
    )
    for percent in (5, 0):
        if most * 100 > percent:
            changed = config.model_copy(
                update={"headroom": Headroom.model_construct(default=Percent(Decimal(percent)), devices={})}
            )
            yield Change(
                ChangeKind.HEADROOM,
                f"leave {percent}% of each device free (headroom)",
                (f"headroom={percent}%",),
                changed,
            )


_LOWER = {"float64": "float32", "float32": "bfloat16", None: "bfloat16"}


def _lower_dtypes(config: PlacementConfig) -> Iterator[Change]:
    lower = _LOWER.get(config.model.dtype)
    if lower is not None:
        changed = config.model_copy(update={"model": config.model.model_copy(update={"dtype": lower})})
        yield Change(
            ChangeKind.DTYPE, f"run the model in {lower} (model.dtype)", (f"model.dtype={lower}",), changed
        )


def _quantizations(config: PlacementConfig) -> Iterator[Change]:
    """Yield the same model quantised while it is loaded, the most bits first.

    What is trained stays as it is.
    """
    source, workload = config.model, config.workload
    if (
        config.components
        or source.quantization is not None
        or source.dequantize
        or source.factory is not None
    ):
        return
    if workload is not None and workload.kind is WorkloadKind.TRAINING:
        return
    for method in (QuantizationMethod.INT8, QuantizationMethod.NF4):
        settings = QuantizationSettings(method=method)
        changed = config.model_copy(update={"model": source.model_copy(update={"quantization": settings})})
        yield Change(
            ChangeKind.QUANTIZE,
            f"quantise the weights to {method} while they are loaded (model.quantization)",
            (f"model.quantization={method}",),
            changed,
        )


def _workloads(config: PlacementConfig) -> Iterator[Change]:
    for sentence, override, changed in smaller_workloads(config):
        yield Change(ChangeKind.WORKLOAD, sentence, (override,), changed)


def _constraints(config: PlacementConfig) -> Iterator[Change]:
    for sentence, override, changed in without_one_constraint(config):
        yield Change(ChangeKind.WISH, sentence, (override,), changed)
