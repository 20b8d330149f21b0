"""DM405 zero-budget: what it says, where, and when it is silent."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from devmap.config.yaml.faults import DocumentPath
    from tests.validators.conftest import ContextOf, FindingsOf

HEAD = "version: 1\nmodel: {manifest: example.manifest.yaml}\n"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            HEAD + "max_memory: {0: 2GB, cpu: 0%}\n",
            [(("max_memory", "cpu"), "cpu is offered with a budget of 0")],
        ),
        (
            HEAD + "max_memory: {0: 2GB, 1: 0GB}\n",
            [(("max_memory", "1"), "device 1 is offered with a budget of 0")],
        ),
    ],
)
def test_it_says_what_is_wrong_and_where(
    text: str, said: list[tuple[DocumentPath, str]], context_of: ContextOf, findings_of: FindingsOf
) -> None:
    assert [(finding.path, finding.message) for finding in findings_of(context_of(text), "DM405")] == said


@pytest.mark.parametrize(
    "text",
    [
        HEAD + "max_memory: {0: 2GB, 1: 1}\n",
    ],
)
def test_it_is_silent(text: str, context_of: ContextOf, findings_of: FindingsOf) -> None:
    assert findings_of(context_of(text), "DM405") == ()
