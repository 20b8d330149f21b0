"""DM602 broken-policy: every fault of a pack is a finding with a line in the pack."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from devmap_validators.policies import BUILT_IN_POLICIES, parse_policy, policy_file

if TYPE_CHECKING:
    from pathlib import Path

    from tests.validators.conftest import ContextOf, FindingsOf

HEAD = "version: 1\nrules:\n"


@pytest.mark.parametrize(
    ("text", "line", "message"),
    [
        ("rules: []\n", 1, "a policy pack is of version 1, found null"),
        ("version: 1\nrules: none\n", 2, "'rules' expects a list of rules, found 'none'"),
        ("version: 1\nrulez: []\nrules: []\n", 2, "'rulez' is no key of a policy pack"),
        (HEAD + "  - text\n", 3, "a rule is a mapping, found 'text'"),
        (HEAD + "  - {message: m, schema: {}}\n", 3, "'code' expects text, found null"),
        (HEAD + "  - {code: ACME001, message: m, schema: {}, sevrity: note}\n", 3, "'sevrity' is no key of a policy's rule"),
        (
            HEAD + "  - code: ACME001\n    message: m\n    schema: {}\n    over: moon\n",
            6,
            "'over' expects one of config, plan, lock, found 'moon'",
        ),
        (HEAD + "  - code: ACME001\n    message: m\n    schema: [1]\n", 5, "'schema' expects a JSON Schema, found a list"),
        (HEAD + "  - code: ACME001\n    message: m\n    schema:\n      type: nothing\n", 6, "no JSON Schema: "),
        (
            HEAD + "  - {code: ACME001, message: m, schema: {}}\n  - {code: ACME001, message: m, schema: {}}\n",
            4,
            "the code 'ACME001' is used twice",
        ),
        ("rules: [\n", 1, "not YAML: a value is missing here"),
    ],
)
def test_each_fault_has_its_line(text: str, line: int, message: str) -> None:
    policy = parse_policy(text.encode(), "team.policy.yaml")
    assert [fault.position.start.line for fault in policy.faults] == [line]
    assert message in policy.faults[0].message


def test_the_finding_points_into_the_pack(context_of: ContextOf, findings_of: FindingsOf, tmp_path: Path) -> None:
    pack = tmp_path / "team.policy.yaml"
    pack.write_text(HEAD + "  - {code: ACME001, message: m, schema: {type: nothing}}\n", encoding="utf-8")
    config = f"version: 1\nmodel: {{manifest: example.manifest.yaml}}\nmax_memory: {{0: 2GB}}\npolicies: [{pack}]\n"
    (finding,) = findings_of(context_of(config), "DM602")
    assert finding.position is not None
    assert (finding.position.file, finding.position.start.line) == (str(pack), 3)


@pytest.mark.parametrize("name", BUILT_IN_POLICIES)
def test_the_built_in_packs_are_whole(name: str, tmp_path: Path) -> None:
    path = policy_file(name, tmp_path)
    assert path is not None
    policy = parse_policy(path.read_bytes(), path.name)
    assert policy.faults == ()
    assert policy.name == name
    assert all(rule.help and rule.message for rule in policy.rules)
