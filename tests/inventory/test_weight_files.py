"""Folders with several sets of weights: which one is read, and which folders are refused by name."""

from __future__ import annotations

import errno
import json
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
import torch
from safetensors.torch import save_file
from transformers import LlamaConfig, LlamaForCausalLM

from devmap.errors import CheckpointError
from devmap.inventory.stored.checkpoint import read_headers

if TYPE_CHECKING:
    from pathlib import Path

A, B, OTHER = {"a": torch.ones(1)}, {"b": torch.ones(2)}, {"a": torch.ones(9), "z": torch.ones(9)}

INDEX = "model.safetensors.index.json"
SHARDS = {"model-00001-of-00002.safetensors": A, "model-00002-of-00002.safetensors": B}


def index_of(shards: dict[str, dict[str, torch.Tensor]]) -> dict[str, dict[str, str]]:
    return {"weight_map": {name: file for file, tensors in shards.items() for name in tensors}}


def write(folder: Path, files: dict[str, object]) -> Path:
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, bytes):
            path.write_bytes(content)
        elif name.endswith(".safetensors"):
            save_file(content, path)
        else:
            path.write_text(json.dumps(content))
    return folder


HALF = {f"model.fp16-0000{number}-of-00002.safetensors": tensors for number, tensors in ((1, A), (2, B))}

CHOSEN: list[tuple[str, dict[str, object], str | None, list[str]]] = [
    ("one file", {"model.safetensors": A}, None, ["model.safetensors"]),
    ("a file of another name", {"weights.safetensors": A}, None, ["weights.safetensors"]),
    (
        "beside the consolidated file",
        {"model.safetensors": A, "consolidated.safetensors": OTHER},
        None,
        ["model.safetensors"],
    ),
    (
        "beside a variant",
        {"model.safetensors": A, "model.fp16.safetensors": OTHER},
        None,
        ["model.safetensors"],
    ),
    (
        "beside an adapter",
        {"model.safetensors": A, "adapter_model.safetensors": OTHER},
        None,
        ["model.safetensors"],
    ),
    (
        "beside an adapter with its config",
        {"model.safetensors": A, "adapter_model.safetensors": OTHER, "adapter_config.json": {}},
        None,
        ["model.safetensors"],
    ),
    (
        "beside an index of absent shards",
        {"model.safetensors": A, INDEX: index_of(SHARDS)},
        None,
        ["model.safetensors"],
    ),
    (
        "beside an index and its shards, as Transformers reads it",
        {"model.safetensors": OTHER, INDEX: index_of(SHARDS), **SHARDS},
        None,
        ["model.safetensors"],
    ),
    (
        "one of the files of the index",
        {
            "model.safetensors": A,
            "rest.safetensors": B,
            INDEX: index_of({"model.safetensors": A, "rest.safetensors": B}),
        },
        None,
        ["model.safetensors", "rest.safetensors"],
    ),
    (
        "beside pickles",
        {"model.safetensors": A, "pytorch_model.bin": b"\x80\x04."},
        None,
        ["model.safetensors"],
    ),
    ("an index", {INDEX: index_of(SHARDS), **SHARDS}, None, list(SHARDS)),
    (
        "consolidated beside index and shards",
        {INDEX: index_of(SHARDS), **SHARDS, "consolidated.safetensors": OTHER},
        None,
        list(SHARDS),
    ),
    (
        "consolidated with an index of its own beside index and shards",
        {
            INDEX: index_of(SHARDS),
            **SHARDS,
            "consolidated-00001-of-00001.safetensors": OTHER,
            "consolidated.safetensors.index.json": {"weight_map": {"a": "absent.safetensors"}},
        },
        None,
        list(SHARDS),
    ),
    ("consolidated beside shards", {**SHARDS, "consolidated.safetensors": OTHER}, None, list(SHARDS)),
    ("shards without an index", dict(SHARDS), None, list(SHARDS)),
    (
        "shards beside a stray file",
        {**SHARDS, "scores.safetensors": {"s": torch.ones(1)}},
        None,
        list(SHARDS),
    ),
    (
        "diffusers, one file",
        {"diffusion_pytorch_model.safetensors": A},
        None,
        ["diffusion_pytorch_model.safetensors"],
    ),
    (
        "diffusers, beside an index of absent shards",
        {
            "diffusion_pytorch_model.safetensors": A,
            "diffusion_pytorch_model.safetensors.index.json": index_of(SHARDS),
        },
        None,
        ["diffusion_pytorch_model.safetensors"],
    ),
    ("a variant alone", {"model.fp16.safetensors": A}, None, ["model.fp16.safetensors"]),
    (
        "a variant asked for",
        {"model.safetensors": OTHER, "model.fp16.safetensors": A},
        "fp16",
        ["model.fp16.safetensors"],
    ),
    (
        "a variant of diffusers",
        {"diffusion_pytorch_model.safetensors": OTHER, "diffusion_pytorch_model.bf16.safetensors": A},
        "bf16",
        ["diffusion_pytorch_model.bf16.safetensors"],
    ),
    (
        "the shards of a variant with their index",
        {**SHARDS, INDEX: index_of(SHARDS), **HALF, "model.safetensors.index.fp16.json": index_of(HALF)},
        "fp16",
        list(HALF),
    ),
    ("the shards of a variant alone", {"model.safetensors": OTHER, **HALF}, "fp16", list(HALF)),
    (
        "the shards of a variant as older versions name them",
        {f"model-0000{number}-of-00002.fp16.safetensors": tensors for number, tensors in ((1, A), (2, B))},
        "fp16",
        ["model-00001-of-00002.fp16.safetensors", "model-00002-of-00002.fp16.safetensors"],
    ),
    (
        "consolidated under Transformers' names",
        {"consolidated.safetensors": A, "config.json": {"model_type": "llama"}},
        None,
        ["consolidated.safetensors"],
    ),
]


