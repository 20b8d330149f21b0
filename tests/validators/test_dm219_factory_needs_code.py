"""DM219 factory-needs-code: what it says, where, and when it is silent."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.validators.conftest import ContextOf, FindingsOf


def test_it_is_silent_where_code_may_run(context_of: ContextOf, findings_of: FindingsOf) -> None:
    assert (
        findings_of(
            context_of("version: 1\nmodel: {factory: 'pack.models:build'}\n", allow_code=True), "DM219"
        )
        == ()
    )
