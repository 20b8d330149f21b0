"""Every tensor that the checkpoint stores is read, whatever device the model's code built it on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch
import transformers

import devmap
from devmap.inventory.manifests.manifest_text import render_manifest
from devmap.testing import simulated_devices

if TYPE_CHECKING:
    from pathlib import Path


def _config(tmp_path: Path, folder: Path, *, on_device: str = "45KB", **model: str) -> Path:
    more = "".join(f", {key}: {value}" for key, value in model.items())
    path = tmp_path / "model.devmap.yaml"
    path.write_text(
        f"version: 1\nmodel: {{checkpoint: {folder}{more}}}\n"
        f"max_memory: {{0: {on_device}, cpu: 20KB, disk: 1GB}}\noffload: "
        f"{{folder: {tmp_path / 'offload'}}}\n",
        encoding="utf-8",
    )
    return path


def _assert_state(model: Any, plain: Any) -> None:
    loaded, wanted = model.state_dict(), plain.state_dict()
    assert loaded.keys() == wanted.keys()
    wrong = [key for key, value in wanted.items() if not torch.equal(loaded[key].cpu(), value)]
    assert not wrong


def test_parameters_that_come_out_real_on_meta_are_read_from_the_checkpoint(tmp_path: Path) -> None:
    config = transformers.ImageGPTConfig(vocab_size=33, n_embd=32, n_layer=2, n_head=2, n_positions=16)
    model = transformers.ImageGPTForCausalImageModeling(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.fill_(1.0)
    model.save_pretrained(tmp_path / "ones")
    plain = transformers.ImageGPTForCausalImageModeling.from_pretrained(tmp_path / "ones")
    with simulated_devices({0: "50MB"}):
        loaded = devmap.load(_config(tmp_path, tmp_path / "ones", on_device="100KB"), progress=False)
        _assert_state(loaded, plain)
        assert all(torch.equal(value.cpu(), torch.ones_like(value).cpu()) for value in loaded.parameters())


def test_a_model_planned_from_a_manifest_has_its_stored_lambdas(tmp_path: Path) -> None:
    torch.manual_seed(1)
    config = transformers.DiffLlamaConfig(
        vocab_size=99, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, head_dim=8,
    )  # fmt: skip
    transformers.DiffLlamaForCausalLM(config).save_pretrained(tmp_path / "diff")
    plain = transformers.DiffLlamaForCausalLM.from_pretrained(tmp_path / "diff")
    manifest = tmp_path / "diff.manifest.yaml"
    manifest.write_text(render_manifest(devmap.Inventory.from_module(plain)), encoding="utf-8")
    ids = torch.arange(3, 13)[None]
    with simulated_devices({0: "50MB"}):
        loaded = devmap.load(_config(tmp_path, tmp_path / "diff", manifest=str(manifest)), progress=False)
        _assert_state(loaded, plain)
        with torch.no_grad():
            torch.testing.assert_close(loaded(ids).logits, plain(ids).logits, atol=2e-6, rtol=1e-5)


def test_what_the_checkpoint_lacks_is_initialised_by_the_models_own_code_and_named(tmp_path: Path) -> None:
    torch.manual_seed(1)
    config = transformers.LlamaConfig(
        vocab_size=99, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, num_labels=3, initializer_range=0.5,
    )  # fmt: skip
    transformers.LlamaModel(config).save_pretrained(tmp_path / "base")
    text = (tmp_path / "base" / "config.json").read_text(encoding="utf-8")
    (tmp_path / "base" / "config.json").write_text(
        text.replace("LlamaModel", "LlamaForSequenceClassification"), encoding="utf-8"
    )
    with simulated_devices({0: "50MB"}):
        with pytest.warns(UserWarning, match=r"no 'score\.weight': initialised by the model's own code"):
            loaded = devmap.load(_config(tmp_path, tmp_path / "base"), progress=False)
        score = loaded.state_dict()["score.weight"].cpu()
        assert score.shape == (3, 32)
        assert 0.3 < score.std().item() < 0.7
        plain = transformers.LlamaModel.from_pretrained(tmp_path / "base").state_dict()
        state = loaded.state_dict()
        assert all(torch.equal(state[f"model.{key}"].cpu(), value) for key, value in plain.items())


@pytest.mark.parametrize("same", [True, False])
def test_a_head_that_is_tied_by_config_and_stored_apart_keeps_its_own_values(
    tmp_path: Path, *, same: bool
) -> None:
    torch.manual_seed(1)
    config = transformers.LlamaConfig(
        vocab_size=99, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, tie_word_embeddings=False,
    )  # fmt: skip
    model = transformers.LlamaForCausalLM(config)
    if same:
        with torch.no_grad():
            model.lm_head.weight.copy_(model.model.embed_tokens.weight)
    model.save_pretrained(tmp_path / "apart")
    path = tmp_path / "apart" / "config.json"
    text = path.read_text(encoding="utf-8")
    assert '"tie_word_embeddings": false' in text
    path.write_text(
        text.replace('"tie_word_embeddings": false', '"tie_word_embeddings": true'), encoding="utf-8"
    )
    plain = transformers.LlamaForCausalLM.from_pretrained(tmp_path / "apart")
    with simulated_devices({0: "50MB"}):
        loaded = devmap.load(_config(tmp_path, tmp_path / "apart"), progress=False)
        _assert_state(loaded, plain)
        assert torch.equal(loaded.state_dict()["lm_head.weight"].cpu(), model.lm_head.weight)
