"""A config tried out: loaded, run over made-up input, measured."""

from __future__ import annotations

import socket
import time
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from devmap.api.locks.locking import say_differences
from devmap.api.machine import has_nodes
from devmap.api.models.building import build
from devmap.api.models.loading import load_built, prepared, shown
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

    from torch import nn

    from devmap.api.locks.locking import Chosen
    from devmap.api.models.building import Built
    from devmap.api.models.stages import Member
    from devmap.config.model.placement_config import PlacementConfig
    from devmap.config.overrides import Overrides
    from devmap.plan.model import Plan
    from devmap.runtime.streaming.counters import Stats

__all__ = ["DeviceLedger", "RankRun", "Run", "run"]


@dataclass(frozen=True, slots=True)
class DeviceLedger:
    """What one simulated device held at most, in bytes."""

    budget_bytes: int
    held_peak_bytes: int
    """Weights and slots: what the plan budgets."""
    transient_peak_bytes: int
    """Everything else: inputs, activations."""


@dataclass(frozen=True, slots=True)
class RankRun:
    """What one rank of a run over several nodes holds and sent, in bytes."""

    rank: int
    host: str
    device: str
    """The accelerator of its stage, with its node."""
    held_bytes: int
    """Weights of its stage."""
    streamed_bytes: int
    """Of these, what streams in each pass."""
    sent_bytes: int
    """What it sent to other ranks in all passes."""


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
    ranks: tuple[RankRun, ...] = ()
    """Every rank of a run over several nodes; empty on one machine."""
    rank: int = 0
    """This process's rank."""


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

    def prepare() -> tuple[Built, Chosen]:
        built = build(config, allow_code=allow_code)
        chosen = prepared(
            config,
            built,
            path,
            profile=profile,
            overrides=overrides,
            use_lock=use_lock,
            allow_code=allow_code,
        )
        return built, chosen

    member: Member | None = None
    if has_nodes(config):
        # Processes of a cluster alone need torch.distributed.
        from devmap.api.models.stages import join_ranks  # noqa: PLC0415

        member = join_ranks(prepare)
        built, chosen, plan = member.built, member.chosen, member.plan
    else:
        built, chosen = prepare()
        plan = chosen.plan
    build_seconds = time.perf_counter() - started
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
        if chosen.is_fixed and member is None:
            say_differences(plan, this_machine(), path)
        started = time.perf_counter()
        model = (
            load_built(config, plan, built, progress=progress)
            if member is None
            else _load_stage(member, config, progress)
        )
        load_seconds = build_seconds + time.perf_counter() - started
        inputs = made_up_inputs(
            model,
            batch_size=batch_size,
            sequence_length=tokens,
            device=_first_device(plan) if member is None else torch.device("cpu"),
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
        ranks = () if member is None else _ranks(member, model)
        handle.remove()
    return Run(
        chosen.plan if member is not None else plan,
        load_seconds,
        tuple(seconds),
        shape,
        stats,
        ledgers,
        chosen.lock,
        chosen.passed_over,
        ranks,
        0 if member is None else member.launch.rank,
    )


def _load_stage(member: Member, config: PlacementConfig, progress: bool | None) -> nn.Module:
    from devmap.api.models.stages import load_stage  # noqa: PLC0415 - as in `run`

    with shown(progress, config, is_first=member.launch.rank == 0) as bar:
        return load_stage(member, progress=bar)


def _ranks(member: Member, model: nn.Module) -> tuple[RankRun, ...]:
    """Return what each rank holds and sent. Every rank calls it."""
    from devmap.distributed.engine import Spread  # noqa: PLC0415 - as in `run`

    spread = model.devmap_stages
    assert isinstance(spread, Spread)
    stage = member.chosen.plan.pipeline.stages[member.launch.rank]  # type: ignore[union-attr]
    own = RankRun(
        member.launch.rank,
        socket.gethostname(),
        str(stage.device),
        sum(placement.nbytes for placement in member.plan.placements),
        sum(placement.home_bytes for placement in member.plan.streamed),
        spread.traffic.sent_bytes,
    )
    found: list[RankRun] = spread.borders.wire.from_all(own)
    return tuple(found)


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
