"""DM504 unreadable-lock: what it says, where, and when it is silent."""

from __future__ import annotations

from typing import TYPE_CHECKING

from devmap.errors import LockError

if TYPE_CHECKING:
    from tests.validators.conftest import ContextOf, FindingsOf

TEXT = "version: 1\nmodel: {manifest: example.manifest.yaml}\nmax_memory: {0: 2GB}\n"


def test_it_says_what_the_reader_says(context_of: ContextOf, findings_of: FindingsOf) -> None:
    error = LockError("x.devmap.lock.yaml:3: 'config' must be text", help="write it again")
    (finding,) = findings_of(context_of(TEXT, lock_error=error), "DM504")
    assert (finding.message, finding.help) == (error.message, "write it again")
    (finding,) = findings_of(context_of(TEXT, lock_error=LockError("no lock")), "DM504")
    assert "devmap resolve" in finding.help


def test_it_is_silent_without_an_error(context_of: ContextOf, findings_of: FindingsOf) -> None:
    assert findings_of(context_of(TEXT), "DM504") == ()
