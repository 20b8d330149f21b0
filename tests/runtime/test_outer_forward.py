"""Hooks and patches of others on the outermost forward of a placed model."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
import torch
from accelerate.hooks import AlignDevicesHook, add_hook_to_module, remove_hook_from_module
from transformers import OPTConfig, OPTForCausalLM

import devmap

if TYPE_CHECKING:
    from pathlib import Path

IDS = torch.tensor([[2, 5, 9, 7]])


def patched(model: Any, seen: list[str]) -> None:
    forward = model.forward

    def outer(*args: Any, **kwargs: Any) -> Any:
        seen.append("patch")
        return forward(*args, **kwargs)

    model.forward = outer


def hooked(model: Any, seen: list[str]) -> None:
    model.register_forward_pre_hook(lambda *_: seen.append("before"))
    model.register_forward_hook(lambda *_: seen.append("after"))


def aligned(model: Any, seen: list[str]) -> None:
    add_hook_to_module(model, AlignDevicesHook(io_same_device=True, execution_device=model.device))
    seen.append("hook of Accelerate")


@pytest.mark.parametrize("change", [patched, hooked, aligned])
@pytest.mark.parametrize(
    "shares", [{0: 0.75, 1: 0.75}, {0: 0.5, "disk": 100.0}], ids=["two devices", "streamed"]
)
def test_the_numbers_stay_the_plain_models(
    change: Any, shares: dict[int | str, float], tmp_path: Path
) -> None:
    torch.manual_seed(0)
    config = OPTConfig(
        hidden_size=32,
        ffn_dim=64,
        num_hidden_layers=4,
        num_attention_heads=4,
        vocab_size=60,
        word_embed_proj_dim=32,
    )
    plain = OPTForCausalLM(config).eval()
    plain.save_pretrained(tmp_path)
    total = sum(tensor.nbytes for tensor in plain.state_dict().values())
    memory = {key: int(share * total) for key, share in shares.items()}
    path = tmp_path / "x.devmap.yaml"
    path.write_text(json.dumps({"version": 1, "model": {"checkpoint": "."}, "max_memory": memory}))
    accelerators = {key: size for key, size in memory.items() if isinstance(key, int)}
    seen: list[str] = []
    with (
        devmap.testing.simulated_devices(accelerators, activations=False),
        torch.no_grad(),
    ):
        model: Any = devmap.load(path, progress=False)
        change(model, seen)
        for _ in range(2):
            torch.testing.assert_close(model(IDS).logits.cpu(), plain(IDS).logits)
        tokens = model.generate(IDS, max_new_tokens=4, do_sample=False)
        assert torch.equal(tokens.cpu(), plain.generate(IDS, max_new_tokens=4, do_sample=False))
        assert seen
        remove_hook_from_module(model)
