"""DM401 infeasible: what it says, where, and when it is silent."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from devmap.errors import ResolutionError

if TYPE_CHECKING:
    from devmap.config.yaml.faults import DocumentPath
    from tests.validators.conftest import ContextOf, FindingsOf

HEAD = "version: 1\nmodel: {manifest: example.manifest.yaml}\n"


@pytest.mark.parametrize(
    ("text", "path"),
    [
        (
            HEAD + "max_memory: {0: 1GB, cpu: 500MB}\n",
            ("max_memory",),
        ),
        (HEAD + "max_memory: {0: 500MB}\n", ("max_memory",)),
    ],
)
def test_it_says_what_is_missing_and_what_would_make_it_fit(
    text: str, path: DocumentPath, context_of: ContextOf, findings_of: FindingsOf
) -> None:
    context = context_of(text)
    (finding,) = findings_of(context, "DM401")
    assert finding.path == path
    assert context.plan_error is not None
    assert finding.message.startswith("no plan fits")
    assert f"{context.plan_error.shortfall_bytes:,} bytes" in finding.message
    assert finding.help == "; or ".join(context.plan_error.changes)


@pytest.mark.parametrize(
    ("text", "code"),
    [
        (HEAD + "device_map: {'': 2}\nmax_memory: {0: 2GB}\n", "DM301"),
        (HEAD + "device_map: {'': 0, lm_head: cpu}\nmax_memory: {0: 2GB}\n", "DM304"),
        (HEAD + "device_map: {'': 0}\nmax_memory: {0: 1GB}\n", "DM402"),
        (HEAD + "device_map: {'': 0}\nmax_memory: {0: 2GB, 1: 2GB}\nforbid: {0: [lm_head]}\n", "DM210"),
        (HEAD + "max_memory: {0: 2GB}\nheadroom: 100%\n", "DM406"),
    ],
)
def test_where_one_key_is_to_blame_the_rule_for_it_speaks_alone(
    text: str, code: str, context_of: ContextOf, findings_of: FindingsOf
) -> None:
    assert [finding.code for finding in findings_of(context_of(text)) if finding.severity == "error"] == [
        code
    ]


@pytest.mark.parametrize(
    "text",
    [
        HEAD + "max_memory: {0: 2GB}\n",
    ],
)
def test_it_is_silent(text: str, context_of: ContextOf, findings_of: FindingsOf) -> None:
    assert findings_of(context_of(text), "DM401") == ()


MACHINE = "machine: {devices: {0: {memory: 1GB}}}\n"


@pytest.mark.parametrize(
    ("error", "message", "help_"),
    [
        (
            ResolutionError("no plan fits", shortfall_bytes=1_500),
            "no plan fits (1,500 bytes short)",
            "offer 1,500 bytes more",
        ),
        (
            ResolutionError("1,500 bytes are missing", shortfall_bytes=1_500),
            "1,500 bytes are missing",
            "offer 1,500 bytes more",
        ),
        (ResolutionError("no device is left", help="offer one"), "no device is left", "offer one"),
        (ResolutionError("no device is left"), "no device is left", "offer 1 byte more"),
        (
            ResolutionError("no plan fits", help="offer one", changes=("give 0 2 GB", "offer cpu")),
            "no plan fits",
            "give 0 2 GB; or offer cpu",
        ),
    ],
)
def test_it_always_says_how_much_and_what_to_do(
    error: ResolutionError, message: str, help_: str, context_of: ContextOf, findings_of: FindingsOf
) -> None:
    (finding,) = findings_of(context_of(HEAD + MACHINE, plan=None, plan_error=error), "DM401")
    assert (finding.path, finding.message, finding.help) == (("device_map",), message, help_)
