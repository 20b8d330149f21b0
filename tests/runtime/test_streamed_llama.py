"""A streamed transformers model in the hands of a user.

Adapters, compilation, threads, copies, saving, moving, two ways to stream.
"""

from __future__ import annotations

import copy
import pickle
import threading
from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch import nn
from transformers import LlamaForCausalLM

from devmap.errors import UsageError
from devmap.testing import simulated_devices

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.runtime.conftest import Load

_IDS = torch.arange(12).view(2, 6)


@pytest.fixture(params=["mapped", "slots", "disk-sim", "cpu-sim", "parts-sim"])
def streamed(
    request: pytest.FixtureRequest, llama_folder: Path, load: Load, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Any]:
    if request.param in {"mapped", "slots"}:
        if request.param == "slots":
            monkeypatch.setattr("devmap.runtime.streaming.prepare.can_populate", lambda: False)
        yield load(llama_folder, lambda path: ("disk", "cpu") if "layers" in path else ("cpu", "cpu"))
        return
    home = "cpu" if request.param == "cpu-sim" else "disk"
    figures = {"host_memory_bytes": 50_000} if request.param == "parts-sim" else {}
    with simulated_devices({0: "20MB"}):
        yield load(llama_folder, lambda path: (home, 0) if "layers" in path else (0, 0), **figures)


def _plain(folder: Path) -> Any:
    return LlamaForCausalLM.from_pretrained(folder)


class _Adapter(nn.Module):
    """A low-rank update beside a frozen linear module."""

    def __init__(self, base: nn.Linear, seed: int) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.down = nn.Linear(base.in_features, 2, bias=False)
        self.up = nn.Linear(2, base.out_features, bias=False)
        base.register_forward_hook(self._add)

    def _add(self, _: nn.Module, args: tuple[torch.Tensor, ...], output: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = output + self.up(self.down(args[0]))
        return result


def _train(model: Any, device: torch.device) -> list[torch.Tensor]:
    """A few steps of adapters on every query and gate projection; their weights afterwards."""
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    linears = [
        (number, linear)
        for number, layer in enumerate(model.model.layers)
        for linear in (layer.self_attn.q_proj, layer.mlp.gate_proj)
    ]
    adapters = nn.ModuleList(_Adapter(linear, number) for number, linear in linears).to(device)
    optimizer = torch.optim.SGD(adapters.parameters(), lr=0.3)
    for _ in range(3):
        optimizer.zero_grad()
        model(_IDS, labels=_IDS).loss.backward()
        optimizer.step()
    return [parameter.detach().cpu() for parameter in adapters.parameters()]


def test_adapters_inside_streamed_blocks_train_as_on_the_plain_model(
    streamed: Any, llama_folder: Path
) -> None:
    device = streamed.model.layers[0].mlp.gate_proj.weight.device
    with torch.autograd.set_multithreading_enabled(
        False
    ):  # torch starts no threads for the backward of a simulated device
        got = _train(streamed, device)
    want = _train(_plain(llama_folder), torch.device("cpu"))
    for one, other in zip(got, want, strict=True):
        torch.testing.assert_close(one, other, atol=2e-5, rtol=1e-4)
    fresh = _Adapter(nn.Linear(64, 64), 0)
    assert not torch.equal(got[0], fresh.down.weight)
    assert streamed.devmap.stats().given_away == 0


def test_threads_one_after_another_and_at_once_get_the_plain_models_numbers(
    streamed: Any, llama_folder: Path
) -> None:
    plain = _plain(llama_folder)
    inputs = [
        torch.randint(0, 100, (1, 5), generator=torch.Generator().manual_seed(seed)) for seed in range(4)
    ]
    got: dict[int, torch.Tensor] = {}

    def run(index: int) -> None:
        with torch.no_grad():
            for _ in range(2):
                got[index] = streamed(inputs[index]).logits.cpu()

    threads = [threading.Thread(target=run, args=(index,)) for index in range(4)]
    for thread in threads[:2]:
        thread.start()
        thread.join()
    for thread in threads[2:]:
        thread.start()
    for thread in threads[2:]:
        thread.join()
    with torch.no_grad():
        for index, ids in enumerate(inputs):
            torch.testing.assert_close(got[index], plain(ids).logits, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    "streamed", ["mapped", "slots"], indirect=True
)  # dynamo cannot trace the tensors of simulated devices
@pytest.mark.filterwarnings(
    "ignore:Dynamo does not know how to trace:UserWarning"
)  # the hooks read the clock and take a lock
def test_a_compiled_model_has_the_same_numbers(streamed: Any, llama_folder: Path) -> None:
    compiled: Any = torch.compile(streamed, backend="eager")
    with torch.no_grad():
        want = _plain(llama_folder)(_IDS).logits
        for _ in range(3):
            torch.testing.assert_close(compiled(_IDS).logits.cpu(), want, atol=1e-5, rtol=1e-5)
    assert (streamed.devmap.stats().fetched_bytes, streamed.devmap.stats().given_away) == (0, 0)
    torch.compiler.reset()


def test_copies_pickles_and_moves_are_refused_and_nothing_is_broken_by_it(
    streamed: Any, llama_folder: Path, tmp_path: Path
) -> None:
    for refused in (copy.deepcopy, copy.copy, pickle.dumps):
        with pytest.raises(UsageError, match="cannot be copied"):
            refused(streamed)
    for move in (
        lambda: streamed.to("cpu"),
        lambda: streamed.to(torch.bfloat16),
        streamed.half,
        lambda: streamed.model.layers.to("cpu"),
    ):
        with pytest.raises(UsageError, match="remove"):
            move()
    streamed.save_pretrained(tmp_path)
    plain, again = _plain(llama_folder), _plain(tmp_path)
    assert all(torch.equal(again.state_dict()[name], value) for name, value in plain.state_dict().items())
    with torch.no_grad():
        torch.testing.assert_close(streamed(_IDS).logits.cpu(), plain(_IDS).logits, atol=1e-5, rtol=1e-5)
