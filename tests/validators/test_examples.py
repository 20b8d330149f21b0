"""Every rule of the pack.

Unique, explained, with a page, a good example that passes and a bad one that fires.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from devmap.errors import CheckpointError, InventoryError, LockError
from devmap.findings.meta import META_RULES
from devmap.findings.model import Finding, Rule, Severity
from devmap.inventory.manifests.manifest import parse_manifest
from devmap.inventory.stored.checkpoint import Damage
from devmap.inventory.stored.mapping import Mismatch, WeightMapping
from devmap.plan.lock import Lock, lock_of
from devmap_validators.pages import pages
from devmap_validators.rules import ALL_RULES
from devmap_validators.rules.config import reader_rules as config
from devmap_validators.rules.file import reader_rules as file
from tests.validators.conftest import PACK
from tests.validators.test_rule_cases import CASES
from tests.validators.wording import as_lines

if TYPE_CHECKING:
    from collections.abc import Callable

    from devmap.findings.context import Context
    from devmap.inventory.model import Inventory
    from tests.conftest import Golden
    from tests.validators.conftest import ContextOf, FindingsOf

ROOT = Path(__file__).parents[2]
RELAYED = (*file.READER_RULES, *config.READER_RULES)


def lock_for(context: Context, **changes: Any) -> Lock:
    """The lock of the context's plan, changed and with a digest that is right."""
    assert context.plan is not None
    lock = dataclasses.replace(lock_of(context.plan), **changes)
    return dataclasses.replace(lock, digest=lock.expected_digest)


def with_mapping(inventory: Inventory, **lists: Any) -> Inventory:
    return dataclasses.replace(inventory, mapping=WeightMapping({}, **lists))


def with_shape(inventory: Inventory, name: str, shape: tuple[int, ...]) -> Inventory:
    tensors = {**inventory.tensors, name: inventory.tensors[name]._replace(shape=shape)}
    return dataclasses.replace(inventory, tensors=tensors)


SHARED_LAYERS = (("model.layers.2.mlp.up_proj.weight", "model.layers.3.mlp.up_proj.weight"),)

# What the bad example of some rules needs beside its text: a profile, a lock, a checkpoint that is not in
# this repository.


def wrong_manifest() -> InventoryError:
    with pytest.raises(InventoryError) as caught:
        parse_manifest(b"version: 1\ntensors: {a: float17[2]}\n", "x.manifest.yaml")
    return caught.value


SURROUNDINGS: dict[str, Callable[[Context, Inventory], dict[str, Any]]] = {
    "DM020": lambda _context, _model: {"inventory_error": wrong_manifest()},
    "DM021": lambda _context, _model: {
        "inventory_error": CheckpointError("no", problems=[Damage("DM021", "a.safetensors is cut off")])
    },
    "DM111": lambda _context, _model: {"profile": "labtop"},
    "DM204": lambda _context, model: {"inventory": dataclasses.replace(model, ties=SHARED_LAYERS)},
    "DM215": lambda _context, model: {
        "checkpoint_inventory": with_shape(model, "model.norm.weight", (2048,))
    },
    "DM216": lambda _context, _model: {
        "inventory_error": CheckpointError("there is no checkpoint './no-such-folder'")
    },
    "DM220": lambda _context, model: {"inventory": with_mapping(model, unmapped=("score.weight",))},
    "DM221": lambda _context, model: {"inventory": with_mapping(model, missing=("model.norm.weight",))},
    "DM222": lambda _context, model: {
        "inventory": dataclasses.replace(model, notes=("no table knows the architecture 'own'",))
    },
    "DM224": lambda _context, model: {
        "inventory": with_mapping(model, mismatched=(Mismatch("model.norm.weight", (4096,), (2048,)),))
    },
    "DM501": lambda context, _model: {"lock": lock_for(context, config_fingerprint="sha256:0")},
    "DM502": lambda context, _model: {"lock": dataclasses.replace(lock_for(context), device_map={"": 1})},
    "DM503": lambda context, _model: {"lock": lock_for(context, inventory_fingerprint="sha256:0")},
    "DM504": lambda _context, _model: {
        "lock_error": LockError("example.devmap.lock.yaml:3: expected a lock of version 1")
    },
    "DM505": lambda _context, _model: {"locked": True},
    "DM506": lambda context, _model: {"lock": lock_for(context, device_map={"": 1})},
}


@pytest.mark.parametrize("rule", ALL_RULES, ids=lambda rule: rule.code)
def test_the_good_example_has_no_error_and_no_warning(
    rule: Rule, context_of: ContextOf, findings_of: FindingsOf
) -> None:
    context = context_of(rule.good)
    assert context.document.config is not None
    assert [
        finding
        for finding in findings_of(context)
        if finding.severity is not Severity.NOTE or finding.code == rule.code
    ] == []


WITHOUT_A_FILE = [rule for rule in ALL_RULES if rule.code != "DM602"]


