"""Checkpoints that bitsandbytes and torchao quantised.

Devmap's outputs are those of `from_pretrained`, wherever the bytes lie.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch
from safetensors.torch import load_file
from torchao.quantization import Float8WeightOnlyConfig, Int8WeightOnlyConfig, IntxWeightOnlyConfig
from transformers import BitsAndBytesConfig, LlamaForCausalLM, TorchAoConfig

import devmap
from tests.runtime.quantized.small_llama import IDS, small_llama

if TYPE_CHECKING:
    from pathlib import Path

KINDS = {
    "nf4": BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True),
    "fp4": BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="fp4"),
    "int8": BitsAndBytesConfig(load_in_8bit=True),
    # Inner modules that stay whole; a list of one's own also takes the place of the head that always does.
    "nf4 but some": BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type="nf4", llm_int8_skip_modules=["lm_head", "q_proj", "layers.1"]
    ),
    "int8 but some": BitsAndBytesConfig(
        load_in_8bit=True, llm_int8_skip_modules=["lm_head", "o_proj", "model.layers.2.mlp"]
    ),
    "torchao int8": TorchAoConfig(Int8WeightOnlyConfig(version=2)),
    "torchao fp8": TorchAoConfig(Float8WeightOnlyConfig()),
    # mypy knows no int4 of torch 2.13.
    "torchao int4": TorchAoConfig(IntxWeightOnlyConfig(weight_dtype=torch.int4)),  # type: ignore[attr-defined]
}


@pytest.fixture(scope="session")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("whole")
    small_llama(attention_bias=True).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def quantised(whole: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    made = {}
    for name, kind in KINDS.items():
        made[name] = tmp_path_factory.mktemp(name.replace(" ", "-"))
        LlamaForCausalLM.from_pretrained(whole, quantization_config=kind).save_pretrained(made[name])
    return made


MEMORY = {
    "resident": "{0: 10MB}",
    "on the cpu": "{cpu: 10MB}",
    "from cpu": "{0: 75KB, cpu: 10MB}",
    "from disk": "{0: 75KB, disk: 10MB}",
    "from disk, executed on the cpu": "{cpu: 60KB, disk: 10MB}",
    "all tiers": "{0: 75KB, 1: 75KB, cpu: 30KB, disk: 10MB}",
}


@pytest.fixture
def _stored_layout(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep to the kernels that take the stored layout, as streamed modules do, on CPUs that have others."""
    monkeypatch.setattr("bitsandbytes.nn.modules.has_avx512bf16", lambda: False)


def reference(folder: Path) -> torch.Tensor:
    model = LlamaForCausalLM.from_pretrained(folder).eval()
    with torch.no_grad():
        found = model(IDS).logits
    assert isinstance(found, torch.Tensor)
    return found


@pytest.mark.usefixtures("_stored_layout")
@pytest.mark.parametrize("memory", MEMORY)
@pytest.mark.parametrize("kind", KINDS)
def test_outputs_are_those_of_from_pretrained(
    kind: str, memory: str, quantised: dict[str, Path], tmp_path: Path
) -> None:
    expected = reference(quantised[kind])
    with devmap.testing.simulated_devices({0: "10MB", 1: "10MB"}, activations=False):
        model = loaded(quantised[kind], tmp_path, MEMORY[memory])
        ids = (
            IDS.to(0) if memory == "resident" else IDS
        )  # a model on one device has no hooks to move its inputs
        with torch.no_grad():
            first, again = model(ids).logits.cpu(), model(ids).logits.cpu()
            handle = model.devmap
            if "resident" not in memory:
                removed = handle.remove()(ids).logits
                assert torch.equal(removed, expected)
    assert torch.equal(first, expected)
    assert torch.equal(again, expected)


def loaded(folder: Path, tmp_path: Path, memory: str) -> Any:
    path = tmp_path / "x.devmap.yaml"
    path.write_text(f"version: 1\nmodel: {{checkpoint: {folder}}}\nmax_memory: {memory}\n", encoding="utf-8")
    return devmap.load(path, progress=False)