@pytest.mark.parametrize(
    ("files", "variant", "expected"), [case[1:] for case in CHOSEN], ids=[case[0] for case in CHOSEN]
)
def test_the_set_that_is_meant_is_read(
    tmp_path: Path, files: dict[str, object], variant: str | None, expected: list[str]
) -> None:
    found = read_headers(write(tmp_path, files), variant=variant)
    assert [file.name for file in found.files] == expected
    held = {name: tuple(tensor.shape) for file in expected for name, tensor in dict(files[file]).items()}  # type: ignore[call-overload]  # a table of mixed content
    assert {name: stored.shape for name, stored in found.tensors.items()} == held


LLAMA = {"architectures": ["LlamaForCausalLM"], "model_type": "llama"}
PICKLE = b"\x80\x04."
MISTRAL = {"tok_embeddings.weight": torch.ones(1), "layers.0.attention.wq.weight": torch.ones(1)}

REFUSED: list[tuple[str, dict[str, object], str | None, str, str]] = [
    (
        "a pickle of Transformers",
        {"pytorch_model.bin": PICKLE, "config.json": LLAMA},
        None,
        "is a pickle",
        "from transformers import LlamaForCausalLM as M",
    ),
    (
        "pickled shards",
        {
            "pytorch_model-00001-of-00002.bin": PICKLE,
            "pytorch_model.bin.index.json": {},
            "config.json": LLAMA,
        },
        None,
        "is a pickle",
        "from transformers import LlamaForCausalLM as M",
    ),
    (
        "a pickle of diffusers",
        {"diffusion_pytorch_model.bin": PICKLE, "config.json": {"_class_name": "UNet2DConditionModel"}},
        None,
        "is a pickle",
        "from diffusers import UNet2DConditionModel as M",
    ),
    ("a pickle of unknown origin", {"best.pth": PICKLE}, None, "is a pickle", "weights_only=True"),
    (
        "GGUF",
        {"llama.Q4_K_M.gguf": b"GGUF", "README.md": {}},
        None,
        "is a GGUF file",
        "gguf_file='llama.Q4_K_M.gguf'",
    ),
    (
        "a diffusers pipeline",
        {
            "model_index.json": {
                "_class_name": "FluxPipeline",
                "transformer": ["diffusers", "FluxTransformer2DModel"],
                "scheduler": ["diffusers", "EulerDiscreteScheduler"],
            },
            "transformer/diffusion_pytorch_model.safetensors": A,
            "flux1-dev.safetensors": OTHER,
        },
        None,
        r"diffusers pipeline of several models \(FluxPipeline\)",
        "transformer' (FluxTransformer2DModel)",
    ),
    (
        "an adapter",
        {"adapter_model.safetensors": A, "adapter_config.json": {"base_model_name_or_path": "org/base"}},
        None,
        "is a PEFT adapter of 'org/base'",
        "name 'org/base' as model.checkpoint",
    ),
    (
        "a pickled adapter",
        {"adapter_model.bin": PICKLE, "adapter_config.json": {"base_model_name_or_path": "org/base"}},
        None,
        "is a PEFT adapter of 'org/base'",
        "PeftModel.from_pretrained",
    ),
    (
        "an adapter without its config",
        {"adapter_model.safetensors": A},
        None,
        "is a PEFT adapter",
        "its base",
    ),
    (
        "Mistral's own format alone",
        {"consolidated.safetensors": MISTRAL, "params.json": {}},
        None,
        "the vendor's own format alone",
        "config.json",
    ),
    (
        "Mistral's own tensors beside a config",
        {"consolidated.safetensors": MISTRAL, "config.json": LLAMA},
        None,
        "the vendor's own format alone",
        "model-*.safetensors",
    ),
    (
        "no such variant",
        {"model.safetensors": A, "model.fp16.safetensors": A},
        "bf16",
        "no variant 'bf16'.*it has fp16",
        "correct",
    ),
    ("no variant at all", {"model.safetensors": A}, "fp16", "no variant 'fp16'.*it has none", "leave it out"),
    (
        "several variants alone",
        {"model.fp16.safetensors": A, "model.fp8.safetensors": A},
        None,
        "only the variants fp16, fp8",
        "model.variant: fp16",
    ),
    (
        "shards of two sets",
        {**SHARDS, "old-00001-of-00001.safetensors": A},
        None,
        "shards of 2 sets",
        "move",
    ),
    (
        "sentence-transformers with its model below",
        {"modules.json": [], "0_Transformer/model.safetensors": A},
        None,
        r"holds no \*\.safetensors",
        "0_Transformer",
    ),
    (
        "weights in a folder below",
        {"weights/model.safetensors": A},
        None,
        r"holds no \*\.safetensors",
        "weights",
    ),
]