def findings_of_bad(
    rule: Rule, context_of: ContextOf, findings_of: FindingsOf, example: Inventory
) -> tuple[Finding, ...]:
    surroundings = SURROUNDINGS[rule.code](context_of(rule.bad), example) if rule.code in SURROUNDINGS else {}
    codes = {"DM603": "SRV002"}  # the rules of a policy have codes of their own
    return findings_of(context_of(rule.bad, **surroundings), codes.get(rule.code, rule.code))


def test_the_bad_examples_say_what_the_golden_file_holds(
    context_of: ContextOf, findings_of: FindingsOf, example: Inventory, golden: Golden
) -> None:
    found = {rule: findings_of_bad(rule, context_of, findings_of, example) for rule in WITHOUT_A_FILE}
    text = "".join(f"# {rule.name}\n{as_lines(findings)}\n" for rule, findings in found.items())
    golden("rules.txt", text.replace(f"{PACK}/", ""))


@pytest.mark.parametrize("rule", WITHOUT_A_FILE, ids=lambda rule: rule.code)
def test_the_bad_example_fires(
    rule: Rule, context_of: ContextOf, findings_of: FindingsOf, example: Inventory
) -> None:
    found = findings_of_bad(rule, context_of, findings_of, example)
    assert found
    assert {finding.severity for finding in found} == {rule.severity}
    for finding in found:
        assert finding.position is not None
        assert len(finding.position.source.lines) >= finding.position.start.line


def test_the_bad_example_of_dm602_fires_where_the_pack_is_broken(
    context_of: ContextOf, findings_of: FindingsOf, tmp_path: Path
) -> None:
    (rule,) = (rule for rule in ALL_RULES if rule.code == "DM602")
    pack = tmp_path / "broken.policy.yaml"
    pack.write_text(
        "version: 1\nrules:\n  - {code: ACME001, message: m, schema: {type: nothing}}\n", encoding="utf-8"
    )
    (finding,) = findings_of(context_of(rule.bad.replace("./broken.policy.yaml", str(pack))), "DM602")
    assert finding.position is not None
    assert (finding.position.file, finding.position.start.line) == (str(pack), 3)


def test_codes_and_names_are_unique_and_in_order() -> None:
    rules = (*ALL_RULES, *META_RULES)
    assert [rule.code for rule in rules] == sorted({rule.code for rule in rules})
    assert len({rule.name for rule in rules}) == len(rules)


@pytest.mark.parametrize("rule", ALL_RULES, ids=lambda rule: rule.code)
def test_every_rule_is_explained_and_tested(rule: Rule) -> None:
    assert rule.summary
    assert not rule.summary.endswith(".")
    assert rule.why.endswith((".", ")"))
    assert rule.good.startswith("version: 1\n")
    if rule in RELAYED:
        return  # a row of a table, tested in test_reader_rules.py
    own_tests = ROOT / "tests" / "validators" / f"test_{rule.code.lower()}_{rule.name.replace('-', '_')}.py"
    assert rule.code in CASES or own_tests.is_file(), "no case in rule_cases.yaml"


def test_the_pages_are_fresh() -> None:
    docs = ROOT / "docs"
    for name, text in pages().items():
        assert (docs / name).read_text(encoding="utf-8") == text, (
            "run: python -m devmap_validators.pages docs"
        )
    assert {f"rules/{path.name}" for path in (docs / "rules").glob("*.md")} | {"rules.md"} == set(pages())


ALL_KEYS = """\
version: 1
model: {checkpoint: ./no-such-folder, dtype: float16}
device_map: {'': auto, model.nrm: 0, lm_head: cpu, x: 3}
max_memory: {0: 50%, cpu: 1GB, 1: 0}
headroom: {0: 100%, 7: 1GB}
no_split_module_classes: [Blokc]
workload: {kind: inference, optimizer: adamw, trainable: [x]}
offload: {host_memory: 1MB}
same_device: [[a, b]]
forbid: {0: [a]}
policies: [production, inference, training, shared-server]
profiles: {none: {}}
"""


def test_without_a_model_a_plan_or_a_machine_each_rule_says_what_the_text_alone_shows(
    context_of: ContextOf, findings_of: FindingsOf
) -> None:
    found = findings_of(context_of(ALL_KEYS, inventory_error=CheckpointError("there is no checkpoint")))
    said = sorted({finding.code for finding in found if finding.code.startswith("DM")})
    assert said == ["DM212", "DM216", "DM223", "DM301", "DM307", "DM312", "DM405"]


def test_without_a_readable_config_only_the_reader_speaks(
    context_of: ContextOf, findings_of: FindingsOf, example: Inventory
) -> None:
    good = context_of("version: 1\nmodel: {manifest: example.manifest.yaml}\nmax_memory: {0: 2GB}\n")
    for text in (ALL_KEYS.replace("'': auto", "'': nowhere"), "- a list", ""):
        known = {
            "inventory": example,
            "checkpoint_inventory": example,
            "lock": lock_for(good),
            "plan": good.plan,
            "machine": good.machine,
        }
        # DM218 and DM223 look at paths and profiles as they are written, whatever else is wrong.
        others = [
            finding.code
            for finding in findings_of(context_of(text, **known))
            if finding.code not in {"DM218", "DM223"}
        ]
        assert {code[:3] for code in others} <= {"DM0", "DM1"}
        assert others
