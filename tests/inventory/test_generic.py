from __future__ import annotations

from devmap.inventory.table.generic import guess_modules, in_module_order


def test_numbered_names_are_in_the_order_of_their_numbers_and_own_tensors_come_first() -> None:
    names = ["h.10.b.w", "h.2.b.w", "h.2.a", "h.1.b.w", "embed.w", "h.2.b.v", "scale"]
    assert in_module_order(names) == [
        "scale",
        "h.1.b.w",
        "h.2.a",
        "h.2.b.w",
        "h.2.b.v",
        "h.10.b.w",
        "embed.w",
    ]


def test_the_outermost_numbered_level_with_two_members_stays_whole() -> None:
    names = [
        "t.h.0.experts.0.w",
        "t.h.0.experts.1.w",
        "t.h.1.experts.0.w",
        "t.h.1.experts.1.w",
        "one.0.w",
        "head.w",
    ]
    modules, whole = guess_modules(names)
    assert whole == ("Block_t_h",)
    assert modules["t.h.1"] == "Block_t_h"
    assert modules["t.h.1.experts.0"] == modules["one.0"] == modules["head"] == ""


def test_blocks_inside_a_list_of_one_are_found() -> None:
    modules, whole = guess_modules(["m.0.h.0.w", "m.0.h.1.w"])
    assert whole == ("Block_m_0_h",)
    assert modules["m.0"] == ""
