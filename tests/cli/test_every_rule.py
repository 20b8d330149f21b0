"""Every rule fires from the command line, from files as a user has them.

`tests/faults` holds the configs that need nothing but themselves. Here stand the rules that need files around
the config: checkpoints, locks, profiles.
"""

from __future__ import annotations

import dataclasses
import json
import re
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import LlamaConfig, LlamaForCausalLM, MarianConfig, MarianMTModel

import devmap
from devmap.api.inspection import write_manifest
from devmap.api.resolution import resolve_file
from devmap.plan.lock import write_lock
from devmap_validators.rules import ALL_RULES
from tests.cli.test_commands import devmap_command

if TYPE_CHECKING:
    from collections.abc import Callable

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "validators" / "devmap_validators" / "example.manifest.yaml"
HEAD = "version: 1\n"
BY_MANIFEST = HEAD + "model: {manifest: example.manifest.yaml}\n"
BY_CHECKPOINT = HEAD + "model: {checkpoint: ./tiny}\nmax_memory: {0: 2GB}\n"


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("checkpoint") / "tiny"
    config = LlamaConfig(
        vocab_size=32,
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
        tie_word_embeddings=False,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    return folder


@pytest.fixture
def here(tmp_path: Path, tiny: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder to stand in, with a checkpoint and a manifest of another model."""
    shutil.copytree(tiny, tmp_path / "tiny")
    shutil.copy(EXAMPLE, tmp_path / EXAMPLE.name)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write(text: str) -> None:
    Path("x.devmap.yaml").write_text(text, encoding="utf-8")


def stored(change: Callable[[dict[str, torch.Tensor]], None]) -> None:
    """Change the tensors of the checkpoint."""
    path = Path("tiny/model.safetensors")
    tensors = load_file(path)
    change(tensors)
    save_file(tensors, path, metadata={"format": "pt"})


def locked(text: str) -> Path:
    write(text)
    assert devmap_command("resolve", "x.devmap.yaml", "--lock", "--quiet").status == 0
    return Path("x.devmap.lock.yaml")


def large() -> None:
    write(BY_MANIFEST + "# " + "x" * (1 << 20))


def damaged() -> None:
    write(BY_CHECKPOINT)
    path = Path("tiny/model.safetensors")
    path.write_bytes(path.read_bytes()[:-100])


def disagreeing() -> None:
    write(HEAD + "model: {manifest: example.manifest.yaml, checkpoint: ./tiny}\nmax_memory: {0: 2GB}\n")


def absent() -> None:
    write(HEAD + "model: {checkpoint: ./nowhere}\nmax_memory: {0: 2GB}\n")


def surplus() -> None:
    write(BY_CHECKPOINT)
    stored(lambda tensors: tensors.update({"model.extra.weight": torch.ones(4)}))


def lacking() -> None:
    write(BY_CHECKPOINT)
    stored(lambda tensors: tensors.__delitem__("model.norm.weight"))


def unknown() -> None:
    write(BY_CHECKPOINT)
    path = Path("tiny/config.json")
    config = json.loads(path.read_text(encoding="utf-8")) | {
        "model_type": "acme",
        "architectures": ["AcmeLM"],
    }
    path.write_text(json.dumps(config), encoding="utf-8")


def tied_apart() -> None:
    model = torch.nn.ModuleDict({name: torch.nn.Linear(8, 8, bias=False) for name in ("first", "second")})
    model["second"].weight = model["first"].weight
    write_manifest(devmap.Inventory.from_module(model), Path("tied.manifest.yaml"))
    write(
        HEAD
        + (
            "model: {manifest: tied.manifest.yaml}\ndevice_map: {first: 0, "
            "second: 1}\nmax_memory: {0: 1MB, 1: 1MB}\n"
        )
    )


def misshapen() -> None:
    # Shapes are taken from the headers. A live module alone knows others; it is asked where the table does
    # not settle the class, as it does not settle Marian's position tables.
    config = MarianConfig(
        vocab_size=32,
        d_model=16,
        encoder_layers=1,
        decoder_layers=1,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        encoder_ffn_dim=32,
        decoder_ffn_dim=32,
        max_position_embeddings=16,
        pad_token_id=0,
        decoder_start_token_id=0,
    )
    shutil.rmtree("tiny")
    MarianMTModel(config).save_pretrained("tiny")
    write(BY_CHECKPOINT)
    stored(lambda tensors: tensors.update({"model.encoder.layers.0.fc1.bias": torch.ones(33)}))


def outdated() -> None:
    write(BY_MANIFEST + "max_memory: {0: 2GB, 1: 2GB}\n")
    plan, _ = resolve_file("x.devmap.yaml")  # as an older devmap might have planned it
    write_lock(dataclasses.replace(plan, device_map={"": 1}), Path("x.devmap.lock.yaml"))


def stale() -> None:
    locked(BY_MANIFEST + "max_memory: {0: 2GB}\n")
    write(BY_MANIFEST + "max_memory: {0: 3GB}\n")


def edited() -> None:
    lock = locked(BY_MANIFEST + "max_memory: {0: 2GB, 1: 2GB}\n")
    text = lock.read_text(encoding="utf-8")
    lock.write_text(re.sub(r"strategy: \w+", "strategy: balanced", text), encoding="utf-8")


def foreign() -> None:
    lock = locked(BY_CHECKPOINT)
    write(BY_MANIFEST + "max_memory: {0: 2GB}\n")
    assert lock.exists()


def unreadable_lock() -> None:
    write(BY_MANIFEST + "max_memory: {0: 2GB}\n")
    Path("x.devmap.lock.yaml").write_text("lock: [", encoding="utf-8")


def without_lock() -> None:
    write(BY_MANIFEST + "max_memory: {0: 2GB}\n")


def policy_broken() -> None:
    write(BY_MANIFEST + "max_memory: {0: 2GB, disk: 100GB}\npolicies: [production]\n")


def quantized(method: str = "gptq", text: str = BY_CHECKPOINT) -> None:
    """Store the linear layers as GPTQ does."""

    def pack(tensors: dict[str, torch.Tensor]) -> None:
        for name in [name for name in tensors if name.endswith(("proj.weight", "lm_head.weight"))]:
            outputs, inputs = tensors.pop(name).shape
            stem = name.removesuffix(".weight")
            tensors[f"{stem}.qweight"] = torch.zeros(inputs // 8, outputs, dtype=torch.int32)
            tensors[f"{stem}.qzeros"] = torch.zeros(1, outputs // 8, dtype=torch.int32)
            tensors[f"{stem}.scales"] = torch.ones(1, outputs, dtype=torch.float16)

    write(text)
    stored(pack)
    path = Path("tiny/config.json")
    settings = {"quant_method": method, "bits": 4, "group_size": 128}
    config = json.loads(path.read_text(encoding="utf-8")) | {"quantization_config": settings}
    path.write_text(json.dumps(config), encoding="utf-8")


def unknown_method() -> None:
    quantized("sesame")


def another_dtype() -> None:
    quantized(text=BY_CHECKPOINT.replace("./tiny", "./tiny, dtype: float16"))


def parted() -> None:
    keys = "device_map: {model.layers.0.mlp.up_proj.scales: 1, '': 0}\nno_split_module_classes: []\n"
    quantized(text=BY_CHECKPOINT.replace("{0: 2GB}", "{0: 2GB, 1: 2GB}") + keys)


def quantized_again() -> None:
    quantized(text=BY_CHECKPOINT.replace("./tiny", "./tiny, quantization: int8"))


CASES: dict[str, tuple[Callable[[], None], tuple[str, ...]]] = {
    "DM001": (large, ()),
    "DM021": (damaged, ()),
    "DM111": (without_lock, ("--profile", "absent")),
    "DM204": (tied_apart, ()),
    "DM215": (disagreeing, ()),
    "DM224": (misshapen, ("--through-transformers",)),
    "DM216": (absent, ()),
    "DM220": (surplus, ()),
    "DM221": (lacking, ()),
    "DM222": (unknown, ()),
    "DM225": (unknown_method, ()),
    "DM226": (another_dtype, ()),
    "DM227": (parted, ()),
    "DM228": (quantized, ()),
    "DM229": (quantized_again, ()),
    "DM501": (stale, ()),
    "DM502": (edited, ()),
    "DM503": (foreign, ()),
    "DM504": (unreadable_lock, ()),
    "DM505": (without_lock, ("--locked",)),
    "DM506": (outdated, ()),
}

OF_A_POLICY = "DM603"
"""Its findings have the codes of the policy's own rules; it names them all in `--select`."""


@pytest.mark.parametrize("code", CASES)
def test_the_rule_fires_from_the_command_line(code: str, here: Path) -> None:
    prepare, options = CASES[code]
    prepare()
    outcome = devmap_command("validate", "x.devmap.yaml", "--format", "json", *options)
    assert outcome.status in {0, 1}, outcome.stderr
    assert code in {finding["code"] for finding in json.loads(outcome.stdout)["findings"]}
    assert here.exists()


def test_the_rules_of_a_policy_are_named_by_the_rule_that_stands_for_them(here: Path) -> None:
    policy_broken()
    outcome = devmap_command("validate", "x.devmap.yaml", "--format", "json", "--select", OF_A_POLICY)
    codes = {finding["code"] for finding in json.loads(outcome.stdout)["findings"]}
    assert codes
    assert {code[:3] for code in codes} == {"PRD"}
    assert here.exists()


def test_every_rule_has_a_case() -> None:
    expected = re.compile(rb"# expect: ([A-Z]{2,8}[0-9]{3})@")
    files = (ROOT / "tests" / "faults").glob("*.devmap.yaml")
    in_faults = {code.decode() for path in files for code in expected.findall(path.read_bytes())}
    assert {rule.code for rule in ALL_RULES} - in_faults == CASES.keys() | {OF_A_POLICY}


def test_a_changed_model_behind_an_unchanged_manifest_turns_the_gate_red(here: Path) -> None:
    assert devmap_command("inspect", "./tiny", "-o", "tiny.manifest.yaml").status == 0
    write(HEAD + "model: {manifest: tiny.manifest.yaml, checkpoint: ./tiny}\nmax_memory: {0: 2GB}\n")
    assert devmap_command("validate", "x.devmap.yaml").status == 0
    stored(lambda tensors: tensors.update({"model.norm.weight": torch.ones(17)}))
    outcome = devmap_command("validate", "x.devmap.yaml")
    assert outcome.status == 1
    assert "'model.norm.weight' is float32[16] there and float32[17] in the checkpoint" in outcome.stdout
    assert here.exists()


@pytest.mark.parametrize("name", ["b/x.devmap.yaml", "../{here}/b/x.devmap.yaml", "./b/../b/x.devmap.yaml"])
def test_a_path_out_of_the_repository_is_found_however_the_config_is_named(name: str, here: Path) -> None:
    (here / "b" / ".git").mkdir(parents=True)
    shutil.copy(EXAMPLE, here / "m.manifest.yaml")
    text = HEAD + "model: {manifest: ../m.manifest.yaml}\nmax_memory: {0: 2GB}\n"
    (here / "b" / "x.devmap.yaml").write_text(text, encoding="utf-8")
    outcome = devmap_command("validate", name.format(here=here.name), "--format", "json", "--select", "DM218")
    assert [finding["code"] for finding in json.loads(outcome.stdout)["findings"]] == ["DM218"]


@pytest.mark.parametrize("command", ["inspect", "init"])
def test_a_checkpoint_that_is_not_there_is_status_2(command: str, here: Path) -> None:
    assert devmap_command(command, "./nowhere").status == 2
    assert here.exists()


@pytest.mark.parametrize("command", [("run", "--simulated"), ("simulate",), ("plan",), ("resolve",)])
def test_a_config_whose_checkpoint_is_not_there_cannot_run(
    command: tuple[str, ...], here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    absent()
    outcome = devmap_command(command[0], "x.devmap.yaml", *command[1:])
    assert outcome.status == 2
    assert "nowhere" in capsys.readouterr().err
    assert here.exists()


def test_a_model_that_is_wholly_on_one_simulated_accelerator_runs(here: Path) -> None:
    write(BY_CHECKPOINT)
    outcome = devmap_command("run", "x.devmap.yaml", "--simulated", "--quiet")
    assert outcome.status == 0, outcome.stderr
    assert here.exists()
