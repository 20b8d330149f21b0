"""Plans by hand, and tiny models with files behind them."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, Protocol

import pytest
import torch
from hypothesis import settings

from devmap.config.values.device import parse_device
from devmap.inventory.atoms import atoms
from devmap.inventory.live.module import match_checkpoint, read_module
from devmap.inventory.stored.checkpoint import read_headers
from devmap.plan.model import Placement, Plan
from devmap.runtime.dispatch import load_model
from devmap.runtime.meta_build import build_on_meta

os.environ["HF_HUB_OFFLINE"] = "1"
settings.register_profile("runtime", deadline=None, max_examples=40)
settings.load_profile("runtime")

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from torch import nn

    from devmap.inventory.model import Inventory

    Rule = Callable[[str], tuple[Any, Any]]


class PlanOf(Protocol):
    """Makes a plan from a rule that gives each atom's home and executing device."""

    def __call__(self, model: nn.Module | Inventory, rule: Rule, **figures: Any) -> Plan: ...


class Load(Protocol):
    """Loads a checkpoint folder by a rule."""

    def __call__(self, folder: Path, rule: Rule, **figures: Any) -> Any: ...


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def _plan_of(model: nn.Module | Inventory, rule: Rule, **figures: Any) -> Plan:
    inventory = read_module(model) if isinstance(model, torch.nn.Module) else model
    placements = []
    for atom in atoms(inventory, no_split_module_classes=figures.get("no_split_module_classes")):
        home, executes = rule(atom.path)
        placements.append(Placement(atom.path, parse_device(home), parse_device(executes), atom.nbytes))
    return Plan(
        **({"device_map": {}, "placements": tuple(placements), "devices": (), "strategy": "manual"} | figures)
    )


@pytest.fixture
def plan_of() -> PlanOf:
    return _plan_of


@pytest.fixture
def load() -> Load:
    def load_by(folder: Path, rule: Rule, **figures: Any) -> Any:
        model = build_on_meta(folder)
        inventory = match_checkpoint(read_module(model), read_headers(folder), model)
        return load_model(model, _plan_of(inventory, rule, **figures), inventory)

    return load_by


@pytest.fixture(scope="session")
def llama_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Llama of six blocks of about 150 kB."""
    # Slow to import, and few tests need it.
    from transformers import LlamaConfig, LlamaForCausalLM  # noqa: PLC0415

    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("llama")
    config = LlamaConfig(
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=6,
        num_attention_heads=4,
        num_key_value_heads=2,
        vocab_size=100,
        max_position_embeddings=64,
        tie_word_embeddings=False,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    return folder


@pytest.fixture(autouse=True)
def no_mode_is_left_behind() -> Iterator[None]:
    """Fail the test that leaves gradients off, in place of those that come after it and need them."""
    yield
    left_off = not torch.is_grad_enabled()
    torch.set_grad_enabled(True)
    assert not left_off, "gradients are off after this test"
