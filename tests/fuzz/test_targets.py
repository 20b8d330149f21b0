"""Every seed, and some thousand mutations of them: a result or a `DevmapError`, soon and in little memory."""

from __future__ import annotations

import resource
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.effort import at_most
from tests.fuzz.targets import TARGETS, seeds_of

if TYPE_CHECKING:
    from collections.abc import Callable

_MUTATIONS = settings(max_examples=60)


@pytest.mark.parametrize("target", TARGETS)
def test_every_seed_ends_in_a_result_or_an_error_of_ours(target: str) -> None:
    seeds = seeds_of(target)
    assert seeds
    for seed in seeds:
        TARGETS[target](seed)


@st.composite
def mutated(draw: Callable[..., int], seed: bytes) -> bytes:
    """A seed with some parts taken out, doubled, moved or overwritten."""
    content = bytearray(seed)
    for _ in range(draw(st.integers(1, 4))):
        size = len(content)
        start = draw(st.integers(0, size))
        end = min(size, start + draw(st.sampled_from([0, 1, 2, 7, 40])))
        kind = draw(st.integers(0, 3))
        if kind == 0:
            del content[start:end]
        elif kind == 1:
            content[start:start] = content[start:end] * draw(st.sampled_from([1, 2, 50]))
        elif kind == 2:
            content[start:end] = _WORDS[draw(st.integers(0, len(_WORDS) - 1))]
        else:
            at = draw(st.integers(0, size))
            content[at:at] = content[start:end]
    return bytes(content)


_WORDS = [
    b"",
    b"\0",
    b"\xff",
    b"\xed\xa0\x80",
    b"\xe2\x80\xae",
    b"\x1b[31m",
    b"&a",
    b"*a",
    b"<<: ",
    b"- ",
    b"? ",
    b"!!python/name:os ",
    b"{",
    b"}",
    b"[",
    b"]",
    b": ",
    b"'",
    b'"',
    b"|\n",
    b"#",
    b"# devmap: ignore[",
    b"0",
    b"-1",
    b"1e999",
    b".inf",
    b"99999999999999999999",
    b"null",
    b"true",
    b"[0-3]",
    b"[0-99999999]",
    b"layers.*",
    b"**a*",
    b"%",
    b"100%",
    b"8gb",
    b"cuda:0",
    b"disk",
    b"$ref",
    b"#/",
    b"(a+)+$",
]


@pytest.mark.parametrize("target", TARGETS)
@_MUTATIONS
@given(data=st.data())
def test_mutations_end_in_a_result_or_an_error_of_ours(target: str, data: st.DataObject) -> None:
    seeds = seeds_of(target)
    content = data.draw(mutated(data.draw(st.sampled_from(seeds))))
    with at_most(million_steps=60):
        TARGETS[target](content)


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize(
    "content",
    [
        b"[" * 500_000,
        b"{a: " * 250_000,
        b"a: &a [x]\n" + b"b: [" + b"*a, " * 200_000 + b"]\n",
        b"# comment\n" * 100_000,
        b'"' + b"\\x41" * 250_000 + b'"',
        b"k%d: {}\n" * 1 + b"".join(b"k%d: 1\n" % number for number in range(90_000)),
        b"\0" * 1_000_000,
        "é\u202e".encode() * 200_000,
    ],
    ids=["brackets", "mappings", "aliases", "comments", "escapes", "keys", "zeros", "marks"],
)
def test_a_megabyte_of_one_thing_costs_little(target: str, content: bytes) -> None:
    if target == "header":
        content = len(content).to_bytes(8, "little") + content
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with at_most(million_steps=60):  # two seconds of a machine that does thirty in one
        TARGETS[target](content)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 500_000  # kilobytes
