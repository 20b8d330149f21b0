"""DM211 unmatched-trainable: what it says, where, and when it is silent."""

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
            HEAD + "workload: {kind: training, trainable: [lm_head, model.norms]}\nmax_memory: {0: 90GB}\n",
            [(("workload", "trainable", 1), "'model.norms' in trainable is not a module of this model")],
        ),
        (
            HEAD + "workload: {kind: training, trainable: [lm_hed, model.layers.9]}\nmax_memory: {0: 90GB}\n",
            [
                (("workload", "trainable", 0), "'lm_hed' in trainable is not a module of this model"),
                (("workload", "trainable", 1), "'model.layers.9' in trainable is not a module of this model"),
            ],
        ),
    ],
)
def test_it_says_what_is_wrong_and_where(
    text: str, said: list[tuple[DocumentPath, str]], context_of: ContextOf, findings_of: FindingsOf
) -> None:
    assert [(finding.path, finding.message) for finding in findings_of(context_of(text), "DM211")] == said


@pytest.mark.parametrize(
    "text",
    [
        HEAD
        + "workload: {kind: training, trainable: [lm_head, 'model.layers[0-1]']}\nmax_memory: {0: 90GB}\n",
    ],
)
def test_it_is_silent(text: str, context_of: ContextOf, findings_of: FindingsOf) -> None:
    assert findings_of(context_of(text), "DM211") == ()


def test_a_glob_is_not_rewritten(context_of: ContextOf, findings_of: FindingsOf) -> None:
    (finding,) = findings_of(
        context_of(HEAD + "workload: {kind: training, trainable: ['model.*norms']}\nmax_memory: {0: 90GB}\n"),
        "DM211",
    )
    assert (finding.label, finding.edit) == ("", None)
