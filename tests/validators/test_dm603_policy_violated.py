"""DM603 policy-violated: what it says, where, and when it is silent."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from devmap.config.faults import DocumentPath
    from tests.validators.conftest import ContextOf, FindingsOf

HEAD = "version: 1\nmodel: {manifest: example.manifest.yaml}\n"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            HEAD
            + "policies: [production]\ndevice_map: {'': 0, lm_head: disk, model.embed_tokens: disk}\nmax_memory: {0: 2GB, disk: 1GB}\n",
            [
                (("policies", 0), "PRD003 there is no lock, so that each machine would plan for itself"),
                (("device_map",), "PRD001 weights lie on disk, and each pass waits for it (disk_bytes is 262,144,000)"),
                (
                    ("max_memory", "0"),
                    ("PRD002 less than 15% of an accelerator is kept free (kept_free_percent is 0.0)"),
                ),
            ],
        ),
        (
            HEAD + "policies: [inference]\nmax_memory: {0: 2GB}\n",
            [
                (("policies", 0), "INF001 no room is kept for the KV cache and activations"),
                (
                    ("max_memory", "0"),
                    ("INF002 less than 15% of an accelerator is kept free (kept_free_percent is 0.0)"),
                ),
            ],
        ),
        (
            HEAD + "policies: [shared-server]\nheadroom: 20%\nmax_memory: {0: 3GB}\noffload: {host_memory: 20GB}\n",
            [
                (
                    ("offload", "host_memory"),
                    ("SRV004 streaming may use more than 16 GB of host memory (host_memory is 20,000,000,000)"),
                )
            ],
        ),
    ],
)
def test_it_says_what_is_wrong_and_where(
    text: str, said: list[tuple[DocumentPath, str]], context_of: ContextOf, findings_of: FindingsOf
) -> None:
    assert [
        (finding.path, f"{finding.code} {finding.message}")
        for finding in findings_of(context_of(text))
        if finding.code < "DM" or finding.code > "DN"
    ] == said


@pytest.mark.parametrize(
    "text",
    [
        HEAD + "policies: [shared-server]\nheadroom: 20%\nmax_memory: {0: 3GB}\n",
    ],
)
def test_it_is_silent(text: str, context_of: ContextOf, findings_of: FindingsOf) -> None:
    assert findings_of(context_of(text), "DM603") == ()
