"""DM216 unreadable-checkpoint: what it says, where, and when it is silent."""

from __future__ import annotations

from typing import TYPE_CHECKING

from devmap.errors import CheckpointError, ManifestError

if TYPE_CHECKING:
    from tests.validators.conftest import ContextOf, FindingsOf

TEXT = "version: 1\nmodel: {checkpoint: ./weights}\nmax_memory: {0: 2GB}\n"


def test_it_says_what_the_reader_says(context_of: ContextOf, findings_of: FindingsOf) -> None:
    error = CheckpointError("./weights: shard 2 of 3 is missing", help="copy it")
    (finding,) = findings_of(context_of(TEXT, inventory_error=error), "DM216")
    assert (finding.path, finding.message, finding.help) == (
        ("model", "checkpoint"),
        error.message,
        "copy it",
    )


def test_it_always_says_what_to_do(context_of: ContextOf, findings_of: FindingsOf) -> None:
    (finding,) = findings_of(
        context_of(TEXT, inventory_error=CheckpointError("./weights is not there")), "DM216"
    )
    assert "devmap inspect -o" in finding.help


def test_it_is_silent_for_a_manifest(context_of: ContextOf, findings_of: FindingsOf) -> None:
    assert findings_of(context_of(TEXT, inventory_error=ManifestError("no")), "DM216") == ()
