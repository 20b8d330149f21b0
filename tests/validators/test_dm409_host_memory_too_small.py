"""DM409 host-memory-too-small: what it says, where, and when it is silent."""

from __future__ import annotations

from typing import TYPE_CHECKING

from devmap.config.values.device import parse_device
from devmap.plan.model import Placement, Plan

if TYPE_CHECKING:
    from tests.validators.conftest import ContextOf, FindingsOf

HEAD = "version: 1\nmodel: {manifest: example.manifest.yaml}\n"


TWO_BLOCKS = 2 * 404_766_720


def test_two_of_the_largest_block_that_is_read_are_enough(
    context_of: ContextOf, findings_of: FindingsOf
) -> None:
    text = HEAD + "offload: {host_memory: SIZE}\nmax_memory: {0: 1.2GB, disk: 2GB}\n"
    assert findings_of(context_of(text.replace("SIZE", str(TWO_BLOCKS))), "DM409") == ()
    (finding,) = findings_of(context_of(text.replace("SIZE", str(TWO_BLOCKS - 1))), "DM409")
    assert finding.help == "give it 809.5 MB: room for two blocks"


def test_what_streams_from_memory_is_read_from_no_disk(
    context_of: ContextOf, findings_of: FindingsOf
) -> None:
    text = HEAD + "offload: {host_memory: 5MB}\nmax_memory: {0: 1.2GB, cpu: 2GB}\n"
    context = context_of(text)
    assert context.plan is not None
    assert context.plan.streamed
    assert findings_of(context, "DM409") == ()


def test_where_nobody_wrote_it_the_budgets_are_pointed_at(
    context_of: ContextOf, findings_of: FindingsOf
) -> None:
    disk, device = parse_device("disk"), parse_device(0)
    plan = Plan({"": "disk"}, (Placement("block", disk, device, 3_000_000_000),), (), "auto")
    for offload in ("", "offload: {folder: ./offload}\n"):
        (finding,) = findings_of(
            context_of(HEAD + offload + "max_memory: {0: 8GB, disk: 9GB}\n", plan=plan), "DM409"
        )
        assert finding.path == ("max_memory",)
        assert finding.message == "host_memory is 4.0 GB, and 'block' alone is read from disk with 3.0 GB"
        assert finding.position is not None
        assert finding.position.start.column == 1


def test_quantising_the_largest_weight_has_to_fit(context_of: ContextOf, findings_of: FindingsOf) -> None:
    text = (
        HEAD.replace("yaml}", "yaml, quantization: KIND}")
        + "offload: {host_memory: SIZE}\nmax_memory: {0: 2GB}\n"
    )
    numbers = 11008 * 4096
    for kind, needed in (
        ("nf4", numbers * 6 + (17 << 22) + (24 << 20)),
        ("int8", numbers * 6 + (15 << 22) + (24 << 20)),
        ("{method: nf4, bnb_4bit_use_double_quant: true}", numbers * 17 + (24 << 20)),
    ):
        enough = text.replace("KIND", kind).replace("SIZE", str(needed))
        assert findings_of(context_of(enough), "DM409") == ()
        (finding,) = findings_of(
            context_of(text.replace("KIND", kind).replace("SIZE", str(needed - 1))), "DM409"
        )
        assert (finding.severity, finding.path) == ("error", ("offload", "host_memory"))
        assert "to quantise 'model.layers.0.mlp.gate_proj' while it is loaded" in finding.message
    assert findings_of(context_of(text.replace("KIND", "int4").replace("SIZE", "1MB")), "DM409") == ()
