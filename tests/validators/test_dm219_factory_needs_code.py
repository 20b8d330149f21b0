"""DM219 factory-needs-code: what it says, where, and when it is silent."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from devmap.config.yaml.faults import DocumentPath
    from tests.validators.conftest import ContextOf, FindingsOf


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            "version: 1\nmodel: {factory: 'pack.models:build'}\n",
            [
                (
                    ("model", "factory"),
                    "the factory 'pack.models:build' was not run, so nothing is known of the model",
                )
            ],
        ),
    ],
)
def test_it_says_what_is_wrong_and_where(
    text: str, said: list[tuple[DocumentPath, str]], context_of: ContextOf, findings_of: FindingsOf
) -> None:
    assert [(finding.path, finding.message) for finding in findings_of(context_of(text), "DM219")] == said


@pytest.mark.parametrize(
    "text",
    [
        "version: 1\nmodel: {factory: 'pack.models:build', checkpoint: ./weights}\n",
        "version: 1\nmodel: {factory: 'pack.models:build', manifest: example.manifest.yaml}\n",
    ],
)
def test_it_is_silent(text: str, context_of: ContextOf, findings_of: FindingsOf) -> None:
    assert findings_of(context_of(text), "DM219") == ()


def test_it_is_silent_where_code_may_run(context_of: ContextOf, findings_of: FindingsOf) -> None:
    assert (
        findings_of(
            context_of("version: 1\nmodel: {factory: 'pack.models:build'}\n", allow_code=True), "DM219"
        )
        == ()
    )
