"""DM217 unreadable-manifest: what it says, where, and when it is silent."""

from __future__ import annotations

from typing import TYPE_CHECKING

from devmap.errors import CheckpointError, ManifestError

if TYPE_CHECKING:
    from tests.validators.conftest import ContextOf, FindingsOf

TEXT = "version: 1\nmodel: {manifest: ../nowhere.manifest.yaml}\nmax_memory: {0: 2GB}\n"


def test_it_names_the_file(context_of: ContextOf, findings_of: FindingsOf) -> None:
    (finding,) = findings_of(context_of(TEXT), "DM217")
    assert finding.path == ("model", "manifest")
    assert "nowhere.manifest.yaml" in finding.message
    assert "devmap inspect" in finding.help


def test_every_problem_of_the_manifest_is_a_finding(context_of: ContextOf, findings_of: FindingsOf) -> None:
    error = ManifestError("2 problems", problems=[Wrong("line 3: no shape"), Wrong("line 9: no dtype")])
    found = findings_of(context_of(TEXT, inventory_error=error), "DM217")
    assert sorted(finding.message for finding in found) == ["2 problems", "line 3: no shape", "line 9: no dtype"]


def test_it_is_silent_for_a_checkpoint_and_for_a_good_manifest(context_of: ContextOf, findings_of: FindingsOf) -> None:
    assert findings_of(context_of(TEXT, inventory_error=CheckpointError("no")), "DM217") == ()
    assert findings_of(context_of(TEXT.replace("../nowhere", "example")), "DM217") == ()


class Wrong:
    """One problem of a file."""

    def __init__(self, message: str) -> None:
        self.code = ""
        self.message = message