@pytest.mark.parametrize(
    ("files", "variant", "message", "remedy"),
    [case[1:] for case in REFUSED],
    ids=[case[0] for case in REFUSED],
)
def test_other_folders_are_refused_by_name_with_what_to_do(
    tmp_path: Path, files: dict[str, object], variant: str | None, message: str, remedy: str
) -> None:
    with pytest.raises(CheckpointError, match=message) as caught:
        read_headers(write(tmp_path, files), variant=variant)
    assert remedy in caught.value.help


def test_an_absent_shard_without_an_index_is_named(tmp_path: Path) -> None:
    write(tmp_path, {"model-00001-of-00003.safetensors": A, "model-00003-of-00003.safetensors": B})
    with pytest.raises(CheckpointError) as caught:
        read_headers(tmp_path)
    (problem,) = caught.value.problems
    assert problem.message.startswith("'model-00002-of-00003.safetensors' is not there")


def test_an_index_of_absent_shards_is_damage_where_no_single_file_stands_in(tmp_path: Path) -> None:
    write(tmp_path, {INDEX: index_of(SHARDS), "model-00001-of-00002.safetensors": A})
    with pytest.raises(CheckpointError, match="damaged") as caught:
        read_headers(tmp_path)
    assert any("which is not there" in problem.message for problem in caught.value.problems)


@pytest.mark.parametrize("name", ["model.gguf", "adapter_model.safetensors"])
def test_a_file_of_another_format_is_refused_as_its_folder_is(tmp_path: Path, name: str) -> None:
    write(tmp_path, {name: A if name.endswith("s") else b"GGUF", "adapter_config.json": {}})
    with pytest.raises(CheckpointError, match=r"GGUF|PEFT"):
        read_headers(tmp_path / name)


def test_a_variant_of_a_file_has_no_meaning(tmp_path: Path) -> None:
    write(tmp_path, {"model.safetensors": A})
    with pytest.raises(CheckpointError, match="is a file"):
        read_headers(tmp_path / "model.safetensors", variant="fp16")


