"""device_map_findings: everything that is wrong with a concrete map, at once, in linear time."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from devmap.config.device import CPU, DISK, Device, parse_device
from devmap.findings.model import Severity
from devmap.inventory.model import Inventory, Tensor, TensorKind
from devmap_validators.assignment import assign, bytes_on_devices, split_blocks, split_ties
from devmap_validators.device_map import device_map_findings
from devmap_validators.groups import fold

if TYPE_CHECKING:
    from collections.abc import Mapping

WHOLE = {"model": 0, "lm_head": 0}


def codes(inventory: Inventory, device_map: Mapping[str, object], **known: object) -> list[str]:
    return [finding.code for finding in device_map_findings(inventory, device_map, **known)]  # type: ignore[arg-type]


def messages(inventory: Inventory, device_map: Mapping[str, object], **known: object) -> list[str]:
    return [finding.message for finding in device_map_findings(inventory, device_map, **known)]  # type: ignore[arg-type]


# --- what is found ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("device_map", [{"": 0}, {"": "cuda:1"}, WHOLE, {"": "disk", "model.layers.2": "cpu", "lm_head": "disk"}])
def test_a_good_map_has_no_findings(example: Inventory, device_map: dict[str, object]) -> None:
    assert codes(example, device_map) == []


def test_a_leaf_level_map_with_parameters_and_buffers_is_good(example: Inventory) -> None:
    assert codes(example, dict.fromkeys(example.tensors, 0)) == []


def test_uncovered_tensors_are_folded_and_buffers_count(example: Inventory) -> None:
    device_map = {"model.embed_tokens": 0, "model.layers.0": 0, "lm_head": 0, "model.norm": 0}
    assert messages(example, device_map) == [
        "no key covers 'model.layers.1' to 'model.layers.3', 27 tensors, 1.2 GB",
        "no key covers 'model.rotary_emb', 1 tensor, 256 B",
    ]


def test_an_empty_map_leaves_the_whole_model_uncovered(example: Inventory) -> None:
    assert messages(example, {}) == ["no key covers the whole model, 40 tensors, 1.9 GB"]


@pytest.mark.parametrize(
    ("key", "label"),
    [
        ("model.layer.0", "did you mean 'model.layers.0'?"),
        ("layers.0", "did you mean 'model.layers.0'?"),
        ("model.model.norm", "did you mean 'model.norm'?"),
        ("model.layers.0.selfattn.q_prj", "did you mean 'model.layers.0.self_attn.q_proj'?"),
        ("LM_HEAD", "did you mean 'lm_head'?"),
    ],
)
def test_a_key_that_names_nothing_is_an_error_with_a_suggestion(example: Inventory, key: str, label: str) -> None:
    (finding,) = device_map_findings(example, {"": 0, key: 0})
    assert (finding.code, finding.severity, finding.label) == ("DM201", Severity.ERROR, label)
    assert finding.message == f"'{key}' is no module or tensor of this model"


def test_a_module_that_may_hold_no_weights_is_only_a_warning(example: Inventory) -> None:
    (finding,) = device_map_findings(example, {"": 0, "model.layers.0.mlp.act_fn": 0})
    assert (finding.code, finding.severity) == ("DM201", Severity.WARNING)
    assert finding.message == "'model.layers.0.mlp.act_fn' holds no weights, or is no module of this model"


def test_a_wrong_prefix_everywhere_is_said_twenty_times_and_counted(example: Inventory) -> None:
    found = messages(example, {"": 0, **{f"module.{name}": 0 for name in example.tensors}})
    assert len(found) == 21
    assert found[-1] == "20 more keys name no part of this model"


def test_ranges_and_globs_are_no_paths_of_a_concrete_map(example: Inventory) -> None:
    assert codes(example, {"": 0, "model.layers[0-1]": 0}) == ["DM201"]


def test_a_split_block_is_named_with_its_parts_and_its_likes_are_counted(example: Inventory) -> None:
    (message,) = messages(example, {"": 0, **{f"model.layers.{layer}.mlp": 1 for layer in (1, 2, 3)}})
    assert message == (
        "'model.layers.1' is a LlamaDecoderLayer, which may not be split, but lies on device 0 and device 1 "
        "('self_attn.q_proj.weight' on device 0, 'mlp.gate_proj.weight' on device 1); so are 2 others of model.layers.1 to model.layers.3"
    )
    assert messages(example, {"": 0, "model.layers.1.mlp": 1}, no_split_module_classes=[]) == []


def test_tied_tensors_apart_are_an_error_with_the_price_of_the_copy(example: Inventory) -> None:
    (finding,) = device_map_findings(example, {"": 0, "lm_head": 1})
    assert (finding.code, finding.severity) == ("DM204", Severity.ERROR)
    assert finding.message == (
        "tied weights lie apart: 'model.embed_tokens.weight' on device 0 and 'lm_head.weight' on device 1; the copy costs 262.1 MB"
    )


@pytest.mark.parametrize("value", ["gpu", None, True, -1, "meta", 1.5, ["cuda:0"]])
def test_a_value_that_is_no_device_is_said_once(example: Inventory, value: object) -> None:
    found = device_map_findings(example, {"model": value, "lm_head": value})
    assert [finding.code for finding in found] == ["DM105"]
    assert found[0].message.endswith("is no device (at 'model' and 1 other key)")


def test_a_strategy_is_no_device_and_the_help_says_so(example: Inventory) -> None:
    (finding,) = device_map_findings(example, {"": "balanced"})
    assert finding.help == "a concrete map has a device for each key; resolve the strategy first"


def test_a_key_that_is_no_text_is_said(example: Inventory) -> None:
    found = device_map_findings(example, {0: "model", "": 0})  # type: ignore[dict-item]
    assert [(finding.code, finding.message) for finding in found] == [("DM108", "the key '0' is no module path")]


def test_devices_that_are_not_offered_are_said_by_tier(example: Inventory) -> None:
    device_map = {"": 0, "model.layers.0": 3, "model.layers.1": 3, "model.layers.2": "disk"}
    budget = {Device(parse_device(0).tier, 0): 10**10}
    found = device_map_findings(example, device_map, max_memory=budget, offered=[CPU])
    assert [(finding.code, finding.message, finding.help) for finding in found] == [
        (
            "DM301",
            "'model.layers.0' and 1 other key asks for device 3, which is not offered",
            "offered: device 0 and cpu; add it to max_memory or choose another",
        ),
        (
            "DM304",
            "'model.layers.2' asks for disk, which is not offered",
            "offered: device 0 and cpu; add it to max_memory or choose another",
        ),
    ]
    assert codes(example, device_map, offered=[parse_device(0), parse_device(3), DISK]) == []


def test_budgets_count_tied_tensors_once_and_at_the_run_dtype(example: Inventory) -> None:
    exact = example.nbytes
    device = parse_device(0)
    assert codes(example, {"": 0}, max_memory={device: exact}) == []
    (message,) = messages(example, {"": 0}, max_memory={device: exact - 1})
    assert message == "device 0 is given 1.9 GB of weights and may hold 1.9 GB: 1 byte too much"
    # The rotary buffer keeps its own dtype, whatever the parameters run in.
    assert codes(example, {"": 0}, max_memory={device: 2 * (exact - 256) + 256}, dtype="float32") == []
    assert codes(example, {"": 0}, max_memory={device: 2 * (exact - 256) + 255}, dtype="float32") == ["DM402"]


def test_kinds_of_accelerators_do_not_mix(example: Inventory) -> None:
    assert codes(example, {"": "cuda:0", "model.norm": "xpu:0"}) == ["DM303"]


def test_all_problems_come_at_once(example: Inventory) -> None:
    device_map = {
        "model.layers": 0,
        "model.layers.1.mlp": 1,
        "lm_head": 0,
        "model.embed_tokens": 1,
        "model.nrm": 0,
        "model.rotary_emb": "x",
    }
    found = codes(example, device_map, max_memory={parse_device(0): 1000})
    assert sorted(set(found)) == ["DM105", "DM201", "DM202", "DM203", "DM204", "DM301", "DM402"]


# --- against a quadratic oracle ---------------------------------------------------------------------------------------

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
            tensors[full] = Tensor(full, (draw(st.integers(1, 5)),), draw(st.sampled_from(DTYPES)), kind, persistent=kind == "parameter")
        for name in draw(st.lists(st.sampled_from(["a", "1", "11", "ab"]), unique=True, max_size=3 if depth < 3 else 0)):
            full = f"{path}.{name}" if path else name
            modules[full] = draw(st.sampled_from(["Block", "Linear", "List"]))
            grow(full, depth + 1)

    grow("", 0)
    held = {"": True, **{path: any(name.startswith(f"{path}.") for name in tensors) for path in modules if path}}
    modules = {path: name for path, name in modules.items() if held[path]}
    names = list(tensors)
    group = draw(st.lists(st.sampled_from(names), unique=True, min_size=2, max_size=3)) if len(names) > 1 and draw(st.booleans()) else []
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
def test_the_assignment_is_the_longest_prefix_of_every_tensor(case: tuple[Inventory, dict[str, Device]]) -> None:
    model, device_map = case
    expected = {name: oracle(device_map, name) for name in model.tensors}
    assignment = assign(model, device_map)
    assert dict(assignment.targets) == {name: device for name, device in expected.items() if device is not None}
    assert set(assignment.uncovered) == {name for name, device in expected.items() if device is None}


@settings(max_examples=100, deadline=None)
@given(mapped())
def test_splits_ties_and_bytes_are_those_of_a_quadratic_search(case: tuple[Inventory, dict[str, Device]]) -> None:
    model, device_map = case
    homes = {name: oracle(device_map, name) for name in model.tensors}
    targets = assign(model, device_map).targets
    blocks = [path for path, name in model.modules.items() if name == "Block"]
    outer = [path for path in blocks if not any(path.startswith(f"{other}.") for other in blocks)]
    split = {path for path in outer if len({homes[n] for n in homes if n.startswith(f"{path}.") and homes[n] is not None}) > 1}
    assert {block.path for block in split_blocks(model, targets, ["Block"])} == split
    apart = [group for group in model.ties if len({homes[name] for name in group if homes[name] is not None}) > 1]
    assert len(split_ties(model, targets)) == len(apart)
    expected: dict[Device, int] = {}
    seen: set[tuple[str, Device]] = set()
    for name, device in homes.items():
        first = next((group[0] for group in model.ties if name in group), name)
        if device is not None and (first, device) not in seen:
            seen.add((first, device))
            expected[device] = expected.get(device, 0) + model.tensors[name].nbytes
    if all(len({model.tensors[name].nbytes for name in group}) == 1 for group in model.ties):
        assert dict(bytes_on_devices(model, targets, None)) == expected


@settings(max_examples=100, deadline=None)
@given(mapped())
def test_findings_are_there_exactly_where_the_oracle_sees_a_fault(case: tuple[Inventory, dict[str, Device]]) -> None:
    model, device_map = case
    found = set(codes(model, {key: device.plain for key, device in device_map.items()}))
    homes = [oracle(device_map, name) for name in model.tensors]
    assert ("DM202" in found) == (None in homes)
    assert ("DM201" in found) == any(key not in model.modules and key not in model.tensors for key in device_map)
    assert not found - {"DM201", "DM202", "DM203", "DM204"}


@settings(max_examples=100, deadline=None)
@given(models(), st.data())
def test_folding_loses_no_tensor_and_invents_none(model: Inventory, drawn: st.DataObject) -> None:
    names = drawn.draw(st.lists(st.sampled_from(list(model.tensors) or ["none"]), unique=True)) if model.tensors else []
    groups = fold(model, names)
    assert sorted(name for group in groups for name in group.tensors) == sorted(names)


# --- in linear time ---------------------------------------------------------------------------------------------------


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
    start = time.process_time()
    found = device_map_findings(model, maps[fault], max_memory={parse_device(0): 10**9, parse_device(1): 10**9})
    assert time.process_time() - start < 3
    assert bool(found) == (fault != "none")
    assert len(found) < 100
