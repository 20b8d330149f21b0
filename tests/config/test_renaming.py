"""Edits of scalars: in the quotes that stand there, and only where the text is all that stands there."""

from __future__ import annotations

import pytest

from devmap.config.yaml.edits import rename, requote
from devmap.config.yaml.positions import locate
from devmap.config.yaml.reader import read_yaml


@pytest.mark.parametrize(
    ("text", "old", "new", "replacement"),
    [
        ("a: gpu0\n", "gpu0", "disk", "disk"),
        ("a: 'gpu0'\n", "gpu0", "disk", "'disk'"),
        ('a: "gpu0"\n', "gpu0", "disk", '"disk"'),
        ("a: layer\n", "layer", "layers[0-3]", "'layers[0-3]'"),
        ("a: nul\n", "nul", "null", "'null'"),
        ("a: gpu0\n", "gpu0", "0", "0"),
        ("a: &x gpu0\n", "gpu0", "disk", None),
        ('a: "gpu\\x30"\n', "gpu0", "disk", None),
        ("b: &x gpu0\na: *x\n", "gpu0", "disk", None),
        ("a: gpu0\n", "gpu0", "it's", None),
        ("a:\n", "", "disk", None),
    ],
)
def test_a_word_is_replaced_as_it_was_written(text: str, old: str, new: str, replacement: str | None) -> None:
    position = locate(("a",), read_yaml(text.encode(), "x").positions)
    edit = rename(position, old, new)
    assert (edit.replacement if edit is not None else None) == replacement


@pytest.mark.parametrize(
    ("text", "replacement"),
    [("a: 1.10\n", "'1.10'"), ("a: 7\n", "'7'"), ("a: &x 7\n", None), ("a: [7]\n", None)],
)
def test_quotes_go_round_plain_scalars_alone(text: str, replacement: str | None) -> None:
    edit = requote(locate(("a",), read_yaml(text.encode(), "x").positions))
    assert (edit.replacement if edit is not None else None) == replacement
