"""DM503 foreign-lock: what it says, where, and when it is silent."""

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


def test_a_lock_of_another_model_is_foreign(context_of: ContextOf, findings_of: FindingsOf) -> None:
    lock = lock_for(context_of(TEXT), inventory_fingerprint="sha256:another")
    (finding,) = findings_of(context_of(TEXT, lock=lock), "DM503")
    assert (finding.path, finding.message) == (
        ("model",),
        "the lock was made for another model than this config names",
    )


def test_a_lock_of_this_model_is_not(context_of: ContextOf, findings_of: FindingsOf) -> None:
    assert findings_of(context_of(TEXT, lock=lock_for(context_of(TEXT))), "DM503") == ()


def test_it_is_silent_where_the_model_is_unknown(context_of: ContextOf, findings_of: FindingsOf) -> None:
    lock = lock_for(context_of(TEXT))
    assert (
        findings_of(
            context_of(TEXT.replace("manifest: example.manifest.yaml", "checkpoint: ./none"), lock=lock),
            "DM503",
        )
        == ()
    )
