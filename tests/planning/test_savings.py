"""What quantising while loading would change: beside a plan that streams, and among the changes that fit."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import devmap
from devmap.api.resolution import resolved_file
from devmap.config.document import parse_document
from devmap.errors import ResolutionError
from devmap.inventory.model import Inventory
from devmap.planning.savings import savings
from devmap.report.plan import render_plan

if TYPE_CHECKING:
    from devmap.config.model.placement_config import PlacementConfig

EXAMPLES = Path(__file__).parent.parent.parent / "examples"


def config_of(text: str) -> PlacementConfig:
    config = parse_document(text.encode(), str(EXAMPLES / "x.devmap.yaml")).config
    assert config is not None
    return config


def test_each_quantization_that_helps_stands_beside_a_plan_that_streams() -> None:
    found = resolved_file(EXAMPLES / "llama-3-70b.2x4090.devmap.yaml")
    assert [(each.methods, each.nbytes) for each in found.savings] == [
        (("int8", "fp8"), 72_683_241_984),
        (("nf4", "fp4"), 42_709_077_504),
    ]
    eight, four = found.savings
    assert 0 < eight.streamed_bytes < eight.streamed_bytes_before
    assert four.sentence == "nf4 or fp4: 42.7 GB, fits on device 0 and device 1"
    assert four.sentence in render_plan(found.plan, found.inventory, found.savings)


def test_what_is_told_is_what_the_config_gets() -> None:
    path = EXAMPLES / "llama-3-70b.2x4090.devmap.yaml"
    for saving in resolved_file(path).savings:
        for method in saving.methods:
            plan = resolved_file(path, overrides=[f"model.quantization={method}"]).plan
            assert sum(each.nbytes for each in plan.placements) == saving.nbytes
            assert sum(each.home_bytes for each in plan.streamed) == saving.streamed_bytes


@pytest.mark.parametrize(
    "overrides",
    [
        ["max_memory={0: 80GB, 1: 80GB}"],  # nothing streams
        ["workload=training", "max_memory={0: 23GB, cpu: 3TB}"],
        ["model.quantization=nf4", "max_memory={0: 23GB, cpu: 100GB}"],
    ],
)
def test_nothing_is_told_where_nothing_streams_or_the_way_is_settled(overrides: list[str]) -> None:
    found = resolved_file(EXAMPLES / "llama-3-70b.2x4090.devmap.yaml", overrides=overrides)
    assert found.savings == ()


def test_a_method_that_a_model_does_not_take_is_not_told() -> None:
    config = config_of(
        "version: 1\nmodel: {manifest: gpt2-xl.manifest.yaml}\nmax_memory: {0: 4GB, cpu: 16GB}\n"
    )
    inventory = Inventory.from_manifest(EXAMPLES / "gpt2-xl.manifest.yaml")
    found = savings(config, inventory, devmap.resolve(config, inventory))
    # GPT-2's linear layers are of a class of their own, which torchao leaves whole
    assert [each.methods for each in found] == [("int8",), ("nf4", "fp4")]


def errors_of(text: str) -> ResolutionError:
    config = config_of(text)
    with pytest.raises(ResolutionError) as caught:
        devmap.resolve(config)
    return caught.value


MACHINE = (
    "machine: {devices: {0: {memory: 23GB}, 1: {memory: 23GB}, cpu: {memory: 30GB}, disk: {memory: 9GB}}}\n"
)
FULL = f"max_memory: {{0: 23GB, 1: 23GB, cpu: 30GB, disk: 9GB}}\n{MACHINE}"


def test_a_model_that_fits_nowhere_whole_is_offered_in_fewer_bits() -> None:
    error = errors_of(f"version: 1\nmodel: {{manifest: llama-3-70b.manifest.yaml, dtype: bfloat16}}\n{FULL}")
    assert error.changes == ("quantise the weights to int8 while they are loaded (model.quantization)",)
    assert error.overrides == (("model.quantization=int8",),)


def test_a_change_that_is_offered_has_a_plan() -> None:
    text = "version: 1\nmodel: {manifest: llama-3-70b.manifest.yaml, dtype: bfloat16}\n" + FULL
    changed = text.replace("dtype: bfloat16", "quantization: int8")
    assert devmap.resolve(config_of(changed)).placements


def test_it_is_not_offered_for_a_model_that_is_trained() -> None:
    text = "version: 1\nmodel: {manifest: llama-3-70b.manifest.yaml, dtype: bfloat16}\nworkload: training\n"
    assert not any("quantise" in change for change in errors_of(text + FULL).changes)


def test_a_quantised_models_cache_is_in_the_dtype_that_it_runs_in() -> None:
    def cache(quantization: str) -> Any:
        config = config_of(
            f"version: 1\nmodel: {{manifest: llama-2-7b.manifest.yaml{quantization}}}\n"
            "max_memory: {0: 24GB}\nworkload: inference\n"
        )
        (use,) = devmap.resolve(config).devices
        return [charge.nbytes for charge in use.charges if charge.what in {"kv cache", "activations"}]

    assert cache(", quantization: nf4") == cache(", quantization: int8") == cache("")
