"""DM502 edited-lock: what it says, where, and when it is silent."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

from devmap.plan.lock import Lock, lock_of

if TYPE_CHECKING:
    from devmap.findings.context import Context
    from tests.validators.conftest import ContextOf, FindingsOf

TEXT = "version: 1\nmodel: {manifest: example.manifest.yaml}\nmax_memory: {0: 2GB}\n"


def lock_for(context: Context, **changes: Any) -> Lock:
    """The lock of the context's plan, changed and with a digest that is right."""
    assert context.plan is not None
    lock = dataclasses.replace(lock_of(context.plan), **changes)
    return dataclasses.replace(lock, digest=lock.expected_digest)


def test_an_edit_is_found_by_the_digest(context_of: ContextOf, findings_of: FindingsOf) -> None:
    lock = lock_for(context_of(TEXT))
    (finding,) = findings_of(
        context_of(TEXT, lock=dataclasses.replace(lock, device_map={"": "cpu"})), "DM502"
    )
    assert finding.message == "the lock was edited by hand: its content does not have its digest"


def test_a_lock_as_it_was_written_is_none(context_of: ContextOf, findings_of: FindingsOf) -> None:
    assert findings_of(context_of(TEXT, lock=lock_for(context_of(TEXT))), "DM502") == ()