def test_the_command_for_a_pickle_converts_it(tmp_path: Path) -> None:
    torch.save({"a": torch.arange(3), "b": torch.ones(2)}, tmp_path / "best.pth")
    with pytest.raises(CheckpointError) as caught:
        read_headers(tmp_path)
    command = caught.value.help.removeprefix("convert it once: ").replace("python", sys.executable, 1)
    subprocess.run(command, shell=True, check=True)
    assert set(read_headers(tmp_path).tensors) == {"a", "b"}


def test_the_command_for_pickled_shards_converts_them_all(tmp_path: Path) -> None:
    for number, tensors in ((1, A), (2, B)):
        torch.save(tensors, tmp_path / f"pytorch_model-0000{number}-of-00002.bin")
    (tmp_path / "pytorch_model.bin.index.json").write_text("{}")
    with pytest.raises(CheckpointError) as caught:
        read_headers(tmp_path / "pytorch_model.bin.index.json")
    command = caught.value.help.removeprefix("convert it once: ").replace("python", sys.executable, 1)
    subprocess.run(command, shell=True, check=True)
    assert set(read_headers(tmp_path).tensors) == {"a", "b"}


def test_the_command_for_a_pickle_of_transformers_keeps_the_head(tmp_path: Path) -> None:
    config = LlamaConfig(
        hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=1, vocab_size=16
    )
    model = LlamaForCausalLM(config)
    folder = tmp_path / "bins"
    config.architectures = ["LlamaForCausalLM"]
    config.save_pretrained(folder)
    torch.save(model.state_dict(), folder / "pytorch_model.bin")
    with pytest.raises(CheckpointError) as caught:
        read_headers(folder)
    command = caught.value.help.removeprefix("convert it once: ").replace("python", sys.executable, 1)
    subprocess.run(command, shell=True, check=True, capture_output=True)
    assert "lm_head.weight" in read_headers(f"{folder}-safetensors").tensors


@pytest.mark.parametrize("total", ["99999999999999999999", "9" * 200])
def test_a_file_that_says_it_is_one_of_any_number_costs_nothing(tmp_path: Path, total: str) -> None:
    write(tmp_path, {f"m-00001-of-{total}.safetensors": A})
    with pytest.raises(CheckpointError, match="damaged") as caught:
        read_headers(tmp_path)
    assert len(caught.value.problems) == 100


@pytest.mark.parametrize("part", ["a" * 5000, "a\0b", "/", "..", "../outside", "\ud800", ""])
def test_a_pipeline_may_name_its_parts_by_what_no_folder_beside_it_has(tmp_path: Path, part: str) -> None:
    write(tmp_path, {"outside/model.safetensors": A, "model.safetensors": A})
    inside = {"unet/model.safetensors": A, "model_index.json": {part: ["x", "X"], "unet": ["y", "Y"]}}
    with pytest.raises(CheckpointError, match="diffusers pipeline") as caught:
        read_headers(write(tmp_path / "pipe", inside))
    assert caught.value.help.endswith(f"model.checkpoint: '{tmp_path / 'pipe' / 'unet'}' (Y)")


def test_a_folder_that_cannot_be_listed_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(_: Path) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(type(tmp_path), "iterdir", refused)
    with pytest.raises(CheckpointError, match=r"cannot be listed: Permission denied"):
        read_headers(tmp_path)


@pytest.mark.parametrize(
    ("index", "message"),
    [
        ("model.safetensors.index (1).json", "holds no"),
        ("model.safetensors.indexes.json", "holds no"),
        ("model.fp16.safetensors.index.json", "damaged"),
        ("model.safetensors.index.fp16.json", "damaged"),
        ("consolidated.safetensors.index.json", "damaged"),
    ],
)
@pytest.mark.parametrize("beside", [[], ["adapter_model.safetensors"]])
def test_an_index_without_its_files_is_an_error_of_ours(
    index: str, message: str, beside: list[str], tmp_path: Path
) -> None:
    write(tmp_path, {index: index_of(SHARDS), **dict.fromkeys(beside, A)})
    with pytest.raises(CheckpointError, match="PEFT" if beside and message == "holds no" else message):
        read_headers(tmp_path)
