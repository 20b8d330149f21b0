"""DM308 device-gap: what it says, where, and when it is silent."""

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
        (HEAD + "max_memory: {1: 2GB, cpu: 1GB}\n", [(("max_memory", "1"), "accelerator 0 is left out")]),
        (
            HEAD + "max_memory: {0: 1GB, 4: 1GB}\n",
            [(("max_memory", "4"), "accelerators 1 to 3 are left out")],
        ),
        (
            HEAD + "max_memory: {3: 1GB, 1: 1GB, 0: 1GB, 7: 1GB}\n",
            [(("max_memory", "3"), "accelerator 2 is left out")],
        ),
    ],
)
def test_it_says_what_is_wrong_and_where(
    text: str, said: list[tuple[DocumentPath, str]], context_of: ContextOf, findings_of: FindingsOf
) -> None:
    assert [(finding.path, finding.message) for finding in findings_of(context_of(text), "DM308")] == said


@pytest.mark.parametrize(
    "text",
    [
        HEAD + "max_memory: {0: 1GB, 1: 1GB, disk: 1GB}\n",
        HEAD + "max_memory: {1: 1GB, cpu: 1GB, 0: 1GB}\n",
    ],
)
def test_it_is_silent(text: str, context_of: ContextOf, findings_of: FindingsOf) -> None:
    assert findings_of(context_of(text), "DM308") == ()
