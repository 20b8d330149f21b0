"""Live modules, the offload folder, budgets, hooks and the way back."""

from __future__ import annotations

import copy
import gc
import threading
from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch import nn

from devmap.config.values.device import parse_device
from devmap.errors import LoadError, OutOfMemoryError
from devmap.inventory.stored.checkpoint import read_headers
from devmap.plan.model import Charge, DeviceUse
from devmap.runtime.dispatch import dispatch
from devmap.runtime.inputs import Moves, first_device
from devmap.testing import simulated_devices

if TYPE_CHECKING:
    from pathlib import Path

    from tests.runtime.conftest import Load, PlanOf


def _net() -> Any:
    torch.manual_seed(5)
    return nn.Sequential(*(nn.Sequential(nn.Linear(6, 6), nn.Tanh()) for _ in range(5))).eval()


_X = torch.linspace(-1, 1, 12).view(2, 6)


def test_a_model_wholly_on_one_device_gets_no_hooks(plan_of: PlanOf) -> None:
    with simulated_devices({1: "1MB"}):
        model: Any = dispatch(_net(), plan_of(_net(), lambda _: (1, 1)))
        assert not any(
            module._forward_pre_hooks or module._forward_hooks or "_apply" in module.__dict__
            for module in model.modules()
        )
        assert {parameter.device for parameter in model.parameters()} == {torch.device("sim", 1)}
        torch.testing.assert_close(model(_X.to("sim:1")).cpu(), _net()(_X))
        assert model.devmap.stats().resident_bytes == {1: 840}
        assert model.devmap.remove() is model
        assert not hasattr(model, "devmap")
        model.to("cpu")


def test_a_live_module_on_the_cpu_keeps_its_very_parameters(plan_of: PlanOf) -> None:
    model = _net()
    before = list(model.parameters())
    dispatch(model, plan_of(model, lambda _: ("cpu", "cpu")))
    assert all(now is then for now, then in zip(model.parameters(), before, strict=True))
    assert copy.deepcopy(model[0])(_X).shape == (2, 6)


