"""device_map_findings: everything that is wrong with a concrete map, at once."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from devmap.config.values.device import CPU, DISK, Device, parse_device
from devmap.config.values.words import shown
from devmap.findings.model import Severity
from devmap.inventory.model import Inventory, Tensor
from devmap_validators.checks.device_map import device_map_findings
from devmap_validators.rules import ALL_RULES

if TYPE_CHECKING:
    from collections.abc import Mapping

WHOLE = {"model": 0, "lm_head": 0}


def codes(inventory: Inventory, device_map: Mapping[str, object], **known: object) -> list[str]:
    return [finding.code for finding in device_map_findings(inventory, device_map, **known)]  # type: ignore[arg-type]


def messages(inventory: Inventory, device_map: Mapping[str, object], **known: object) -> list[str]:
    return [finding.message for finding in device_map_findings(inventory, device_map, **known)]  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "device_map", [{"": 0}, {"": "cuda:1"}, WHOLE, {"": "disk", "model.layers.2": "cpu", "lm_head": "disk"}]
)
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
def test_a_key_that_names_nothing_is_an_error_with_a_suggestion(
    example: Inventory, key: str, label: str
) -> None:
    (finding,) = device_map_findings(example, {"": 0, key: 0})
    assert (finding.code, finding.severity, finding.label, finding.help) == (
        "DM201",
        Severity.ERROR,
        label,
        label,
    )
    assert finding.message == f"'{key}' is not a module or tensor of this model"


def test_a_module_that_may_hold_no_weights_is_only_a_warning(example: Inventory) -> None:
    (finding,) = device_map_findings(example, {"": 0, "model.layers.0.mlp.act_fn": 0})
    assert (finding.code, finding.severity) == ("DM201", Severity.WARNING)
    assert finding.message == "'model.layers.0.mlp.act_fn' holds no weights, or is not a module of this model"
    assert finding.help == "'model.layers.0.mlp' has gate_proj, up_proj, down_proj"


@pytest.mark.parametrize(
    ("key", "said"),
    [
        ("model.layers.40", "'model.layers' has 0 to 3"),
        ("model.layers.0.mlp.up-proj.x", "'model.layers.0.mlp' has gate_proj, up_proj, down_proj"),
        ("lm_head.dropout", "'lm_head' has weight"),
    ],
)
def test_a_key_that_is_near_to_nothing_is_an_error_that_says_what_there_is(
    example: Inventory, key: str, said: str
) -> None:
    (finding,) = device_map_findings(example, {"": 0, key: 0})
    assert (finding.code, finding.severity, finding.label, finding.help) == (
        "DM201",
        Severity.ERROR,
        "",
        said,
    )
    assert finding.message == f"'{key}' is not a module or tensor of this model"


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
        "('self_attn.q_proj.weight' on device 0, 'mlp.gate_proj.weight' on device 1); so are 2 others of "
        "model.layers.1 to model.layers.3"
    )
    assert messages(example, {"": 0, "model.layers.1.mlp": 1}, no_split_module_classes=[]) == []


def test_a_single_split_block_has_no_likes(example: Inventory) -> None:
    (message,) = messages(example, {"": 0, "model.layers.1.mlp": 1})
    assert message.endswith("('self_attn.q_proj.weight' on device 0, 'mlp.gate_proj.weight' on device 1)")


def test_blocks_are_alike_that_are_of_one_class_and_lie_on_the_same_devices(example: Inventory) -> None:
    device_map = {"": 0, "model.layers.0.mlp": 1, "model.layers.2.self_attn": 1, "model.layers.3.mlp": 2}
    alike, other = messages(example, device_map)
    assert alike.startswith("'model.layers.0' is a LlamaDecoderLayer")
    assert alike.endswith("; so are 1 other of model.layers.0, model.layers.2")
    assert other.startswith(
        "'model.layers.3' is a LlamaDecoderLayer, which may not be split, but lies on device 0 and device 2"
    )
    classes = ["LlamaAttention", "LlamaMLP"]
    split = {"": 0, "model.layers.0.mlp.up_proj": 1, "model.layers.0.self_attn.q_proj": 1}
    assert [
        message.split(",")[0] for message in messages(example, split, no_split_module_classes=classes)
    ] == [
        "'model.layers.0.self_attn' is a LlamaAttention",
        "'model.layers.0.mlp' is a LlamaMLP",
    ]


def test_of_blocks_within_blocks_the_outermost_is_told(example: Inventory) -> None:
    device_map = {"": 0, "model.layers.1.mlp.up_proj": 1}
    for class_name, told in (
        ("LlamaDecoderLayer", "'model.layers.1' is a"),
        ("LlamaForCausalLM", "the whole model is a"),
    ):
        (message,) = messages(example, device_map, no_split_module_classes=["LlamaMLP", class_name])
        assert message.startswith(f"{told} {class_name}")


def test_of_many_places_of_split_blocks_six_are_listed() -> None:
    paths = [f"part_{letter}" for letter in "abcdefgh"]
    modules = {"": "Model", **dict.fromkeys(paths, "Block")}
    tensors = {name: Tensor(name, (8,), "bfloat16") for path in paths for name in (f"{path}.w", f"{path}.b")}
    inventory = Inventory(modules, tensors, no_split_module_classes=("Block",))
    (message,) = messages(inventory, {"": 0, **{f"{path}.b": 1 for path in paths}})
    assert message.endswith("; so are 7 others of part_a, part_b, part_c, part_d, part_e, part_f")


def test_tied_tensors_apart_are_an_error_with_the_price_of_the_copy(example: Inventory) -> None:
    (finding,) = device_map_findings(example, {"": 0, "lm_head": 1})
    assert (finding.code, finding.severity) == ("DM204", Severity.ERROR)
    assert finding.message == (
        "tied weights lie apart: 'model.embed_tokens.weight' on device 0 and 'lm_head.weight' on device "
        "1; the copy costs 262.1 MB"
    )


@pytest.mark.parametrize("value", ["gpu", None, True, -1, "meta", 1.5, ["cuda:0"]])
def test_a_value_that_is_no_device_is_said_once(example: Inventory, value: object) -> None:
    found = device_map_findings(example, {"model": value, "lm_head": value})
    assert [finding.code for finding in found] == ["DM105"]
    assert found[0].message == f"{shown(value)} is not a valid device (at 'model' and 1 other key)"
    assert found[0].help == "values are an index such as 0, 'cpu', 'disk' or a torch device such as 'cuda:0'"


def test_wrong_values_are_said_one_by_one_up_to_twenty(example: Inventory) -> None:
    (first, second) = device_map_findings(example, {"model": "gpu", "lm_head": True})
    assert (first.message, second.message) == (
        "'gpu' is not a valid device (at 'model')",
        "true is not a valid device (at 'lm_head')",
    )
    assert (
        len(device_map_findings(example, {name: f"gpu{place}" for place, name in enumerate(example.tensors)}))
        == 20
    )


def test_a_strategy_is_no_device_and_the_help_says_so(example: Inventory) -> None:
    (finding,) = device_map_findings(example, {"": "balanced"})
    assert finding.help == "a concrete map has a device for each key; resolve the strategy first"


def test_a_key_that_is_no_text_is_said(example: Inventory) -> None:
    found = device_map_findings(example, {0: "model", "": 0})  # type: ignore[dict-item]
    assert [(finding.code, finding.message, finding.help) for finding in found] == [
        (
            "DM108",
            "the key '0' is not a valid module path",
            "keys are paths such as 'model.layers.0', values are devices",
        )
    ]


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
    assert codes(example, {"": 0}, offered=[CPU]) == ["DM301"]
    assert codes(
        example, {"": "cpu", "lm_head": 2, "model.embed_tokens": 2, "model.norm": 0}, offered=[]
    ) == ["DM301", "DM301", "DM304"]


def test_budgets_count_tied_tensors_once_and_at_the_run_dtype(example: Inventory) -> None:
    exact = example.nbytes
    device = parse_device(0)
    assert codes(example, {"": 0}, max_memory={device: exact}) == []
    (message,) = messages(example, {"": 0}, max_memory={device: exact - 1})
    assert message == "device 0 is given 1.9 GB of weights and may hold 1.9 GB: 1 byte too much"
    # The rotary buffer keeps its own dtype, whatever the parameters run in.
    assert codes(example, {"": 0}, max_memory={device: exact}, dtype="float16") == []
    assert codes(example, {"": 0}, max_memory={device: exact - 1}, dtype="float16") == ["DM402"]
    assert codes(example, {"": 0}, max_memory={device: 2 * (exact - 256) + 256}, dtype="float32") == []
    assert codes(example, {"": 0}, max_memory={device: 2 * (exact - 256) + 255}, dtype="float32") == ["DM402"]


def test_what_is_over_is_said_by_tier_and_what_holds_nothing_is_never_over(example: Inventory) -> None:
    budgets = {CPU: 8191, DISK: 0, parse_device(1): 0, parse_device(0): 8191}
    device_map = {"model.norm": 0, "model.layers": "cpu", "": "cpu", "model.layers.0.input_layernorm": 0}
    found = device_map_findings(example, device_map, max_memory=budgets, no_split_module_classes=())
    assert [(finding.code, finding.message.split(" of weights")[0], finding.help) for finding in found] == [
        ("DM402", "device 0 is given 16,384 bytes", "move modules away or raise the budget"),
        ("DM402", "cpu is given 1.9 GB", "move modules away or raise the budget"),
    ]


def test_bytes_in_messages_are_those_of_the_run_dtype(example: Inventory) -> None:
    assert messages(example, {"model": 0, "lm_head": 1}, dtype="float32")[0].endswith(
        "the copy costs 524.3 MB"
    )
    assert messages(example, {"model": 0}, dtype="float32") == ["no key covers 'lm_head', 1 tensor, 524.3 MB"]


def test_of_many_places_without_a_device_twenty_are_named_and_the_rest_is_counted() -> None:
    names = [f"part_{place}.w" for place in range(23)]
    modules = {"": "Model", **{f"part_{place}": "Part" for place in range(23)}}
    inventory = Inventory(modules, {name: Tensor(name, (8,), "bfloat16") for name in names})
    found = messages(inventory, {names[0]: 0})
    assert len(found) == 21
    assert found[-1] == "2 more groups of tensors have no device"
    assert len(messages(inventory, dict.fromkeys(names[:3], 0))) == 20


def test_every_finding_has_the_name_of_its_rule_and_says_what_to_do(example: Inventory) -> None:
    names = {rule.code: rule.name for rule in ALL_RULES}
    device_map = {
        "model.layers": "cuda:0",
        "model.layers.1.mlp": "xpu:1",
        "lm_head": 0,
        "model.embed_tokens": 1,
        "model.nrm": "disk",
        "model.rotary_emb": "x",
        7: 0,
    }
    found = device_map_findings(example, device_map, max_memory={parse_device(0): 1000})  # type: ignore[arg-type]
    assert {finding.code for finding in found} == {
        "DM105",
        "DM108",
        "DM201",
        "DM202",
        "DM203",
        "DM204",
        "DM301",
        "DM303",
        "DM304",
        "DM402",
    }
    assert all(finding.name == names[finding.code] for finding in found)
    assert {finding.help for finding in found if finding.code in {"DM202", "DM203", "DM204"}} == {
        'add a key for them, or "" for the rest',
        "give each block one device",
        "give all of them the same device",
    }


def test_kinds_of_accelerators_do_not_mix(example: Inventory) -> None:
    (finding,) = device_map_findings(
        example, {"": "xpu:0", "model.norm": "cuda:0", "model.layers.0": 1, "model.layers.1": "cpu"}
    )
    assert (finding.code, finding.message) == ("DM303", "the map mixes cuda and xpu devices")
    assert finding.help == "one process runs on one kind of accelerator"


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