@pytest.mark.parametrize("kind", KINDS)
def test_a_model_that_stays_on_the_cpu_runs_the_kernels_of_from_pretrained(
    kind: str, quantised: dict[str, Path], tmp_path: Path
) -> None:
    model = loaded(quantised[kind], tmp_path, "{cpu: 10MB}")
    with torch.no_grad():
        assert torch.equal(model(IDS).logits, reference(quantised[kind]))
    assert model.is_quantized
    assert model.hf_quantizer.quantization_config.to_dict() == KINDS[kind].to_dict()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("memory", ["{cpu: 10MB}", "{0: 75KB, 1: 75KB, cpu: 30KB, disk: 10MB}"])
def test_it_is_saved_again_as_it_was_stored(
    kind: str, memory: str, quantised: dict[str, Path], tmp_path: Path
) -> None:
    with devmap.testing.simulated_devices({0: "10MB", 1: "10MB"}, activations=False):
        model = loaded(quantised[kind], tmp_path, memory)
        if kind.startswith("torchao"):  # it saves tensors of torch's own class and its own, no simulated ones
            model.devmap.remove()
        model.save_pretrained(tmp_path / "again")
    again, stored = (load_file(each / "model.safetensors") for each in (tmp_path / "again", quantised[kind]))
    assert again.keys() == stored.keys()
    for name, tensor in stored.items():
        assert torch.equal(again[name].view(-1).view(torch.uint8), tensor.view(-1).view(torch.uint8)), name


@pytest.mark.parametrize("kind", KINDS)
def test_blocks_in_the_offload_budget_are_as_large_as_their_packed_parts(
    kind: str, quantised: dict[str, Path], tmp_path: Path
) -> None:
    with devmap.testing.simulated_devices({0: "75KB"}, activations=False):
        handle = loaded(quantised[kind], tmp_path, "{0: 75KB, disk: 10MB}").devmap
        streamed = [block.path for block in handle.blocks]
        tensors = load_file(quantised[kind] / "model.safetensors")
        stored = sum(
            tensor.nbytes
            for name, tensor in tensors.items()
            if any(name.startswith(f"{path}.") for path in streamed)
            and not name.endswith(("weight_format", "nf4", "fp4"))
        )
        assert streamed
        assert sum(block.layout.nbytes for block in handle.blocks) == stored


def test_a_gradient_flows_through_streamed_blocks(quantised: dict[str, Path], tmp_path: Path) -> None:
    def gradient(memory: str) -> torch.Tensor:
        model = loaded(quantised["nf4"], tmp_path, memory)
        inputs = torch.full((1, 4, 64), 0.1, dtype=torch.bfloat16).to(0).requires_grad_()
        model(inputs_embeds=inputs).logits.float().sum().backward()
        assert inputs.grad is not None
        return inputs.grad.cpu()

    with devmap.testing.simulated_devices({0: "10MB"}, activations=False):
        assert torch.equal(gradient("{0: 75KB, disk: 10MB}"), gradient("{0: 10MB}"))


@pytest.mark.parametrize("kind", ["nf4", "int8", "torchao int8"])
def test_a_live_quantised_model_is_refused_by_name(kind: str, whole: Path) -> None:
    model = LlamaForCausalLM.from_pretrained(whole, quantization_config=KINDS[kind]).eval()
    config = devmap.PlacementConfig.model_validate({"version": 1, "model": {}, "max_memory": {"cpu": "10MB"}})
    plan = devmap.resolve(config, devmap.Inventory.from_module(model))
    before = [id(parameter) for parameter in model.parameters()]
    with pytest.raises(devmap.LoadError) as caught:
        devmap.dispatch(model, plan)
    assert "save_pretrained()" in caught.value.problems[0].message
    assert [id(parameter) for parameter in model.parameters()] == before
