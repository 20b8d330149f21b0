"""Plans, explanations and diffs as a reader sees them."""

from __future__ import annotations

import dataclasses
import json
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from devmap.config.values.device import CPU, DISK, Device, Tier
from devmap.errors import ResolutionError
from devmap.inventory.model import Architecture, Inventory, Tensor
from devmap.plan.diff import diff_locks
from devmap.plan.lock import lock_of
from devmap.plan.model import Charge, DeviceUse, Placement, Plan
from devmap.planning.resolve import resolve
from devmap.planning.why.deciding_factors import BytesLeft, DecidingFactor
from devmap.planning.why.explanation import ExplainedPart, Explanation, WithMore, why
from devmap.report.plan import render_plan, render_plan_json
from devmap.report.plan_diff import render_diff
from devmap.report.plan_why import render_explanation, render_explanation_json
from tests.planning.planning_models import config, inventories, memories

if TYPE_CHECKING:
    from collections.abc import Callable

GB = 10**9
GPU, GPU1 = Device(Tier.ACCELERATOR, 0), Device(Tier.ACCELERATOR, 1)


def _model() -> Inventory:
    modules = {
        "": "TestForCausalLM",
        "model": "TestModel",
        "model.embed_tokens": "Embedding",
        "model.layers": "ModuleList",
    }
    modules.update({f"model.layers.{layer}": "Block" for layer in range(8)})
    modules["lm_head"] = "Linear"
    names = [
        "model.embed_tokens.weight",
        *(f"model.layers.{layer}.weight" for layer in range(8)),
        "lm_head.weight",
    ]
    tensors = {name: Tensor(name, (GB // 2,), "bfloat16") for name in names}
    return Inventory(modules, tensors, (), ("Block",), Architecture("llama", "TestForCausalLM", {}))


MODEL = _model()


def _plan() -> Plan:
    homes = [("model.embed_tokens", GPU, GPU), *((f"model.layers.{at}", GPU, GPU) for at in range(3))]
    homes += [(f"model.layers.{at}", GPU1, GPU1) for at in range(3, 5)]
    homes += [
        ("model.layers.5", CPU, GPU1),
        ("model.layers.6", CPU, CPU),
        ("model.layers.7", DISK, GPU1),
        ("lm_head", GPU1, GPU1),
    ]
    kv = Charge(
        "kv cache", 3 * GB // 10, "3 layers x 100.0 MB (1 x 2,048 tokens x 8 kv heads x 128 x 2 x 2 bytes)"
    )
    return Plan(
        device_map={
            "model.embed_tokens": 0,
            **{f"model.layers.{at}": 0 for at in range(3)},
            "model.layers.3": 1,
            "model.layers.4": 1,
            "model.layers.5": "cpu",
            "model.layers.6": "cpu",
            "model.layers.7": "disk",
            "lm_head": 1,
        },
        placements=tuple(Placement(path, home, executes, GB) for path, home, executes in homes),
        devices=(
            DeviceUse(GPU, 6 * GB, 4 * GB, (Charge("headroom", 6 * GB // 10, "10% of 6.0 GB"), kv)),
            DeviceUse(
                GPU1,
                6 * GB,
                3 * GB,
                (Charge("slots", 2 * GB, "2 slots x 1.0 GB (model.layers.5)"), Charge("buffers", 512, "")),
            ),
            DeviceUse(CPU, 64 * GB, 2 * GB),
            DeviceUse(DISK, None, GB),
        ),
        strategy="auto",
        dtype="bfloat16",
        reasons=(
            (
                "cpu holds 2.0 GB, what the accelerators have no room for: 2 modules, 'model.layers.5' "
                "to 'model.layers.6'."
            ),
        ),
        backends={0: "cuda", 1: "cuda"},
        predicted_seconds=0.1234,
        bound_seconds=0.1,
    )


PLAN = _plan()

EXPLANATION = Explanation(
    path="model.layers.5.mlp",
    class_name="MLP",
    placed_with="model.layers.5",
    placed_class="Block",
    weight_bytes=6 * GB // 10,
    buffer_bytes=128,
    charges=(Charge("kv cache", GB // 10, "1 x 2,048 tokens"),),
    strategy="auto",
    fits=True,
    parts=(
        ExplainedPart(
            "model.layers.5",
            "model.layers.5",
            CPU,
            GPU1,
            GB,
            (
                BytesLeft(GPU, GB // 10, GB, False),
                BytesLeft(GPU1, GB // 2, GB, False),
                BytesLeft(CPU, 64 * GB, GB, True),
                BytesLeft(DISK, None, GB, True),
            ),
            (
                DecidingFactor(
                    "no-split",
                    None,
                    "'model.layers.5' is a Block, which may not be split: it goes whole to one device.",
                ),
                DecidingFactor(
                    "budget",
                    GPU,
                    "device 0 had 100.0 MB left, it takes 1.0 GB: 900.0 MB short. Its budget of 6.0 GB is "
                    "what binds.",
                ),
            ),
        ),
    ),
    streamed_bytes=2 * GB,
    with_more=(
        WithMore(GPU, GB, True, (), False, 0, 2 * GB),
        WithMore(
            GPU1, GB, True, (ExplainedPart("model.layers.5", "model.layers.5", GPU1, GPU1, GB),), True, 1, GB
        ),
        WithMore(CPU, GB, True, (), False, 2, 2 * GB),
    ),
)
MISFIT = dataclasses.replace(
    EXPLANATION,
    fits=False,
    parts=(),
    problem="no plan fits: 2.0 GB are missing (2,000,000,000 bytes; alone 2.0 GB on device 0 or device "
    "1); the model needs 10.0 GB",
    homeless=True,
    left=(BytesLeft(GPU, GB // 10, GB, False), BytesLeft(GPU1, GB // 2, GB, False)),
    changes=("raise max_memory of 0 by 2.0 GB (2,000,000,000 bytes)", "offer cpu in max_memory with 2.0 GB"),
    with_more=(WithMore(GPU, GB, False), WithMore(GPU1, GB, False)),
)


@pytest.mark.parametrize("width", [60, 80, 100, 120])
def test_a_plan_is_shown_as_it_was(width: int, golden: Callable[[str, str], None]) -> None:
    text = render_plan(PLAN, MODEL, width=width)
    assert max(map(len, text.splitlines())) <= width
    golden(f"plan-{width}.txt", text)


def test_a_plan_is_shown_in_ascii_where_there_are_no_blocks(golden: Callable[[str, str], None]) -> None:
    text = render_plan(PLAN, MODEL, width=100, ascii_only=True)
    assert text.isascii()
    golden("plan-ascii.txt", text)


def test_colours_only_when_asked_and_the_text_is_the_same(golden: Callable[[str, str], None]) -> None:
    colored, plain = render_plan(PLAN, MODEL, color=True), render_plan(PLAN, MODEL)
    assert "\x1b" not in plain
    stripped = colored
    for code in ("\x1b[32m", "\x1b[36m", "\x1b[33m", "\x1b[35m", "\x1b[2m", "\x1b[1m", "\x1b[0m"):
        stripped = stripped.replace(code, "")
    assert stripped == plain
    golden("plan-color.txt", colored)


def test_every_bar_is_as_long_as_the_others_and_shows_what_is_not_nothing() -> None:
    tiny = dataclasses.replace(
        PLAN,
        devices=(
            DeviceUse(GPU, 10**12, 1, (Charge("kv cache", 1), Charge("slots", 1), Charge("headroom", 1))),
        ),
    )
    bar = next(line for line in render_plan(tiny, MODEL, width=100).splitlines() if "█" in line)
    assert all(mark in bar for mark in "█▓▒░·")
    bars = list(render_plan(PLAN, MODEL, width=100).splitlines()[3:6])
    assert len({sum(line.count(mark) for mark in "█▓▒░·") for line in bars}) == 1


def test_a_plan_with_more_runs_than_a_screen_says_how_many() -> None:
    many = tuple(Placement(f"m{at}", *(GPU, GPU) if at % 2 else (GPU1, GPU1), 1) for at in range(400))
    modules = {"": "Model", **{f"m{at}": "Leaf" for at in range(400)}}
    model = Inventory(modules, {f"m{at}.weight": Tensor(f"m{at}.weight", (1,), "uint8") for at in range(400)})
    text = render_plan(dataclasses.replace(PLAN, placements=many), model, width=80)
    assert "and 320 more runs" in text
    assert "399 cuts: " in text
    assert max(map(len, text.splitlines())) <= 80


@pytest.mark.parametrize(("name", "explanation"), [("why", EXPLANATION), ("why-misfit", MISFIT)])
def test_an_explanation_is_told_in_sentences(
    name: str, explanation: Explanation, golden: Callable[[str, str], None]
) -> None:
    golden(f"plan-{name}.txt", render_explanation(explanation, width=100))
    assert max(map(len, render_explanation(explanation, width=60).splitlines())) <= 60
    document = json.loads(render_explanation_json(explanation))
    assert document["fits"] is explanation.fits
    assert len(document["with_more"]) == len(explanation.with_more)


def test_a_plan_as_json_has_the_keys_of_its_page() -> None:
    document = json.loads(render_plan_json(PLAN))
    assert list(document) == [
        "version",
        "kind",
        "strategy",
        "dtype",
        "inventory",
        "config",
        "device_map",
        "executes_on",
        "devices",
        "placements",
        "no_split_module_classes",
        "ties",
        "tied_copies",
        "streamed_bytes",
        "predicted_seconds",
        "bound_seconds",
        "reasons",
        "savings",
    ]
    assert document["savings"] == []
    assert document["executes_on"] == {"model.layers.5": 1, "model.layers.7": 1}
    assert document["devices"][3] == {
        "device": "disk",
        "capacity": None,
        "weights": GB,
        "reserved": 0,
        "free": None,
        "charges": [],
    }
    assert document["streamed_bytes"] == 2 * GB


def test_a_diff_is_shown_as_it_was(golden: Callable[[str, str], None]) -> None:
    placements = tuple(
        Placement(one.path, GPU1, GPU1, one.nbytes) if one.home == CPU else one for one in PLAN.placements
    )
    device_map = {path: 1 if home == "cpu" else home for path, home in PLAN.device_map.items()}
    devices = (PLAN.devices[0], dataclasses.replace(PLAN.devices[1], weight_bytes=5 * GB), PLAN.devices[3])
    after = dataclasses.replace(PLAN, placements=placements, device_map=device_map, devices=devices)
    diff = diff_locks(lock_of(PLAN), lock_of(after), models=(MODEL, MODEL))
    golden("plan-diff.txt", render_diff(diff, width=80))
    assert render_diff(diff_locks(lock_of(PLAN), lock_of(PLAN)), width=80).startswith("nothing moves\n")


@given(inventories(), st.integers(60, 120), st.data())
def test_no_line_is_wider_than_asked(inventory: Inventory, width: int, data: st.DataObject) -> None:
    asked = config(
        max_memory=data.draw(memories(inventory.nbytes)),
        device_map=data.draw(st.sampled_from(["auto", "balanced"])),
    )
    path = data.draw(st.sampled_from([*inventory.modules, *inventory.tensors]))
    texts = [render_explanation(why(asked, inventory, path), width=width)]
    try:
        plan = resolve(asked, inventory)
    except ResolutionError:
        pass
    else:
        texts += [
            render_plan(plan, inventory, width=width),
            render_plan(plan, inventory, width=width, ascii_only=True),
        ]
        assert texts[-1].isascii()
    assert all(len(line) <= width for text in texts for line in text.splitlines())


def test_long_names_are_cut_in_the_middle() -> None:
    path = ".".join(["a_module_with_a_long_name"] * 6)
    plan = dataclasses.replace(
        PLAN, placements=(Placement(path, GPU, GPU, 1), Placement(f"{path}_2", CPU, GPU, 1))
    )
    text = render_plan(dataclasses.replace(plan, device_map={"": 0}), _nested(path), width=60)
    assert max(map(len, text.splitlines())) <= 60
    assert "..." in text


def _nested(path: str) -> Inventory:
    """A model with a deep module and one beside it."""
    parts = path.split(".")
    modules = {
        "": "Model",
        **{".".join(parts[: depth + 1]): "Inner" for depth in range(len(parts))},
        f"{path}_2": "Leaf",
    }
    return Inventory(
        modules, {f"{name}.weight": Tensor(f"{name}.weight", (1,), "uint8") for name in (path, f"{path}_2")}
    )
