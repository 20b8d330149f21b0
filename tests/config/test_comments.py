"""Comments that suppress: where they stand, what they name, and what is no comment."""

from __future__ import annotations

import pytest

from devmap.config.yaml.comments import read_suppressions
from devmap.config.yaml.source import Source


def read(text: str) -> list[tuple[int, int, tuple[str, ...], str, bool, bool]]:
    return [
        (
            comment.position.start.line,
            comment.position.start.column,
            tuple(selector.word for selector in comment.selectors),
            comment.reason,
            comment.whole_file,
            comment.at_head,
        )
        for comment in read_suppressions(Source("x", text))
    ]


def test_a_comment_names_rules_and_a_reason() -> None:
    assert read("a: 1  # devmap: ignore[DM204, unmatched-key] tied by hand\n") == [
        (1, 7, ("DM204", "unmatched-key"), "tied by hand", False, False)
    ]


def test_a_comment_for_the_file_counts_at_its_head() -> None:
    text = (
        "# a licence\n\n#devmap:ignore-file[DM4]\n---\n# devmap: ignore-file[DM2] "
        "two\na: 1\n# devmap: ignore-file[DM3]\n"
    )
    assert [(line, words, head) for line, _, words, _, _, head in read(text)] == [
        (3, ("DM4",), True),
        (5, ("DM2",), True),
        (7, ("DM3",), False),
    ]


@pytest.mark.parametrize(
    "text",
    [
        "a: 'x # devmap: ignore[DM204]'\n",
        'a: "x # devmap: ignore[DM204]"\n',
        'a: "x\n  # devmap: ignore[DM204]\n  y"\n',
        "a: |\n  x # devmap: ignore[DM204]\nb: 1\n",
        "a: >\n  # devmap: ignore[DM204]\n",
        "a: x# devmap: ignore[DM204]\n",
        "a: 1  # devmap: ignored[DM204]\n",
        "a: 1  # see devmap: ignore[DM204]\n",
    ],
)
def test_what_is_no_comment_suppresses_nothing(text: str) -> None:
    assert read(text) == []


@pytest.mark.parametrize(
    "text",
    [
        "a: 'b'  # devmap: ignore[DM204]\n",
        "a: {b: 'c', d: \"e\"} # devmap: ignore[DM204]\n",
        "- |\n  x\n# devmap: ignore[DM204]\n",
    ],
)
def test_a_comment_after_a_quoted_value_is_one(text: str) -> None:
    assert [words for _, _, words, *_ in read(text)] == [("DM204",)]


@pytest.mark.parametrize(
    "text", ["# devmap: ignore\na: 1\n", "# devmap: ignore[]\na: 1\n", "# devmap: ignore DM204\na: 1\n"]
)
def test_a_comment_without_rules_has_no_selectors(text: str) -> None:
    assert [words for _, _, words, *_ in read(text)] == [()]


def test_a_word_knows_its_place() -> None:
    (comment,) = read_suppressions(Source("x", "a: 1 # devmap: ignore[DM201, no-such]\n"))
    assert [
        (selector.position.start.column, selector.position.end.column) for selector in comment.selectors
    ] == [(23, 28), (30, 37)]
