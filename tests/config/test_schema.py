"""The published JSON Schema: fresh, valid, and never of another opinion than `validate` about a shape."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from devmap.config.document import parse_document
from devmap.config.model.json_schema import config_schema
from devmap.report.schema_files import schema_texts, write_schemas

FOLDER = Path(__file__).parents[2] / "schema"
VALIDATOR = Draft202012Validator(config_schema())


@pytest.mark.parametrize("name", sorted(schema_texts()))
def test_the_published_schema_is_fresh(name: str) -> None:
    assert (FOLDER / name).read_text(encoding="utf-8") == schema_texts()[name], (
        "run: python -m devmap.report.schema_files"
    )


def test_write_schemas_writes_every_schema(tmp_path: Path) -> None:
    write_schemas(tmp_path / "new")
    assert {
        path.name: path.read_text(encoding="utf-8") for path in (tmp_path / "new").iterdir()
    } == schema_texts()


@pytest.mark.parametrize("name", sorted(schema_texts()))
def test_the_schema_is_a_schema(name: str) -> None:
    schema = json.loads(schema_texts()[name])
    Draft202012Validator.check_schema(schema)
    assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    assert schema["$id"] == f"urn:torch-devmap:{name}"


def test_every_key_is_described_and_no_title_repeats_a_name() -> None:
    schema = config_schema()
    for definition in (schema, *schema["$defs"].values()):
        for key, node in definition.get("properties", {}).items():
            assert "title" not in node
            named = schema["$defs"].get(node.get("$ref", "").rpartition("/")[2], {})
            assert node.get("description") or named.get("description"), key


def test_words_have_their_meanings() -> None:
    forms = config_schema()["properties"]["device_map"]["anyOf"]
    words = next(form for inner in forms for form in [inner, *inner.get("anyOf", [])] if "enum" in form)
    assert len(words["enum"]) == len(words["enumDescriptions"])
    assert all(words["enumDescriptions"])


def agree(config: dict[str, Any]) -> tuple[bool, bool]:
    """Whether validate and the schema accept a config."""
    document = parse_document(json.dumps(config).encode(), "x.devmap.yaml")
    return document.config is not None, VALIDATOR.is_valid(config)


size = st.sampled_from(["20GB", "1.5 GiB", "100MB", 0, 10**9, "7"])
amount = size | st.sampled_from(["90%", "12.5 %", "100%"])
device = st.sampled_from(["0", "1", "cuda:2", "xpu:3", "cpu", "disk"])
path = st.sampled_from(["model.layers[0-39]", "model.layers.*.mlp", "lm_head", "", "model.embed_tokens"])
dtype = st.sampled_from(["bfloat16", "fp16", "torch.float32"])
target = st.sampled_from([0, 1, "cpu", "disk", "cuda:1", "balanced", "auto", "0"])
words = st.sampled_from(["a", "./b"])
whole = st.integers(1, 64)
rates = st.fixed_dictionaries(
    {"memory": size},
    optional={"flops": st.dictionaries(dtype, st.floats(1, 1e15), max_size=2), "disk": st.floats(1, 1e12)},
)


def by_one_device(values: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    return st.dictionaries(device, values, max_size=1)


workloads = st.fixed_dictionaries(
    {},
    optional={
        "kind": st.sampled_from(["training", "server"]),
        "batch_size": whole,
        "optimizer": st.sampled_from(["adamw", "lion"]),
        "trainable": st.lists(path, max_size=2),
        "kv_cache_dtype": dtype,
    },
)
parts: dict[str, st.SearchStrategy[Any]] = {
    "device_map": target | st.dictionaries(path, target, max_size=3),
    "max_memory": st.none() | by_one_device(amount),
    "headroom": st.none() | amount | by_one_device(amount),
    "no_split_module_classes": st.none() | st.lists(words, max_size=2),
    "workload": st.none() | st.sampled_from(["inference", "training", "server"]) | workloads,
    "offload": st.fixed_dictionaries(
        {}, optional={"folder": words, "buffers": st.booleans(), "host_memory": size}
    ),
    "policies": st.lists(words, max_size=2),
    "residency": st.sampled_from(["together", "by turns"]),
    "objective": st.sampled_from(["latency", "throughput"]),
    "machine": st.none()
    | st.just("2x4090")
    | st.fixed_dictionaries({}, optional={"name": words, "devices": by_one_device(rates)}),
    "same_device": st.lists(st.lists(path, max_size=2), max_size=2),
    "forbid": by_one_device(st.lists(path, max_size=2)),
}
models = st.fixed_dictionaries(
    {},
    optional={
        "checkpoint": words,
        "variant": st.sampled_from(["fp16", "non_ema"]),
        "manifest": words,
        "factory": st.just("pkg.mod:build"),
        "dtype": dtype,
    },
)
# A profile may leave the memory of a device to its config: the schema, which sees the profile alone, cannot
# ask for it.
profiles = st.dictionaries(
    words,
    st.fixed_dictionaries({}, optional={key: part for key, part in parts.items() if key != "machine"}),
    max_size=2,
)
configs = st.fixed_dictionaries(
    {"version": st.just(1), "model": models}, optional={**parts, "profiles": profiles}
)


@given(configs)
def test_what_validate_accepts_the_schema_accepts(config: dict[str, Any]) -> None:
    assert agree(config) == (True, True)


wrong: st.SearchStrategy[Any] = st.sampled_from(
    [
        None,
        True,
        -1,
        1.5,
        "8gb",
        "x y",
        "101%",
        "a..b",
        "gpu",
        [],
        [[]],
        [3],
        {},
        {"foo": 1},
        {"0": "8gb"},
        {"cpu": None},
        {"name": 3},
    ]
)


@given(configs, st.data())
def test_each_error_of_shape_is_refused_by_both(config: dict[str, Any], data: st.DataObject) -> None:
    spots = list(places(config))
    spot = data.draw(st.sampled_from(spots))
    changed = copy.deepcopy(config)
    node: Any = changed
    for key in spot[:-1]:
        node = node[key]
    node[spot[-1]] = data.draw(wrong)
    by_validate, by_schema = agree(changed)
    assert by_validate == by_schema


def places(node: Any, here: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    keys: list[Any] = (
        list(node) if isinstance(node, dict) else list(range(len(node))) if isinstance(node, list) else []
    )
    found = [(*here, key) for key in keys]
    return found + [spot for key in keys for spot in places(node[key], (*here, key))]


@pytest.mark.parametrize("key", ["modle", "Version", "device-map", ""])
def test_a_misspelt_key_is_refused_by_both(key: str) -> None:
    assert agree({"version": 1, "model": {}, key: 1}) == (False, False)


@pytest.mark.parametrize(
    "config", [{"model": {}}, {"version": 1}, {"version": 2, "model": {}}, {"version": True, "model": {}}, {}]
)
def test_what_is_missing_or_of_another_version_is_refused_by_both(config: dict[str, Any]) -> None:
    assert agree(config) == (False, False)


def test_a_config_that_extends_another_may_leave_out_what_that_one_has(tmp_path: Path) -> None:
    (tmp_path / "base.devmap.yaml").write_text(
        "version: 1\nmodel: {}\nmachine: {devices: {0: {memory: 1GB}}}\n"
    )
    child: dict[str, Any] = {"extends": "base.devmap.yaml", "machine": {"devices": {"0": {"disk": 1e9}}}}
    document = parse_document(json.dumps(child).encode(), str(tmp_path / "x.devmap.yaml"))
    assert document.config is not None
    assert VALIDATOR.is_valid(child)
