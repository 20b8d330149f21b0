"""DM501 stale-lock: what it says, where, and when it is silent."""

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


def test_a_lock_of_another_config_is_stale(context_of: ContextOf, findings_of: FindingsOf) -> None:
    before = context_of(TEXT)
    (finding,) = findings_of(context_of(TEXT + "headroom: 1%\n", lock=lock_for(before)), "DM501")
    assert finding.message == "the lock was made from another state of this config"
    assert "devmap resolve" in finding.help


def test_a_lock_of_this_config_is_fresh(context_of: ContextOf, findings_of: FindingsOf) -> None:
    context = context_of(TEXT)
    assert findings_of(context_of("# a comment\n" + TEXT, lock=lock_for(context)), "DM501") == ()
    assert findings_of(context, "DM501") == ()


def test_it_holds_without_a_plan(context_of: ContextOf, findings_of: FindingsOf) -> None:
    lock = lock_for(context_of(TEXT))
    assert findings_of(context_of(TEXT, lock=lock, plan=None), "DM501") == ()
