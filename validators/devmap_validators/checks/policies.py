"""Policy packs: a team's own rules in YAML.

Each is a JSON Schema (draft 2020-12) over the config, its plan or its lock.

    version: 1
    name: production
    rules:
      - code: PRD001
        name: no-disk
        severity: error                 # or warning, note
        over: plan                      # config, plan or lock
        message: weights lie on disk, and each pass waits for it
        help: offer more cpu memory
        schema: {properties: {disk_bytes: {const: 0}}}

`devmap_validators.checks.policy_subjects` says what a schema sees, `policy_schemas` how one is judged by in
bounded steps. jsonschema is imported only when a config names a policy.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field, replace
from functools import lru_cache, partial
from pathlib import Path
from typing import TYPE_CHECKING

from devmap.config.regular_files import expand_user, is_there, read_regular
from devmap.config.repository import is_outside
from devmap.config.values.words import near_words, shown, shown_path
from devmap.config.yaml.decoding import Limits
from devmap.config.yaml.faults import DocumentPath, Fault
from devmap.config.yaml.positions import locate
from devmap.config.yaml.reader import read_yaml
from devmap.config.yaml.source import LineColumn, Position, Source
from devmap.findings.model import Report, Rule, Severity
from devmap_validators.checks.linear_patterns import Steps
from devmap_validators.checks.policy_schemas import MOST_STEPS, CostlySchemaError, schema_faults, violations
from devmap_validators.checks.policy_subjects import document_path, subject, unknown_names

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from jsonschema import ValidationError

    from devmap.config.yaml.reader import ParsedYaml, Plain
    from devmap.findings.context import Context

__all__ = [
    "BUILT_IN_POLICIES",
    "Policy",
    "PolicyRule",
    "built_in_rules",
    "pack_faults",
    "parse_policy",
    "part_of_policy",
    "policies_of",
    "policy_file",
    "read_pack",
]

BUILT_IN_POLICIES = ("production", "inference", "training", "shared-server")
_FOLDER = Path(__file__).parents[1] / "policies"
_SUBJECTS = ("config", "plan", "lock")
_SEVERITIES = ("error", "warning", "note")
_CODE = re.compile(r"(?!DM)[A-Z]{2,8}[0-9]{3,4}\Z")
_RULE_KEYS = ("code", "name", "severity", "over", "message", "help", "schema", "good", "bad")


@dataclass(frozen=True)
class PolicyRule:
    """One rule of a pack."""

    code: str
    name: str
    message: str
    schema: dict[str, Plain]
    over: str = "config"
    severity: str = "error"
    help: str = ""
    good: tuple[Plain, ...] = ()
    """Parts of a subject that keep the rule, for `devmap policy test`."""
    bad: tuple[Plain, ...] = ()
    """Parts of a subject that break it."""
    position: Position | None = field(default=None, compare=False)
    """Where its schema stands in the pack."""


@dataclass(frozen=True)
class Policy:
    """One pack: its rules, or what is wrong with it."""

    name: str
    rules: tuple[PolicyRule, ...]
    faults: tuple[Fault, ...] = ()
    description: str = ""
    place: int = 0
    """Where the config names it, in its list `policies`."""


def read_pack(name: str, folder: Path) -> Policy | None:
    """Read a pack by its built-in name or its path from a folder; None where there is none."""
    path = policy_file(name, folder)
    return None if path is None else _read(path, folder)


def policy_file(name: str, folder: Path) -> Path | None:
    """Return the file of a policy: a built-in name, or a path from the config's folder.

    None if there is none.
    """
    if name in BUILT_IN_POLICIES:
        return _FOLDER / f"{name}.yaml"
    path = folder / expand_user(name)
    return path if is_there(path) else None


@lru_cache(maxsize=4)
def policies_of(context: Context) -> tuple[Policy, ...]:
    """Return the packs that a config names, those that exist, in its order."""
    config = context.document.config
    found: list[Policy] = []
    for place, name in enumerate(config.policies if config is not None else ()):
        path = policy_file(name, context.document.folder)
        if path is None:
            continue
        policy = _read(path, context.document.folder)
        found.append(replace(policy, place=place))
    return tuple(found)


def _read(path: Path, folder: Path) -> Policy:
    name = os.fspath(path)
    try:
        content = read_regular(path, limit_bytes=Limits().size_bytes)
    except OSError as error:
        here = Position(Source(name, ""), LineColumn(1, 1), LineColumn(1, 2))
        return Policy(
            path.stem,
            (),
            (Fault("DM602", f"{shown_path(name)} cannot be read: {error.strerror or error}", here),),
        )
    return parse_policy(content, name, hidden=is_outside(path, folder))


def parse_policy(content: bytes, name: str, *, hidden: bool = False) -> Policy:
    """Return the pack in `content`, with a fault for everything that is wrong with it.

    `name` is the file's name for messages.
    """
    parsed = read_yaml(content, name, hidden=hidden)
    if parsed.data is None or parsed.faults:
        return Policy(Path(name).stem, (), parsed.faults)
    reader = _PolicyReader(parsed)
    rules = reader.rules()
    title, description = parsed.data.get("name"), parsed.data.get("description")
    return Policy(
        title if isinstance(title, str) else Path(name).stem,
        rules,
        tuple(reader.faults),
        description if isinstance(description, str) else "",
    )


def part_of_policy(rule: PolicyRule, policy: Policy, whole: Rule) -> Rule:
    """Return a rule of a pack as a rule among the others; `whole` is the rule that stands for all of them."""
    return Rule(
        code=rule.code,
        name=rule.name,
        severity=Severity(rule.severity),
        summary=rule.message[:1].upper() + rule.message[1:],
        why=f"It is a rule of the policy '{policy.name}'. {policy.description}"
        + (f" To mend it: {rule.help}." if rule.help else ""),
        good="",
        bad="",
        check=partial(_violations, code=rule.code),
        part_of=whole,
    )


def built_in_rules(whole: Rule) -> tuple[Rule, ...]:
    """Return the rules of the packs that come with devmap."""
    packs = [_read(_FOLDER / f"{name}.yaml", _FOLDER) for name in BUILT_IN_POLICIES]
    return tuple(part_of_policy(rule, pack, whole) for pack in packs for rule in pack.rules)


def _violations(context: Context, code: str) -> Iterator[Report]:
    """Yield where a config, its plan or its lock breaks the rules of a code.

    Nothing where their subject is not there.
    """
    for policy in policies_of(context):
        for rule in policy.rules:
            errors = _judged(context)[policy.place, rule.code] if rule.code == code else []
            for error in errors if isinstance(errors, list) else ():
                path = document_path(rule.over, tuple(error.absolute_path), context)
                found = _found(rule.over, tuple(error.absolute_path), error.instance)
                # What is missing stands nowhere: the policy that asks for it does.
                yield Report(rule.message + found, path or ("policies", policy.place), help=rule.help)


@lru_cache(maxsize=4)
def _judged(context: Context) -> Mapping[tuple[int, str], list[ValidationError] | Fault]:
    """Return what each rule of a config's packs says, by the pack's place and the rule's code.

    A fault where it could not be told: the packs of a config share a budget of steps.
    """
    steps = Steps(MOST_STEPS)
    found: dict[tuple[int, str], list[ValidationError] | Fault] = {}
    for policy in policies_of(context):
        for rule in policy.rules:
            instance = subject(rule.over, context)
            try:
                said = [] if instance is None else violations(rule.schema, instance, steps)
            except CostlySchemaError as error:
                assert rule.position is not None
                fault = Fault("DM602", f"the schema of {rule.code}: {error}", rule.position)
                found[policy.place, rule.code] = fault
                steps = Steps(0)  # the rules after it would each run into the limit again
                continue
            found[policy.place, rule.code] = said
    return found


def pack_faults(context: Context) -> Iterator[tuple[Policy, Fault]]:
    """Yield what is wrong with the packs of a config.

    As they were read, and where judging by them did not come to an end.
    """
    judged = _judged(context)
    for policy in policies_of(context):
        yield from ((policy, fault) for fault in policy.faults)
        for rule in policy.rules:
            said = judged[policy.place, rule.code]
            if isinstance(said, Fault):
                yield policy, said


def _found(over: str, path: tuple[str | int, ...], value: object) -> str:
    """Return what stands there instead, where that says more than the rule's own words."""
    if over == "lock" or value is None or not path or isinstance(value, bool | dict | list):
        return ""
    text = f"{value:,}" if isinstance(value, int) else shown(value).strip("'")
    return f" ({path[-1]} is {text})"


