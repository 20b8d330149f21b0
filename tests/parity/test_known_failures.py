"""What users report of Accelerate 1.15.0, case by case: none of it happens here.

Issues are huggingface/accelerate's.
"""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Any

import pytest
import torch
from torch import nn

import devmap
from tests.parity.parity_models import Block, Leaf, chain, homes, torn


def parameter(nbytes: int) -> nn.Parameter:
    return nn.Parameter(torch.empty(nbytes, dtype=torch.uint8, device="meta"), requires_grad=False)


def test_a_tie_of_bare_parameters_is_no_index_error() -> None:  # 958, 1510, 3308
    model = chain(5, 5)
    model.embed = parameter(5)
    model.head = model.get_parameter("embed")
    placed = homes(model, devmap.infer_auto_device_map(model, {0: 5, 1: 5, 2: 5}))
    assert placed == {"embed": 0, "head": 0, "m0.weight": 1, "m1.weight": 2}


def test_a_tie_between_what_is_split_and_what_was_placed_is_no_index_error() -> None:
    first, last = Block(), Block()
    first.a, first.b = Leaf(8), Leaf(8)
    last.a, last.b = Leaf(8), Leaf(8)
    last.b.weight = first.a.weight
    model = nn.Sequential(first, last)
    placed = homes(model, devmap.infer_auto_device_map(model, {0: 9, 1: 9, 2: 9}))
    assert torn(model, placed, []) == []
    assert None not in placed.values()


def test_buffers_of_a_module_that_is_split_have_a_device() -> None:  # 2663, 3956, 4014
    block = Block()
    block.register_buffer("scale", torch.empty(2, dtype=torch.uint8, device="meta"))
    block.a, block.b = Leaf(8), Leaf(8)
    placed = homes(nn.Sequential(block), devmap.infer_auto_device_map(nn.Sequential(block), {0: 10, 1: 10}))
    assert placed == {"0.a.weight": 0, "0.b.weight": 1, "0.scale": 0}


@pytest.mark.parametrize(
    "memory", [{0: 30, 3: 30}, {1: 30, 2: 30}, {0: 30, 1: 0, 2: 30}, {2: 30, 7: 30, "cpu": 100, "disk": 100}]
)
@pytest.mark.parametrize("low_zero", [False, True])
def test_gaps_in_the_ids_of_devices_and_empty_budgets_are_no_matter(
    memory: dict[int | str, int | str], low_zero: bool
) -> None:  # 4297
    model = chain(5, 5, 5, 5)
    balanced = devmap.get_balanced_memory(model, memory, low_zero=low_zero)
    assert list(balanced) == list(memory)
    used = {
        device for device in devmap.infer_auto_device_map(model, balanced).values() if isinstance(device, int)
    }
    usable = [device for device, budget in memory.items() if isinstance(device, int) and budget]
    assert used == (set(usable[1:]) if low_zero else set(usable))


def test_balanced_low_0_still_uses_device_0_where_the_rest_does_not_fit_elsewhere() -> None:  # 1607
    model = chain(5, 5, 5, 5)
    balanced = devmap.get_balanced_memory(model, {0: 30, 1: 10}, low_zero=True)
    assert balanced == {0: 10, 1: 10}


@pytest.mark.parametrize(
    "plan", [devmap.infer_auto_device_map, devmap.get_balanced_memory, devmap.check_device_map]
)
def test_the_caller_s_dicts_and_model_are_left_as_they_were(plan: Any) -> None:
    memory: dict[int | str, int | str] = {1: "1KB", 0: "1KiB", "disk": "1GB", "cpu": 7}
    before, model = list(memory.items()), chain(5, 5)
    state = {name: id(tensor) for name, tensor in model.named_parameters()}
    if plan is devmap.check_device_map:
        device_map: dict[str, int | str] = {"m0": 0, "m1": 0}
        plan(model, device_map, None, memory)
        assert device_map == {"m0": 0, "m1": 0}
    else:
        plan(model, memory)
    assert list(memory.items()) == before
    assert {name: id(tensor) for name, tensor in model.named_parameters()} == state


@pytest.mark.parametrize("memory", [{0: 10}, {0: 10, 1: 5}, {"cpu": 10}, {0: 0}])
def test_the_disk_is_never_used_unasked(memory: dict[int | str, int | str]) -> None:
    with pytest.raises(devmap.ResolutionError) as caught:
        devmap.infer_auto_device_map(chain(5, 5, 5, 5), memory)
    assert caught.value.shortfall_bytes > 0
    assert caught.value.changes


def test_no_devices_at_all_are_refused_rather_than_sent_to_disk() -> None:
    with pytest.raises(devmap.ResolutionError, match="no device is offered"):
        devmap.infer_auto_device_map(chain(5), {})


