"""DM212 training-key-without-training: what it says, where, and when it is silent."""

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
            HEAD + "workload: {kind: server, trainable: [lm_head], optimizer: sgd}\nmax_memory: {0: 9GB}\n",
            [
                (("workload", "trainable"), "'trainable' has no effect: the workload is server"),
                (("workload", "optimizer"), "'optimizer' has no effect: the workload is server"),
            ],
        ),
    ],
)
def test_it_says_what_is_wrong_and_where(
    text: str, said: list[tuple[DocumentPath, str]], context_of: ContextOf, findings_of: FindingsOf
) -> None:
    assert [(finding.path, finding.message) for finding in findings_of(context_of(text), "DM212")] == said


@pytest.mark.parametrize(
    "text",
    [
        HEAD + "workload: training\nmax_memory: {0: 90GB}\n",
    ],
)
def test_it_is_silent(text: str, context_of: ContextOf, findings_of: FindingsOf) -> None:
    assert findings_of(context_of(text), "DM212") == ()
