"""DM602 broken-policy: every fault of a pack is a finding with a line in the pack."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from devmap_validators.checks.policies import BUILT_IN_POLICIES, PolicyRule, parse_policy, policy_file

if TYPE_CHECKING:
    from pathlib import Path

    from tests.validators.conftest import ContextOf, FindingsOf

HEAD = "version: 1\nrules:\n"


@pytest.mark.parametrize(
    ("text", "line", "message"),
    [
        ("rules: []\n", 1, "a policy pack is of version 1, found null"),
        ("version: 1\nrules: none\n", 2, "'rules' expects a list of rules, found 'none'"),
        ("version: 1\nrulez: []\nrules: []\n", 2, "'rulez' is not a key of a policy pack"),
        (HEAD + "  - text\n", 3, "a rule is a mapping, found 'text'"),
        (HEAD + "  - {message: m, schema: {}}\n", 3, "'code' expects text, found null"),
        (
            HEAD + "  - {code: ACME001, message: m, schema: {}, sevrity: note}\n",
            3,
            "'sevrity' is not a key of a policy's rule",
        ),
        (
            HEAD + "  - code: ACME001\n    message: m\n    schema: {}\n    over: moon\n",
            6,
            "'over' expects one of config, plan, lock, found 'moon'",
        ),
        (
            HEAD + "  - code: ACME001\n    message: m\n    schema: [1]\n",
            5,
            "'schema' expects a JSON Schema, found a list",
        ),
        (
            HEAD + "  - code: ACME001\n    message: m\n    schema:\n      type: nothing\n",
            6,
            "not a valid JSON Schema: ",
        ),
        (
            HEAD
            + "  - {code: ACME001, message: m, schema: {}}\n  - {code: ACME001, message: m, schema: {}}\n",
            4,
            "the code 'ACME001' is used twice",
        ),
        ("version: true\nrules: []\n", 1, "a policy pack is of version 1, found true"),
        ("version: 1\n", 1, "'rules' expects a list of rules, found null"),
        (HEAD + "  - {code: '', message: m, schema: {}}\n", 3, "'code' expects text, found ''"),
        (HEAD + "  - {code: ACME001, message: 7, schema: {}}\n", 3, "'message' expects text, found '7'"),
        (
            HEAD + "  - {code: ACME001, message: m, name: 7, schema: {}}\n",
            3,
            "'name' expects text, found '7'",
        ),
        (
            HEAD + "  - {code: ACME001, message: m, help: [h], schema: {}}\n",
            3,
            "'help' expects text, found a list",
        ),
        (
            HEAD + "  - {code: ACME001, message: m, severity: fatal, schema: {}}\n",
            3,
            "'severity' expects one of error, warning, note",
        ),
        (
            HEAD + "  - {code: ACME001, message: m, severity: [error], schema: {}}\n",
            3,
            "'severity' expects one of error, warning, note",
        ),
        (HEAD + "  - {code: ACME001, message: m}\n", 3, "'schema' expects a JSON Schema, found null"),
        *(
            (
                HEAD + f"  - {{code: {code}, message: m, schema: {{}}}}\n",
                3,
                f"the code '{code}' is not two to eight capitals",
            )
            for code in ("DM001", "A001", "ABCDEFGHI001", "ACME01", "ACME00001", "acme001", "ACME001x")
        ),
        ("rules: [\n", 1, "not YAML: a value is missing here"),
    ],
)
def test_each_fault_has_its_line(text: str, line: int, message: str) -> None:
    policy = parse_policy(text.encode(), "team.policy.yaml")
    assert [fault.position.start.line for fault in policy.faults] == [line]
    assert policy.faults[0].message.startswith(message)


def test_the_finding_points_into_the_pack(
    context_of: ContextOf, findings_of: FindingsOf, tmp_path: Path
) -> None:
    pack = tmp_path / "team.policy.yaml"
    pack.write_text(HEAD + "  - {code: ACME001, message: m, schema: {type: nothing}}\n", encoding="utf-8")
    config = (
        f"version: 1\nmodel: {{manifest: example.manifest.yaml}}\nmax_memory: "
        f"{{0: 2GB}}\npolicies: [{pack}]\n"
    )
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


def test_every_fault_of_a_pack_is_told_and_its_good_rules_stay() -> None:
    text = """\