def test_get_balanced_memory_takes_a_disk() -> (
    None
):  # 3480, and RuntimeError of torch.device("disk") in 1.15.0
    assert devmap.get_balanced_memory(chain(5, 5), {0: 30, 1: 30, "cpu": "1KB", "disk": "1MB"}) == {
        0: 5,
        1: 5,
        "cpu": 1000,
        "disk": 10**6,
    }


def test_several_devices_that_fit_to_the_byte_hold_everything() -> None:
    assert devmap.infer_auto_device_map(chain(440, 440, 440, 440), {0: 880, 1: 880, "cpu": 10**6}) == {
        "m0": 0,
        "m1": 0,
        "m2": 1,
        "m3": 1,
    }


def test_a_large_embedding_does_not_send_all_to_the_last_device() -> None:  # 1888, 3041, 3244
    model = chain(256, *[16] * 8, 256)
    balanced = devmap.get_balanced_memory(model, dict.fromkeys(range(8), 10_000))
    assert max(balanced.values()) == 256
    assert set(devmap.infer_auto_device_map(model, dict.fromkeys(range(8), 10_000)).values()) == {0}


def test_one_module_that_no_device_holds_does_not_empty_the_others() -> None:
    assert devmap.infer_auto_device_map(chain(50, 5, 5), {0: 10, "cpu": 100}) == {
        "m0": "cpu",
        "m1": 0,
        "m2": 0,
    }


def test_fallback_allocation_takes_a_float_budget() -> None:
    memory: dict[Any, Any] = {0: 9.5, 1: 10.0, "cpu": 100}
    assert devmap.infer_auto_device_map(chain(50, 5, 5), memory, fallback_allocation=True) == {
        "m0": "cpu",
        "m1": 0,
        "m2": 1,
    }


def test_names_that_are_prefixes_of_others_are_kept_apart() -> None:
    model = nn.Module()
    model.layer = nn.ModuleDict({str(number): Leaf(5) for number in (1, 10, 100)})
    model.layers = Leaf(5)
    device_map = devmap.infer_auto_device_map(model, {0: 5, 1: 5, 2: 5, 3: 5})
    assert device_map == {"layer.1": 0, "layer.10": 1, "layer.100": 2, "layers": 3}
    with pytest.raises(devmap.DeviceMapError, match=r"layer\.10"):
        devmap.check_device_map(model, {"layer.1": 0, "layers": 1})


@pytest.mark.parametrize(
    ("held", "run", "expected"),
    [
        ("float16", "float32", 400),
        ("float32", "float16", 200),
        ("bool", None, 100),
        ("float8_e4m3fn", None, 100),
    ],
)
def test_bytes_are_those_of_the_dtype_that_runs(
    held: str, run: str | None, expected: int
) -> None:  # 2411, 4063; an upcast is counted
    model = nn.Module()
    model.weight = nn.Parameter(
        torch.empty(100, dtype=getattr(torch, held), device="meta"), requires_grad=False
    )
    assert devmap.get_balanced_memory(model, {0: 10**6}, dtype=run) == {0: expected}


def test_a_tied_weight_is_counted_once() -> None:
    model = chain(100, 5, 100)
    model.get_submodule("m2").weight = model.get_parameter("m0.weight")
    assert devmap.infer_auto_device_map(model, {0: 105}) == {"": 0}


def test_the_map_does_not_depend_on_the_hash_seed() -> None:
    program = (
        "from devmap import infer_auto_device_map, Inventory\n"
        "from devmap.inventory.model import Tensor\n"
        "sizes = {name: (ord(name) * 7) % 11 + 1 for name in 'abcdefghijklm'}\n"
        "tensors = {f'{name}.w': Tensor(f'{name}.w', (3,) if name in 'bdhm' else (size,), 'uint8') for "
        "name, size in sizes.items()}\n"
        "model = Inventory({'': 'Model', **dict.fromkeys(sizes, 'Leaf')}, tensors, (('b.w', 'm.w'), "
        "('d.w', 'h.w')))\n"
        "print(list(infer_auto_device_map(model, {0: 14, 1: 24, 2: 12, 'cpu': 12, 'disk': 100}).items()))"
    )
    printed = {
        subprocess.run(
            [sys.executable, "-c", program],
            env={**os.environ, "PYTHONHASHSEED": seed},
            check=True,
            capture_output=True,
            text=True,
        ).stdout
        for seed in ("0", "1", "2")
    }
    assert len(printed) == 1
    assert "cpu" in printed.pop()


def test_a_map_of_a_key_for_each_tensor_is_checked_in_one_pass() -> None:
    model = nn.Module()
    model.layers = nn.ModuleList(Leaf(1) for _ in range(5_000))
    devmap.check_device_map(model, {f"layers.{at}.weight": at % 3 for at in range(5_000)})


def test_a_key_that_names_nothing_is_told_with_what_was_meant() -> None:
    with pytest.raises(devmap.DeviceMapError, match="'m11' is not a module") as caught:
        devmap.check_device_map(chain(5, 5), {"": 0, "m11": 1})
    assert "did you mean 'm1'" in str(caught.value.problems[0])
