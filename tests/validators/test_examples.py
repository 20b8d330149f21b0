"""Every rule of the pack: unique, explained, with a page, a good example that passes and a bad one that fires."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from devmap.errors import CheckpointError, InventoryError, LockError
from devmap.findings.meta import META_RULES
from devmap.findings.model import Rule, Severity
from devmap.inventory.checkpoint import Damage
from devmap.inventory.manifest import parse_manifest
from devmap.inventory.mapping import Mismatch, WeightMapping
from devmap.plan.lock import Lock, lock_of
from devmap_validators.pages import pages
from devmap_validators.rules import ALL_RULES

if TYPE_CHECKING:
    from collections.abc import Callable

    from devmap.findings.context import Context
    from devmap.inventory.model import Inventory
    from tests.validators.conftest import ContextOf, FindingsOf

ROOT = Path(__file__).parents[2]


def lock_for(context: Context, **changes: Any) -> Lock:
    """The lock of the context's plan, changed and with a digest that is right."""
    assert context.plan is not None
    lock = dataclasses.replace(lock_of(context.plan), **changes)
    return dataclasses.replace(lock, digest=lock.expected_digest)


def with_mapping(inventory: Inventory, **lists: Any) -> Inventory:
    return dataclasses.replace(inventory, mapping=WeightMapping({}, **lists))


def with_shape(inventory: Inventory, name: str, shape: tuple[int, ...]) -> Inventory:
    tensors = {**inventory.tensors, name: dataclasses.replace(inventory.tensors[name], shape=shape)}
    return dataclasses.replace(inventory, tensors=tensors)


SHARED_LAYERS = (("model.layers.2.mlp.up_proj.weight", "model.layers.3.mlp.up_proj.weight"),)

# What the bad example of some rules needs beside its text: a profile, a lock, a checkpoint that is not in this repository.


def wrong_manifest() -> InventoryError:
    with pytest.raises(InventoryError) as caught:
        parse_manifest(b"version: 1\ntensors: {a: float17[2]}\n", "x.manifest.yaml")
    return caught.value


SURROUNDINGS: dict[str, Callable[[Context, Inventory], dict[str, Any]]] = {
    "DM020": lambda _context, _model: {"inventory_error": wrong_manifest()},
    "DM021": lambda _context, _model: {"inventory_error": CheckpointError("no", problems=[Damage("DM021", "a.safetensors is cut off")])},
    "DM111": lambda _context, _model: {"profile": "labtop"},
    "DM204": lambda _context, model: {"inventory": dataclasses.replace(model, ties=SHARED_LAYERS)},
    "DM215": lambda _context, model: {"checkpoint_inventory": with_shape(model, "model.norm.weight", (2048,))},
    "DM216": lambda _context, _model: {"inventory_error": CheckpointError("there is no checkpoint './no-such-folder'")},
    "DM220": lambda _context, model: {"inventory": with_mapping(model, unmapped=("score.weight",))},
    "DM221": lambda _context, model: {"inventory": with_mapping(model, missing=("model.norm.weight",))},
    "DM222": lambda _context, model: {"inventory": dataclasses.replace(model, notes=("no table knows the architecture 'own'",))},
    "DM224": lambda _context, model: {"inventory": with_mapping(model, mismatched=(Mismatch("model.norm.weight", (4096,), (2048,)),))},
    "DM501": lambda context, _model: {"lock": lock_for(context, config_fingerprint="sha256:0")},
    "DM502": lambda context, _model: {"lock": dataclasses.replace(lock_for(context), device_map={"": 1})},
    "DM503": lambda context, _model: {"lock": lock_for(context, inventory_fingerprint="sha256:0")},
    "DM504": lambda _context, _model: {"lock_error": LockError("example.devmap.lock.yaml:3: expected a lock of version 1")},
    "DM505": lambda _context, _model: {"locked": True},
    "DM506": lambda context, _model: {"lock": lock_for(context, device_map={"": 1})},
}


@pytest.mark.parametrize("rule", ALL_RULES, ids=lambda rule: rule.code)
def test_the_good_example_has_no_error_and_no_warning(rule: Rule, context_of: ContextOf, findings_of: FindingsOf) -> None:
    context = context_of(rule.good)
    assert context.document.config is not None
    assert [finding for finding in findings_of(context) if finding.severity is not Severity.NOTE or finding.code == rule.code] == []


@pytest.mark.parametrize("rule", [rule for rule in ALL_RULES if rule.code != "DM602"], ids=lambda rule: rule.code)
def test_the_bad_example_fires(rule: Rule, context_of: ContextOf, findings_of: FindingsOf, example: Inventory) -> None:
    surroundings = SURROUNDINGS[rule.code](context_of(rule.bad), example) if rule.code in SURROUNDINGS else {}
    codes = {"DM603": "SRV002"}  # the rules of a policy have codes of their own
    found = findings_of(context_of(rule.bad, **surroundings), codes.get(rule.code, rule.code))
    assert found
    assert {finding.severity for finding in found} == {rule.severity}
    for finding in found:
        assert finding.position is not None
        assert len(finding.position.source.lines) >= finding.position.start.line


def test_the_bad_example_of_dm602_fires_where_the_pack_is_broken(context_of: ContextOf, findings_of: FindingsOf, tmp_path: Path) -> None:
    (rule,) = (rule for rule in ALL_RULES if rule.code == "DM602")
    pack = tmp_path / "broken.policy.yaml"
    pack.write_text("version: 1\nrules:\n  - {code: ACME001, message: m, schema: {type: nothing}}\n", encoding="utf-8")
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
    module = ROOT / "validators" / "devmap_validators" / f"{rule.code.lower()}_{rule.name.replace('-', '_')}.py"
    assert module.is_file()
    tests = ROOT / "tests" / "validators" / f"test_{module.name}"
    assert tests.is_file() or rule.code < "DM02" or "DM1" < rule.code < "DM2", "the rules of the reader are tested in test_reader_rules.py"


def test_the_pages_are_fresh() -> None:
    docs = ROOT / "docs"
    for name, text in pages().items():
        assert (docs / name).read_text(encoding="utf-8") == text, "run: python -m devmap_validators.pages docs"
    assert {f"rules/{path.name}" for path in (docs / "rules").glob("*.md")} | {"rules.md"} == set(pages())
