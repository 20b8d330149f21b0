"""DM401 infeasible: what it says, where, and when it is silent."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from devmap.config.faults import DocumentPath
    from tests.validators.conftest import ContextOf, FindingsOf

HEAD = "version: 1\nmodel: {manifest: example.manifest.yaml}\n"


@pytest.mark.parametrize(
    ("text", "path"),
    [
        (
            HEAD + "max_memory: {0: 1GB, cpu: 500MB}\n",
            ("max_memory",),
        ),
        (HEAD + "max_memory: {0: 500MB}\n", ("max_memory",)),
    ],
)
def test_it_says_what_is_missing_and_what_would_make_it_fit(
    text: str, path: DocumentPath, context_of: ContextOf, findings_of: FindingsOf
) -> None:
    context = context_of(text)
    (finding,) = findings_of(context, "DM401")
    assert finding.path == path
    assert context.plan_error is not None
    assert finding.message.startswith("no plan fits")
    assert f"{context.plan_error.shortfall_bytes:,} bytes" in finding.message
    assert finding.help == "; or ".join(context.plan_error.changes)


@pytest.mark.parametrize(
    ("text", "code"),
    [
        (HEAD + "device_map: {'': 2}\nmax_memory: {0: 2GB}\n", "DM301"),
        (HEAD + "device_map: {'': 0, lm_head: cpu}\nmax_memory: {0: 2GB}\n", "DM304"),
        (HEAD + "device_map: {'': 0}\nmax_memory: {0: 1GB}\n", "DM402"),
        (HEAD + "device_map: {'': 0}\nmax_memory: {0: 2GB, 1: 2GB}\nforbid: {0: [lm_head]}\n", "DM210"),
        (HEAD + "max_memory: {0: 2GB}\nheadroom: 100%\n", "DM406"),
    ],
)
def test_where_one_key_is_to_blame_the_rule_for_it_speaks_alone(
    text: str, code: str, context_of: ContextOf, findings_of: FindingsOf
) -> None:
    assert [finding.code for finding in findings_of(context_of(text)) if finding.severity == "error"] == [code]


@pytest.mark.parametrize(
    "text",
    [
        HEAD + "max_memory: {0: 2GB}\n",
    ],
)
def test_it_is_silent(text: str, context_of: ContextOf, findings_of: FindingsOf) -> None:
    assert findings_of(context_of(text), "DM401") == ()
