"""The page of policies names what there is, and its example is a pack."""

from __future__ import annotations

import re
from pathlib import Path

from devmap.checking.registry import explained_rules
from devmap.checking.settings import Settings
from devmap_validators.checks.policies import parse_policy

PAGE = (Path(__file__).parents[2] / "docs" / "policies.md").read_text(encoding="utf-8")


def test_every_rule_of_the_packs_that_come_along_is_named() -> None:
    parts = [rule for rule in explained_rules(Settings()) if rule.part_of is not None]
    assert len(parts) == 17
    assert all(f"{rule.code} {rule.name}" in PAGE for rule in parts)
    assert all(rule.summary and rule.why.endswith(".") for rule in parts)


def test_the_example_is_a_pack_without_a_fault() -> None:
    (example,) = [
        block for block in re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL) if block.startswith("version")
    ]
    policy = parse_policy(example.encode(), "team.yaml")
    assert policy.faults == ()
    assert [rule.code for rule in policy.rules] == ["TEAM001"]
