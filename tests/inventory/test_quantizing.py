"""What a plan counts of weights that are quantised while they are loaded, to the byte."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch
import transformers
from transformers import BitsAndBytesConfig, PretrainedConfig, PreTrainedModel, TorchAoConfig
from transformers.quantizers import AutoHfQuantizer

import devmap
from devmap.config.model.quantization_settings import QuantizationSettings
from devmap.errors import QuantizationError, ResolutionError
from devmap.inventory.fingerprint import fingerprint
from devmap.inventory.quantizing import label_of, quantized
from devmap.inventory.reader import read_checkpoint

if TYPE_CHECKING:
    from pathlib import Path

    from devmap.inventory.model import Inventory

SMALL = {
    "vocab_size": 64, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2,
    "num_attention_heads": 4, "num_key_value_heads": 2, "pad_token_id": 0,
}  # fmt: skip
T5 = {"vocab_size": 64, "d_model": 32, "d_ff": 64, "d_kv": 8, "num_layers": 2, "num_heads": 4}
MODELS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "llama": ("LlamaForCausalLM", "LlamaConfig", SMALL | {"tie_word_embeddings": False}),
    "llama tied": ("LlamaForCausalLM", "LlamaConfig", SMALL | {"tie_word_embeddings": True}),
    "llama scores": ("LlamaForSequenceClassification", "LlamaConfig", SMALL),
    "gpt2": ("GPT2LMHeadModel", "GPT2Config", {"vocab_size": 64, "n_embd": 32, "n_layer": 2, "n_head": 4}),
    "t5": ("T5ForConditionalGeneration", "T5Config", T5),
    "t5 untied": ("T5ForConditionalGeneration", "T5Config", T5 | {"tie_word_embeddings": False}),
    "t5 encoder": ("T5EncoderModel", "T5Config", T5),
    "opt": (
        "OPTForCausalLM",
        "OPTConfig",
        {"vocab_size": 64, "hidden_size": 32, "ffn_dim": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
        | {"word_embed_proj_dim": 32},
    ),
    "bert": ("BertForMaskedLM", "BertConfig", SMALL),
    "neox": ("GPTNeoXForCausalLM", "GPTNeoXConfig", SMALL),
    "roberta": ("RobertaForMaskedLM", "RobertaConfig", SMALL | {"tie_word_embeddings": False}),
    "sounds": (
        "Wav2Vec2ForCTC",
        "Wav2Vec2Config",
        SMALL
        | {"conv_dim": (8, 8), "conv_kernel": (3, 3), "conv_stride": (2, 2), "num_feat_extract_layers": 2}
        | {"num_conv_pos_embedding_groups": 4},
    ),
    "rembert": (
        "RemBertForMaskedLM",
        "RemBertConfig",
        SMALL | {"input_embedding_size": 16, "output_embedding_size": 16},
    ),
    "experts": (
        "Qwen3MoeForCausalLM",
        "Qwen3MoeConfig",
        SMALL | {"moe_intermediate_size": 32, "num_experts": 4, "num_experts_per_tok": 2, "head_dim": 8},
    ),
}
SETTINGS: dict[str, tuple[dict[str, Any], Any]] = {
    "nf4": ({"method": "nf4"}, BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4")),
    "nf4 doubled": (
        {"method": "nf4", "bnb_4bit_use_double_quant": True},
        BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True),
    ),
    "fp4": ({"load_in_4bit": True}, BitsAndBytesConfig(load_in_4bit=True)),
    "stored as bfloat16": (
        {"method": "nf4", "bnb_4bit_quant_storage": "bfloat16"},
        BitsAndBytesConfig(
            load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_quant_storage=torch.bfloat16
        ),
    ),
    "int8": ({"load_in_8bit": True}, BitsAndBytesConfig(load_in_8bit=True)),
    "int8 but some": (
        {"method": "int8", "llm_int8_skip_modules": ["lm_head", "embed_out", "decoder", "query", "layers.1"]},
        BitsAndBytesConfig(
            load_in_8bit=True, llm_int8_skip_modules=["lm_head", "embed_out", "decoder", "query", "layers.1"]
        ),
    ),
}


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    made = {}
    for name, (class_name, config_name, figures) in MODELS.items():
        torch.manual_seed(0)
        config: PretrainedConfig = getattr(transformers, config_name)(**figures)
        model: PreTrainedModel = getattr(transformers, class_name)(config)
        made[name] = tmp_path_factory.mktemp(name.replace(" ", "-"))
        model.to(torch.bfloat16).save_pretrained(made[name])
    return made


def plain(folder: Path, name: str) -> PreTrainedModel:
    found: PreTrainedModel = getattr(transformers, MODELS[name][0]).from_pretrained(folder)
    return found


def converted(folder: Path, name: str, config: Any) -> set[str]:
    """Return the weights that Transformers' own quantizer would convert."""
    model = plain(folder, name)
    quantizer = AutoHfQuantizer.from_config(config, pre_quantized=False)
    quantizer.validate_environment(device_map=None)
    quantizer.preprocess_model(model=model, device_map={}, checkpoint_files=None)
    names = [each for each, _ in model.named_parameters()]
    return {each for each in names if quantizer.param_needs_quantization(model, each)}


def replaced(whole: Inventory, found: Inventory) -> set[str]:
    return {
        name
        for name, tensor in whole.tensors.items()
        if name not in found.tensors or found.tensors[name] != tensor
    }


@pytest.mark.parametrize("settings", ["nf4", "int8 but some"])
@pytest.mark.parametrize("name", MODELS)
def test_the_weights_are_those_that_transformers_quantizer_converts(
    name: str, settings: str, folders: dict[str, Path]
) -> None:
    whole = read_checkpoint(folders[name])
    given, config = SETTINGS[settings]
    found = quantized(whole, QuantizationSettings.model_validate(given))
    assert replaced(whole, found) == converted(folders[name], name, config)
    assert fingerprint(found) != fingerprint(whole)
    assert list(found.modules) == list(whole.modules)


