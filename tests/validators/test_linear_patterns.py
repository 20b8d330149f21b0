"""Patterns of policies: what `re` says where the two dialects agree.

And in a number of steps that is linear.
"""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from devmap_validators.checks.linear_patterns import PatternError, Steps, TooCostlyError, compile_pattern

MANY = 10_000_000


def matches(pattern: str, text: str) -> bool:
    return compile_pattern(pattern).search(text, Steps(MANY))


_ATOMS = st.sampled_from(
    [
        "a",
        "b",
        "ab",
        ".",
        "[ab]",
        "[^a]",
        "[a-c_]",
        "é",
        "^",
        "$",
        "{",
        "a{2}",
        "(?:)",
        r"\d",
        r"\w",
        r"\W",
        r"\s",
        r"\.",
        r"[\d-]",
        r"\b",
    ]
)
_PATTERNS = st.recursive(
    _ATOMS,
    lambda inner: st.one_of(
        st.tuples(inner, inner).map("".join),
        st.tuples(inner, inner).map("|".join),
        st.tuples(inner, st.sampled_from(["", "*", "+", "?", "{0,2}", "{1,}", "{3}", "*?", "+?"])).map(
            lambda pair: f"(?:{pair[0]}){pair[1]}"
        ),
        inner.map(lambda pattern: f"({pattern})"),
    ),
    max_leaves=8,
)


@given(_PATTERNS, st.text("ab_-. é1c{", max_size=12))
def test_it_says_what_re_says(pattern: str, text: str) -> None:
    try:
        found = matches(pattern, text)
    except PatternError:
        return  # a repeat of an assertion, which `re` takes
    assert found is (re.search(pattern.replace("$", r"\Z"), text, re.ASCII) is not None), (pattern, text)


@pytest.mark.parametrize(
    "pattern",
    [
        r"^(a+)+$",
        r"^(a|a)*$",
        r"^(a?){40}a{40}$",
        r"(.*)*x",
        r"^(([a-z])+.)+[A-Z]([a-z])+$",
        r"(a*)*b",
        r"^(a|aa)+$",
    ],
)
def test_no_pattern_takes_more_than_its_size_times_the_text(pattern: str) -> None:
    program = len(compile_pattern(pattern).program)
    for length in (10, 100, 1000):
        steps = Steps(MANY)
        compile_pattern(pattern).search("a" * length + "!", steps)
        assert MANY - steps.left <= program * (length + 2)


def test_steps_that_are_used_up_are_said() -> None:
    with pytest.raises(TooCostlyError):
        compile_pattern("(a|b)*c").search("ab" * 100, Steps(50))


@pytest.mark.parametrize(
    ("pattern", "words"),
    [
        (r"(a)\1", "a reference back at 4"),
        (r"(?=a)", "a look ahead or behind at 1"),
        (r"(?<!a)b", "a look ahead or behind at 1"),
        (r"(?P<n>a)", "this kind of group at 1"),
        (r"(?i)a", "this kind of group at 1"),
        ("(a", "the '(' at 1 is not closed"),
        ("a)", "the ')' at 2 closes nothing"),
        ("[a", "the '[' at 1 is not closed"),
        ("*a", "the '*' at 1 repeats nothing"),
        ("^*", "repeats nothing that can be repeated"),
        ("a**", "repeats a repeat"),
        ("a{3,1}", "in the wrong order"),
        ("[b-a]", "in the wrong order"),
        ("a{1001}", "more than 1,000"),
        ("(a{1000}){1000}", "too large"),
        ("(" * 60 + ")" * 60, "more than 50 deep"),
        ("a\\", "a backslash stands at the end"),
        (r"\q", "the escape '\\q' at 1"),
        (r"\x4", "wants 2 hexadecimal digits"),
        ("abc" * 10_000, "too large"),
    ],
)
def test_what_cannot_be_read_is_said_with_its_place(pattern: str, words: str) -> None:
    with pytest.raises(PatternError, match=re.escape(words)):
        compile_pattern(pattern)


@given(st.text(max_size=40))
def test_any_text_is_a_pattern_or_a_pattern_error(text: str) -> None:
    try:
        pattern = compile_pattern(text)
    except PatternError:
        return
    pattern.search("abc", Steps(MANY))


def test_escapes_and_classes() -> None:
    assert matches(r"^\u0041\x42\t[\b]$", "AB\t\x08")
    assert matches(r"^[^\D]+$", "123")
    assert not matches(r"^[^\D]+$", "12a")
    assert not matches(r"^\d$", "\u0663")  # ASCII alone, as JSON Schema recommends
    assert matches(r"^a{,2}$", "a{,2}")
    assert not matches("^a$", "a\n")  # the end is the end