version: 2
rulez: []
rules:
  - {code: ACME001, message: m, schema: {}, over: lock, severity: note, help: h, name: n}
  - {code: acme, sevrity: note, schema: {type: nothing}}
  - {code: ACME001, message: m, schema: {}}
  - {code: ACME002, message: m, schema: {}}
"""
    policy = parse_policy(text.encode(), "team.policy.yaml")
    assert [
        (fault.position.start.line, fault.position.start.column, re.split("[,:]", fault.message)[0])
        for fault in policy.faults
    ] == [
        (1, 10, "a policy pack is of version 1"),
        (2, 1, "'rulez' is not a key of a policy pack"),
        (5, 18, "'sevrity' is not a key of a policy's rule"),
        (5, 12, "the code 'acme' is not two to eight capitals and three or four digits"),
        (5, 5, "'message' expects text"),
        (5, 48, "not a valid JSON Schema"),
        (6, 12, "the code 'ACME001' is used twice"),
    ]
    assert policy.rules == (
        PolicyRule("ACME001", "n", "m", {}, over="lock", severity="note", help="h"),
        PolicyRule("ACME001", "rule", "m", {}, over="config", severity="error", help=""),
        PolicyRule("ACME002", "rule", "m", {}),
    )


def test_a_pack_is_called_what_it_says_or_what_its_file_is_called() -> None:
    named = parse_policy(b"version: 1\nname: mine\ndescription: It is mine.\nrules: []\n", "folder/team.yaml")
    assert (named.name, named.description, named.faults) == ("mine", "It is mine.", ())
    for text in ("version: 1\nname: 7\ndescription: 7\nrules: []\n", "rules: [\n"):
        unnamed = parse_policy(text.encode(), "folder/team.yaml")
        assert (unnamed.name, unnamed.description) == ("team", "")


def test_a_pack_that_cannot_be_read_is_said_at_its_name(
    context_of: ContextOf, findings_of: FindingsOf, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pack = tmp_path / "team.policy.yaml"
    pack.write_text("", encoding="utf-8")
    config = (
        f"version: 1\nmodel: {{manifest: example.manifest.yaml}}\nmax_memory: "
        f"{{0: 2GB}}\npolicies: [no-such.yaml, {pack}]\n"
    )
    context = context_of(config)

    def refused(_path: Path, *, limit_bytes: int) -> bytes:
        assert limit_bytes
        raise PermissionError(13, "Permission denied")

    with monkeypatch.context() as patched:
        patched.setattr("devmap_validators.checks.policies.read_regular", refused)
        found = findings_of(context, "DM601", "DM602")
    (unreadable,) = [finding for finding in found if finding.code == "DM602"]
    assert (unreadable.path, unreadable.message) == (
        ("policies", 1),
        f"'{pack}' cannot be read: Permission denied",
    )
    assert unreadable.position is not None
    assert (unreadable.position.file, unreadable.position.start.line, unreadable.position.start.column) == (
        str(pack),
        1,
        1,
    )


def test_what_is_no_yaml_keeps_the_reader_s_help(
    context_of: ContextOf, findings_of: FindingsOf, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("devmap_validators.checks.policies.is_outside", lambda _path, _folder: False)
    pack = tmp_path / "team.policy.yaml"
    pack.write_text("version: 1\nrules:\n\t- {}\n", encoding="utf-8")
    config = (
        f"version: 1\nmodel: {{manifest: example.manifest.yaml}}\nmax_memory: "
        f"{{0: 2GB}}\npolicies: [{pack}]\n"
    )
    (finding,) = findings_of(context_of(config), "DM602")
    assert finding.help == "indent with blanks"
