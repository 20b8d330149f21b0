"""Before anything is placed: every fault in one error."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from devmap.config.values.device import CPU, DISK, parse_device
from devmap.errors import LoadError
from devmap.inventory.live.module import match_checkpoint, read_module
from devmap.inventory.stored.checkpoint import read_headers
from devmap.inventory.stored.mapping import Piece, WeightMapping
from devmap.plan.model import Placement
from devmap.runtime.dispatch import dispatch, load_model
from devmap.testing import simulated_devices

if TYPE_CHECKING:
    from pathlib import Path

    from devmap.inventory.model import Inventory
    from tests.runtime.conftest import PlanOf


def _net() -> nn.Sequential:
    return nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 2))


def _on_meta() -> nn.Sequential:
    with torch.device("meta"):
        return _net()


def _matched(model: nn.Module, folder: Path, stored: dict[str, torch.Tensor]) -> Inventory:
    save_file(stored, folder / "model.safetensors")
    return match_checkpoint(read_module(model), read_headers(folder), model)


def _by_name(inventory: Inventory) -> Inventory:
    """The checkpoint's tensors under their own names, whatever their shapes."""
    assert inventory.checkpoint is not None
    tensors = inventory.checkpoint.tensors
    pieces = {name: (Piece(name),) for name in inventory.tensors if name in tensors}
    unmapped = tuple(name for name in tensors if name not in inventory.tensors)
    missing = tuple(name for name in inventory.tensors if name not in tensors)
    return dataclasses.replace(inventory, mapping=WeightMapping(pieces, unmapped, missing=missing))


def test_missing_unexpected_misshapen_uncovered_and_unknown_are_all_listed_at_once(
    tmp_path: Path, plan_of: PlanOf
) -> None:
    stored = {
        "0.weight": torch.zeros(3, 4),
        "0.bias": torch.zeros(2),
        "1.weight": torch.zeros(2, 3),
        "stray": torch.zeros(2),
    }
    model = _on_meta()
    inventory = _by_name(_matched(model, tmp_path, stored))
    plan = plan_of(model, lambda _: ("cpu", "cpu"))
    no_such = Placement("7", CPU, CPU, 0)
    with pytest.raises(LoadError) as caught:
        load_model(model, dataclasses.replace(plan, placements=(plan.placements[0], no_such)), inventory)
    found = {(problem.code, problem.message.split("'")[1]) for problem in caught.value.problems}
    assert found == {
        ("unknown-placement", "7"), ("uncovered", "1.weight"), ("uncovered", "1.bias"),
        ("missing", "1.bias"), ("unexpected", "stray"), ("shape", "0.bias"),
    }  # fmt: skip
    assert all(parameter.is_meta for parameter in model.parameters())


def test_a_file_that_was_cut_after_its_headers_were_read_is_found_before_anything_is_placed(
    tmp_path: Path, plan_of: PlanOf
) -> None:
    model = _on_meta()
    inventory = _matched(
        model, tmp_path, {name: torch.zeros_like(value) for name, value in _net().state_dict().items()}
    )
    file = tmp_path / "model.safetensors"
    with file.open("r+b") as opened:
        opened.truncate(file.stat().st_size - 1)
    with pytest.raises(LoadError, match="cut short"):
        load_model(model, plan_of(model, lambda _: ("disk", "cpu")), inventory)
    file.unlink()
    with pytest.raises(LoadError, match=r"model\.safetensors: No such file"):
        load_model(model, plan_of(model, lambda _: ("disk", "cpu")), inventory)


@pytest.mark.parametrize(
    ("home", "executes", "word"),
    [
        ("disk", "disk", "cannot live on disk"),
        (0, "cpu", "cannot live on 0"),
        ("cpu", 5, "sim:5"),
        ("disk", "cpu", "offload folder"),
    ],
)
def test_placements_that_cannot_be_are_refused(home: Any, executes: Any, word: str, plan_of: PlanOf) -> None:
    model = _net()
    weights = [parameter.clone() for parameter in model.parameters()]
    with simulated_devices({0: "1MB"}), pytest.raises(LoadError, match=word):
        dispatch(model, plan_of(model, lambda _: (home, executes)))
    assert all(torch.equal(now, before) for now, before in zip(model.parameters(), weights, strict=True))
    assert "devmap" not in model.__dict__


def test_weights_on_meta_need_a_checkpoint_and_computed_buffers_their_values(plan_of: PlanOf) -> None:
    model = _on_meta()
    model.register_buffer("table", torch.empty(2, device="meta"), persistent=False)
    with pytest.raises(LoadError) as caught:
        dispatch(model, plan_of(model, lambda _: ("cpu", "cpu")))
    assert [problem.code for problem in caught.value.problems] == ["missing"] * 5
    with pytest.raises(LoadError, match="no checkpoint behind"):
        load_model(model, plan_of(model, lambda _: ("cpu", "cpu")), read_module(model))


def test_host_memory_too_small_for_a_converted_module_is_said_with_the_figures(
    tmp_path: Path, plan_of: PlanOf
) -> None:
    model = _on_meta()
    inventory = _matched(model, tmp_path, _net().state_dict())
    plan = plan_of(model, lambda _: ("disk", "cpu"), host_memory_bytes=50, dtype="float64")
    with pytest.raises(
        LoadError, match=r"needs 120 bytes of host memory at once; offload\.host_memory is 50"
    ):
        load_model(model, plan, inventory)


def test_a_placed_model_is_not_placed_again(plan_of: PlanOf) -> None:
    model = _net()
    plan = plan_of(model, lambda _: ("cpu", "cpu"))
    dispatch(model, plan)
    with pytest.raises(LoadError, match="already"):
        dispatch(model, plan)
    assert parse_device("disk") == DISK