@pytest.mark.parametrize("device", ["cpu", 0])
def test_live_weights_are_written_once_to_the_offload_folder_and_found_again(
    device: Any, tmp_path: Path, plan_of: PlanOf
) -> None:
    plan = plan_of(
        _net(),
        lambda path: ("disk", device) if path[0] in "123" else (device, device),
        offload_folder=str(tmp_path),
    )
    with simulated_devices({0: "1MB"}), torch.no_grad():
        model = dispatch(_net(), plan)
        torch.testing.assert_close(model(_X), _net()(_X), atol=1e-6, rtol=1e-6)
        files = {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
        assert len(files) == 3
        assert all(path.suffix == ".safetensors" for path in files)
        again = dispatch(_net(), plan)
        assert {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()} == files
        torch.testing.assert_close(again(_X), _net()(_X), atol=1e-6, rtol=1e-6)
        assert sum(len(read_headers(path).tensors) for path in files) == 6


def test_another_models_or_damaged_files_in_the_offload_folder_are_never_trusted(
    tmp_path: Path, plan_of: PlanOf
) -> None:
    plan = plan_of(_net(), lambda _: ("disk", "cpu"), offload_folder=str(tmp_path))
    other = _net()
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.mul_(3)
    want = copy.deepcopy(other)(_X)
    dispatch(_net(), plan)
    for path in tmp_path.iterdir():
        path.write_bytes(path.read_bytes()[:-4] + b"\0\0\0\0")
    with torch.no_grad():
        assert torch.equal(dispatch(other, plan)(_X), want)
        assert torch.equal(dispatch(_net(), plan)(_X), _net()(_X))
    assert len(list(tmp_path.iterdir())) == 10


def test_an_offload_folder_that_cannot_be_written_is_said_before_the_module_changes(
    tmp_path: Path, plan_of: PlanOf
) -> None:
    (tmp_path / "file").write_text("")
    model = _net()
    before = list(model.parameters())
    with pytest.raises(LoadError, match="cannot be written"):
        dispatch(model, plan_of(model, lambda _: ("disk", "cpu"), offload_folder=str(tmp_path / "file")))
    assert all(now is then for now, then in zip(model.parameters(), before, strict=True))


def test_too_little_room_raises_and_leaves_the_module_as_it_was(plan_of: PlanOf) -> None:
    model = _net()
    with simulated_devices({0: 500}):
        with pytest.raises(OutOfMemoryError):
            dispatch(model, plan_of(model, lambda _: (0, 0)))
        assert torch.equal(model(_X), _net()(_X))


def test_slots_are_as_many_as_the_plan_charges_for(tmp_path: Path, plan_of: PlanOf) -> None:
    for charged, count in ((168, 1), (336, 2), (0, 2)):
        use = DeviceUse(parse_device(0), 1000, 0, (Charge("slots", charged),) if charged else ())
        plan = plan_of(_net(), lambda _: ("disk", 0), offload_folder=str(tmp_path), devices=(use,))
        with simulated_devices({0: 168 * count}, activations=False) as devices, torch.no_grad():
            model: Any = dispatch(_net(), plan)
            for _ in range(2):
                torch.testing.assert_close(model(_X), _net()(_X), atol=1e-6, rtol=1e-6)
            assert model.devmap.stats().slot_bytes == {0: 168 * count}
            assert devices[0].ledger.held_bytes == 168 * count


def test_ring_and_slots_stay_within_host_memory(llama_folder: Path, load: Load) -> None:
    block = 147968
    for limit, count in ((block, 1), (2 * block + 1, 2), (100 * block, 4)):
        with simulated_devices({0: "10MB"}):
            model = load(
                llama_folder,
                lambda path: ("disk", 0) if "layers" in path else (0, 0),
                host_memory_bytes=limit,
            )
            assert model.devmap.stats().ring_bytes == count * block
        model = load(
            llama_folder,
            lambda path: ("disk", "cpu") if "layers" in path else ("cpu", "cpu"),
            host_memory_bytes=limit,
        )
        assert model.devmap.stats().mapped_bytes == min(6, limit // block) * block


def test_progress_ends_at_the_total(plan_of: PlanOf) -> None:
    seen: list[tuple[int, int]] = []
    with simulated_devices({0: "10MB"}):
        dispatch(
            _net(),
            plan_of(_net(), lambda path: (0, 0) if path[0] in "12" else ("cpu", 0)),
            progress=lambda *done: seen.append(done),
        )
    assert seen[0] == (0, 840)
    assert seen[-1] == (840, 840)
    assert seen == sorted(seen)


def test_the_run_dtype_is_applied_block_by_block(llama_folder: Path, load: Load) -> None:
    from transformers import LlamaForCausalLM  # noqa: PLC0415 - beside its use

    plain = LlamaForCausalLM.from_pretrained(llama_folder, dtype=torch.bfloat16)
    ids = torch.arange(9).view(1, 9)
    with torch.no_grad(), simulated_devices({0: "10MB"}):
        for rule in (
            lambda path: ("disk", "cpu") if "layers" in path else ("cpu", "cpu"),
            lambda path: ("disk", 0) if "layers.1" in path else ("cpu", 0) if "layers" in path else (0, 0),
        ):
            model = load(llama_folder, rule, dtype="bfloat16")
            logits = model(ids).logits
            assert logits.dtype == torch.bfloat16
            torch.testing.assert_close(logits, plain(ids).logits, atol=2e-2, rtol=2e-2)
            assert all(
                torch.equal(value.cpu(), plain.state_dict()[name])
                for name, value in model.state_dict().items()
            )


def test_remove_gives_back_a_plain_trainable_module_with_its_ties(tmp_path: Path, plan_of: PlanOf) -> None:
    def tied() -> Any:
        net = _net()
        net[4][0].weight = net[0][0].weight
        net[2].requires_grad_(False)
        return net

    model = tied()
    with simulated_devices({0: "1MB", 1: "1MB"}), torch.no_grad():
        plan = plan_of(
            model,
            lambda path: [(0, 0), ("disk", 1), ("cpu", 1), (1, 1), ("disk", 0)][int(path[0])],
            offload_folder=str(tmp_path),
        )
        dispatch(model, plan)
        torch.testing.assert_close(model(_X), tied()(_X), atol=1e-6, rtol=1e-6)
        model.devmap.remove()
    assert torch.equal(model(_X), tied()(_X))
    assert model[4][0].weight is model[0][0].weight
    assert [parameter.requires_grad for parameter in model.parameters()] == [
        parameter.requires_grad for parameter in tied().parameters()
    ]
    assert not any(
        module._forward_hooks or module._forward_pre_hooks or "_apply" in module.__dict__
        for module in model.modules()
    )
    model.double()(_X.double()).sum().backward()
    copy.deepcopy(model)


def test_threads_and_slots_go_when_the_model_goes(llama_folder: Path, load: Load) -> None:
    gc.collect()
    before = threading.active_count()
    with simulated_devices({0: "10MB"}) as devices:
        model = load(llama_folder, lambda path: ("disk", 0) if "layers" in path else (0, 0))
        with torch.no_grad():
            model(torch.ones(1, 3, dtype=torch.long))
        assert threading.active_count() > before
        del model
        gc.collect()
        assert threading.active_count() == before
        assert devices[0].ledger.held_bytes == 0


class _Caller(nn.Module):
    """Gives every block the same mask, position embeddings and cache."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList([_Callee() for _ in range(4)])

    def forward(
        self, x: torch.Tensor, *, mask: torch.Tensor, past_key_values: list[torch.Tensor]
    ) -> dict[str, Any]:
        positions = (mask + 1, mask * 2)
        for block in self.blocks:
            x = block(x, positions, mask=mask, past_key_values=past_key_values)
        return {"x": x, "past_key_values": past_key_values}


class _Callee(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(3))

    def forward(
        self,
        x: torch.Tensor,
        positions: tuple[torch.Tensor, ...],
        *,
        mask: torch.Tensor,
        past_key_values: list[torch.Tensor],
    ) -> Any:
        past_key_values.append(mask)
        return x * self.weight + positions[0] + mask


def test_inputs_move_once_per_device_change_and_caches_never(
    plan_of: PlanOf, monkeypatch: pytest.MonkeyPatch
) -> None:
    moved: list[tuple[torch.device, torch.device]] = []
    to = Moves._tensor

    def count(self: Moves, tensor: torch.Tensor, device: torch.device, *, remember: bool) -> torch.Tensor:
        current = self.passes.current
        before = len(current.moved) if current is not None else 0
        result = to(self, tensor, device, remember=remember)
        if not remember or current is None or len(current.moved) > before:
            moved.append((tensor.device, device))
        return result

    monkeypatch.setattr(Moves, "_tensor", count)
    with simulated_devices({0: "1MB", 1: "1MB"}), torch.no_grad():
        model = dispatch(_Caller(), plan_of(_Caller(), lambda path: (0, 0) if path[7] in "01" else (1, 1)))
        x, mask = torch.ones(3), torch.arange(3.0)
        cache: list[torch.Tensor] = []
        result = model(x, mask=mask, past_key_values=cache)
        assert result["past_key_values"] is cache
        assert [str(tensor.device) for tensor in cache] == ["sim:0", "sim:0", "sim:1", "sim:1"]
        assert torch.equal(result["x"], _Caller()(x, mask=mask, past_key_values=[])["x"])
        # x and the mask to 0, where the positions are made; x, two positions and the mask to 1; the output
        # back
        assert sorted(str(there) for _, there in moved) == ["cpu"] + ["sim:0"] * 2 + ["sim:1"] * 4


def test_the_first_direct_tensor_decides_where_outputs_go() -> None:
    meta = torch.empty(1, device="meta")
    assert first_device(([meta],), {"x": torch.ones(1)}) == torch.device("cpu")
    assert first_device(([meta],), {}) == torch.device("meta")
    assert first_device((), {"n": 1}) is None
