"""DM218 path-outside-repository: what it says, where, and when it is silent."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.validators.conftest import ContextOf, FindingsOf

HEAD = "version: 1\nmodel: {manifest: example.manifest.yaml}\n"


def test_a_relative_path_may_not_leave_the_repository(context_of: ContextOf, findings_of: FindingsOf) -> None:
    text = "version: 1\nmodel: {manifest: ../../elsewhere.manifest.yaml}\nmax_memory: {0: 2GB}\n"
    folder = context_of(text).document.folder
    (finding,) = findings_of(context_of(text, repository=folder.parent), "DM218")
    assert finding.message == "'../../elsewhere.manifest.yaml' leads out of the repository"
    assert findings_of(context_of(text, repository=folder.parent.parent), "DM218") == ()
    assert findings_of(context_of(text), "DM218") == ()


def test_every_path_is_looked_at(context_of: ContextOf, findings_of: FindingsOf) -> None:
    text = (
        "version: 1\nextends: /a.devmap.yaml\nmodel: {manifest: ../../b.manifest.yaml}\npolicies: "
        "[../../c.yaml, production, /d.yaml]\n"
        "machine: ../../e.yaml\nmax_memory: {0: 2GB}\n"
    )
    folder = context_of(HEAD).document.folder
    found = findings_of(context_of(text, repository=folder.parent), "DM218")
    outside = "keep the file in the repository, so that every checkout has it"
    absolute = "keep the file in the repository, and write its path from this config's folder"
    assert [(finding.path, finding.help) for finding in found] == [
        (("extends",), absolute),
        (("model", "manifest"), outside),
        (("policies", 0), outside),
        (("policies", 2), absolute),
        (("machine",), outside),
    ]
