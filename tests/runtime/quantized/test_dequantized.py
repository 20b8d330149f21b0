"""Quantised checkpoints that are loaded whole: weights and outputs are those of `from_pretrained`."""

from __future__ import annotations

import json
import warnings
from typing import TYPE_CHECKING, Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import (
    AutoModelForCausalLM,
    CompressedTensorsConfig,
    FineGrainedFP8Config,
    GptOssConfig,
    GptOssForCausalLM,
    Mxfp4Config,
)

import devmap
from devmap.errors import LoadError
from devmap.inventory.fingerprint import fingerprint
from tests.runtime.quantized.small_llama import IDS, small_llama

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

BLOCK = 32


def _save(folder: Path, model: Any, state: dict[str, torch.Tensor], settings: dict[str, Any]) -> Path:
    model.save_pretrained(folder)
    save_file({name: tensor.contiguous() for name, tensor in state.items()}, folder / "model.safetensors")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "quantization_config": settings}))
    return folder


def _is_linear(name: str) -> bool:
    return name.endswith("proj.weight")


def fp8(folder: Path) -> Path:
    """Blocks of 32 x 32 with one scale each, as DeepSeek stores them."""
    model, state = small_llama(), {}
    for name, tensor in model.state_dict().items():
        if not _is_linear(name):
            state[name] = tensor
            continue
        rows, columns = tensor.shape
        blocks = tensor.float().view(rows // BLOCK, BLOCK, columns // BLOCK, BLOCK)
        scale = blocks.abs().amax((1, 3), keepdim=True) / 448
        state[name] = (blocks / scale).view(rows, columns).to(torch.float8_e4m3fn)
        state[f"{name}_scale_inv"] = scale[:, 0, :, 0]
    settings = {"quant_method": "fp8", "weight_block_size": [BLOCK, BLOCK], "activation_scheme": "dynamic"}
    return _save(folder, model, state, settings | {"modules_to_not_convert": ["lm_head"]})


def compressed(folder: Path) -> Path:
    """A scale for each row of eight-bit integers."""
    model, state = small_llama(), {}
    for name, tensor in model.state_dict().items():
        if not _is_linear(name):
            state[name] = tensor
            continue
        scale = tensor.float().abs().amax(1, keepdim=True) / 127
        state[name] = (tensor.float() / scale).round().to(torch.int8)
        state[f"{name}_scale"] = scale.to(torch.bfloat16)
    weights = {"num_bits": 8, "type": "int", "strategy": "channel", "symmetric": True, "dynamic": False}
    settings = {
        "quant_method": "compressed-tensors",
        "format": "int-quantized",
        "quantization_status": "compressed",
        "config_groups": {"group_0": {"targets": ["Linear"], "weights": weights, "format": "int-quantized"}},
        "ignore": ["lm_head"],
    }
    return _save(folder, model, state, settings)


def mxfp4(folder: Path) -> Path:
    """Experts as gpt-oss stores them: two numbers a byte in groups of 32, one exponent for each group."""
    torch.manual_seed(0)
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
    model = GptOssForCausalLM(config).to(torch.bfloat16)
    state = {}
    for name, tensor in model.state_dict().items():
        if not name.endswith(("gate_up_proj", "down_proj")):
            state[name] = tensor
            continue
        experts, inner, outer = tensor.shape
        shape = (experts, outer, inner // 32, 16)
        state[f"{name}_blocks"] = torch.randint(0, 256, shape, dtype=torch.uint8)
        state[f"{name}_scales"] = torch.randint(118, 124, shape[:3], dtype=torch.uint8)
    return _save(folder, model, state, {"quant_method": "mxfp4", "modules_to_not_convert": ["lm_head"]})


METHODS: dict[str, tuple[Callable[[Path], Path], Any]] = {
    "fp8": (fp8, FineGrainedFP8Config(dequantize=True, weight_block_size=(BLOCK, BLOCK))),
    "compressed-tensors": (compressed, CompressedTensorsConfig(dequantize=True)),
    "mxfp4": (mxfp4, Mxfp4Config(dequantize=True)),
}
MEMORY = {
    "resident": "{0: 10MB}",
    "on the cpu": "{cpu: 10MB}",
    "from cpu": "{0: 250KB, cpu: 10MB}",
    "from disk": "{0: 250KB, disk: 10MB}",
    "all tiers": "{0: 250KB, 1: 250KB, cpu: 100KB, disk: 10MB}",
}


def config_of(folder: Path, tmp_path: Path, memory: str, dequantize: str = ", dequantize: true") -> Path:
    path = tmp_path / "x.devmap.yaml"
    path.write_text(
        f"version: 1\nmodel: {{checkpoint: {folder}{dequantize}}}\nmax_memory: {memory}\n"
        f"offload: {{folder: {tmp_path / 'offload'}}}\n",
        encoding="utf-8",
    )
    return path


@pytest.mark.parametrize("memory", MEMORY)
@pytest.mark.parametrize("method", METHODS)
def test_outputs_are_those_of_from_pretrained(method: str, memory: str, tmp_path: Path) -> None:
    make, settings = METHODS[method]
    folder = make(tmp_path / "model")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that the settings of the folder are kept, but for `dequantize`
        plain = AutoModelForCausalLM.from_pretrained(folder, quantization_config=settings).eval()
    with torch.no_grad():
        expected = plain(IDS).logits
    with devmap.testing.simulated_devices({0: "10MB", 1: "10MB"}, activations=False):
        model = devmap.load(config_of(folder, tmp_path, MEMORY[memory]), progress=False)
        with torch.no_grad():
            found = model(IDS.to(0) if memory == "resident" else IDS).logits.cpu()
        state = {name: tensor.cpu() for name, tensor in model.state_dict().items()}
    assert torch.equal(found, expected)
    assert state.keys() == plain.state_dict().keys()
    for name, tensor in plain.state_dict().items():
        assert tensor.dtype == state[name].dtype, name
        assert torch.equal(state[name], tensor), name


@pytest.mark.parametrize("method", METHODS)
def test_the_plan_counts_whole_weights_from_the_headers_alone(method: str, tmp_path: Path) -> None:
    folder = METHODS[method][0](tmp_path / "model")
    whole = devmap.Inventory.from_checkpoint(folder, dequantize=True)
    stored = devmap.Inventory.from_checkpoint(folder)
    model = AutoModelForCausalLM.from_config(AutoModelForCausalLM.from_pretrained(folder).config)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    assert sum(each.nbytes for each in whole.tensors.values() if each.persistent) == 2 * parameters
    assert stored.nbytes < whole.nbytes
    assert fingerprint(whole) != fingerprint(stored)
    assert whole.architecture is not None
    assert "dequantised" in str(whole.architecture.figures["quantization"])


@pytest.mark.parametrize("method", METHODS)
def test_without_the_key_the_error_names_it(method: str, tmp_path: Path) -> None:
    folder = METHODS[method][0](tmp_path / "model")
    with (
        devmap.testing.simulated_devices({0: "10MB"}),
        pytest.raises(LoadError, match="is quantised") as caught,
    ):
        devmap.load(config_of(folder, tmp_path, "{0: 10MB}", ""), progress=False)
    assert "model.dequantize: true" in caught.value.help


@pytest.mark.parametrize(
    "method",
    [
        "gptq",
        "awq",
        "eetq",
        "hqq",
        "aqlm",
        "quanto",
        "modelopt",
        "auto-round",
        "bitnet",
        "fbgemm_fp8",
        "sesame",
    ],
)
def test_what_is_not_run_packed_is_refused_before_anything_is_read(method: str, tmp_path: Path) -> None:
    folder = fp8(tmp_path / "model")
    config = json.loads((folder / "config.json").read_text())
    config["quantization_config"] = {"quant_method": method}
    (folder / "config.json").write_text(json.dumps(config))
    with (
        devmap.testing.simulated_devices({0: "10MB"}),
        pytest.raises(LoadError, match=r"devmap.load does not run packed") as caught,
    ):
        devmap.load(config_of(folder, tmp_path, "{0: 10MB}", ""), progress=False)
    assert caught.value.help


def test_a_method_that_transformers_does_not_dequantise_while_loading_is_refused_by_name(
    tmp_path: Path,
) -> None:
    folder = fp8(tmp_path / "model")
    config = json.loads((folder / "config.json").read_text())
    config["quantization_config"] = {"quant_method": "bitsandbytes", "load_in_8bit": True}
    (folder / "config.json").write_text(json.dumps(config))
    with (
        devmap.testing.simulated_devices({0: "10MB"}),
        pytest.raises(LoadError, match="does not dequantise 8-bit bitsandbytes int8"),
    ):
        devmap.load(config_of(folder, tmp_path, "{0: 10MB}"), progress=False)


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        (
            {
                "quant_method": "compressed-tensors",
                "config_groups": {"group_0": {"weights": {"num_bits": "x"}}},
            },
            "compressed-tensors",
        ),
        ({"quant_method": "torchao", "quant_type": "int4_weight_only"}, "torchao"),
    ],
)
def test_settings_that_an_installed_library_rejects_do_not_advise_to_install_it(
    settings: dict[str, Any], says: str, tmp_path: Path
) -> None:
    folder = fp8(tmp_path / "model")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"quantization_config": settings}))
    with (
        devmap.testing.simulated_devices({0: "10MB"}),
        pytest.raises(LoadError, match="cannot run here") as caught,
    ):
        devmap.load(config_of(folder, tmp_path, "{0: 10MB}"), progress=False)
    assert says in caught.value.message
    assert "install" not in caught.value.help
    assert "versions" in caught.value.help


def test_a_library_that_is_not_installed_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = compressed(tmp_path / "model")
    quantizer = "transformers.quantizers.quantizer_compressed_tensors"
    monkeypatch.setattr(f"{quantizer}.is_compressed_tensors_available", lambda: False)
    with (
        devmap.testing.simulated_devices({0: "10MB"}),
        pytest.raises(LoadError, match="cannot run here") as caught,
    ):
        devmap.load(config_of(folder, tmp_path, "{0: 10MB}"), progress=False)
    assert "pip install 'torch-devmap[quantized]'" in caught.value.help


def test_what_streams_is_written_to_the_offload_folder_once(tmp_path: Path) -> None:
    folder = fp8(tmp_path / "model")
    path = config_of(folder, tmp_path, "{0: 250KB, disk: 10MB}")
    times = []
    for _ in range(2):
        with devmap.testing.simulated_devices({0: "10MB"}, activations=False):
            devmap.load(path, progress=False)
        times.append({each.name: each.stat().st_mtime_ns for each in (tmp_path / "offload").iterdir()})
    assert times[0] == times[1]
    assert any(
        "q_proj.weight" in name for each in times[0] for name in load_file(tmp_path / "offload" / each)
    )
