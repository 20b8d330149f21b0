"""DM601 unknown-policy: what it says, where, and when it is silent."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.validators.conftest import ContextOf, FindingsOf

HEAD = "version: 1\nmodel: {manifest: example.manifest.yaml}\n"


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
