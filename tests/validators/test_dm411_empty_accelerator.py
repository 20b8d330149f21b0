"""DM411 empty-accelerator: what it says, where, and when it is silent."""

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
            HEAD + "device_map: sequential\nmax_memory: {0: 2GB, 1: 2GB, 2: 2GB}\n",
            [(("max_memory", "1"), "the plan leaves device 1 and device 2 empty")],
        ),
        (  # only the first device is spared on purpose
            HEAD + "device_map: {'': balanced_low_0, model: 1, lm_head: 1}\nmax_memory: {0: 2GB, 1: 2GB, 2: "
            "2GB}\n",
            [(("max_memory", "2"), "the plan leaves device 2 empty")],
        ),
        (  # a server keeps the first device light, and no other
            HEAD + "workload: server\ndevice_map: {'': 1}\nmax_memory: {0: 4GB, 1: 4GB, 2: 4GB}\n",
            [(("max_memory", "2"), "the plan leaves device 2 empty")],
        ),
        (
            HEAD + "workload: inference\ndevice_map: {'': 1}\nmax_memory: {0: 4GB, 1: 4GB}\n",
            [(("max_memory", "0"), "the plan leaves device 0 empty")],
        ),
        (
            HEAD + "device_map: sequential\nmachine: {devices: {0: {memory: 4GB}, 1: {memory: 4GB}}}\n",
            [(("device_map",), "the plan leaves device 1 empty")],
        ),
    ],
)
def test_it_says_what_is_wrong_and_where(
    text: str, said: list[tuple[DocumentPath, str]], context_of: ContextOf, findings_of: FindingsOf
) -> None:
    assert [(finding.path, finding.message) for finding in findings_of(context_of(text), "DM411")] == said


@pytest.mark.parametrize(
    "text",
    [
        HEAD + "device_map: balanced\nmax_memory: {0: 2GB, 1: 2GB}\n",
        HEAD + "device_map: sequential\nmax_memory: {0: 2GB, 1: 0}\n",  # DM405 says it
        HEAD
        # it holds nothing, and computes everything
        + "device_map: {'': cpu}\nmax_memory: {0: 1GB, cpu: 2GB}\n",
        HEAD + "device_map: balanced_low_0\nmax_memory: {0: 2GB, 1: 4GB}\n",
        HEAD + "device_map: auto\nmax_memory: {0: 2GB, cpu: 2GB, disk: 2GB}\n",
    ],
)
def test_it_is_silent(text: str, context_of: ContextOf, findings_of: FindingsOf) -> None:
    assert findings_of(context_of(text), "DM411") == ()
