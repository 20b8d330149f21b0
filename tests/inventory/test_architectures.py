"""The built-in table against transformers.

Headers alone give what the module gives, for every architecture.
"""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from devmap.inventory.checkpoint import Checkpoint, read_headers
from devmap.inventory.fingerprint import fingerprint
from devmap.inventory.manifest import parse_manifest
from devmap.inventory.manifest_text import render_manifest
from devmap.inventory.model import Inventory
from devmap.inventory.module import match_checkpoint, read_module
from devmap.inventory.reader import read_checkpoint
from devmap.inventory.skeleton import family_of, known_families

SCRIPTS = Path(__file__).parents[2] / "scripts"


def _families() -> dict[str, Any]:
    spec = importlib.util.spec_from_file_location("families", SCRIPTS / "families.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["families"] = module
    spec.loader.exec_module(module)
    return {family.model_type: family for family in module.FAMILIES}


FAMILIES = _families()
CLASSES = [
    (model_type, name)
    for model_type in known_families()
    for name in (family_of(model_type) or pytest.fail(model_type)).classes
]


def build(
    model_type: str,
    class_name: str,
    changes: dict[str, object] | None = None,
    dtype: torch.dtype = torch.float32,
) -> Any:
    config = transformers.CONFIG_MAPPING[model_type](**{**FAMILIES[model_type].tiny, **(changes or {})})
    torch.manual_seed(0)
    return getattr(transformers, class_name)._from_config(config, dtype=dtype)


def built_again(folder: Path, class_name: str, dtype: torch.dtype) -> Any:
    """What transformers builds on meta from the saved config.json."""
    with torch.device("meta"):
        return getattr(transformers, class_name)._from_config(
            transformers.AutoConfig.from_pretrained(folder), dtype=dtype
        )


def assert_equal(first: Inventory, second: Inventory) -> None:
    assert list(first.modules.items()) == list(second.modules.items())
    assert list(first.tensors.values()) == list(second.tensors.values())
    assert first.architecture == second.architecture
    assert first == second
    assert fingerprint(first) == fingerprint(second)


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


def assert_loads_as_transformers(inventory: Inventory, model: Any) -> None:
    """Every tensor that is loaded is, bit for bit, what `from_pretrained` made of the same files."""
    assert inventory.mapping is not None
    assert not inventory.mapping.missing
    assert not inventory.mapping.mismatched
    theirs = model.state_dict()
    assert set(inventory.mapping.pieces) == set(theirs)
    for name in inventory.mapping.pieces:
        assert torch.equal(assembled(inventory, name), theirs[name]), name


def test_the_table_covers_the_promised_families() -> None:
    promised = "llama mistral mixtral qwen2 qwen2_moe qwen3 qwen3_moe gemma2 gemma3_text bloom gpt2 gptj gpt_neox opt falcon t5 bert whisper"
    assert set(promised.split()) <= set(known_families())


@pytest.mark.parametrize(("model_type", "class_name"), CLASSES)
def test_headers_alone_equal_the_module_for_every_class(
    tmp_path: Path, model_type: str, class_name: str
) -> None:
    build(model_type, class_name, dtype=torch.bfloat16).save_pretrained(tmp_path)
    found = Inventory.from_checkpoint(tmp_path)
    assert_equal(found, read_module(built_again(tmp_path, class_name, torch.bfloat16)))
    assert found.mapping is not None
    assert (found.mapping.unmapped, found.mapping.missing, found.notes) == ((), (), ())


@pytest.mark.parametrize("model_type", known_families())
def test_headers_equal_the_module_for_every_variant_and_with_ties_switched(
    tmp_path: Path, model_type: str
) -> None:
    family = family_of(model_type)
    assert family is not None
    class_name = next(
        (
            name
            for name in family.classes
            if name.endswith(("CausalLM", "ConditionalGeneration", "LMHeadModel"))
        ),
        family.base_class,
    )
    for number, changes in enumerate(
        [*FAMILIES[model_type].variants, {"tie_word_embeddings": True}, {"tie_word_embeddings": False}]
    ):
        folder = tmp_path / str(number)
        build(model_type, class_name, changes).save_pretrained(folder)
        assert_equal(
            Inventory.from_checkpoint(folder), read_module(built_again(folder, class_name, torch.float32))
        )


@pytest.mark.parametrize("model_type", known_families())
def test_pieces_assemble_to_what_from_pretrained_loads(tmp_path: Path, model_type: str) -> None:
    family = family_of(model_type)
    assert family is not None
    class_name = list(family.classes)[min(1, len(family.classes) - 1)]
    build(model_type, class_name).save_pretrained(tmp_path, max_shard_size="20KB")
    model = getattr(transformers, class_name).from_pretrained(tmp_path)
    found = Inventory.from_checkpoint(tmp_path)
    assert len(found.checkpoint.files if found.checkpoint else ()) > 1
    assert_loads_as_transformers(found, model)
    live = match_checkpoint(read_module(model), read_headers(tmp_path), model)
    assert live.mapping == found.mapping


@pytest.mark.parametrize("model_type", ["llama", "mixtral", "bert", "gpt2", "t5", "whisper", "gpt_neox"])
def test_through_transformers_equals_the_table(tmp_path: Path, model_type: str) -> None:
    family = family_of(model_type)
    assert family is not None
    build(model_type, list(family.classes)[1], dtype=torch.float16).save_pretrained(tmp_path)
    assert_equal(read_checkpoint(tmp_path, through_transformers=True), read_checkpoint(tmp_path))
    assert read_checkpoint(tmp_path, through_transformers=True).mapping == read_checkpoint(tmp_path).mapping


@pytest.mark.parametrize(
    ("saved", "loaded"),
    [("BertModel", "BertForMaskedLM"), ("BertForMaskedLM", "BertModel"), ("LlamaModel", "LlamaForCausalLM")],
)
def test_a_prefix_that_is_lacking_or_too_much_is_repaired(tmp_path: Path, saved: str, loaded: str) -> None:
    model_type = "bert" if "Bert" in saved else "llama"
    changes: dict[str, object] = {"tie_word_embeddings": True}
    build(model_type, saved, changes).save_pretrained(tmp_path)
    config = tmp_path / "config.json"
    config.write_text(config.read_text().replace(f'"{saved}"', f'"{loaded}"'))
    model = getattr(transformers, loaded).from_pretrained(tmp_path)
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
    tensors = load_file(path)
    save_file(
        {name.replace("LayerNorm.weight", "LayerNorm.gamma"): tensor for name, tensor in tensors.items()},
        path,
    )
    assert_loads_as_transformers(
        Inventory.from_checkpoint(tmp_path), transformers.BertModel.from_pretrained(tmp_path)
    )


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
    assert len(found.notes) == 2


@pytest.mark.parametrize("model_type", known_families())
def test_a_manifest_gives_an_equal_inventory_for_every_family(model_type: str) -> None:
    family = family_of(model_type)
    assert family is not None
    found = read_module(build(model_type, list(family.classes)[min(1, len(family.classes) - 1)]))
    assert_equal(parse_manifest(render_manifest(found).encode(), "x.manifest.yaml"), found)


def test_an_unknown_architecture_keeps_its_repeated_blocks_whole_and_says_so(tmp_path: Path) -> None:
    build("llama", "LlamaForCausalLM").save_pretrained(tmp_path)
    config = tmp_path / "config.json"
    config.write_text(
        config.read_text().replace('"llama"', '"acme"').replace("LlamaForCausalLM", "AcmeForCausalLM")
    )
    found = Inventory.from_checkpoint(tmp_path)
    assert found.no_split_module_classes == ("Block_model_layers",)
    assert [path for path, name in found.modules.items() if name == "Block_model_layers"] == [
        f"model.layers.{number}" for number in range(3)
    ]
    assert "--through-transformers" in found.notes[0]
    assert found.mapping is not None
    assert set(found.mapping.pieces) == set(found.tensors)


def test_the_table_is_fresh() -> None:
    command = [sys.executable, str(SCRIPTS / "make_architectures.py"), "--check"]
    found = subprocess.run(command, capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stdout + found.stderr
