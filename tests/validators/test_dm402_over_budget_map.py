"""DM402 over-budget-map: what it says, where, and when it is silent."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.validators.conftest import ContextOf, FindingsOf

HEAD = "version: 1\nmodel: {manifest: example.manifest.yaml}\n"


def test_every_device_is_named_by_tier_with_the_keys_that_fill_it(
    context_of: ContextOf, findings_of: FindingsOf
) -> None:
    text = (
        HEAD
        + "device_map: {'': cpu, lm_head: 1, model.embed_tokens: 1, model.layers.0: 0, model.layers.1: 0, "
        "model.layers.2: 0, "
        "model.layers.3: 0, model.norm: 2}\nmax_memory: {cpu: 1, 2: 100%, 0: 1GB, 1: 262.144MB}\n"
    )
    found = findings_of(context_of(text), "DM402")
    hints = [
        (finding.path[1], finding.message.split(":")[0], finding.help)
        for finding in sorted(found, key=lambda each: each.message)
    ]
    assert hints == [
        (
            "",
            "cpu is given 256 bytes of weights and may hold 1 byte",
            '"" puts it there: move modules away, or raise max_memory of cpu',
        ),
        (
            "model.layers.0",
            "device 0 is given 1.6 GB of weights and may hold 1.0 GB",
            (
                "'model.layers.0', 'model.layers.1', 'model.layers.2' put it there: move modules away, or "
                "raise max_memory of device 0"
            ),
        ),
    ]


def test_headroom_beyond_the_budget_leaves_nothing_and_not_less(
    context_of: ContextOf, findings_of: FindingsOf
) -> None:
    text = HEAD + "device_map: {'': cpu, model.norm: 0}\nmax_memory: {0: 1GB, cpu: 2GB}\nheadroom: {0: 2GB}\n"
    (finding,) = findings_of(context_of(text), "DM402")
    assert (
        finding.message
        == "device 0 is given 8,192 bytes of weights and may hold 0 bytes: 8,192 bytes too much"
    )
