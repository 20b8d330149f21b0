"""What is read straight is what pydantic reads, and what pydantic refuses is never read straight."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from devmap.config.document import load_document
from devmap.config.model.placement_config import MachineProfile, PlacementConfig
from devmap.config.model.straight import straight
from devmap.config.values.fields import as_plain

ROOT = Path(__file__).parents[2]
CONFIGS = sorted(
    [*(ROOT / "examples").glob("**/*.devmap.yaml"), *(ROOT / "tests" / "faults").glob("*.devmap.yaml")]
)

SCALARS = st.sampled_from(
    [
        None,
        True,
        False,
        0,
        1,
        -1,
        2_000_000,
        1.5,
        -0.0,
        float("inf"),
        float("nan"),
        "",
        "0",
        "1",
        "cpu",
        "disk",
        "cuda:1",
        "20GB",
        "15%",
        "8gb",
        "auto",
        "balanced",
        "server",
        "training",
        "adamw",
        "bf16",
        "torch.float16",
        "bfloat17",
        "latency",
        "a.b:c",
        "a.b",
        "2x4090",
        "model.layers[0-3]",
        "model.layers[3-0]",
        "model.*.mlp",
        "no such word",
    ]
)
KEYS = st.sampled_from(
    [
        *PlacementConfig.model_fields,
        "checkpoint",
        "manifest",
        "factory",
        "variant",
        "dtype",
        "kind",
        "batch_size",
        "sequence_length",
        "kv_cache_dtype",
        "optimizer",
        "trainable",
        "folder",
        "buffers",
        "host_memory",
        "default",
        "devices",
        "name",
        "memory",
        "flops",
        "memory_bandwidth",
        "disk",
        "0",
        "cuda:1",
        "cpu",
        "",
        "model.norm",
        "bfloat16",
        "verison",
    ]
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=4),
    max_leaves=6,
)
DEVICES = st.sampled_from(["0", "1", "cuda:2", "cpu", "disk"])
SIZES = st.sampled_from([0, 7, "20GB", "1.5 GiB", "90%"])
PATHS = st.sampled_from(["", "model", "model.layers[0-3]", "model.*.mlp"])
RIGHT = {
    "model": st.fixed_dictionaries(
        {}, optional={"manifest": st.just("m.yaml"), "dtype": st.sampled_from(["bf16", "float32"])}
    ),
    "device_map": st.sampled_from(["auto", 0, "cpu"])
    | st.dictionaries(PATHS, DEVICES | st.just("balanced"), max_size=3),
    "max_memory": st.none() | st.dictionaries(DEVICES, SIZES, max_size=3),
    "headroom": SIZES | st.dictionaries(DEVICES, SIZES, max_size=2),
    "workload": st.sampled_from(
        ["inference", {"kind": "training", "batch_size": 4, "trainable": ["model"], "optimizer": "lion"}]
    ),
    "offload": st.sampled_from([{}, {"folder": "x", "buffers": True, "host_memory": "2GB"}]),
    "machine": st.sampled_from(
        ["2x4090", {"devices": {"0": {"memory": "24GB", "disk": 1.5, "flops": {"bf16": 1e12}}}}]
    ),
    "no_split_module_classes": st.lists(st.just("Block"), max_size=2),
    "objective": st.sampled_from(["latency", "throughput"]),
    "profiles": st.just({"a": {"anything": [1, {"b": None}]}}),
    "policies": st.lists(st.just("production"), max_size=1),
    "same_device": st.lists(st.lists(PATHS, max_size=2), max_size=2),
    "forbid": st.dictionaries(DEVICES, st.lists(PATHS, max_size=2), max_size=2),
    "extends": st.none() | st.just("base.devmap.yaml"),
}


def by_pydantic(values: object) -> PlacementConfig | None:
    try:
        return PlacementConfig.model_validate(values)
    except ValidationError:
        return None


def hold_together(values: object) -> PlacementConfig | None:
    """What is read straight, after it was compared with pydantic's reading."""
    read, expected = straight(PlacementConfig, values), by_pydantic(values)
    if read is not None:
        assert expected is not None
        assert read == expected
        assert read.model_fields_set == expected.model_fields_set
        assert as_plain(read) == read.model_dump(mode="json")
        assert list(as_plain(read)["device_map"]) == list(read.model_dump(mode="json")["device_map"])
    return read


@settings(max_examples=100, deadline=None)
@given(
    st.fixed_dictionaries(
        {"version": st.just(1), "model": VALUES}, optional={name: VALUES for name in RIGHT if name != "model"}
    )
)
def test_whatever_is_read_straight_is_what_pydantic_reads(values: dict[str, Any]) -> None:
    hold_together(values)


@settings(max_examples=100, deadline=None)
@given(
    st.fixed_dictionaries(
        {"version": st.just(1), "model": RIGHT["model"]},
        optional={k: v for k, v in RIGHT.items() if k != "model"},
    ),
    st.sampled_from([None, *RIGHT]),
    SCALARS,
)
def test_a_right_config_is_read_straight_and_one_wrong_value_is_not(
    values: dict[str, Any], spoilt: str | None, value: object
) -> None:
    assert hold_together(values) is not None
    if spoilt is not None:
        hold_together({**values, spoilt: value})


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.name)
def test_each_checked_in_config_is_read_alike(path: Path) -> None:
    values = load_document(path).data
    read = hold_together(values)
    if path.parent.name != "faults":
        assert read is not None, "configs as people write them are read straight"


def test_a_machine_is_read_straight_too() -> None:
    values = {
        "devices": {
            "0": {"memory": "24GB", "flops": {"float16": 1e12}, "memory_bandwidth": 1e12},
            "cpu": {"memory": 64},
        }
    }
    assert straight(MachineProfile, values) == MachineProfile.model_validate(values)
    assert straight(MachineProfile, {"devices": {"0": {"memory": "24GB", "memory_bandwidth": 0.0}}}) is None


def test_no_validator_is_built_for_a_right_config() -> None:
    import subprocess  # noqa: PLC0415 - only here
    import sys  # noqa: PLC0415 - only here

    program = (
        "import json, sys\n"
        "from devmap.config.model.placement_config import PlacementConfig\n"
        "from devmap.config.model.straight import straight\n"
        "from devmap.plan.fingerprint import config_fingerprint\n"
        "config = straight(PlacementConfig, json.loads(sys.argv[1]))\n"
        "config_fingerprint(config.placed_in(config.folder))\n"
        "print(type(PlacementConfig.__pydantic_validator__).__name__, 'importlib.metadata' in sys.modules)\n"
    )
    values = json.dumps(
        {"version": 1, "model": {"manifest": "m"}, "device_map": {"": "balanced"}, "max_memory": {"0": "1GB"}}
    )
    told = subprocess.run([sys.executable, "-c", program, values], capture_output=True, text=True, check=True)
    assert told.stdout.split() == ["MockValSer", "False"]
