"""What each rule says of a config and where, and when it is silent: the cases of rule_cases.yaml."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from devmap.config.yaml.reader import read_yaml
from devmap_validators.rules import ALL_RULES

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.validators.conftest import ContextOf, FindingsOf

_FILE = Path(__file__).with_name("rule_cases.yaml")
CASES: dict[str, Any] = read_yaml(_FILE.read_bytes(), _FILE.name).data or {}


def _firing() -> Iterator[tuple[str, str, list[dict[str, Any]]]]:
    for code, cases in CASES.items():
        for case in cases["fires"]:
            yield code, case["config"], case["findings"]


def _silent() -> Iterator[tuple[str, str]]:
    for code, cases in CASES.items():
        for config in cases["silent"]:
            yield code, config


@pytest.mark.parametrize(("code", "config", "findings"), list(_firing()))
def test_it_says_what_is_wrong_and_where(
    code: str, config: str, findings: list[dict[str, Any]], context_of: ContextOf, findings_of: FindingsOf
) -> None:
    found = [(finding.path, finding.message) for finding in findings_of(context_of(config), code)]
    assert found == [(tuple(each["at"]), each["message"]) for each in findings]


@pytest.mark.parametrize(("code", "config"), list(_silent()))
def test_it_is_silent(code: str, config: str, context_of: ContextOf, findings_of: FindingsOf) -> None:
    assert findings_of(context_of(config), code) == ()


def test_each_rule_of_the_cases_both_fires_and_is_silent() -> None:
    assert CASES.keys() <= {rule.code for rule in ALL_RULES}
    assert [code for code, cases in CASES.items() if not (cases["fires"] and cases["silent"])] == []
