"""DM211 unmatched-trainable: what it says, where, and when it is silent."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.validators.conftest import ContextOf, FindingsOf

HEAD = "version: 1\nmodel: {manifest: example.manifest.yaml}\n"


def test_a_glob_is_not_rewritten(context_of: ContextOf, findings_of: FindingsOf) -> None:
    (finding,) = findings_of(
        context_of(HEAD + "workload: {kind: training, trainable: ['model.*norms']}\nmax_memory: {0: 90GB}\n"),
        "DM211",
    )
    assert (finding.label, finding.edit) == ("", None)
