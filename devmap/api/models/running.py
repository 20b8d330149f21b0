"""A config tried out: loaded, run over made-up input, measured."""

from __future__ import annotations

import time
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from devmap.api.gate import SEEN_TO, refuse_errors
from devmap.api.locks.locking import Chosen, choose_plan, say_differences
from devmap.api.models.building import build, planned_from
from devmap.api.models.loading import load_built
from devmap.api.resolution import resolve
from devmap.config.document import read_config
from devmap.devices.probe import this_machine
from devmap.devices.registry import backend_for
from devmap.errors import DeviceError, UsageError
from devmap.runtime.handle import Handle
from devmap.simulate.inputs import made_up_inputs
from devmap.testing import simulated_devices

if TYPE_CHECKING:
    import os
    from collections.abc import Mapping
    from pathlib import Path

    from devmap.config.overrides import Overrides
    from devmap.plan.model import Plan
    from devmap.runtime.streaming.counters import Stats

__all__ = ["DeviceLedger", "Run", "run"]


@dataclass(frozen=True, slots=True)
class DeviceLedger:
    """What one simulated device held at most, in bytes."""

    budget_bytes: int
    held_peak_bytes: int
    """Weights and slots: what the plan budgets."""
    transient_peak_bytes: int
    """Everything else: inputs, activations."""


@dataclass(frozen=True, slots=True)
class Run:
    """What one try-out did."""

    plan: Plan
    load_seconds: float
    pass_seconds: tuple[float, ...]
    """Of each forward pass; the first one records the order that later ones prefetch by."""
    output_shape: tuple[int, ...]
    stats: Stats
    """The model's counters after the last pass."""
    ledgers: Mapping[str, DeviceLedger]
    """What each simulated device held; empty on real devices."""
    lock: Path | None = None
    """The lock that the plan was taken from; None where it was made anew."""
    lock_passed_over: Path | None = None
    """The lock that does not count, because overrides have changed what it was made from."""


def run(
    path: str | os.PathLike[str],
    *,
    profile: str | None = None,
    overrides: Overrides = (),
    use_lock: bool = True,
    simulated: bool = False,
    batch_size: int = 1,
    tokens: int = 8,
    passes: int = 2,
    allow_code: bool = False,
    progress: bool | None = None,
) -> Run:
    """Load a model by its config and run forward passes over made-up tokens.

    The plan is that of the lock beside the config, where there is one, unless `use_lock` is False; it is made
    once. With `simulated` the plan's accelerators are simulated on the CPU, with its budgets: the numbers are
    real, the speed is not.

    Raises:
        LockError: when the lock beside the config is stale, edited, of another model, or cannot be read.
        UsageError: when devmap does not know what input the model takes.
        DevmapError: what reading, resolving, loading or running raises.
    """
    config = read_config(path, profile, overrides=overrides)
    started = time.perf_counter()
    if config.components:
        raise UsageError(
            "a config with components has no one pass to run",
            help="load them in a program: devmap.load(CONFIG)",
        )
    built = build(config, allow_code=allow_code)
    build_seconds = time.perf_counter() - started
    counts = path if use_lock else None
    inventory = planned_from(config, built, counts, profile=profile, allow_code=allow_code)
    if use_lock:
        chosen = choose_plan(config, inventory, path, profile=profile, overridden=bool(overrides))
    else:
        chosen = Chosen(resolve(config, inventory))
    plan = chosen.plan
    refuse_errors(
        path,
        plan,
        inventory,
        profile=profile,
        overrides=overrides,
        allow_code=allow_code,
        besides=SEEN_TO,
    )
    with ExitStack() as stack:
        budgets = {
            use.device.index: use.capacity_bytes or 0 for use in plan.devices if use.device.is_accelerator
        }
        devices = (
            stack.enter_context(simulated_devices(budgets, activations=False))
            if simulated and budgets
            else {}
        )
        if budgets and not simulated:
            _require_accelerators()
        if chosen.is_fixed:
            say_differences(plan, this_machine(), path)
        started = time.perf_counter()
        model = load_built(config, plan, built, progress=progress)
        load_seconds = build_seconds + time.perf_counter() - started
        inputs = made_up_inputs(
            model, batch_size=batch_size, sequence_length=tokens, device=_first_device(plan)
        )
        seconds = []
        for _ in range(passes):
            started = time.perf_counter()
            with torch.no_grad():
                output = model(**inputs)
            seconds.append(time.perf_counter() - started)
        shape = tuple(output[0].shape)
        handle = model.devmap
        assert isinstance(handle, Handle)
        stats = handle.stats()
        ledgers = {
            device.name: DeviceLedger(
                device.budget_bytes, device.ledger.held_peak_bytes, device.ledger.transient_peak_bytes
            )
            for device in devices.values()
        }
        handle.remove()
    return Run(plan, load_seconds, tuple(seconds), shape, stats, ledgers, chosen.lock, chosen.passed_over)


def _require_accelerators() -> None:
    if not any(device.is_accelerator for device in this_machine().devices):
        raise DeviceError(
            "the plan uses accelerators, and this machine has none",
            help="--simulated runs it here, on accelerators that the CPU simulates "
            "within the plan's budgets; or give "
            "max_memory without accelerators: --set 'max_memory={cpu: 64GB}'",
        )


def _first_device(plan: Plan) -> torch.device:
    """Return where the model begins to compute.

    One that is wholly on a device has no hooks that move inputs there.
    """
    return (
        backend_for(plan.placements[0].executes_on).torch_device if plan.placements else torch.device("cpu")
    )
