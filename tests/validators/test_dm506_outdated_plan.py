"""DM506 outdated-plan: what it says, where, and when it is silent."""

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


def test_another_plan_for_the_same_config_and_model_is_said(context_of: ContextOf, findings_of: FindingsOf) -> None:
    lock = lock_for(context_of(TEXT), device_map={"": "cpu"})
    (finding,) = findings_of(context_of(TEXT, lock=lock), "DM506")
    assert finding.message == "this devmap plans differently than the lock: 'the whole model' has cpu there and 0 now"


def test_a_stale_or_edited_lock_is_another_rules_affair(context_of: ContextOf, findings_of: FindingsOf) -> None:
    lock = lock_for(context_of(TEXT), device_map={"": "cpu"}, config_fingerprint="sha256:0")
    assert findings_of(context_of(TEXT, lock=lock), "DM506") == ()
    assert findings_of(context_of(TEXT, lock=dataclasses.replace(lock, digest="")), "DM506") == ()
    assert findings_of(context_of(TEXT, lock=lock_for(context_of(TEXT))), "DM506") == ()
