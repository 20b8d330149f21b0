"""DM406 headroom-takes-all: what it says, where, and when it is silent."""

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
            HEAD + "max_memory: {0: 2GB, 1: 3GB}\nheadroom: {0: 2GB}\n",
            [(("headroom", "0"), "headroom of 2.0 GB leaves nothing of the 2.0 GB of device 0")],
        ),
        (
            HEAD + "max_memory: {0: 2GB, 1: 3GB, 2: 1GB}\nheadroom: 100%\n",
            [
                (
                    ("headroom",),
                    (
                        "headroom of 2.0 GB leaves nothing of the 2.0 GB of device 0, nor of device 1 and "
                        "device 2"
                    ),
                )
            ],
        ),
        (
            HEAD + "max_memory: {1: 3GB, 0: 2GB, 2: 2GB}\nheadroom: {1: 4GB, 0: 100%, 2: 1GB}\n",
            [
                (("headroom", "1"), "headroom of 4.0 GB leaves nothing of the 3.0 GB of device 1"),
                (("headroom", "0"), "headroom of 2.0 GB leaves nothing of the 2.0 GB of device 0"),
            ],
        ),
        (
            HEAD + "max_memory: {64: 2GB, 3: 2GB, 9: 2GB}\nheadroom: 100%\n",
            [
                (
                    ("headroom",),
                    (
                        "headroom of 2.0 GB leaves nothing of the 2.0 GB of device 3, nor of device 9 and "
                        "device 64"
                    ),
                )
            ],
        ),
    ],
)
def test_it_says_what_is_wrong_and_where(
    text: str, said: list[tuple[DocumentPath, str]], context_of: ContextOf, findings_of: FindingsOf
) -> None:
    assert [(finding.path, finding.message) for finding in findings_of(context_of(text), "DM406")] == said


@pytest.mark.parametrize(
    "text",
    [
        HEAD + "max_memory: {0: 2GB, 1: 3GB}\nheadroom: {0: 1.9GB}\n",
        HEAD + "max_memory: {0: 3GB, 1: 0}\nheadroom: 10%\n",  # DM405 says that a budget of 0 holds nothing
        HEAD + "headroom: 10%\n",
    ],
)
def test_it_is_silent(text: str, context_of: ContextOf, findings_of: FindingsOf) -> None:
    assert findings_of(context_of(text), "DM406") == ()
