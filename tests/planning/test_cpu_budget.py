"""What the CPU computes from disk runs from mapped pages: no slot of its budget is kept for it."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

import devmap


class _Uneven(nn.Module):
    """Two bare parameters of 4 MB and a Linear of 4.004 MB."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Parameter(torch.full((1000, 1000), 0.001))
        self.second = nn.Parameter(torch.full((1000, 1000), 0.002))
        self.linear = nn.Linear(1000, 1000)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = self.linear(x @ self.first @ self.second)
        return result


def test_a_budget_that_holds_the_weights_is_enough() -> None:
    torch.manual_seed(0)
    found = devmap.infer_auto_device_map(_Uneven(), max_memory={"cpu": 6_000_000, "disk": 10_000_000})
    assert sorted(found.values()) == ["cpu", "disk", "disk"]


@pytest.mark.parametrize("cpu", ["1KB", "300KB", "500KB"])
def test_plan_and_run_hold_the_same(tmp_path: Any, cpu: str) -> None:
    from transformers import LlamaConfig, LlamaForCausalLM  # noqa: PLC0415 - slow to import

    torch.manual_seed(0)
    config = LlamaConfig(
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=2,
        vocab_size=100,
        max_position_embeddings=64,
        tie_word_embeddings=False,
    )
    plain: Any = LlamaForCausalLM(config).eval()
    plain.save_pretrained(tmp_path / "llama")
    path = tmp_path / "x.devmap.yaml"
    path.write_text(f"version: 1\nmodel: {{checkpoint: ./llama}}\nmax_memory: {{cpu: {cpu}, disk: 1GB}}\n")
    model: Any = devmap.load(path)
    plan, stats = model.devmap.plan, model.devmap.stats()
    charges = [charge for use in plan.devices for charge in use.charges if charge.what == "slots"]
    assert charges == []
    assert stats.slot_bytes == {}
    assert stats.host_slot_bytes == 0
    assert stats.mapped_bytes > 0
    (on_cpu,) = [use for use in plan.devices if str(use.device) == "cpu"]
    assert on_cpu.capacity_bytes is not None
    assert on_cpu.weight_bytes <= on_cpu.capacity_bytes
    ids = torch.arange(6).reshape(1, 6)
    with torch.no_grad():
        torch.testing.assert_close(model(ids).logits, plain(ids).logits)
    model.devmap.remove()
