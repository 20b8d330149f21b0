"""`devmap.load` and `devmap.dispatch` as a program calls them."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM

import devmap
from devmap.config.values.device import parse_device
from devmap.runtime.handle import Handle
from devmap.runtime.meta_build import build_empty

if TYPE_CHECKING:
    from pathlib import Path

IDS = torch.tensor([[1, 5, 9, 2]])


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny Llama with random weights, saved as transformers saves it."""
    torch.manual_seed(0)
    figures = {
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
        "vocab_size": 50,
    }
    folder = tmp_path_factory.mktemp("llama")
    LlamaForCausalLM(LlamaConfig(**figures)).save_pretrained(folder)
    return folder


def config_beside(checkpoint: Path, memory: str = "{cpu: 1GB}") -> Path:
    path = checkpoint / "tiny.devmap.yaml"
    path.write_text(f"version: 1\nmodel: {{checkpoint: .}}\nmax_memory: {memory}\n", encoding="utf-8")
    return path


def handle_of(model: nn.Module) -> Handle:
    handle = model.devmap
    assert isinstance(handle, Handle)
    return handle


def logits(model: nn.Module) -> torch.Tensor:
    with torch.no_grad():
        found = model(IDS).logits
    assert isinstance(found, torch.Tensor)
    return found.cpu()


def test_load_by_path_gives_the_plain_model_s_numbers(checkpoint: Path) -> None:
    plain = LlamaForCausalLM.from_pretrained(checkpoint).eval()
    model = devmap.load(config_beside(checkpoint), progress=False)
    assert torch.equal(logits(model), logits(plain))


def test_a_variant_s_weights_are_planned_and_loaded(tmp_path: Path) -> None:
    """As Transformers' own `variant` does, beside whole weights of another dtype."""
    config = LlamaConfig(
        hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4, vocab_size=50
    )
    LlamaForCausalLM(config).save_pretrained(tmp_path)
    LlamaForCausalLM(config).to(torch.bfloat16).save_pretrained(tmp_path, variant="bf16")
    path = tmp_path / "tiny.devmap.yaml"
    path.write_text("version: 1\nmodel: {checkpoint: ., variant: bf16}\nmax_memory: {cpu: 1GB}\n")
    model = devmap.load(path, progress=False)
    plain = LlamaForCausalLM.from_pretrained(tmp_path, variant="bf16")
    assert {name: tensor.dtype for name, tensor in model.state_dict().items()} == {
        name: tensor.dtype for name, tensor in plain.state_dict().items()
    }
    assert all(torch.equal(model.state_dict()[name], tensor) for name, tensor in plain.state_dict().items())


def test_what_a_checkpoint_holds_beyond_the_model_stays_unread_with_a_warning(tmp_path: Path) -> None:
    """As Transformers has it; `validate`, which has headers alone, still calls it an error."""
    config = LlamaConfig(
        hidden_size=32, intermediate_size=64, num_hidden_layers=1, num_attention_heads=4, vocab_size=50
    )
    plain = LlamaForCausalLM(config).eval()
    plain.save_pretrained(tmp_path)
    stored = load_file(tmp_path / "model.safetensors")
    save_file({**stored, "value_head.weight": torch.ones(1, 32)}, tmp_path / "model.safetensors")
    path = config_beside(tmp_path)
    assert "DM220" in {finding.code for finding in devmap.validate(path).findings}
    with pytest.warns(UserWarning, match=r"no place for 'value_head\.weight'.*not read"):
        model = devmap.load(path, progress=False)
    assert torch.equal(logits(model), logits(plain))
    # One that would fit a place which nothing fills was most likely renamed, and is no surplus.
    norm = stored.pop("model.norm.weight")
    save_file({**stored, "model.final_layernorm.weight": norm}, tmp_path / "model.safetensors")
    with (
        pytest.warns(UserWarning, match="initialised by the model's own code|not read"),
        pytest.raises(devmap.LoadError) as caught,
    ):
        devmap.load(path, progress=False)
    assert [problem.code for problem in caught.value.problems] == ["unexpected"]
    assert "nothing for 'model.norm.weight'" in caught.value.problems[0].message


def test_load_by_config_object_with_an_override_streams_over_simulated_devices(checkpoint: Path) -> None:
    plain = LlamaForCausalLM.from_pretrained(checkpoint).eval()
    config = devmap.read_config(
        config_beside(checkpoint), overrides=["max_memory={0: 120KB, cpu: 60KB, disk: 1MB}"]
    )
    with devmap.testing.simulated_devices({0: "120KB"}, activations=False):
        model = devmap.load(config, progress=False)
        homes = {placement.home for placement in handle_of(model).plan.placements}
        assert {parse_device("cpu"), parse_device("disk")} & homes
        torch.testing.assert_close(logits(model), logits(plain), atol=1e-5, rtol=1e-5)
        handle_of(model).remove()


def test_progress_is_told_of_every_byte(checkpoint: Path) -> None:
    calls: list[tuple[int, int]] = []
    devmap.load(
        config_beside(checkpoint),
        progress=lambda done_bytes, total_bytes: calls.append((done_bytes, total_bytes)),
    )
    assert calls[-1][0] == calls[-1][1] > 0
    assert calls == sorted(calls)


