"""DM408 needless-spill: what it says, where, and when it is silent."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from devmap.config.yaml.faults import DocumentPath
    from tests.validators.conftest import ContextOf, FindingsOf

HEAD = "version: 1\nmodel: {manifest: example.manifest.yaml}\n"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            HEAD + "device_map: {'': 0, 'model.layers[2-3]': disk}\nmax_memory: {0: 3GB, disk: 2GB}\n",
            [(("device_map", "model.layers[2-3]"), "809.5 MB go to disk, and device 0 has 1.9 GB free")],
        ),
        (  # the room is what the map leaves after headroom, on the first device that has enough
            HEAD + "device_map: {'': 0, 'model.layers[2-3]': cpu}\nmax_memory: {0: 1.5GB, 1: 1GB, cpu: "
            "2GB}\nheadroom: {0: 10%, 1: 100MB}\n",
            [(("device_map", "model.layers[2-3]"), "809.5 MB go to cpu, and device 1 has 900.0 MB free")],
        ),
        # every key that could be nearer, each for itself, at the run dtype; device 1 lacks a few bytes of two
        # layers
        (
            (
                "version: 1\nmodel: {manifest: example.manifest.yaml, dtype: float32}\n"
                "device_map: {'': 1, 'model.layers[0-1]': cpu, 'model.layers[2-3]': disk, model.norm: disk}\n"
                "max_memory: {1: 2.14GB, 0: 1.7GB, cpu: 2GB, disk: 2GB}\n"
            ),
            [
                (("device_map", "model.layers[0-1]"), "1.6 GB go to cpu, and device 0 has 1.7 GB free"),
                (("device_map", "model.layers[2-3]"), "1.6 GB go to disk, and device 0 has 1.7 GB free"),
                (("device_map", "model.norm"), "16,384 bytes go to disk, and device 0 has 1.7 GB free"),
            ],
        ),
        (  # a plan that places the rest by itself leaves less than the map alone
            HEAD + "device_map: {'': sequential, 'model.layers[2-3]': cpu}\nmax_memory: {0: 1.2GB, 1: 1GB, "
            "cpu: 2GB}\n",
            [],
        ),
    ],
)
def test_it_says_what_is_wrong_and_where(
    text: str, said: list[tuple[DocumentPath, str]], context_of: ContextOf, findings_of: FindingsOf
) -> None:
    assert [(finding.path, finding.message) for finding in findings_of(context_of(text), "DM408")] == said


@pytest.mark.parametrize(
    "text",
    [
        HEAD + "device_map: {'': 0, 'model.layers[2-3]': cpu}\nmax_memory: {0: 1.2GB, cpu: 2GB}\n",
        HEAD + "device_map: {'': 0, 'model.layers[2-3]': cpu}\nmax_memory: {0: 3GB, cpu: 2GB}\nworkload: "
        "inference\n",
    ],
)
def test_it_is_silent(text: str, context_of: ContextOf, findings_of: FindingsOf) -> None:
    assert findings_of(context_of(text), "DM408") == ()


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
