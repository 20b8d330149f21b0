"""DM408 needless-spill: what it says, where, and when it is silent."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.validators.conftest import ContextOf, FindingsOf

HEAD = "version: 1\nmodel: {manifest: example.manifest.yaml}\n"


@pytest.mark.parametrize(
    ("budgets", "said"),
    [
        (
            "max_memory: {0: 3GB, cpu: 2GB}\nheadroom: 10%\n",
            ["809.5 MB go to cpu, and device 0 has 1.6 GB free"],
        ),
        (
            "max_memory: {0: 1.2GB, 1: 809533440, cpu: 2GB}\n",
            ["809.5 MB go to cpu, and device 1 has 809.5 MB free"],
        ),
        ("max_memory: {0: 1.2GB, 1: 809533439, cpu: 2GB}\n", []),
        (
            "max_memory: {0: 1.2GB, 64: 2GB, 9: 2GB, 3: 2GB, cpu: 2GB}\n",
            ["809.5 MB go to cpu, and device 3 has 2.0 GB free"],
        ),
        ("max_memory: {0: 90%, cpu: 2GB}\n", []),
    ],
)
def test_without_a_plan_the_room_is_what_the_map_leaves(
    budgets: str, said: list[str], context_of: ContextOf, findings_of: FindingsOf
) -> None:
    text = HEAD + "device_map: {'': 0, 'model.layers[2-3]': cpu}\n" + budgets
    assert [finding.message for finding in findings_of(context_of(text, plan=None), "DM408")] == said
