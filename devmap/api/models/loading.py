"""A model loaded by its config: resolve, read, dispatch."""

from __future__ import annotations

from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from devmap.api.gate import SEEN_TO, refuse_errors
from devmap.api.locks.locking import Chosen, choose_plan, say_differences
from devmap.api.machine import has_nodes
from devmap.api.models.building import build, planned_from
from devmap.api.models.progress import progress_bar
from devmap.api.resolution import resolve
from devmap.config.document import read_config
from devmap.config.model.placement_config import PlacementConfig
from devmap.devices.probe import this_machine
from devmap.errors import LoadError, UsageError
from devmap.runtime.components import Components
from devmap.runtime.dispatch import dispatch as dispatch_plan
from devmap.runtime.dispatch import load_model
from devmap.runtime.turns import take_turns

if TYPE_CHECKING:
    import os
    from collections.abc import Iterator

    from torch import nn

    from devmap.api.models.building import Built
    from devmap.config.overrides import Overrides
    from devmap.plan.model import Plan
    from devmap.runtime.residents import Progress

__all__ = ["dispatch", "load", "load_built", "load_by", "prepared", "shown"]


def load(
    config: str | os.PathLike[str] | PlacementConfig,
    *,
    profile: str | None = None,
    overrides: Overrides = (),
    plan: Plan | None = None,
    use_lock: bool = True,
    model: nn.Module | None = None,
    allow_code: bool = False,
    progress: Progress | bool | None = None,
) -> nn.Module:
    """Load a model as its config says.

    Take the lock's plan or resolve, read the weights to where they belong, dispatch.

    Args:
        config: the path of a `*.devmap.yaml`, or a config that was read.
        profile: one of the config's profiles.
        overrides: changes such as `max_memory.cpu=64GB`, or a mapping, `{"max_memory.cpu": "64GB"}`. A
            lock that was made without them is passed over.
        plan: what to apply, resolved for this config before; nothing is resolved and no lock is read then.
        use_lock: take the plan of the lock beside the config's file, where there is one; False plans anew.
        model: the module to load into, on the meta device; left out, it is built from the checkpoint's
            `config.json` through transformers, or by `model.factory`.
        allow_code: let `model.factory` run.
        progress: a callable that gets bytes done and bytes in all; True or False shows or hides a bar on
            stderr; None shows it on a terminal.

    Returns:
        The module in eval mode, its weights where the plan says; `model.devmap` has the plan, counters and
        `remove()`. Of a config with components a `torch.nn.ModuleDict` of them by name, which a pipeline
        takes as `**models`; `devmap` of each is that of all. Of a config with nodes, under torchrun, the
        model of which this rank has its stage: every rank calls it alike, and gets the whole output.

    Raises:
        RankError: ranks of a config with nodes do not agree, or one failed; on every rank the same.
        LockError: the lock beside the config is stale, edited, of another model, or cannot be read.
        DeviceError: the config leaves its budgets to the machine, the lock beside it fixes them, and this
            machine has less.
        ConfigError, InventoryError, ResolutionError, DeviceMapError, LoadError, DeviceError: each lists all
        it knows, before
            the first weight is placed.
    """
    path = None if isinstance(config, PlacementConfig) else config
    if not isinstance(config, PlacementConfig):
        config = read_config(config, profile, overrides=overrides)
    if plan is not None and plan.pipeline is None:
        return load_by(config, plan, model=model, allow_code=allow_code, progress=progress)

    def prepare() -> tuple[Built, Chosen]:
        built = build(config, model=model, allow_code=allow_code)
        if plan is not None:
            return built, Chosen(plan)
        return built, prepared(
            config,
            built,
            path,
            profile=profile,
            overrides=overrides,
            use_lock=use_lock,
            allow_code=allow_code,
        )

    if has_nodes(config):
        # Processes of a cluster alone need torch.distributed.
        from devmap.api.models.stages import join_ranks, load_stage  # noqa: PLC0415

        member = join_ranks(prepare)
        with shown(progress, config, is_first=member.launch.rank == 0) as bar:
            return load_stage(member, progress=bar)
    built, chosen = prepare()
    if path is not None and chosen.is_fixed:
        say_differences(chosen.plan, this_machine(), path)
    return load_built(config, chosen.plan, built, progress=progress)


