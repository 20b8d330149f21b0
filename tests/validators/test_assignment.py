"""Assignments: what a map says of each tensor, against a search through every key, and in linear time."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from devmap.config.values.device import CPU, Device, parse_device
from devmap.inventory.model import Inventory, Tensor, TensorKind
from devmap_validators.checks.assignment import assign, bytes_on_devices, split_blocks, split_ties
from devmap_validators.checks.device_map import device_map_findings
from devmap_validators.checks.wording import fold
from tests.effort import at_most

if TYPE_CHECKING:
    from collections.abc import Mapping

DTYPES = ("bfloat16", "float32", "int8", "bool")
KINDS: tuple[TensorKind, ...] = ("parameter", "buffer")


@st.composite
def models(draw: st.DrawFn) -> Inventory:
    """Small trees with shared prefixes (`a`, `a.1`, `a.10`), buffers, tensors on split modules, and ties."""
    modules: dict[str, str] = {"": "Root"}
    tensors: dict[str, Tensor] = {}

    def grow(path: str, depth: int) -> None:
        for name in draw(st.lists(st.sampled_from(["w", "b", "10"]), unique=True, max_size=2)):
            kind: TensorKind = draw(st.sampled_from(KINDS))
            full = f"{path}.{name}" if path else name
            tensors[full] = Tensor(
                full,
                (draw(st.integers(1, 5)),),
                draw(st.sampled_from(DTYPES)),
                kind,
                persistent=kind == "parameter",
            )
        for name in draw(
            st.lists(st.sampled_from(["a", "1", "11", "ab"]), unique=True, max_size=3 if depth < 3 else 0)
        ):
            full = f"{path}.{name}" if path else name
            modules[full] = draw(st.sampled_from(["Block", "Linear", "List"]))
            grow(full, depth + 1)

    grow("", 0)
    held = {
        "": True,
        **{path: any(name.startswith(f"{path}.") for name in tensors) for path in modules if path},
    }
    modules = {path: name for path, name in modules.items() if held[path]}
    names = list(tensors)
    group = (
        draw(st.lists(st.sampled_from(names), unique=True, min_size=2, max_size=3))
        if len(names) > 1 and draw(st.booleans())
        else []
    )
    ties = (tuple(sorted(group, key=names.index)),) if group else ()
    return Inventory(modules, tensors, ties=ties, no_split_module_classes=("Block",))


@st.composite
def mapped(draw: st.DrawFn) -> tuple[Inventory, dict[str, Device]]:
    model = draw(models())
    paths = [*model.modules, *model.tensors, "zzz", "a.zzz"]
    keys = draw(st.lists(st.sampled_from(paths), unique=True, max_size=6))
    return model, {key: draw(st.sampled_from([parse_device(0), parse_device(1), CPU])) for key in keys}


def oracle(device_map: Mapping[str, Device], name: str) -> Device | None:
    """The longest key that is the name or a prefix of it, by looking at every key."""
    fitting = [key for key in device_map if key in {"", name} or name.startswith(f"{key}.")]
    return device_map[max(fitting, key=len)] if fitting else None


@settings(max_examples=100, deadline=None)
@given(mapped())
def test_the_assignment_is_the_longest_prefix_of_every_tensor(
    case: tuple[Inventory, dict[str, Device]],
) -> None:
    model, device_map = case
    expected = {name: oracle(device_map, name) for name in model.tensors}
    assignment = assign(model, device_map)
    assert {name: assignment.target_of(name) for name in model.tensors} == expected
    assert set(assignment.uncovered) == {name for name, device in expected.items() if device is None}


@settings(max_examples=100, deadline=None)
@given(mapped())
def test_splits_ties_and_bytes_are_those_of_a_quadratic_search(
    case: tuple[Inventory, dict[str, Device]],
) -> None:
    model, device_map = case
    homes = {name: oracle(device_map, name) for name in model.tensors}
    assignment = assign(model, device_map)
    blocks = [path for path, name in model.modules.items() if name == "Block"]
    outer = [path for path in blocks if not any(path.startswith(f"{other}.") for other in blocks)]
    split = {
        path
        for path in outer
        if len({homes[n] for n in homes if n.startswith(f"{path}.") and homes[n] is not None}) > 1
    }
    assert {block.path for block in split_blocks(assignment, ["Block"])} == split
    apart = [
        group for group in model.ties if len({homes[name] for name in group if homes[name] is not None}) > 1
    ]
    assert len(split_ties(assignment)) == len(apart)
    expected: dict[Device, int] = {}
    seen: set[tuple[str, Device]] = set()
    for name, device in homes.items():
        first = next((group[0] for group in model.ties if name in group), name)
        if device is not None and (first, device) not in seen:
            seen.add((first, device))
            expected[device] = expected.get(device, 0) + model.tensors[name].nbytes
    if all(len({model.tensors[name].nbytes for name in group}) == 1 for group in model.ties):
        assert dict(bytes_on_devices(assignment, None)) == expected


def test_what_is_no_device_counts_nowhere(example: Inventory) -> None:
    mlp = "model.layers.0.mlp"
    assignment = assign(
        example, {"": "auto", "model.norm": parse_device(0), mlp: CPU, f"{mlp}.up_proj": "auto"}
    )
    assert dict(bytes_on_devices(assignment, None)) == {
        CPU: sum(example.tensors[f"{mlp}.{name}.weight"].nbytes for name in ("gate_proj", "down_proj")),
        parse_device(0): example.tensors["model.norm.weight"].nbytes,
    }
    assert split_blocks(assignment, ["LlamaDecoderLayer"]) == ()


def test_a_tie_counts_once_on_each_device_and_keeps_no_other_tensor_from_counting() -> None:
    first, second = parse_device(0), parse_device(1)
    homes = {"a.w": first, "b.w": first, "c.w": first, "d.w": second, "e.w": first, "f.w": first}
    modules = {"": "Model", **{name.removesuffix(".w"): "Part" for name in homes}}
    tensors = {name: Tensor(name, (10,), "float32") for name in homes}
    inventory = Inventory(modules, tensors, ties=(("a.w", "b.w", "d.w"), ("c.w", "f.w")))
    assert dict(bytes_on_devices(assign(inventory, homes), None)) == {first: 120, second: 40}


@settings(max_examples=100, deadline=None)
@given(mapped())
def test_findings_are_there_exactly_where_the_oracle_sees_a_fault(
    case: tuple[Inventory, dict[str, Device]],
) -> None:
    model, device_map = case
    found = {
        finding.code
        for finding in device_map_findings(model, {key: device.plain for key, device in device_map.items()})
    }
    homes = [oracle(device_map, name) for name in model.tensors]
    assert ("DM202" in found) == (None in homes)
    assert ("DM201" in found) == any(
        key not in model.modules and key not in model.tensors for key in device_map
    )
    assert not found - {"DM201", "DM202", "DM203", "DM204"}


@settings(max_examples=100, deadline=None)
@given(models(), st.data())
def test_folding_loses_no_tensor_and_invents_none(model: Inventory, drawn: st.DataObject) -> None:
    names = (
        drawn.draw(st.lists(st.sampled_from(list(model.tensors) or ["none"]), unique=True))
        if model.tensors
        else []
    )
    groups = fold(model, names)
    assert sorted(name for group in groups for name in group.tensors) == sorted(names)


# --- in linear time
# ---------------------------------------------------------------------------------------------------


def experts(layers: int, count: int) -> Inventory:
    modules = {"": "Model", "layers": "ModuleList"}
    tensors: dict[str, Tensor] = {}
    for layer in range(layers):
        modules[f"layers.{layer}"] = "Layer"
        for expert in range(count):
            for name in ("w1", "w2", "w3"):
                path = f"layers.{layer}.{expert}.{name}"
                modules.setdefault(f"layers.{layer}.{expert}", "Expert")
                modules[path] = "Linear"
                tensors[f"{path}.weight"] = Tensor(f"{path}.weight", (8, 8), "bfloat16")
    return Inventory(modules, tensors, no_split_module_classes=("Layer",))


@pytest.mark.parametrize("fault", ["none", "split", "unmatched", "uncovered"])
def test_a_leaf_level_map_of_24000_tensors_takes_less_than_three_seconds(fault: str) -> None:
    model = experts(80, 100)
    names = list(model.tensors)
    maps: dict[str, dict[str, object]] = {
        "none": dict.fromkeys(names, 0),
        "split": {name: place % 2 for place, name in enumerate(names)},
        "unmatched": {f"module.{name}": 0 for name in names},
        "uncovered": dict.fromkeys(names[::2], 0),
    }
    with at_most(million_steps=90):
        found = device_map_findings(
            model, maps[fault], max_memory={parse_device(0): 10**9, parse_device(1): 10**9}
        )
    assert bool(found) == (fault != "none")
    assert len(found) < 100
