"""DM506 outdated-plan: what it says, where, and when it is silent."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import pytest

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


def test_another_plan_for_the_same_config_and_model_is_said(
    context_of: ContextOf, findings_of: FindingsOf
) -> None:
    lock = lock_for(context_of(TEXT), device_map={"": "cpu"})
    (finding,) = findings_of(context_of(TEXT, lock=lock), "DM506")
    assert (
        finding.message
        == "this devmap plans differently than the lock: 'the whole model' has cpu there and 0 now"
    )


def test_a_stale_or_edited_lock_is_another_rules_affair(
    context_of: ContextOf, findings_of: FindingsOf
) -> None:
    lock = lock_for(context_of(TEXT), device_map={"": "cpu"}, config_fingerprint="sha256:0")
    assert findings_of(context_of(TEXT, lock=lock), "DM506") == ()
    assert findings_of(context_of(TEXT, lock=dataclasses.replace(lock, digest="")), "DM506") == ()
    assert findings_of(context_of(TEXT, lock=lock_for(context_of(TEXT))), "DM506") == ()


@pytest.mark.parametrize(
    ("locked", "said"),
    [
        ({"": 0, "model.norm": "cpu"}, "'model.norm' has cpu there and no key now"),
        ({"model": 0, "lm_head": 0}, "'the whole model' has no key there and 0 now"),
        ({"": 0, "lm_head": 1, "model.norm": 1}, "'lm_head' has 1 there and no key now"),
    ],
)
def test_the_first_path_that_moved_is_named(
    locked: dict[str, int | str], said: str, context_of: ContextOf, findings_of: FindingsOf
) -> None:
    (finding,) = findings_of(context_of(TEXT, lock=lock_for(context_of(TEXT), device_map=locked)), "DM506")
    assert finding.message == f"this devmap plans differently than the lock: {said}"


def test_what_did_not_move_is_not_named(context_of: ContextOf, findings_of: FindingsOf) -> None:
    text = TEXT.replace("{0: 2GB}", "{0: 2GB, 1: 2GB}") + "device_map: {'': 0, model.layers.3: 1}\n"
    plan = context_of(text).plan
    assert plan is not None
    lock = lock_for(context_of(text), device_map={**plan.device_map, "model.layers.3": "cpu"})
    (finding,) = findings_of(context_of(text, lock=lock), "DM506")
    assert (
        finding.message
        == "this devmap plans differently than the lock: 'model.layers.3' has cpu there and 1 now"
    )


def test_an_edited_lock_is_another_rule_s_affair_and_so_is_a_plan_that_there_is_not(
    context_of: ContextOf, findings_of: FindingsOf
) -> None:
    edited = dataclasses.replace(lock_for(context_of(TEXT)), device_map={"": "cpu"})
    assert [finding.code for finding in findings_of(context_of(TEXT, lock=edited))] == ["DM502"]
    assert findings_of(context_of(TEXT, lock=lock_for(context_of(TEXT)), plan=None), "DM506") == ()
