"""DM210 contradicted-constraint: what it says, where, and when it is silent."""

from __future__ import annotations

from typing import TYPE_CHECKING

from devmap.errors import ResolutionError
from devmap.inventory.stored.checkpoint import Damage

if TYPE_CHECKING:
    from tests.validators.conftest import ContextOf, FindingsOf

HEAD = "version: 1\nmodel: {manifest: example.manifest.yaml}\n"


def test_wishes_that_leave_no_device_between_them_are_said_where_each_stands(
    context_of: ContextOf, findings_of: FindingsOf
) -> None:
    wishes = (
        "forbid: {0: [lm_head, model.norm], 1: [lm_head, model.layers.0]}\nsame_device: "
        "[[model.norm, model.layers.0]]\n"
    )
    found = findings_of(
        context_of(HEAD + "device_map: auto\n" + wishes + "max_memory: {0: 2GB, 1: 2GB}\n"), "DM210", "DM401"
    )
    assert [(finding.code, finding.path, finding.message, finding.help) for finding in found] == [
        (
            "DM210",
            ("forbid", "0", 0),
            (
                "no offered device may hold 'lm_head': 'forbid' keeps 'lm_head' off device 0, 'forbid' keeps "
                "'lm_head' off device 1"
            ),
            "remove one of these constraints",
        ),
        (
            "DM210",
            ("forbid", "0", 1),
            (
                "no offered device may hold 'model.norm' and 'model.layers.0', which share a device: "
                "'forbid' keeps 'model.norm' off device 0, "
                "'forbid' keeps 'model.layers.0' off device 1"
            ),
            "remove one of these constraints",
        ),
    ]


def test_what_the_map_shows_is_not_said_again_for_the_plan(
    context_of: ContextOf, findings_of: FindingsOf
) -> None:
    text = HEAD + "device_map: {'': 0}\nforbid: {0: [lm_head]}\nmax_memory: {0: 2GB, 1: 2GB}\n"
    context = context_of(text)
    assert context.plan_error is not None
    assert [finding.path for finding in findings_of(context, "DM210")] == [("forbid", "0", 0)]


def test_what_else_a_plan_lacks_is_no_wish(context_of: ContextOf, findings_of: FindingsOf) -> None:
    error = ResolutionError("no plan fits", problems=[Damage("DM401", "too little memory")])
    assert (
        findings_of(context_of(HEAD + "max_memory: {0: 2GB}\n", plan=None, plan_error=error), "DM210") == ()
    )