@pytest.mark.parametrize("name", ["llama", "llama tied", "t5", "bert", "roberta"])
def test_the_weights_are_those_that_torchaos_quantizer_converts(name: str, folders: dict[str, Path]) -> None:
    from torchao.quantization import Float8WeightOnlyConfig  # noqa: PLC0415 - seconds, and for this test alone

    whole = read_checkpoint(folders[name])
    found = quantized(whole, QuantizationSettings.model_validate({"method": "fp8"}))
    config = TorchAoConfig(Float8WeightOnlyConfig())
    assert replaced(whole, found) == converted(folders[name], name, config)


@pytest.mark.parametrize("kind", ["nf4", "nf4 doubled", "fp4", "int8", "stored as bfloat16"])
@pytest.mark.parametrize("name", ["llama", "gpt2", "t5", "opt"])
def test_each_part_is_what_the_library_makes(name: str, kind: str, folders: dict[str, Path]) -> None:
    given, config = SETTINGS[kind]
    found = quantized(read_checkpoint(folders[name]), QuantizationSettings.model_validate(given))
    model = getattr(transformers, MODELS[name][0]).from_pretrained(folders[name], quantization_config=config)
    made: dict[str, torch.Tensor] = {}
    for path, module in model.named_modules():
        weight: Any = getattr(module, "weight", None)
        if type(weight).__name__ == "Params4bit":
            state = weight.quant_state
            made |= {f"{path}.weight": weight, f"{path}.weight_absmax": state.absmax}
            made[f"{path}.weight_quant_map"] = state.code
            if state.nested:
                made[f"{path}.weight_nested_absmax"] = state.state2.absmax
                made[f"{path}.weight_nested_quant_map"] = state.state2.code
                made[f"{path}.weight_nested_offset"] = state.offset
        elif type(weight).__name__ == "Int8Params":
            made |= {f"{path}.weight": weight, f"{path}.SCB": weight.SCB}
    planned = {part.name: (part.shape, part.dtype) for part in found.tensors.values() if part.kind == "part"}
    assert planned == {
        part: (tuple(tensor.shape), str(tensor.dtype).removeprefix("torch.")) for part, tensor in made.items()
    }


def test_int4_counts_numbers_scales_and_zero_points_of_groups(folders: dict[str, Path]) -> None:
    whole = read_checkpoint(folders["llama"])
    kind = {"default": {"_type": "Int4WeightOnlyConfig", "_data": {"group_size": 64}}}
    found = quantized(whole, QuantizationSettings.model_validate({"quant_type": kind}))
    # groups of 64 divide the rows of down_proj alone, which has 64 inputs and 32 outputs
    assert replaced(whole, found) == {f"model.layers.{layer}.mlp.down_proj.weight" for layer in range(2)}
    parts = [part for part in found.own_tensors["model.layers.0.mlp.down_proj"] if part.kind == "part"]
    assert [(part.name.rpartition(".")[2], part.shape, part.dtype) for part in parts] == [
        ("_weight_qdata", (32, 32), "int8"),
        ("_weight_scale", (1, 32), "bfloat16"),
        ("_weight_zero_point", (1, 32), "bfloat16"),
    ]


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"method": "nf4", "llm_int8_skip_modules": ["model"]}, "no linear layer that nf4"),
        ({"method": "nf4", "llm_int8_skip_modules": ["q_proj"]}, "'lm_head' shares its weight"),
    ],
)
def test_what_leaves_nothing_to_quantise_is_refused(
    given: dict[str, Any], says: str, folders: dict[str, Path]
) -> None:
    whole = read_checkpoint(folders["llama tied"])
    if "model" in given["llm_int8_skip_modules"]:
        given = {**given, "llm_int8_skip_modules": ["model", "lm_head"]}
    with pytest.raises(QuantizationError, match=says) as caught:
        quantized(whole, QuantizationSettings.model_validate(given))
    assert caught.value.help


def test_a_plan_from_a_whole_inventory_counts_packed_weights(folders: dict[str, Path]) -> None:
    config = devmap.PlacementConfig.model_validate(
        {"version": 1, "model": {"quantization": "nf4"}, "max_memory": {"0": "1MB"}}
    )
    whole = read_checkpoint(folders["llama"])
    packed = quantized(whole, QuantizationSettings.model_validate({"method": "nf4"}))
    plan = devmap.resolve(config, whole)
    assert sum(placement.nbytes for placement in plan.placements) == packed.nbytes < whole.nbytes
    assert plan == devmap.resolve(config, packed)
    other = config.model_copy(update={"model": config.model.model_copy(update={"quantization": None})})
    with pytest.raises(ResolutionError, match="loaded as 4-bit bitsandbytes nf4"):
        devmap.resolve(other, packed)
    assert plan.config_fingerprint != devmap.resolve(other, whole).config_fingerprint


@pytest.mark.parametrize(
    ("given", "label"),
    [
        ({"method": "nf4"}, "4-bit bitsandbytes nf4"),
        ({"method": "fp4", "bnb_4bit_use_double_quant": True}, "4-bit bitsandbytes fp4, double quantised"),
        ({"method": "int8"}, "8-bit bitsandbytes int8"),
        ({"method": "int4"}, "4-bit torchao int4, groups of 128"),
        ({"method": "fp8"}, "8-bit torchao fp8"),
    ],
)
def test_methods_have_names(given: dict[str, Any], label: str) -> None:
    assert label_of(QuantizationSettings.model_validate(given)) == label
