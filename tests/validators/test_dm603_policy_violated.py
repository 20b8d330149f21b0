"""DM603 policy-violated: what it says, where, and when it is silent."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from devmap_validators.checks.policies import Policy, PolicyRule, built_in_rules, part_of_policy
from devmap_validators.rules import ALL_RULES

if TYPE_CHECKING:
    from pathlib import Path

    from devmap.config.yaml.faults import DocumentPath
    from tests.validators.conftest import ContextOf, FindingsOf

HEAD = "version: 1\nmodel: {manifest: example.manifest.yaml}\n"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            HEAD + "policies: [production]\ndevice_map: {'': 0, lm_head: disk, model.embed_tokens: "
            "disk}\nmax_memory: {0: 2GB, disk: 1GB}\n",
            [
                (("policies", 0), "PRD003 there is no lock, so that each machine would plan for itself"),
                (
                    ("device_map",),
                    "PRD001 weights lie on disk, and each pass waits for it (disk_bytes is 262,144,000)",
                ),
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
            HEAD + "policies: [shared-server]\nheadroom: 20%\nmax_memory: {0: 3GB}\noffload: {host_memory: "
            "20GB}\n",
            [
                (
                    ("offload", "host_memory"),
                    (
                        "SRV004 streaming may use more than 16 GB of host memory (host_memory is "
                        "20,000,000,000)"
                    ),
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
    assert [finding for finding in findings_of(context_of(text)) if not finding.code.startswith("DM")] == []


def test_every_place_that_breaks_a_rule_is_said_in_order_with_the_rule_s_own_help(
    context_of: ContextOf, findings_of: FindingsOf, tmp_path: Path
) -> None:
    (tmp_path / "first.yaml").write_text(
        "version: 1\nrules:\n"
        "  - {code: ONE001, message: no disk, help: offer more, severity: note, "
        "schema: {properties: {max_memory: {not: {required: [disk]}}}}}\n"
        "  - {code: ONE002, message: small, schema: {properties: {max_memory: {additionalProperties: "
        "{maximum: 1000000000}}}}}\n",
        encoding="utf-8",
    )
    (tmp_path / "second.yaml").write_text(
        "version: 1\nrules:\n"
        "  - {code: TWO001, message: a dtype is asked for, schema: {properties: "
        "{profiles: {minProperties: 1}}}}\n"
        "  - {code: TWO002, message: only bfloat16, severity: warning, "
        "schema: {properties: {model: {properties: {dtype: {const: bfloat16}}}}}}\n"
        "  - {code: TWO003, message: it fits, over: plan, schema: {properties: {cpu_bytes: {const: 0}}}}\n"
        "  - {code: TWO004, message: locked, over: lock, schema: {properties: {present: {const: true}, "
        "edited: {const: false}}}}\n",
        encoding="utf-8",
    )
    text = (
        "version: 1\nmodel: {manifest: example.manifest.yaml, dtype: float16}\nmax_memory: {0: 4GB, disk: "
        "2GB, 1: 1GB}\n"
        f"policies: [./none.yaml, {tmp_path}/first.yaml, {tmp_path}/second.yaml]\n"
    )
    found = [finding for finding in findings_of(context_of(text)) if not finding.code.startswith("DM")]
    assert [
        (finding.code, finding.severity, finding.path, finding.message, finding.help) for finding in found
    ] == [
        ("TWO002", "warning", ("model", "dtype"), "only bfloat16 (dtype is float16)", ""),
        ("ONE001", "note", ("max_memory",), "no disk", "offer more"),
        ("ONE002", "error", ("max_memory", "0"), "small (0 is 4,000,000,000)", ""),
        ("ONE002", "error", ("max_memory", "disk"), "small (disk is 2,000,000,000)", ""),
        ("TWO001", "error", ("policies", 2), "a dtype is asked for", ""),
        ("TWO004", "error", ("policies", 2), "locked", ""),
    ]


def test_a_rule_over_the_plan_waits_for_a_plan(context_of: ContextOf, findings_of: FindingsOf) -> None:
    context = context_of(HEAD + "policies: [inference]\nworkload: inference\ndevice_map: auto\n")
    assert context.plan is None
    assert [finding for finding in findings_of(context) if finding.code.startswith("INF")] == []


def test_the_parts_of_a_pack_are_explained_as_rules_of_it(context_of: ContextOf) -> None:
    (whole,) = (rule for rule in ALL_RULES if rule.code == "DM603")
    assert whole.parts is not None
    assert {part.part_of for part in whole.parts(context_of(HEAD + "policies: [production]\n"))} == {whole}
    parts = {rule.code: rule for rule in built_in_rules(whole)}
    assert {code[:3] for code in parts} == {"PRD", "INF", "TRN", "SRV"}
    part = parts["PRD001"]
    assert (part.part_of, part.severity, part.summary) == (
        whole,
        "error",
        "Weights lie on disk, and each pass waits for it",
    )
    assert part.why.startswith("It is a rule of the policy 'production'. ")
    assert part.why.endswith(" To mend it: offer more cpu memory or accelerators, or a smaller dtype.")
    policy = Policy("mine", (), description="It is mine.")
    bare = part_of_policy(PolicyRule("ACME001", "n", "no weights", {}, severity="note"), policy, whole)
    helped = part_of_policy(PolicyRule("ACME001", "n", "m", {}, help="offer more"), policy, whole)
    assert helped.why == "It is a rule of the policy 'mine'. It is mine. To mend it: offer more."
    assert (bare.why, bare.summary, bare.severity) == (
        "It is a rule of the policy 'mine'. It is mine.",
        "No weights",
        "note",
    )
