"""DM312 headroom-without-device: what it says, where, and when it is silent."""

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
            HEAD + "headroom: {0: 5%, cpu: 1GB}\nmax_memory: {0: 3GB}\n",
            [(("headroom", "cpu"), "headroom for cpu, which is not offered")],
        ),
        (
            HEAD + "headroom: {4: 5%, 0: 5%, disk: 1GB, cpu: 1GB}\n"
            "machine: {devices: {0: {memory: 4GB}, cpu: {memory: 9GB}, disk: {memory: 9GB}}}\n",
            [
                (("headroom", "4"), "headroom for device 4, which is not offered"),
                (("headroom", "disk"), "headroom for disk, which is not offered"),
            ],
        ),
    ],
)
def test_it_says_what_is_wrong_and_where(
    text: str, said: list[tuple[DocumentPath, str]], context_of: ContextOf, findings_of: FindingsOf
) -> None:
    assert [(finding.path, finding.message) for finding in findings_of(context_of(text), "DM312")] == said


@pytest.mark.parametrize(
    "text",
    [
        HEAD + "headroom: {0: 5%, cpu: 1GB}\nmax_memory: {0: 3GB, cpu: 2GB}\n",
        HEAD + "headroom: {7: 5%}\n",
    ],
)
def test_it_is_silent(text: str, context_of: ContextOf, findings_of: FindingsOf) -> None:
    assert findings_of(context_of(text), "DM312") == ()
