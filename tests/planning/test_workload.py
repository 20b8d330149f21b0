from __future__ import annotations

from typing import Any

import pytest

from devmap.config.model.placement_config import Workload
from devmap.inventory.atoms import atoms
from devmap.planning.problem.workload import charges
from devmap.planning.resolve import resolve
from tests.planning.planning_models import config, decoder


def total(what: str, inventory: Any, **keys: Any) -> int:
    found = charges(Workload.model_validate(keys), inventory, atoms(inventory), dtype=None)
    return sum(sum(charge.by_atom.values()) for charge in found.by_kind if charge.what == what)


def test_the_kv_cache_is_batch_by_sequence_by_kv_heads_by_head_dim_by_two() -> None:
    assert (
        total("kv cache", decoder(4), kind="inference", batch_size=3, sequence_length=10)
        == 4 * 3 * 10 * 2 * 2 * 2 * 2
    )


def test_a_sliding_window_keeps_its_window() -> None:
    inventory = decoder(2, sliding_window=4, layer_types=["sliding_attention", "full_attention"])
    assert total("kv cache", inventory, kind="inference", sequence_length=10) == (4 + 10) * 2 * 2 * 2 * 2


def test_mla_keeps_one_latent_and_the_rotary_key() -> None:
    inventory = decoder(2, kv_lora_rank=16, qk_rope_head_dim=4)
    assert total("kv cache", inventory, kind="inference", sequence_length=10) == 2 * 10 * (16 + 4) * 2


def test_an_encoder_keeps_no_cache() -> None:
    assert total("kv cache", decoder(2, model_type="bert"), kind="inference", sequence_length=10) == 0


@pytest.mark.parametrize(
    ("optimizer", "bytes_per_element"),
    [("adamw", 12), ("adamw_8bit", 2), ("lion", 4), ("sgd", 0), ("sgd_momentum", 2)],
)
def test_training_charges_gradients_and_states_of_the_trained_part(
    optimizer: str, bytes_per_element: int
) -> None:
    keys: dict[str, Any] = {"kind": "training", "optimizer": optimizer, "trainable": ["lm_head"]}
    assert total("gradients", decoder(), **keys) == 32 * 8 * 2
    assert total("optimizer", decoder(), **keys) == 32 * 8 * bytes_per_element


def test_adafactor_keeps_a_row_and_a_column() -> None:
    assert total(
        "optimizer", decoder(), kind="training", optimizer="adafactor", trainable=["lm_head"]
    ) == 4 * (32 + 8)


def test_charges_lie_on_the_device_that_causes_them_and_inside_its_budget() -> None:
    inventory = decoder(4)
    workload = {"kind": "inference", "sequence_length": 10}
    plan = resolve(config(device_map="balanced", max_memory={0: 6000, 1: 6000}, workload=workload), inventory)
    cached = {
        use.device.plain: sum(charge.nbytes for charge in use.charges if charge.what == "kv cache")
        for use in plan.devices
    }
    assert sum(cached.values()) == 4 * 10 * 2 * 2 * 2 * 2
    assert all(cached.values())


def test_a_server_keeps_device_0_light() -> None:
    keys: dict[str, Any] = {
        "max_memory": {0: 10**5, 1: 10**5},
        "workload": {"kind": "server", "sequence_length": 4},
    }
    plan = resolve(config(**keys), decoder())
    assert plan.devices[0].weight_bytes == 0


def test_trained_weights_are_never_streamed() -> None:
    inventory = decoder(4)
    plan = resolve(
        config(max_memory={0: 8000, "cpu": 10**6}, workload={"kind": "training", "sequence_length": 4}),
        inventory,
    )
    assert not plan.streamed
    assert any(placement.home.plain == "cpu" for placement in plan.placements)
