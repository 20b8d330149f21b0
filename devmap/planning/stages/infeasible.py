"""No split over the stages: what is missing in bytes, and which changes make it fit, each tried."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from itertools import islice
from typing import TYPE_CHECKING

from devmap.config.model.placement_config import Headroom
from devmap.config.values.device import CPU, device_name, device_names
from devmap.config.values.size import Bytes, Percent, format_bytes
from devmap.errors import ResolutionError
from devmap.planning.infeasible.relaxations import smaller_workloads
from devmap.planning.infeasible.suggestions import format_bytes_up

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from devmap.config.model.placement_config import PlacementConfig
    from devmap.config.values.device import Device
    from devmap.config.yaml.faults import DocumentPath
    from devmap.planning.stages.split import Line

__all__ = ["no_split"]

_MOST_TRIES, _MOST_CHANGES = 24, 3


@dataclass(frozen=True)
class _Change:
    kind: str
    """Of two changes of a kind the first that fits is offered."""
    sentence: str
    overrides: tuple[str, ...]
    config: PlacementConfig


def no_split(
    config: PlacementConfig,
    line: Line,
    *,
    loads: int,
    limits: Sequence[int],
    stages: Sequence[Device],
    atoms: Sequence[str],
    fits: Callable[[PlacementConfig], bool],
) -> ResolutionError:
    """Return the error for a cluster that no contiguous split of the model fits.

    `loads` are the bytes of all modules with what the workload keeps beside them, `limits` what each stage
    may take of them; `atoms` are paths in running order. `fits` plans with another config.
    """
    room = sum(limits) + sum(line.room.values())
    missing = max(loads - room, 0)
    found: dict[str, _Change] = {}
    for change in islice(_changes(config, missing, len(line.room)), _MOST_TRIES):
        if len(found) < _MOST_CHANGES and change.kind not in found and fits(change.config):
            found[change.kind] = change
    first = next(iter(found.values()), None)
    path: DocumentPath = ()
    if missing:
        what = (
            f"{format_bytes(missing)} are missing ({missing:,} bytes): the stages need "
            f"{format_bytes(loads)}, and {device_names(stages)} with what their nodes offer beside them "
            f"have room for {format_bytes(room)}"
        )
    else:
        what, path = _stuck(line, stages, atoms)
    return ResolutionError(
        f"no split over {line.stages} stages fits: {what}",
        help=f"try one with {' '.join(map(_option, first.overrides))}"
        if first is not None
        else "offer more nodes, more memory, or pin less",
        shortfall_bytes=missing,
        changes=[change.sentence for change in found.values()],
        overrides=[change.overrides for change in found.values()],
        path=path,
    )


def _option(override: str) -> str:
    return f"--set '{override}'" if set(override) & set('{}[]" ') else f"--set {override}"


def _stuck(line: Line, stages: Sequence[Device], atoms: Sequence[str]) -> tuple[str, DocumentPath]:
    """Return where the split in order stops, and the key that is to blame where it is not the budgets."""
    start = 0
    spent: dict[str, int] = {}
    for stage in range(line.stages):
        end = line.reach(stage, start, None, spent)
        if end == start and line.is_barred(stage, start):
            return _without_module(line, stage, start, stages, atoms)
        if end == start:
            path = atoms[min(start, len(atoms) - 1)]
            return f"stage {stage} ({device_name(stages[stage])}) has no room for '{path}'", ()
        node = line.group[stage]
        spent[node] = spent.get(node, 0) + line.spilled(stage, start, end)
        start = end
    left = f"'{atoms[start]}'" if start < len(atoms) else "the last module"
    return f"the last stage ({device_name(stages[-1])}) ends before {left}", ()


def _without_module(
    line: Line, stage: int, start: int, stages: Sequence[Device], atoms: Sequence[str]
) -> tuple[str, DocumentPath]:
    """Return why a stage may not begin with the module that is next: the one before it was full, or pins."""
    path = f"'{atoms[start]}'"
    was_full = start < line.count - (line.stages - stage)
    if stage and was_full and not line.is_barred(stage - 1, start):
        before = f"stage {stage - 1} ({device_name(stages[stage - 1])})"
        return f"{before} has no room for {path}, which stage {stage} may not hold", ()
    what = (
        f"the map leaves no module for stage {stage} ({device_name(stages[stage])}): {path} would be its "
        "first, and may not lie there"
    )
    return what, ("device_map",)


def _changes(config: PlacementConfig, missing: int, nodes: int) -> Iterator[_Change]:
    """Yield configs that ask for less or offer more, the cheapest first."""
    if config.max_memory is not None and not any(not one.is_accelerator for one in config.max_memory):
        share = -(-max(missing, 1) // nodes)
        for nbytes in (share, 2 * share, 4 * share, 16 * share):
            rounded = Bytes(-(-nbytes // 10**8) * 10**8 if nbytes >= 10**9 else nbytes)
            yield _Change(
                "cpu",
                f"offer cpu in max_memory with {format_bytes_up(rounded)} on every node",
                (f"max_memory.cpu={rounded}",),
                config.model_copy(update={"max_memory": {**config.max_memory, CPU: rounded}}),
            )
    for percent in (5, 0):
        headroom = Headroom.model_construct(default=Percent(Decimal(percent)), devices={})
        if config.headroom is None and config.max_memory is None:
            yield _Change(
                "headroom",
                f"leave {percent}% of each device free (headroom)",
                (f"headroom={percent}%",),
                config.model_copy(update={"headroom": headroom}),
            )
    lower = {"float64": "float32", "float32": "bfloat16", None: "bfloat16"}.get(config.model.dtype)
    if lower is not None:
        model = config.model.model_copy(update={"dtype": lower})
        yield _Change(
            "dtype",
            f"run the model in {lower} (model.dtype)",
            (f"model.dtype={lower}",),
            config.model_copy(update={"model": model}),
        )
    for sentence, override, changed in islice(smaller_workloads(config), 6):
        yield _Change("workload", sentence, (override,), changed)
    parallel = config.parallel
    if parallel is not None and config.workload is not None:
        more = parallel.microbatches * 2
        while more <= config.workload.batch_size:
            yield _Change(
                "microbatches",
                f"split the batch into {more} microbatches",
                (f"parallel.microbatches={more}",),
                config.model_copy(update={"parallel": parallel.model_copy(update={"microbatches": more})}),
            )
            more *= 2
