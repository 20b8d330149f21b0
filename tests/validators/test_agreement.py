"""Whatever a config of the right form says.

The checks come to an end, place what they find, and agree with the resolver.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

import devmap_validators
from devmap.api.checks.validation import validate_text
from devmap.checking.settings import Settings
from devmap.config.document import parse_document
from devmap.config.yaml.writer import render_yaml
from devmap.errors import DeviceMapError, DevmapError, ResolutionError
from devmap.findings.model import Severity
from devmap.inventory.model import Inventory
from devmap.planning.resolve import resolve

PACK = Path(devmap_validators.__file__).parent
NAME = str(PACK / "arbitrary.devmap.yaml")
MACHINE = {
    "devices": {
        "0": {"memory": "4GB"},
        "1": {"memory": "2GB"},
        "cpu": {"memory": "8GB"},
        "disk": {"memory": "40GB"},
    }
}

KEYS = st.sampled_from(
    [
        "",
        "model",
        "lm_head",
        "model.layers",
        "model.layers.0",
        "model.layers.3.mlp",
        "model.layers[0-1]",
        "model.layers[1-3]",
        "model.layers.*.mlp",
        "model.layers.?",
        "model.norm.weight",
        "model.embed_tokens",
        "model.rotary_emb",
        "model.layer.0",
        "h.0",
    ]
)
DEVICES = st.sampled_from(["0", "1", "cpu", "disk", "2"])
STRATEGIES = st.sampled_from(["auto", "sequential", "balanced", "balanced_low_0", "fastest"])
SIZES = st.sampled_from([0, "300MB", "900MB", "1.5GB", "2GB", "4GB", "20GB", "40%", "90%"])


def targets() -> st.SearchStrategy[Any]:
    return st.one_of(st.sampled_from([0, 1, 2, "cpu", "disk", "cuda:1"]), STRATEGIES)


CONFIGS = st.fixed_dictionaries(
    {
        "version": st.just(1),
        "model": st.fixed_dictionaries(
            {"manifest": st.just("example.manifest.yaml")},
            optional={"dtype": st.sampled_from(["bfloat16", "float16", "float32", "int8", "float8_e4m3fn"])},
        ),
    },
    optional={
        "device_map": st.one_of(STRATEGIES, targets(), st.dictionaries(KEYS, targets(), max_size=4)),
        "max_memory": st.dictionaries(DEVICES, SIZES, max_size=4),
        "headroom": st.one_of(SIZES, st.dictionaries(DEVICES, SIZES, max_size=2)),
        "no_split_module_classes": st.lists(
            st.sampled_from(["LlamaDecoderLayer", "LlamaMLP", "GPT2Block"]), max_size=2
        ),
        "workload": st.one_of(
            st.sampled_from(["inference", "training", "server"]),
            st.fixed_dictionaries(
                {"kind": st.sampled_from(["inference", "training", "server"])},
                optional={
                    "batch_size": st.integers(1, 64),
                    "sequence_length": st.sampled_from([1, 2048, 100_000]),
                    "optimizer": st.sampled_from(["adamw", "sgd"]),
                    "trainable": st.lists(KEYS, max_size=2),
                },
            ),
        ),
        "offload": st.fixed_dictionaries(
            {}, optional={"folder": st.just("./offload"), "buffers": st.booleans(), "host_memory": SIZES}
        ),
        "same_device": st.lists(st.lists(KEYS, max_size=3), max_size=2),
        "forbid": st.dictionaries(DEVICES, st.lists(KEYS, max_size=2), max_size=2),
        "machine": st.sampled_from([MACHINE, "2x4090", "nowhere"]),
        "policies": st.lists(
            st.sampled_from(["production", "inference", "training", "shared-server", "none"]), max_size=2
        ),
        "objective": st.sampled_from(["latency", "throughput"]),
        "profiles": st.just({"small": {"max_memory": {"0": "1GB"}}}),
    },
)


@pytest.fixture(name="model", scope="module")
def _model() -> Inventory:
    return Inventory.from_manifest(PACK / "example.manifest.yaml")


@settings(max_examples=60, suppress_health_check=[HealthCheck.too_slow])
@given(config=CONFIGS)
def test_every_config_is_checked_to_the_end_and_every_finding_lies_in_its_file(
    config: dict[str, Any],
) -> None:
    text = render_yaml(config)
    findings = validate_text(text.encode(), NAME, settings=Settings(strict=True)).findings
    lines = text.split("\n")
    for finding in findings:
        assert finding.code != "DM902"
        assert finding.message
        assert finding.position is not None
        assert finding.position.file == NAME
        start, end = finding.position.start, finding.position.end
        assert 1 <= start.line <= end.line <= len(lines)
        assert 1 <= start.column <= len(lines[start.line - 1]) + 1
        assert 1 <= end.column <= len(lines[end.line - 1]) + 1


@settings(max_examples=60, suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much])
@given(config=CONFIGS)
def test_the_checks_agree_with_the_resolver(config: dict[str, Any], model: Inventory) -> None:
    config = {key: value for key, value in config.items() if key not in {"profiles", "policies"}}
    assume(config.get("machine") != "nowhere")
    text = render_yaml(config)
    document = parse_document(text.encode(), NAME)
    assume(document.config is not None)
    assert document.config is not None
    machine = document.config.machine
    assume("max_memory" in config or machine is not None)
    errors = [
        finding
        for finding in validate_text(text.encode(), NAME, settings=Settings(strict=True)).findings
        if finding.severity is Severity.ERROR
    ]
    if isinstance(config.get("machine"), str) or (machine is None and "%" in text):
        return
    try:
        resolve(document.config, model, machine=machine)
    except (ResolutionError, DeviceMapError) as error:
        if not errors:
            pytest.fail(f"nothing says that: {error}\n{text}")
    except DevmapError as error:
        pytest.fail(f"{type(error).__name__}: {error}\n{text}")
    else:
        refused = [finding for finding in errors if finding.code not in STRICTER_THAN_THE_RESOLVER]
        assert refused == [], text


STRICTER_THAN_THE_RESOLVER = {"DM208", "DM211", "DM306", "DM302", "DM303", "DM410"}
"""What makes no plan wrong and a config not what was meant: names that mean nothing, dtypes and machines that
do not exist."""