def prepared(
    config: PlacementConfig,
    built: Built,
    path: str | os.PathLike[str] | None,
    *,
    profile: str | None,
    overrides: Overrides,
    use_lock: bool,
    allow_code: bool,
) -> Chosen:
    """Return the plan for a module that was built: the lock's or a new one, checked as `validate` does.

    Arguments and errors are those of `load`; `path` is the config's file, where it has one.
    """
    counts = path if use_lock else None
    described = planned_from(config, built, counts, profile=profile, allow_code=allow_code)
    if counts is None:
        chosen = Chosen(resolve(config, described))
    else:
        chosen = choose_plan(config, described, counts, profile=profile, overridden=bool(overrides))
    if path is not None:
        refuse_errors(
            path,
            chosen.plan,
            described,
            profile=profile,
            overrides=overrides,
            allow_code=allow_code,
            besides=SEEN_TO,
        )
    return chosen


@contextmanager
def shown(
    progress: Progress | bool | None, config: PlacementConfig, *, is_first: bool = True
) -> Iterator[Progress | None]:
    """Yield what is told of the bytes that were read: the caller's own, or a bar, on the first rank alone."""
    if callable(progress):
        yield progress
    elif is_first:
        name = ", ".join(config.components) or Path(config.model.checkpoint or "").name
        with progress_bar(f"loading {name}", shown=progress) as bar:
            yield bar
    else:
        yield None


def load_by(
    config: PlacementConfig,
    plan: Plan,
    *,
    model: nn.Module | None = None,
    allow_code: bool = False,
    progress: Progress | bool | None = None,
) -> nn.Module:
    """Return the last part of `load`: build the model unless it is given, read the weights, dispatch.

    Arguments and errors are those of `load`.
    """
    built = build(config, model=model, allow_code=allow_code)
    return load_built(config, plan, built, progress=progress)


def load_built(
    config: PlacementConfig, plan: Plan, built: Built, *, progress: Progress | bool | None = None
) -> nn.Module:
    """Read the weights of a module that was built, and dispatch it. Arguments and errors as in `load`."""
    if config.takes_turns:
        return _take_turns(plan, built)
    built.require_room(plan)
    with shown(progress, config) as bar:
        model = load_model(
            built.model, plan, built.inventory, packings=built.packings, makers=built.makers, progress=bar
        )
    built.finish(model)
    return model


def _take_turns(plan: Plan, built: Built) -> nn.Module:
    if built.packings or built.makers:
        raise LoadError(
            "components that are quantised cannot take turns",
            help="write residency: together; or give devmap the checkpoints that are not quantised, without "
            "quantization",
        )
    assert isinstance(built.model, Components)
    return take_turns(built.model, plan, built.inventory)


def dispatch(model: nn.Module, plan: Plan) -> nn.Module:
    """Spread a live module, with its weights, as a plan says. The module is changed in place and returned.

    Args:
        model: a module whose weights are on any device; their shapes and dtypes stay what they are.
        plan: what `devmap.resolve` made for `devmap.Inventory.from_module(model)`; its budgets are in bytes.

    Raises:
        LoadError: the plan does not fit the module; lists every problem. Nothing has moved then.
        UsageError: the plan is for several nodes, of which each process loads a stage of its own.
    """
    if plan.pipeline is not None:
        raise UsageError(
            f"this plan is for {len(plan.pipeline.stages)} processes, and a live module is in one",
            help="call devmap.load(CONFIG) under torchrun: `devmap plan CONFIG --torchrun` prints how",
        )
    return dispatch_plan(model, plan)
