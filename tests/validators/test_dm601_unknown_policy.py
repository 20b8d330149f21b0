"""DM601 unknown-policy: what it says, where, and when it is silent."""

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
            HEAD + "policies: [prodction, ./mine.yaml]\nmax_memory: {0: 3GB}\n",
            [
                (("policies", 0), "there is no policy 'prodction'"),
                (("policies", 1), "there is no policy './mine.yaml'"),
            ],
        ),
    ],
)
def test_it_says_what_is_wrong_and_where(
    text: str, said: list[tuple[DocumentPath, str]], context_of: ContextOf, findings_of: FindingsOf
) -> None:
    assert [(finding.path, finding.message) for finding in findings_of(context_of(text), "DM601")] == said


@pytest.mark.parametrize(
    "text",
    [
        HEAD + "policies: [inference, training, shared-server, production]\nmax_memory: {0: 3GB}\n",
    ],
)
def test_it_is_silent(text: str, context_of: ContextOf, findings_of: FindingsOf) -> None:
    assert findings_of(context_of(text), "DM601") == ()


def test_only_a_sure_name_is_put_right(context_of: ContextOf, findings_of: FindingsOf) -> None:
    found = findings_of(
        context_of(HEAD + "policies: [prodction, train, production2, ./team.yaml]\nmax_memory: {0: 3GB}\n"),
        "DM601",
    )
    assert [(finding.label, finding.edit and finding.edit.replacement) for finding in found] == [
        ("did you mean 'production'?", "production"),
        ("did you mean 'training'?", "training"),
        ("did you mean 'production'?", None),
        ("", None),
    ]