def test_an_override_that_is_wrong_is_a_config_error_with_its_place(checkpoint: Path) -> None:
    with pytest.raises(devmap.ConfigError, match="1 problem") as caught:
        devmap.load(config_beside(checkpoint), overrides=["max_memory.cpu=4gb"])
    assert caught.value.problems[0].code == "DM104"


def test_a_model_that_does_not_fit_says_what_is_missing(checkpoint: Path) -> None:
    with pytest.raises(devmap.ResolutionError) as caught:
        devmap.load(config_beside(checkpoint, "{cpu: 10KB}"))
    assert caught.value.shortfall_bytes > 0
    assert caught.value.changes


def test_a_factory_runs_only_when_code_is_allowed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = (
        "from torch import nn\n\ndef build():\n    return nn.Sequential(nn.Linear(4, 8), nn.Linear(8, 2))\n"
    )
    (tmp_path / "my_factory.py").write_text(source, encoding="utf-8")
    plain = nn.Sequential(nn.Linear(4, 8), nn.Linear(8, 2))
    save_file(
        {name: tensor.contiguous() for name, tensor in plain.state_dict().items()},
        tmp_path / "model.safetensors",
    )
    path = tmp_path / "own.devmap.yaml"
    path.write_text(
        "version: 1\nmodel: {checkpoint: model.safetensors, factory: 'my_factory:build'}\nmax_memory: "
        "{cpu: 1MB}\n",
        encoding="utf-8",
    )
    monkeypatch.setattr(sys, "path", list(sys.path))
    with pytest.raises(devmap.UsageError, match="runs code"):
        devmap.load(path)
    model = devmap.load(path, allow_code=True, progress=False)
    sample = torch.randn(3, 4)
    assert torch.equal(model(sample), plain(sample))
    monkeypatch.delitem(sys.modules, "my_factory")


def test_load_into_a_given_module(checkpoint: Path) -> None:
    with torch.device("meta"):
        empty = LlamaForCausalLM(LlamaConfig.from_pretrained(checkpoint)).eval()
    model = devmap.load(config_beside(checkpoint), model=empty, progress=False)
    assert model is empty
    assert torch.equal(logits(model), logits(LlamaForCausalLM.from_pretrained(checkpoint).eval()))


def test_dispatch_spreads_a_live_module_and_remove_gives_it_back(checkpoint: Path) -> None:
    model = LlamaForCausalLM.from_pretrained(checkpoint).eval()
    expected = logits(model)
    config = devmap.read_config(
        config_beside(checkpoint), overrides=["max_memory={0: 80KB, 1: 80KB, cpu: 1MB}"]
    )
    with devmap.testing.simulated_devices({0: "80KB", 1: "80KB"}, activations=False):
        plan = devmap.resolve(config, devmap.Inventory.from_module(model))
        spread = devmap.dispatch(model, plan)
        torch.testing.assert_close(logits(spread), expected, atol=1e-5, rtol=1e-5)
        plain = handle_of(spread).remove()
    assert torch.equal(logits(plain), expected)


class Rotary(nn.Module):
    """A module with a buffer that no checkpoint holds, and one parameter under two names."""

    def __init__(self) -> None:
        super().__init__()
        self.one = nn.Linear(4, 4, bias=False)
        self.two = nn.Linear(4, 4, bias=False)
        self.two.weight = self.one.weight
        self.frequencies: torch.Tensor
        self.register_buffer("frequencies", torch.arange(4.0), persistent=False)

    def forward(self, sample: torch.Tensor) -> torch.Tensor:
        found = self.two(self.one(sample) * self.frequencies)
        assert isinstance(found, torch.Tensor)
        return found


def test_progress_of_mapped_weights_moves_part_by_part(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("devmap.runtime.residents._PAGES_BYTES", 1 << 16)
    save_file({"weight": torch.zeros(256, 256), "bias": torch.ones(256)}, tmp_path / "model.safetensors")
    path = tmp_path / "one.devmap.yaml"
    path.write_text(
        "version: 1\nmodel: {checkpoint: model.safetensors}\nmax_memory: {cpu: 1MB}\n", encoding="utf-8"
    )
    done: list[int] = []
    devmap.load(
        path, model=nn.Linear(256, 256, device="meta"), progress=lambda done_bytes, _: done.append(done_bytes)
    )
    assert done == sorted(done)
    assert done[-1] == 4 * 256 * 257
    assert len(done) > 4


def test_a_factory_is_called_once_and_saved_buffers_come_from_the_checkpoint() -> None:
    calls: list[int] = []

    def build() -> nn.Module:
        calls.append(1)
        return nn.Sequential(nn.BatchNorm1d(4), Rotary())

    model = build_empty(build)
    assert len(calls) == 1
    assert isinstance(model, nn.Sequential)
    assert {name for name, tensor in model.state_dict().items() if not tensor.is_meta} == set()
    assert torch.equal(model.get_buffer("1.frequencies"), torch.arange(4.0))


def test_computed_buffers_and_ties_of_a_factory_s_module_are_real() -> None:
    model = build_empty(Rotary)
    assert isinstance(model, Rotary)
    assert model.one.weight.is_meta
    assert model.one.weight is model.two.weight
    assert torch.equal(model.frequencies, torch.arange(4.0))
    assert not nn.Linear(2, 2).weight.is_meta
