"""Quantised checkpoints from their headers: named, and never short of a byte."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from transformers import LlamaConfig, LlamaForCausalLM, Qwen3MoeConfig, Qwen3MoeForCausalLM

import devmap
from devmap.api.checks.validation import validate
from devmap.inventory.quantization import quantization_of
from devmap.inventory.reader import read_checkpoint

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from devmap.inventory.reader import Library

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


def gptq_in_3_bits(name: str, weight: torch.Tensor) -> Tensors:
    rows, columns = weight.shape
    return {
        f"{name}.qweight": torch.zeros(columns * 3 // 32, rows, dtype=torch.int32),
        f"{name}.qzeros": torch.zeros(1, rows * 3 // 32, dtype=torch.int32),
        f"{name}.scales": torch.ones(1, rows, dtype=torch.float16),
        f"{name}.g_idx": torch.zeros(columns, dtype=torch.int32),
    }


def fp8_per_tensor(name: str, weight: torch.Tensor) -> Tensors:
    return {
        f"{name}.weight": weight.to(torch.float8_e4m3fn),
        f"{name}.weight_scale": torch.tensor(1.0),
        f"{name}.input_scale": torch.tensor(1.0),
    }


def torchao(name: str, weight: torch.Tensor) -> Tensors:
    """What torchao 0.18 writes for `Int8WeightOnlyConfig` through `save_pretrained`."""
    return {
        f"{name}._weight_qdata": weight.to(torch.int8),
        f"{name}._weight_scale": torch.ones(weight.shape[0], 1),
        f"{name}._weight_zero_point": torch.zeros(weight.shape[0], 1, dtype=torch.int8),
    }


def hqq(name: str, weight: torch.Tensor) -> Tensors:
    """The state dict of hqq 0.2.8's `HQQLinear` in 4 bits: numbers, scales, and each setting as a tensor."""
    groups = weight.numel() // 64
    settings = {
        "nbits": 4,
        "group_size": 64,
        "axis": 1,
        "view_as_float": 0,
        "quant_scale": 0,
        "quant_zero": 0,
        "offload_meta": 0,
        "encoded_state_dict": 1,
        "stores_quant_config": 1,
        "channel_wise": 1,
        "optimize": 1,
        "round_zero": 1,
    }
    return {
        f"{name}.W_q": torch.zeros(groups // 2, 64, dtype=torch.uint8),
        f"{name}.scale": torch.ones(groups, 1, dtype=torch.bfloat16),
        f"{name}.zero": torch.ones(groups, 1, dtype=torch.bfloat16),
        f"{name}.shape": torch.tensor(weight.shape),
        f"{name}.packing": torch.zeros(7, dtype=torch.uint8),
        f"{name}.unpack_view_dtype": torch.zeros(11, dtype=torch.uint8),
        f"{name}.compute_dtype": torch.zeros(14, dtype=torch.uint8),
    } | {f"{name}.{key}": torch.tensor(value, dtype=torch.int32) for key, value in settings.items()}


def aqlm(name: str, weight: torch.Tensor) -> Tensors:
    rows, columns = weight.shape
    return {
        f"{name}.codes": torch.zeros(rows, columns // 8, 1, dtype=torch.int16),
        f"{name}.codebooks": torch.zeros(1, 1024, 1, 8, dtype=torch.float16),
        f"{name}.scales": torch.ones(rows, 1, 1, 1, dtype=torch.float16),
    }


def eetq(name: str, weight: torch.Tensor) -> Tensors:
    return {
        f"{name}.weight": torch.zeros(weight.shape[1], weight.shape[0], dtype=torch.int8),
        f"{name}.weight_scales": torch.ones(weight.shape[0], dtype=torch.float16),
    }


def bitnet(name: str, weight: torch.Tensor) -> Tensors:
    return {
        f"{name}.weight": torch.zeros(weight.shape[0] // 4, weight.shape[1], dtype=torch.uint8),
        f"{name}.weight_scale": torch.ones(1, dtype=torch.bfloat16),
    }


METHODS: dict[str, tuple[Callable[[str, torch.Tensor], Tensors], dict[str, Any], str]] = {
    "gptq": (gptq, {"quant_method": "gptq", "bits": 4, "group_size": 32}, "4-bit GPTQ, groups of 32"),
    "awq": (awq, {"quant_method": "awq", "bits": 4, "group_size": 32}, "4-bit AWQ, groups of 32"),
    "nf4": (
        nf4,
        {
            "quant_method": "bitsandbytes",
            "load_in_4bit": True,
            "bnb_4bit_quant_type": "nf4",
            "bnb_4bit_use_double_quant": True,
        },
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
    "gptq-3": (gptq_in_3_bits, {"quant_method": "gptq", "bits": 3, "group_size": -1}, "3-bit GPTQ"),
    "auto-round": (
        gptq,
        {"quant_method": "auto-round", "packing_format": "auto_round:auto_gptq", "bits": 4, "group_size": 32},
        "4-bit AutoRound, groups of 32",
    ),
    "auto-round-awq": (
        awq,
        {"quant_method": "auto-round", "packing_format": "auto_round:auto_awq", "bits": 4, "group_size": 32},
        "4-bit AutoRound, groups of 32",
    ),
    "fp8-static": (fp8_per_tensor, {"quant_method": "fp8", "activation_scheme": "static"}, "FP8"),
    "naive": (
        fp8_per_tensor,
        {
            "quant_method": "compressed-tensors",
            "format": "naive-quantized",
            "config_groups": {"group_0": {"weights": {"num_bits": 8, "type": "float"}}},
        },
        "8-bit compressed-tensors naive-quantized",
    ),
    "torchao": (
        torchao,
        {
            "quant_method": "torchao",
            "quant_type": {"default": {"_type": "Int8WeightOnlyConfig", "_data": {}}},
        },
        "torchao Int8WeightOnly",
    ),
    "hqq": (
        hqq,
        {"quant_method": "hqq", "quant_config": {"weight_quant_params": {"nbits": 4, "group_size": 64}}},
        "4-bit HQQ, groups of 64",
    ),
    "aqlm": (aqlm, {"quant_method": "aqlm", "num_codebooks": 1, "nbits_per_codebook": 10}, "AQLM 1x10"),
    "eetq": (eetq, {"quant_method": "eetq", "weights": "int8"}, "EETQ int8"),
    "bitnet": (bitnet, {"quant_method": "bitnet"}, "BitNet"),
}


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("llama")
    config = LlamaConfig(
        vocab_size=64,
        hidden_size=IN,
        intermediate_size=OUT,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        tie_word_embeddings=False,
    )
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
def test_transformers_model_gives_the_same_bytes_as_the_table(
    method: str, plain: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DEVMAP_CACHE", str(tmp_path / "cache"))
    folder = quantised(plain, tmp_path / method, method)
    from_table, from_model = (
        read_checkpoint(folder, through_transformers=when) for when in ("never", "always")
    )
    mapping = from_model.mapping
    assert mapping is not None
    assert (mapping.unmapped, mapping.missing, mapping.mismatched) == ((), (), ())
    assert list(from_model.tensors.values()) == list(from_table.tensors.values())


@pytest.mark.parametrize("method", ["fp8", "awq", "compressed", "nvfp4", "nf4"])
@pytest.mark.parametrize("when", ["never", "always"])
def test_experts_that_are_quantised_one_by_one_count_as_stored(
    method: str, when: Library, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DEVMAP_CACHE", str(tmp_path / "cache"))
    config = Qwen3MoeConfig(
        vocab_size=64,
        hidden_size=IN,
        intermediate_size=OUT,
        moe_intermediate_size=64,
        num_hidden_layers=1,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=16,
        num_experts=2,
        num_experts_per_tok=1,
    )
    Qwen3MoeForCausalLM(config).to(torch.bfloat16).save_pretrained(tmp_path / "plain")
    folder = quantised(tmp_path / "plain", tmp_path / method, method)
    inventory = read_checkpoint(folder, through_transformers=when)
    assert sum(each.nbytes for each in inventory.tensors.values() if each.persistent) == stored_bytes(folder)
    assert inventory.mapping is not None
    assert (inventory.mapping.unmapped, inventory.mapping.mismatched) == ((), ())


def test_scales_of_the_kv_cache_lie_on_the_attention(plain: Path, tmp_path: Path) -> None:
    folder = quantised(plain, tmp_path / "m", "fp8-static")
    path = folder / "model.safetensors"
    scales = {f"model.layers.1.self_attn.{which}_scale": torch.tensor(1.0) for which in "kv"}
    save_file(load_file(path) | scales, path, metadata={"format": "pt"})
    inventory = devmap.Inventory.from_checkpoint(folder)
    assert scales.keys() <= inventory.tensors.keys()
    assert inventory.mapping is not None
    assert inventory.mapping.unmapped == ()
    owners = [tensor.module for tensor in inventory.tensors.values()]
    assert owners == sorted(owners, key=list(inventory.modules).index)


def test_a_parameter_that_is_called_like_a_flattened_scale_stays_a_parameter(
    plain: Path, tmp_path: Path
) -> None:
    folder = quantised(plain, tmp_path / "m", "torchao")
    path = folder / "model.safetensors"
    save_file(load_file(path) | {"model.norm._own_scale": torch.ones(3)}, path, metadata={"format": "pt"})
    mapping = devmap.Inventory.from_checkpoint(folder).mapping
    assert mapping is not None
    assert mapping.unmapped == ("model.norm._own_scale",)


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
        vocab_size=64,
        hidden_size=64,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=16,
        num_local_experts=4,
        num_experts_per_tok=2,
        layer_types=["sliding_attention", "full_attention"],
    )
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
    with pytest.raises(
        devmap.LoadError, match=r"quantised \(4-bit AWQ, groups of 32\).* does not run packed"
    ):
        devmap.load(config)
