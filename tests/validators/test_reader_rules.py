"""DM001 to DM113: the rules that hand on what the reader and the shape of a config found."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from devmap_validators.rules.config import reader_rules as config
from devmap_validators.rules.file import reader_rules as file

if TYPE_CHECKING:
    from devmap.findings.model import Rule
    from tests.validators.conftest import ContextOf, FindingsOf

READER_RULES = (*file.READER_RULES, *config.READER_RULES)


@pytest.mark.parametrize("rule", READER_RULES, ids=lambda rule: rule.code)
def test_the_finding_is_the_fault_word_for_word_and_where_it_stood(
    rule: Rule, context_of: ContextOf, findings_of: FindingsOf
) -> None:
    context = context_of(rule.bad, profile="labtop") if rule.code == "DM111" else context_of(rule.bad)
    faults = [fault for fault in context.document.faults if fault.code == rule.code]
    found = findings_of(context, rule.code)
    assert [(finding.message, finding.position, finding.help) for finding in found] == [
        (fault.message, fault.position, fault.help) for fault in faults
    ]
    assert {fault.code for fault in context.document.faults} == {rule.code}


@pytest.mark.parametrize("rule", READER_RULES, ids=lambda rule: rule.code)
def test_no_comment_silences_what_keeps_a_config_from_being_read(rule: Rule) -> None:
    assert not rule.suppressible
