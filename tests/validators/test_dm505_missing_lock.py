"""DM505 missing-lock: what it says, where, and when it is silent."""

from __future__ import annotations

from typing import TYPE_CHECKING

from devmap.errors import LockError
from devmap.plan.lock import lock_of

if TYPE_CHECKING:
    from tests.validators.conftest import ContextOf, FindingsOf

TEXT = "version: 1\nmodel: {manifest: example.manifest.yaml}\nmax_memory: {0: 2GB}\n"


def test_a_lock_that_is_asked_for_must_be_there(context_of: ContextOf, findings_of: FindingsOf) -> None:
    (finding,) = findings_of(context_of(TEXT, locked=True), "DM505")
    assert finding.message == "there is no lock beside this config"


def test_it_is_silent_unless_asked(context_of: ContextOf, findings_of: FindingsOf) -> None:
    assert findings_of(context_of(TEXT), "DM505") == ()
    assert findings_of(context_of(TEXT, locked=True, lock_error=LockError("broken")), "DM505") == ()


def test_it_is_silent_where_there_is_one(context_of: ContextOf, findings_of: FindingsOf) -> None:
    plan = context_of(TEXT).plan
    assert plan is not None
    assert findings_of(context_of(TEXT, locked=True, lock=lock_of(plan)), "DM505") == ()
