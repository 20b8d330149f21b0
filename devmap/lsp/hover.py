"""What is told of a key: its meaning from the schema, and what it places or bounds in this model."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from devmap.config.values.device import parse_device
from devmap.config.values.size import format_bytes
from devmap.config.values.strategy import MEANINGS
from devmap.inventory.atoms import tensor_sizes
from devmap.inventory.patterns import expand_keys
from devmap.lsp.schema import description_at
from devmap.report.plan_bars import device_name

if TYPE_CHECKING:
    from collections.abc import Iterator

    from devmap.config.model.placement_config import PlacementConfig
    from devmap.inventory.model import Inventory
    from devmap.lsp.known import Known
    from devmap.plan.model import DeviceUse, Plan

__all__ = ["hover_text"]

_MOST_CLASSES = 4


def hover_text(known: Known, path: tuple[str | int, ...]) -> str:
    """Return what is to be told of a node of a config, in Markdown; empty where there is nothing."""
    words = tuple(str(key) for key in path)
    parts: list[str] = []
    if words[:1] == ("device_map",) and len(words) == 2:
        parts += _of_map_key(known, words[1])
    elif words[:1] == ("device_map",) and known.config is not None:
        parts += [description_at(words), *_of_strategies(known.config), *_of_plan(known)]
    elif words[:1] == ("max_memory",) and len(words) == 2:
        parts += _of_budget(known, words[1])
    elif words[:1] == ("model",):
        parts += [description_at(words), *_of_model(known)]
    elif words:
        parts.append(description_at(words) or description_at(words[:-1]))
    return "\n\n".join(part for part in parts if part)


def _of_map_key(known: Known, key: str) -> Iterator[str]:
    """Yield what a key of the device map places: modules, bytes, where they live."""
    config, inventory = known.config, known.inventory
    if config is None or inventory is None:
        yield f"`{key or '(the whole model)'}`: {known.problem or 'the model is not known'}"
        return
    expansion = expand_keys([*config.device_map, key], inventory.index)
    paths = expansion.paths.get(key, ())
    name = f"`{key}`" if key else "The whole model"
    if not paths:
        yield f"{name} names no module or tensor of this model."
        return
    classes = Counter(inventory.modules.get(path, "tensor") for path in paths)
    listed = ", ".join(
        f"{count} {kind}" if count > 1 else kind for kind, count in classes.most_common(_MOST_CLASSES)
    )
    yield f"{name}: {listed}"
    sizes = tensor_sizes(inventory, config.model.dtype)
    mine = [
        tensor
        for tensor in inventory.tensors
        if expansion.winner(tensor) == key and inventory.owner.get(tensor, tensor) == tensor
    ]
    nbytes = sum(sizes[tensor] for tensor in mine)
    dtype = f" in {config.model.dtype}" if config.model.dtype else ""
    others = ", without what more exact keys take" if _has_more_exact(config, key, inventory) else ""
    yield f"Places {format_bytes(nbytes)}{dtype}{others}."
    if known.plan is None:
        if known.problem:
            yield f"No plan: {known.problem}."
        return
    yield from _places(known.plan, set(mine))


def _has_more_exact(config: PlacementConfig, key: str, inventory: Inventory) -> bool:
    expansion = expand_keys(config.device_map, inventory.index)
    mine = set(expansion.paths.get(key, ()))
    return any(
        expansion.anchors.get(path) != key
        or any(
            other != key
            and any(name != path and name.startswith(f"{path}." if path else "") for name in names)
            for other, names in expansion.paths.items()
        )
        for path in mine
    )


def _places(plan: Plan, tensors: set[str]) -> Iterator[str]:
    """Yield where the placements lie that hold some of the tensors."""
    found: Counter[str] = Counter()
    for one in plan.placements:
        if one.path in tensors or any(_is_below(tensor, one.path) for tensor in tensors):
            home, runs = device_name(one.home, plan), device_name(one.executes_on, plan)
            found[home if home == runs else f"{home}, runs on {runs}"] += one.nbytes
    for place, nbytes in found.items():
        yield f"- {place}: {format_bytes(nbytes)}"


def _is_below(tensor: str, path: str) -> bool:
    return not path or tensor.startswith(f"{path}.")


def _of_strategies(config: PlacementConfig) -> Iterator[str]:
    for target in dict.fromkeys(map(str, config.device_map.values())):
        if target in MEANINGS:
            yield f"`{target}`: {MEANINGS[target]}"


def _of_plan(known: Known) -> Iterator[str]:
    if known.plan is None:
        if known.problem:
            yield f"No plan: {known.problem}."
        return
    yield "\n".join(_use_line(use, known.plan) for use in known.plan.devices)


def _of_budget(known: Known, key: str) -> Iterator[str]:
    """Yield what the plan does with the device of a budget."""
    yield description_at(("max_memory",))
    if known.plan is None:
        if known.problem:
            yield f"No plan: {known.problem}."
        return
    try:
        device = parse_device(key)
    except ValueError:
        return  # a finding says what is wrong with the key
    # a key without a node stands for the device of that name on every node
    for use in (
        use for use in known.plan.devices if device.plain in {use.device.plain, use.device.on(None).plain}
    ):
        yield _use_line(use, known.plan)
        charges = [
            f"- {charge.what} {format_bytes(charge.nbytes)}"
            + (f" = {charge.arithmetic}" if charge.arithmetic else "")
            for charge in use.charges
        ]
        yield "\n".join(charges)


def _use_line(use: DeviceUse, plan: Plan) -> str:
    free = "no limit" if use.free_bytes is None else f"{format_bytes(use.free_bytes)} free"
    limit = "" if use.capacity_bytes is None else f" of {format_bytes(use.capacity_bytes)}"
    reserved = f" + {format_bytes(use.reserved_bytes)} reserved" if use.reserved_bytes else ""
    return (
        f"- {device_name(use.device, plan)}: {format_bytes(use.weight_bytes)} "
        f"of weights{reserved}{limit}, {free}"
    )


def _of_model(known: Known) -> Iterator[str]:
    if known.inventory is None:
        yield known.problem
        return
    inventory = known.inventory
    name = inventory.architecture.class_name if inventory.architecture else inventory.modules.get("", "model")
    dtype = known.config.model.dtype if known.config is not None else None
    sizes = tensor_sizes(inventory, dtype)
    nbytes = sum(size for tensor, size in sizes.items() if inventory.owner.get(tensor, tensor) == tensor)
    yield (
        f"{name}: {len(inventory.tensors):,} tensors, {format_bytes(nbytes)} in "
        f"{dtype or 'the dtypes of the checkpoint'}"
    )