class _PolicyReader:
    """Takes the rules out of a pack and notes what is wrong; a class because both grow together."""

    def __init__(self, parsed: ParsedYaml) -> None:
        self.document = parsed.data or {}
        self.positions = parsed.positions
        self.faults: list[Fault] = []

    def rules(self) -> tuple[PolicyRule, ...]:
        if self.document.get("version") != 1 or self.document.get("version") is True:
            self.fault(
                ("version",), f"a policy pack is of version 1, found {shown(self.document.get('version'))}"
            )
        for key in self.document:
            if key not in {"version", "name", "description", "rules"}:
                self.fault((key,), f"{shown(key)} is not a key of a policy pack", key=True)
        written = self.document.get("rules")
        if not isinstance(written, list):
            self.fault(("rules",), f"'rules' expects a list of rules, found {shown(written)}")
            return ()
        found = [self.rule(("rules", place), node) for place, node in enumerate(written)]
        rules = tuple(rule for rule in found if rule is not None)
        seen: set[str] = set()
        for place, rule in enumerate(found):
            if rule is not None and rule.code in seen:
                self.fault(("rules", place, "code"), f"the code {shown(rule.code)} is used twice")
            seen.add(rule.code if rule is not None else "")
        return rules

    def rule(self, path: DocumentPath, node: Plain) -> PolicyRule | None:
        before = len(self.faults)
        if not isinstance(node, dict):
            self.fault(path, f"a rule is a mapping, found {shown(node)}")
            return None
        for key in node:
            if key not in _RULE_KEYS:
                self.fault((*path, key), f"{shown(key)} is not a key of a policy's rule", key=True)
        code = self.text(path, node, "code")
        if code and not _CODE.match(code):
            self.fault(
                (*path, "code"),
                f"the code {shown(code)} is not two to eight capitals and three or four digits, such as "
                f"ACME001",
            )
        message = self.text(path, node, "message")
        name = self.text(path, node, "name", default="rule")
        help_ = self.text(path, node, "help", default="")
        over = self.choice(path, node, "over", _SUBJECTS)
        severity = self.choice(path, node, "severity", _SEVERITIES)
        schema = self.schema((*path, "schema"), node.get("schema"))
        self.names((*path, "schema"), schema, over)
        good, bad = self.examples(path, node, "good"), self.examples(path, node, "bad")
        if schema is None or len(self.faults) > before:
            return None
        position = locate((*path, "schema"), self.positions, key=True)
        return PolicyRule(code, name, message, schema, over, severity, help_, good, bad, position)

    def text(
        self, path: DocumentPath, node: dict[str, Plain], key: str, *, default: str | None = None
    ) -> str:
        value = node.get(key, default)
        if not isinstance(value, str) or (default is None and not value):
            self.fault((*path, key), f"'{key}' expects text, found {shown(value)}")
            return ""
        return " ".join(value.split())  # on one line: it stands in reports that are read by lines

    def choice(self, path: DocumentPath, node: dict[str, Plain], key: str, words: tuple[str, ...]) -> str:
        value = node.get(key, words[0])
        if value not in words or not isinstance(value, str):
            self.fault((*path, key), f"'{key}' expects one of {', '.join(words)}, found {shown(value)}")
            return words[0]
        return value

    def schema(self, path: DocumentPath, node: Plain) -> dict[str, Plain] | None:
        if not isinstance(node, dict):
            self.fault(path, f"'schema' expects a JSON Schema, found {shown(node)}")
            return None
        faults = list(schema_faults(node))
        for below, message in faults:
            self.fault((*path, *below), message)
        return None if faults else node

    def names(self, path: DocumentPath, schema: object, over: str) -> None:
        """Note names that the subject does not have.

        A rule about one of them would be kept by every config.
        """
        for below, name, known in unknown_names(schema, over):
            near = near_words(name, known)
            hint = f"did you mean '{near[0]}'?" if near else f"known there: {', '.join(sorted(known))}"
            key = isinstance(below[-1], str)
            self.fault((*path, *below), f"the {over} has no {shown(name)}; {hint}", key=key)

    def examples(self, path: DocumentPath, node: dict[str, Plain], key: str) -> tuple[Plain, ...]:
        value = node.get(key, [])
        if not isinstance(value, list):
            self.fault((*path, key), f"'{key}' expects a list of examples, found {shown(value)}")
            return ()
        return tuple(value)

    def fault(self, path: DocumentPath, message: str, *, key: bool = False) -> None:
        self.faults.append(Fault("DM602", message, locate(path, self.positions, key=key), path))
