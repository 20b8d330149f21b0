"""One rank's part of a model that a config spreads over several nodes, under torchrun.

Each rank builds the module on meta and makes the plan; before anything is read all ranks have to agree that
they made the same one. Then each reads its own stage's weights.
"""

from __future__ import annotations

import atexit
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch.distributed as dist

from devmap.config.values.device import CPU
from devmap.devices.registry import backend_for
from devmap.distributed.agreement import Launch, Statement, agree, open_store
from devmap.distributed.engine import Spread, spread
from devmap.distributed.failures import Watch
from devmap.distributed.group import start_group
from devmap.errors import DevmapError, UsageError
from devmap.plan.lock import lock_of
from devmap.plan.stage_plan import plan_of_stage, stage_assignment

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import nn
    from torch._C._distributed_c10d import Store

    from devmap.api.locks.locking import Chosen
    from devmap.api.models.building import Built
    from devmap.plan.model import Plan
    from devmap.runtime.residents import Progress

__all__ = ["Member", "join_ranks", "load_stage"]

_TIMEOUT = "DEVMAP_RANK_TIMEOUT"
"""The environment's variable for the seconds that ranks wait for each other at most."""
_LOADING_FACTOR = 6
"""How much longer ranks wait for each other's weights than for each other's word."""


@dataclass(frozen=True)
class Member:
    """A rank that agrees with all others."""

    launch: Launch
    store: Store
    watch: Watch
    chosen: Chosen
    """The plan of all nodes, and where it comes from."""
    built: Built
    timeout_seconds: float

    @property
    def plan(self) -> Plan:
        """This rank's stage alone, on devices as its own node calls them."""
        return plan_of_stage(self.chosen.plan, self.launch.rank)


def join_ranks(prepare: Callable[[], tuple[Built, Chosen]]) -> Member:
    """Build the module, make the plan, and agree on both with the other ranks.

    What `prepare` raises is told to the other ranks too.

    Raises:
        UsageError: torchrun did not start this process.
        RankError: on every rank the same, naming each rank that disagrees, cannot go on, or says nothing.
    """
    launch = Launch.of()
    seconds = _timeout()
    store = open_store(launch, timeout_seconds=seconds)
    found: tuple[Built, Chosen] | None = None
    error = ""
    try:
        found = prepare()
    except DevmapError as raised:
        error = raised.message
    stages = launch.size
    read: dict[str, str] = {}
    if found is not None:
        plan = found[1].plan
        assert plan.pipeline is not None, "a config with nodes has a plan with stages"
        stages = len(plan.pipeline.stages)
        # A lock fixes more than the config does, and says nothing of when it was written.
        read = {
            "config": plan.config_fingerprint,
            "model": plan.inventory_fingerprint,
            "plan": lock_of(plan).digest,
        }
    agree(
        store,
        launch,
        Statement(launch.rank, read=read, error=error),
        stages=stages,
        timeout_seconds=seconds,
    )
    assert found is not None, "a rank that could not prepare has raised"
    watch = Watch(store, launch.rank, launch.size, timeout_seconds=seconds)
    atexit.register(watch.close)
    return Member(launch, store, watch, found[1], found[0], seconds)


def load_stage(member: Member, *, progress: Progress | None = None) -> nn.Module:
    """Read this rank's stage, and return the model, which every rank calls alike.

    Raises:
        RankError: a rank could not load its stage; on every rank the same.
    """
    plan, launch = member.plan, member.launch
    pipeline = member.chosen.plan.pipeline
    assert pipeline is not None, "a config with nodes has a plan with stages"
    error = ""
    found: Spread | None = None
    with member.watch.guard():
        executing = {placement.executes_on for placement in plan.placements}
        device = next((one for one in sorted(executing) if one.is_accelerator), CPU)
        try:
            member.built.require_room(member.chosen.plan)
            group = start_group(
                member.store, launch, backend_for(device).torch_device, timeout_seconds=member.timeout_seconds
            )
            found = spread(
                member.built.model,
                plan,
                stage_assignment(member.chosen.plan),
                inventory=member.built.inventory,
                packings=member.built.packings,
                makers=member.built.makers,
                group=group,
                microbatches=pipeline.microbatches,
                progress=progress,
                watch=member.watch,
            )
        except DevmapError as raised:
            error = raised.message
        agree(
            member.store,
            launch,
            Statement(launch.rank, error=error),
            stages=launch.size,
            phase="loaded",
            timeout_seconds=_LOADING_FACTOR * member.timeout_seconds,
            watch=member.watch,
        )
    assert found is not None, "a rank that could not load has raised"
    atexit.register(_leave)
    member.built.finish(found.model)
    return found.model


def _leave() -> None:
    if dist.is_initialized():
        dist.destroy_process_group()


def _timeout() -> float:
    """Return how long ranks wait for each other, in seconds: 300, or what `DEVMAP_RANK_TIMEOUT` says.

    Raises:
        UsageError: the variable is not a number of seconds.
    """
    text = os.environ.get(_TIMEOUT, "300")
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds < float("inf"):
        raise UsageError(f"{_TIMEOUT} is '{text}', not a number of seconds", help=f"write {_TIMEOUT}=300")
    return seconds
