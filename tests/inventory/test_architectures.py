"""The built-in table against transformers.

Headers alone give what the module gives: a sample here, every class in `make sweep`.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from devmap.inventory import reader
from devmap.inventory.fingerprint import fingerprint
from devmap.inventory.live.cache import _path
from devmap.inventory.live.module import match_checkpoint, read_module
from devmap.inventory.manifests.manifest import parse_manifest
from devmap.inventory.manifests.manifest_text import render_manifest
from devmap.inventory.model import Inventory
from devmap.inventory.reader import read_checkpoint
from devmap.inventory.stored.checkpoint import Checkpoint, read_headers
from devmap.inventory.table.skeleton import family_of, known_families
from tests.sweep.tiny_configs import PLANS, tiny_config

SCRIPTS = Path(__file__).parents[2] / "scripts"

CLASSES = [
    ("llama", "LlamaForCausalLM"),
    ("mixtral", "MixtralForCausalLM"),
    ("qwen2_moe", "Qwen2MoeForCausalLM"),
    ("gemma3", "Gemma3ForConditionalGeneration"),
    ("gpt2", "GPT2LMHeadModel"),
    ("gptj", "GPTJForCausalLM"),
    ("falcon", "FalconForCausalLM"),
    ("phi3", "Phi3ForCausalLM"),
    ("mamba", "MambaForCausalLM"),
    ("jamba", "JambaForCausalLM"),
    ("deepseek_v3", "DeepseekV3ForCausalLM"),
    ("gpt_oss", "GptOssForCausalLM"),
    ("t5", "T5ForConditionalGeneration"),
    ("bart", "BartForConditionalGeneration"),
    ("whisper", "WhisperForConditionalGeneration"),
    ("bert", "BertForMaskedLM"),
    ("albert", "AlbertForMaskedLM"),
    ("llava", "LlavaForConditionalGeneration"),
    ("qwen2_vl", "Qwen2VLForConditionalGeneration"),
    ("clip", "CLIPModel"),
    ("vit", "ViTForImageClassification"),
    ("wav2vec2", "Wav2Vec2ForCTC"),
    ("aya_vision", "AyaVisionForConditionalGeneration"),
    ("zamba", "ZambaForCausalLM"),
    ("udop", "UdopForConditionalGeneration"),
    ("owlvit", "OwlViTForObjectDetection"),
    ("rt_detr_v2", "RTDetrV2ForObjectDetection"),
]


def config_of(model_type: str, class_name: str, changes: dict[str, object] | None = None) -> Any:
    model_class = getattr(transformers, class_name)
    config = tiny_config(model_class, model_type, PLANS[0])
    for key, value in (changes or {}).items():
        setattr(config, key, value)
    return config


def build(model_type: str, class_name: str, changes: dict[str, object] | None = None) -> Any:
    config = config_of(model_type, class_name, changes)
    torch.manual_seed(0)
    return getattr(transformers, class_name)._from_config(config, dtype=torch.bfloat16)


def built_again(folder: Path, class_name: str) -> Any:
    """What transformers builds on meta from the saved config.json."""
    with torch.device("meta"):
        config = transformers.AutoConfig.from_pretrained(folder)
        return getattr(transformers, class_name)._from_config(config, dtype=torch.bfloat16)


def assert_equal(first: Inventory, second: Inventory) -> None:
    assert list(first.modules.items()) == list(second.modules.items())
    assert [tensor[:2] for tensor in first.tensors.values()] == [t[:2] for t in second.tensors.values()]
    assert (first.ties, first.no_split_module_classes) == (second.ties, second.no_split_module_classes)
    assert first.architecture == second.architecture


def content(checkpoint: Checkpoint, name: str) -> torch.Tensor:
    stored = checkpoint.tensors[name]
    raw = bytearray(stored.file.read_bytes()[stored.offset : stored.offset + stored.nbytes])
    return torch.frombuffer(raw, dtype=getattr(torch, stored.dtype)).reshape(stored.shape)


def assembled(inventory: Inventory, name: str) -> torch.Tensor:
    """A tensor put together from the pieces of its mapping, in numbers."""
    assert inventory.mapping is not None
    assert inventory.checkpoint is not None
    tensor = inventory.tensors[name]
    result = torch.full(tensor.shape, 77, dtype=getattr(torch, tensor.dtype))
    covered = np.zeros(tensor.shape, dtype=np.int8)
    for piece in inventory.mapping.pieces[name]:
        part = content(inventory.checkpoint, piece.stored)
        if piece.take is not None:
            part = part[tuple(slice(*edge) for edge in piece.take)]
        if piece.permute is not None:
            part = part.permute(piece.permute)
        box = (
            tuple(slice(*edge) for edge in piece.put)
            if piece.put is not None
            else tuple(slice(None) for _ in tensor.shape)
        )
        result[box] = part.reshape(result[box].shape)
        covered[box] += 1
    assert (covered == 1).all(), name
    return result


@pytest.mark.parametrize(("model_type", "class_name"), CLASSES)
def test_headers_alone_equal_the_module_and_its_weights(
    tmp_path: Path, model_type: str, class_name: str
) -> None:
    build(model_type, class_name).save_pretrained(tmp_path, max_shard_size="200KB")
    found = Inventory.from_checkpoint(tmp_path)
    assert_equal(found, read_module(built_again(tmp_path, class_name)))
    assert found.mapping is not None
    assert (found.mapping.unmapped, found.mapping.missing, found.notes) == ((), (), ())
    model = getattr(transformers, class_name).from_pretrained(tmp_path, dtype="auto")
    theirs = model.state_dict()
    assert set(found.mapping.pieces) == set(theirs)
    for name in found.mapping.pieces:
        assert torch.equal(
            assembled(found, name), theirs[name].to(getattr(torch, found.tensors[name].dtype))
        ), name
    live = match_checkpoint(read_module(model), read_headers(tmp_path), model)
    assert live.mapping == found.mapping


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize(
    ("model_type", "class_name"),
    [CLASSES[0], CLASSES[3], ("opt", "OPTForCausalLM"), ("bloom", "BloomForCausalLM")],
)
def test_ties_follow_the_config(tmp_path: Path, model_type: str, class_name: str, tied: bool) -> None:
    build(model_type, class_name, {"tie_word_embeddings": tied}).save_pretrained(tmp_path)
    found = Inventory.from_checkpoint(tmp_path)
    assert bool(found.ties) is tied
    assert_equal(found, read_module(built_again(tmp_path, class_name)))


@pytest.mark.parametrize("distinct", [1, 2, 3])
@pytest.mark.parametrize("adapters", [True, False])
def test_parts_that_share_weights_by_turns_are_told_from_one_copy(
    tmp_path: Path, distinct: int, adapters: bool
) -> None:
    changes: dict[str, object] = {
        "num_hidden_layers": 8,
        "layers_block_type": ["linear_attention", "hybrid"] * 4,
        "hybrid_layer_ids": [1, 3, 5, 7],
        "num_mem_blocks": distinct,
        "use_shared_attention_adapter": adapters,
    }
    build("zamba2", "Zamba2ForCausalLM", changes).save_pretrained(tmp_path)
    found = Inventory.from_checkpoint(tmp_path)
    assert_equal(found, read_module(built_again(tmp_path, "Zamba2ForCausalLM")))
    assert found.mapping is not None
    assert (found.mapping.unmapped, found.mapping.missing, found.notes) == ((), (), ())
    copy = f"model.layers.{1 + 2 * distinct}.shared_transformer.self_attn.q_proj.weight"
    assert found.owner[copy] == copy.replace(str(1 + 2 * distinct), "1")


def test_another_text_model_inside_a_vision_language_model_is_described_by_its_own_file(
    tmp_path: Path,
) -> None:
    config = config_of("llava", "LlavaForConditionalGeneration")
    config.text_config = config_of(
        "qwen2", "Qwen2ForCausalLM", {"hidden_size": config.text_config.hidden_size}
    )
    transformers.LlavaForConditionalGeneration._from_config(config, dtype=torch.bfloat16).save_pretrained(
        tmp_path
    )
    found = Inventory.from_checkpoint(tmp_path)
    assert found.modules["model.language_model"] == "Qwen2Model"
    assert_equal(found, read_module(built_again(tmp_path, "LlavaForConditionalGeneration")))


@pytest.mark.parametrize("model_type", ["llama", "mixtral", "bert"])
def test_through_transformers_equals_the_table(tmp_path: Path, model_type: str) -> None:
    family = family_of(model_type)
    assert family is not None
    build(model_type, list(family.classes)[1]).save_pretrained(tmp_path)
    asked = read_checkpoint(tmp_path, through_transformers=True)
    found = read_checkpoint(tmp_path)
    assert asked == found
    assert fingerprint(asked) == fingerprint(found)
    assert asked.mapping == found.mapping


@pytest.mark.parametrize(
    ("saved", "loaded"),
    [("BertModel", "BertForMaskedLM"), ("BertForMaskedLM", "BertModel"), ("LlamaModel", "LlamaForCausalLM")],
)
def test_a_prefix_that_is_lacking_or_too_much_is_repaired(tmp_path: Path, saved: str, loaded: str) -> None:
    model_type = "bert" if "Bert" in saved else "llama"
    build(model_type, saved, {"tie_word_embeddings": True}).save_pretrained(tmp_path)
    config = tmp_path / "config.json"
    config.write_text(config.read_text().replace(f'"{saved}"', f'"{loaded}"'))
    model = getattr(transformers, loaded).from_pretrained(tmp_path, dtype="auto")
    found = Inventory.from_checkpoint(tmp_path)
    assert found.mapping is not None
    theirs = model.state_dict()
    for name in found.mapping.pieces:
        assert torch.equal(assembled(found, name), theirs[name]), name
    live = match_checkpoint(read_module(model), read_headers(tmp_path), model)
    assert live.mapping is not None
    assert set(live.mapping.pieces) == set(found.mapping.pieces)
    assert set(live.mapping.missing) == set(found.mapping.missing)


def test_renamed_keys_of_old_checkpoints_are_found(tmp_path: Path) -> None:
    build("bert", "BertModel").save_pretrained(tmp_path)
    path = tmp_path / "model.safetensors"
    tensors = {name.replace("LayerNorm.weight", "LayerNorm.gamma"): t for name, t in load_file(path).items()}
    save_file(tensors, path)
    found = Inventory.from_checkpoint(tmp_path)
    assert found.mapping is not None
    assert (found.mapping.missing, found.mapping.unmapped) == ((), ())
    theirs = transformers.BertModel.from_pretrained(tmp_path, dtype="auto").state_dict()
    for name in found.mapping.pieces:
        assert torch.equal(assembled(found, name), theirs[name]), name


def test_a_lost_layer_and_a_foreign_tensor_are_named(tmp_path: Path) -> None:
    build("llama", "LlamaForCausalLM").save_pretrained(tmp_path)
    path = tmp_path / "model.safetensors"
    tensors = {name: tensor for name, tensor in load_file(path).items() if "layers.1.mlp" not in name}
    save_file({**tensors, "model.layers.9.mlp.up_proj.weight": torch.zeros(1), "odd": torch.zeros(1)}, path)
    found = Inventory.from_checkpoint(tmp_path)
    assert found.mapping is not None
    assert set(found.mapping.missing) == {
        f"model.layers.1.mlp.{name}_proj.weight" for name in ("gate", "up", "down")
    }
    assert set(found.mapping.unmapped) == {"odd", "model.layers.9.mlp.up_proj.weight"}


def test_a_bias_that_no_config_of_the_table_had_is_the_models(tmp_path: Path) -> None:
    build("llama", "LlamaForCausalLM").save_pretrained(tmp_path)
    path = tmp_path / "model.safetensors"
    head = torch.zeros(config_of("llama", "LlamaForCausalLM").vocab_size)
    save_file({**load_file(path), "lm_head.bias": head}, path)
    found = Inventory.from_checkpoint(tmp_path)
    assert "lm_head.bias" in found.tensors


@pytest.mark.parametrize("model_type", ["llama", "gemma3", "t5"])
def test_a_manifest_gives_an_equal_inventory(model_type: str) -> None:
    class_name = dict(CLASSES)[model_type]
    found = read_module(build(model_type, class_name))
    again = parse_manifest(render_manifest(found).encode(), "x.manifest.yaml")
    assert again == found
    assert fingerprint(again) == fingerprint(found)


def foreign(folder: Path) -> None:
    """A checkpoint of an architecture that no table has and Transformers does not know."""
    build("llama", "LlamaForCausalLM").save_pretrained(folder)
    config = folder / "config.json"
    text = config.read_text().replace('"llama"', '"acme"')
    config.write_text(text.replace("LlamaForCausalLM", "AcmeForCausalLM"))


def test_an_unknown_architecture_keeps_its_repeated_blocks_whole_and_says_so_once(tmp_path: Path) -> None:
    foreign(tmp_path)
    for through in ("never", "where needed"):
        found = read_checkpoint(tmp_path, through_transformers=through)
        assert found.no_split_module_classes == ("Block_model_layers",)
        assert len(found.notes) == 1
        assert "--through-transformers" in found.notes[0]
        assert found.mapping is not None
        assert set(found.mapping.pieces) == set(found.tensors)


def test_what_the_table_lacks_is_asked_of_transformers_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DEVMAP_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(reader, "family_of", lambda _: None)
    folder = tmp_path / "model"
    build("mixtral", "MixtralForCausalLM").save_pretrained(folder)
    guessed = read_checkpoint(folder)
    assert guessed.notes
    asked = read_checkpoint(folder, through_transformers="where needed")
    assert not asked.notes
    assert asked.modules["model"] == "MixtralModel"

    def refuse(_: Checkpoint) -> Inventory:
        raise AssertionError("asked again")

    monkeypatch.setattr(reader, "_ask_transformers", refuse)
    for through in ("where needed", "never"):
        kept = read_checkpoint(folder, through_transformers=through)
        assert kept == asked
        assert kept.mapping == asked.mapping
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "sliding_window": 3}))
    assert read_checkpoint(folder).notes


def test_a_damaged_entry_of_the_cache_is_as_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DEVMAP_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "model"
    foreign(folder)
    path = _path(read_headers(folder))
    path.parent.mkdir(parents=True)
    path.write_text('{"manifest": 3}')
    assert read_checkpoint(folder).notes


def test_the_table_is_compact_and_covers_transformers() -> None:
    folder = Path(sys.modules["devmap"].__file__ or "").parent / "inventory" / "architectures"
    assert sum(path.stat().st_size for path in folder.glob("*.json")) < 1_500_000
    assert set(transformers.CONFIG_MAPPING.keys()) <= set(known_families())


@pytest.mark.parametrize("model_types", [["llama", "clip", "gemma3_text", "t5", "mixtral"]])
def test_the_table_is_fresh(model_types: list[str]) -> None:
    command = [sys.executable, str(SCRIPTS / "make_architectures.py"), "--check", *model_types]
    found = subprocess.run(command, capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stdout + found.stderr


def test_the_list_of_architectures_is_fresh() -> None:
    command = [sys.executable, str(SCRIPTS / "list_architectures.py"), "--check"]
    found = subprocess.run(command, capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stdout + found.stderr
