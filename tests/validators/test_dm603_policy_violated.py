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
                ((), "production PRD003 lock-present: there is no lock, so that each machine would plan for itself"),
                (("device_map",), "production PRD001 no-disk: weights lie on disk, and each pass waits for it (disk_bytes is 262,144,000)"),
                (
                    ("max_memory", "0"),
                    (
                        "production PRD002 keep-15-percent-free: less than 15% of an accelerator is kept free "
                        "(accelerators.0.kept_free_percent is 0.0)"
                    ),
                ),
            ],
        ),
        (
            HEAD + "policies: [inference]\nmax_memory: {0: 2GB}\n",
            [
                ((), "inference INF001 workload-named: no room is kept for the KV cache and activations"),
                (
                    ("max_memory", "0"),
                    (
                        "inference INF002 keep-15-percent-free: less than 15% of an accelerator is kept free "
                        "(accelerators.0.kept_free_percent is 0.0)"
                    ),
                ),
            ],
        ),
        (
            HEAD + "policies: [shared-server]\nheadroom: 20%\nmax_memory: {0: 3GB}\noffload: {host_memory: 20GB}\n",
            [
                (
                    ("offload", "host_memory"),
                    (
                        "shared-server SRV004 host-memory-bounded: streaming may use more than 16 GB of host memory "
                        "(offload.host_memory is 20,000,000,000)"
                    ),
                )
            ],
        ),
    ],
)
def test_it_says_what_is_wrong_and_where(
    text: str, said: list[tuple[DocumentPath, str]], context_of: ContextOf, findings_of: FindingsOf
) -> None:
    assert [(finding.path, finding.message) for finding in findings_of(context_of(text), "DM603")] == said


@pytest.mark.parametrize(
    "text",
    [
        HEAD + "policies: [shared-server]\nheadroom: 20%\nmax_memory: {0: 3GB}\n",
    ],
)
def test_it_is_silent(text: str, context_of: ContextOf, findings_of: FindingsOf) -> None:
    assert findings_of(context_of(text), "DM603") == ()
