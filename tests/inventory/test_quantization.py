"""Quantised checkpoints from their headers: named, and never short of a byte."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from transformers import LlamaConfig, LlamaForCausalLM

import devmap
from devmap.api.validation import validate
from devmap.inventory.quantization import quantization_of

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    Tensors = dict[str, torch.Tensor]

IN, OUT, GROUP = 64, 128, 32


def gptq(name: str, weight: torch.Tensor) -> Tensors:
    rows, columns = weight.shape
    return {
        f"{name}.qweight": torch.zeros(columns // 8, rows, dtype=torch.int32),
        f"{name}.qzeros": torch.zeros(columns // GROUP, rows // 8, dtype=torch.int32),
        f"{name}.scales": torch.ones(columns // GROUP, rows, dtype=torch.float16),
        f"{name}.g_idx": torch.zeros(columns, dtype=torch.int32),
    }


def awq(name: str, weight: torch.Tensor) -> Tensors:
    rows, columns = weight.shape
    return {
        f"{name}.qweight": torch.zeros(columns, rows // 8, dtype=torch.int32),
        f"{name}.qzeros": torch.zeros(columns // GROUP, rows // 8, dtype=torch.int32),
        f"{name}.scales": torch.ones(columns // GROUP, rows, dtype=torch.float16),
    }


def nf4(name: str, weight: torch.Tensor) -> Tensors:
    return {
        f"{name}.weight": torch.zeros(weight.numel() // 2, 1, dtype=torch.uint8),
        f"{name}.weight.absmax": torch.ones(weight.numel() // 64, dtype=torch.uint8),
        f"{name}.weight.nested_absmax": torch.ones(weight.numel() // 64 // 256 + 1),
        f"{name}.weight.nested_quant_map": torch.ones(256),
        f"{name}.weight.quant_map": torch.ones(16),
        f"{name}.weight.quant_state.bitsandbytes__nf4": torch.zeros(90, dtype=torch.uint8),
    }


def int8(name: str, weight: torch.Tensor) -> Tensors:
    return {
        f"{name}.weight": weight.to(torch.int8),
        f"{name}.SCB": torch.ones(weight.shape[0]),
        f"{name}.weight_format": torch.tensor(0, dtype=torch.uint8),
    }


def fp8(name: str, weight: torch.Tensor) -> Tensors:
    return {
        f"{name}.weight": weight.to(torch.float8_e4m3fn),
        f"{name}.weight_scale_inv": torch.ones(-(-weight.shape[0] // 128), -(-weight.shape[1] // 128)),
    }


def compressed(name: str, weight: torch.Tensor) -> Tensors:
    rows, columns = weight.shape
    return {
        f"{name}.weight_packed": torch.zeros(rows, columns // 8, dtype=torch.int32),
        f"{name}.weight_scale": torch.ones(rows, columns // GROUP, dtype=torch.bfloat16),
        f"{name}.weight_shape": torch.tensor([rows, columns]),
    }


def nvfp4(name: str, weight: torch.Tensor) -> Tensors:
    rows, columns = weight.shape
    return {
        f"{name}.weight": torch.zeros(rows, columns // 2, dtype=torch.uint8),
        f"{name}.weight_scale": torch.ones(rows, columns // 16).to(torch.float8_e4m3fn),
        f"{name}.weight_scale_2": torch.tensor(1.0),
        f"{name}.input_scale": torch.tensor(1.0),
    }


def quanto(name: str, weight: torch.Tensor) -> Tensors:
    return {
        f"{name}.weight._data": weight.to(torch.int8),
        f"{name}.weight._scale": torch.ones(weight.shape[0], 1),
        f"{name}.input_scale": torch.tensor(1.0),
        f"{name}.output_scale": torch.tensor(1.0),
    }


METHODS: dict[str, tuple[Callable[[str, torch.Tensor], Tensors], dict[str, Any], str]] = {
    "gptq": (gptq, {"quant_method": "gptq", "bits": 4, "group_size": 32}, "4-bit GPTQ, groups of 32"),
    "awq": (awq, {"quant_method": "awq", "bits": 4, "group_size": 32}, "4-bit AWQ, groups of 32"),
    "nf4": (
        nf4,
        {"quant_method": "bitsandbytes", "load_in_4bit": True, "bnb_4bit_quant_type": "nf4", "bnb_4bit_use_double_quant": True},
        "4-bit bitsandbytes nf4, double quantised",
    ),
    "int8": (int8, {"quant_method": "bitsandbytes", "load_in_8bit": True}, "8-bit bitsandbytes int8"),
    "fp8": (fp8, {"quant_method": "fp8", "weight_block_size": [128, 128]}, "FP8 in blocks of 128 x 128"),
    "compressed": (
        compressed,
        {
            "quant_method": "compressed-tensors",
            "format": "pack-quantized",
            "config_groups": {"group_0": {"weights": {"num_bits": 4, "group_size": 32}}},
        },
        "4-bit compressed-tensors pack-quantized, groups of 32",
    ),
    "nvfp4": (nvfp4, {"quant_method": "modelopt", "quant_algo": "NVFP4"}, "ModelOpt NVFP4"),
    "quanto": (quanto, {"quant_method": "quanto", "weights": "int8"}, "Quanto int8"),
}  # fmt: skip


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("llama")
    config = LlamaConfig(
        vocab_size=64, hidden_size=IN, intermediate_size=OUT, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, tie_word_embeddings=False,
    )  # fmt: skip
    LlamaForCausalLM(config).to(torch.bfloat16).save_pretrained(folder)
    return folder


def quantised(plain: Path, folder: Path, method: str, chosen: Callable[[str], bool] = lambda _: True) -> Path:
    """Store the linear layers of a Llama as a method stores them."""
    pack, config, _ = METHODS[method]
    tensors: Tensors = {}
    for name, tensor in load_file(plain / "model.safetensors").items():
        is_linear = name.endswith("_proj.weight") and chosen(name)
        tensors |= pack(name.removesuffix(".weight"), tensor) if is_linear else {name: tensor}
    folder.mkdir(parents=True, exist_ok=True)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    content = json.loads((plain / "config.json").read_text(encoding="utf-8"))
    (folder / "config.json").write_text(
        json.dumps(content | {"quantization_config": config}), encoding="utf-8"
    )
    return folder


def stored_bytes(folder: Path) -> int:
    return sum(each.nbytes for each in load_file(folder / "model.safetensors").values())


@pytest.mark.parametrize("method", METHODS)
def test_every_stored_byte_counts_on_the_module_that_owns_it(
    method: str, plain: Path, tmp_path: Path
) -> None:
    folder = quantised(plain, tmp_path / method, method)
    inventory = devmap.Inventory.from_checkpoint(folder)
    # Computed buffers (rotary frequencies) are in no file and count beside it.
    held = sum(tensor.nbytes for tensor in inventory.tensors.values() if tensor.persistent)
    assert held == stored_bytes(folder)
    assert inventory.mapping is not None
    assert (inventory.mapping.unmapped, inventory.mapping.missing) == ((), ())
    assert inventory.modules["model.layers.0"] == "LlamaDecoderLayer"
    first = [name for name in inventory.tensors if name.startswith("model.layers.0.self_attn.q_proj.")]
    assert len(first) == len(METHODS[method][0]("x", torch.zeros(8, 64)))
    assert {name.rpartition(".")[0] for name in first} == {"model.layers.0.self_attn.q_proj"}
    owners = [name.rpartition(".")[0] for name in inventory.tensors]
    assert owners == sorted(owners, key=list(inventory.modules).index)


@pytest.mark.parametrize("method", METHODS)
def test_the_method_is_named(method: str, plain: Path, tmp_path: Path) -> None:
    _, config, label = METHODS[method]
    found = quantization_of({"quantization_config": config})
    assert found is not None
    assert found.label == label
    inventory = devmap.Inventory.from_checkpoint(quantised(plain, tmp_path / method, method))
    assert inventory.architecture is not None
    assert inventory.architecture.figures["quantization"] == label


@settings(deadline=None, max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_plan_never_has_fewer_bytes_than_the_headers(
    data: st.DataObject, plain: Path, tmp_path: Path
) -> None:
    method = data.draw(st.sampled_from(sorted(METHODS)))
    layers = data.draw(
        st.sets(
            st.sampled_from(["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"])
        )
    )
    dtype = data.draw(st.sampled_from(["", ", dtype: bfloat16", ", dtype: float32"]))
    folder = quantised(plain, tmp_path / "drawn", method, lambda name: name.split(".")[-2] in layers)
    path = tmp_path / "x.devmap.yaml"
    path.write_text(
        f"version: 1\nmodel: {{checkpoint: ./drawn{dtype}}}\nmax_memory: {{0: 200KB, cpu: 1MB, disk: 1GB}}\n",
        encoding="utf-8",
    )
    plan = devmap.resolve(devmap.read_config(path))
    assert sum(placement.nbytes for placement in plan.placements) >= stored_bytes(folder)
    assert not [each for each in validate([str(path)]).findings if each.code in {"DM220", "DM221"}]


def test_stored_tensors_that_nothing_accounts_for_are_an_error_with_their_bytes(
    plain: Path, tmp_path: Path
) -> None:
    folder = quantised(plain, tmp_path / "m", "gptq")
    path = folder / "model.safetensors"
    extra = {"model.layers.0.mystery.blob": torch.zeros(1000, dtype=torch.uint8)}
    save_file(load_file(path) | extra, path, metadata={"format": "pt"})
    config = tmp_path / "x.devmap.yaml"
    config.write_text("version: 1\nmodel: {checkpoint: ./m}\nmax_memory: {0: 2MB}\n", encoding="utf-8")
    (finding,) = (each for each in validate([str(config)]).findings if each.code == "DM220")
    assert str(finding.severity) == "error"
    assert "1 tensor (1,000 bytes) that no part of the model comes from" in finding.message


def test_experts_in_mxfp4_count_as_stored(tmp_path: Path) -> None:
    from transformers import GptOssConfig, GptOssForCausalLM  # noqa: PLC0415 - this test alone

    config = GptOssConfig(
        vocab_size=64, hidden_size=64, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
        head_dim=16, num_local_experts=4, num_experts_per_tok=2, layer_types=["sliding_attention", "full_attention"],
    )  # fmt: skip
    GptOssForCausalLM(config).to(torch.bfloat16).save_pretrained(tmp_path)
    tensors: Tensors = {}
    for name, tensor in load_file(tmp_path / "model.safetensors").items():
        if name.endswith(("gate_up_proj", "down_proj")):
            experts, rows, columns = tensor.shape
            tensors[f"{name}_blocks"] = torch.zeros(experts, columns, rows // 32, 16, dtype=torch.uint8)
            tensors[f"{name}_scales"] = torch.zeros(experts, columns, rows // 32, dtype=torch.uint8)
        else:
            tensors[name] = tensor
    save_file(tensors, tmp_path / "model.safetensors", metadata={"format": "pt"})
    content = json.loads((tmp_path / "config.json").read_text(encoding="utf-8"))
    content["quantization_config"] = {"quant_method": "mxfp4", "modules_to_not_convert": ["lm_head"]}
    (tmp_path / "config.json").write_text(json.dumps(content), encoding="utf-8")
    inventory = devmap.Inventory.from_checkpoint(tmp_path)
    assert inventory.nbytes >= stored_bytes(tmp_path)
    assert "model.layers.0.mlp.experts.gate_up_proj_blocks" in inventory.tensors


def test_loading_is_refused_by_name_before_anything_is_read(plain: Path, tmp_path: Path) -> None:
    quantised(plain, tmp_path / "m", "awq")
    config = tmp_path / "x.devmap.yaml"
    config.write_text("version: 1\nmodel: {checkpoint: ./m}\nmax_memory: {cpu: 2MB}\n", encoding="utf-8")
    with pytest.raises(devmap.LoadError, match=r"quantised \(4-bit AWQ, groups of 32\)") as caught:
        devmap.load(config)
    assert "from_pretrained" in caught.value.help
