"""Near words: what is suggested, and what a program may write by itself."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from devmap.config.values.words import near_words, sure_word

PROJECTIONS = ("q_proj", "k_proj", "v_proj", "o_proj")


@pytest.mark.parametrize(
    ("word", "known", "expected"),
    [
        ("q_prj", PROJECTIONS, "q_proj"),
        ("p_proj", PROJECTIONS, None),
        ("polices", ("policies", "profiles"), "policies"),
        ("Balanced", ("balanced", "balanced_low_0"), "balanced"),
        ("blanaced", ("balanced", "auto"), "balanced"),
        ("nothing", ("balanced", "auto"), None),
        ("40", ("0", "1", "2"), None),
        ("float8", ("float", "float16"), None),
        ("layer", ("layers",), "layers"),
        ("", ("a",), None),
    ],
)
def test_only_what_can_be_nothing_else_is_sure(
    word: str, known: tuple[str, ...], expected: str | None
) -> None:
    assert sure_word(word, known) == expected


@given(st.text("abcxyz_01", max_size=8), st.lists(st.text("abcxyz_01", min_size=1, max_size=8), max_size=6))
def test_a_sure_word_is_known_and_has_the_same_digits(word: str, known: list[str]) -> None:
    found = sure_word(word, known)
    if found is not None:
        assert found in known
        assert [letter for letter in found if letter.isdigit()] == [
            letter for letter in word if letter.isdigit()
        ]


def test_three_at_most_are_suggested_the_nearest_first() -> None:
    assert near_words("q_proj", PROJECTIONS)[0] == "q_proj"
    assert len(near_words("x_proj", PROJECTIONS)) == 3
