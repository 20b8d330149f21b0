"""Where the cursor stands in a config that is being typed."""

from __future__ import annotations

import pytest

from devmap.lsp.cursor import Cursor, cursor_at


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("dev|", Cursor((), "dev", None)),
        ("device_map:\n  model.la|", Cursor(("device_map",), "model.la", None)),
        ('device_map:\n  "model.la|', Cursor(("device_map",), "model.la", None)),
        ("device_map:\n  model.layers.0: 0\n  lm_h|: 1", Cursor(("device_map",), "lm_h", None)),
        ("device_map:\n  model.layers.0: c|", Cursor(("device_map",), "c", "model.layers.0")),
        ("device_map: ba|", Cursor((), "ba", "device_map")),
        ("device_map: {model.embed_tokens: 0, lm|", Cursor(("device_map",), "lm", None)),
        ("device_map: {model.embed_tokens: 0, lm_head: d|", Cursor(("device_map",), "d", "lm_head")),
        ("device_map: {\n  model.norm: 0,\n  lm|", Cursor(("device_map",), "lm", None)),
        ("forbid: {disk: [model.embed_tokens, lm|", Cursor(("forbid", "disk"), "lm", None, in_list=True)),
        ("no_split_module_classes: [Ll|]", Cursor(("no_split_module_classes",), "Ll", None, in_list=True)),
        ("policies:\n- pro|", Cursor(("policies",), "pro", None, in_list=True)),
        ("policies:\n  - pro|", Cursor(("policies",), "pro", None, in_list=True)),
        (
            "profiles:\n  laptop:\n    device_map:\n      mo|",
            Cursor(("profiles", "laptop", "device_map"), "mo", None),
        ),
        ("profiles: {laptop: {max_memory: {c|", Cursor(("profiles", "laptop", "max_memory"), "c", None)),
        ("model:\n  manifest: x.yaml\n\n  dt|", Cursor(("model",), "dt", None)),
        ("max_memory: {0: 1GB}\ndev|", Cursor((), "dev", None)),
        ("# model.la|", None),
        ("headroom: 5%  # mo|", None),
    ],
)
def test_the_cursor_is_told_from_indentation_and_brackets(text: str, expected: Cursor | None) -> None:
    before, _, after = text.partition("|")
    lines = (before + after).splitlines()
    line = before.count("\n")
    assert cursor_at(lines, line, len(before.rpartition("\n")[2])) == expected


def test_a_place_outside_of_the_file_is_nowhere() -> None:
    assert cursor_at(["a: 1"], 5, 0) is None
    assert cursor_at([], 0, 0) is None
