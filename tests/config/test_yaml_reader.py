"""The reader: every fault has its code and its place, nothing else ever comes out.

And the cost is bounded.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from devmap.config.yaml.reader import Limits, read_yaml
from tests.effort import at_most

if TYPE_CHECKING:
    from devmap.config.yaml.reader import ParsedYaml


def read(text: str | bytes, limits: Limits | None = None) -> ParsedYaml:
    return read_yaml(text.encode() if isinstance(text, str) else text, "x.devmap.yaml", limits=limits)


FAULTS = [
    # code, line, column, text
    ("DM002", 1, 1, b"\xff\xfea\x00:\x00"),
    ("DM002", 2, 4, b"a: 1\nb: \xe9\n"),
    ("DM002", 1, 4, b"\xef\xbb\xbfa: \xe9\n"),
    ("DM003", 1, 4, "a: \0\n"),
    ("DM003", 1, 5, "a: x\x1b[31m\n"),
    ("DM003", 2, 1, "a: 1\n\ufeffb: 2\n"),
    ("DM003", 1, 5, "a: x\u0085y\n"),
    ("DM003", 1, 5, "a: x\u2028y\n"),
    ("DM003", 1, 4, 'a: "\\0"\n'),
    ("DM004", 1, 7, 'a: "\\ud800"\n'),
    ("DM004", 1, 5, 'a: "\\q"\n'),
    ("DM004", 1, 4, "a: [1, 2\nb: 3\n"),
    ("DM004", 1, 4, "a: {x: 1\n"),
    ("DM004", 1, 4, "a: 'abc\nb: 1\n"),
    ("DM004", 2, 2, "a: 1\n b: 2\n"),
    ("DM004", 1, 5, "a: b: c\n"),
    ("DM004", 1, 1, "*: cpu\n"),
    ("DM004", 1, 4, "a: *.weight\n"),
    ("DM004", 1, 10, "a: [1 2, *.w]\n"),
    ("DM004", 1, 1, "@x: 1\n"),
    ("DM004", 1, 1, "%x: 1\n"),
    ("DM004", 1, 4, "a: `x`\n"),
    ("DM004", 2, 1, "b: 1\nversion:1\nc: 2\n"),
    ("DM004", 1, 1, "version:1\nc: 2\n"),
    ("DM004", 2, 3, "a: 1\nb:\u00a02\nc: 3\n"),
    ("DM004", 1, 1, "a" * 1100 + ": 1\n"),
    ("DM004", 2, 1, "b: 2\n" + "a" * 1100 + ": 1\n"),
    ("DM004", 1, 14, "a: {lm_head: cuda: 0}\n"),
    ("DM004", 1, 5, "lm: cuda: 0\n"),
    ("DM004", 1, 1, "{% if x %}\na: 1\n"),
    ("DM004", 3, 1, "a: 1\n...\nb: 2\n"),
    ("DM004", 1, 8, "a: 'it's'\n"),
    ("DM004", 2, 1, "a: 1\n- b\n"),
    ("DM004", 2, 1, "a: 1\nneither key nor value\nb: 2\n"),
    ("DM005", 2, 1, "a:\n\tb: 1\n"),
    ("DM005", 3, 1, "a:\n  b: 1\n\tc: 2\n"),
    ("DM006", 2, 1, "a: 1\na: 2\n"),
    ("DM006", 2, 1, "0: 1\n'0': 2\n"),
    ("DM007", 1, 4, "a: !!python/object:x.y 1\n"),
    ("DM007", 1, 4, "a: !Foo {b: 1}\n"),
    ("DM007", 1, 4, "a: !!int abc\n"),
    ("DM007", 1, 4, "a: !!binary aGk=\n"),
    ("DM010", 2, 1, "a: 1\n---\nb: 2\n"),
    ("DM011", 1, 1, ""),
    ("DM011", 1, 1, "# only a comment\n"),
    ("DM011", 1, 1, "---\n"),
    ("DM012", 1, 1, "- a\n"),
    ("DM012", 1, 1, "words\n"),
    ("DM012", 1, 3, "b:\u00a02\n"),
    ("DM013", 1, 4, "a: *x\n"),
    ("DM013", 1, 11, "a: &a {b: *a}\n"),
    ("DM004", 1, 4, "a: {{ x }}\n"),
    ("DM014", 1, 1, "[a]: 1\n"),
    ("DM014", 2, 1, "a: &x 1\n*x : 2\n"),
    ("DM015", 1, 1, "%YAML 1.2\n---\na: 1\n"),
    ("DM016", 1, 4, "a: " + "9" * 5000 + "\n"),
    ("DM017", 1, 9, "a: {<<: 1}\n"),
    ("DM018", 1, 4, "a: 010\n"),
]


@pytest.mark.parametrize(("code", "line", "column", "text"), FAULTS)
def test_a_fault_has_its_code_and_its_place(code: str, line: int, column: int, text: str | bytes) -> None:
    parsed = read(text)
    assert [
        (fault.code, fault.position.start.line, fault.position.start.column) for fault in parsed.faults
    ] == [(code, line, column)]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("*: cpu\n", "quotes"),
        ("a: *.weight\n", "'*.weight'"),
        ("a: *x\n", "'*x'"),
        ("@x: 1\n", "quotes"),
        ("lm: cuda: 0\n", "cuda:0"),
        ("a: {{ x }}\n", "profiles"),
        ("b:\u00a02\n", "no-break space"),
        ("b: 1\nversion:1\nc: 2\n", "version: ..."),
        ("a:\n\tb: 1\n", "blanks"),
        ("a: 1\n---\nb: 2\n", "split"),
        ("a: 010\n", "write 10"),
        (b"a: \xe9", "UTF-8"),
    ],
)
def test_the_help_says_what_to_do(text: str | bytes, words: str) -> None:
    (fault,) = read(text).faults
    assert words in fault.help


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("no", "no"),
        ("Yes", "Yes"),
        ("off", "off"),
        ("true", True),
        ("FALSE", False),
        ("null", None),
        ("~", None),
        ("8:16", "8:16"),
        ("2024-01-01", "2024-01-01"),
        ("2024-13-45", "2024-13-45"),
        ("1e3", 1000.0),
        ("1e-3", 0.001),
        ("1.10", 1.1),
        ("-3", -3),
        ("+5", 5),
        ("0x1F", "0x1F"),
        ("1_000", "1_000"),
        ("=", "="),
        ("'1'", "1"),
        ('"no"', "no"),
        ("cuda:0", "cuda:0"),
        ("20GB", "20GB"),
        (".inf", float("inf")),
    ],
)
def test_scalars_follow_the_core_schema_of_yaml_1_2(text: str, value: object) -> None:
    assert read(f"a: {text}\n").data == {"a": value}


def test_a_byte_order_mark_at_the_head_is_taken_off() -> None:
    parsed = read("\ufeffa: 1\n")
    assert parsed.data == {"a": 1}
    key = parsed.positions["a",].key
    assert key is not None
    assert key.start.column == 1


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_lines_and_columns_are_counted_in_code_points_whatever_ends_a_line(end: str) -> None:
    parsed = read(f"a: '🙂🙂'{end}b: {{'é': [x, 'ü🙂', y]}}{end}")
    node = parsed.positions["b", "é", 2]
    assert (node.value.start.line, node.value.start.column, node.value.end.column) == (2, 20, 21)
    assert parsed.source.line(2)[19:20] == "y"


def test_every_node_has_its_key_and_its_value() -> None:
    parsed = read("a: &x {b: 1}\nc:\n  - d\n  - *x\ne: {<<: *x, f: 1}\n")
    places = {
        path: (
            node.value.start.line,
            node.value.start.column,
            node.key and (node.key.start.line, node.key.start.column),
        )
        for path, node in parsed.positions.items()
    }
    assert places["a", "b"] == (1, 11, (1, 8))
    assert places["c",] == (3, 3, (2, 1))
    assert places["c", 1] == (4, 5, None)
    assert places["e", "b"] == (5, 9, (5, 9))


def test_merges_give_way_to_the_mapping_and_to_earlier_merges() -> None:
    parsed = read("a: &a {x: 1, y: 1}\nb: &b {x: 2, z: 2}\nc: {z: 3, <<: [*a, *b]}\n")
    assert parsed.data is not None
    assert parsed.data["c"] == {"z": 3, "x": 1, "y": 1}


def test_of_two_equal_keys_the_first_stays_with_its_positions() -> None:
    parsed = read("a: {x: 1}\na: {x: 2}\n")
    assert parsed.data == {"a": {"x": 1}}
    assert parsed.positions["a", "x"].value.start.line == 1


HOSTILE = {
    "brackets": b"a: " + b"[" * 100_000,
    "braces": b"a: " + b"{a: " * 100_000,
    "dashes": b"- " * 100_000,
    "alias bomb": b"a: &b0 [x]\n"
    + b"".join(b"k%d: &b%d [%s]\n" % (i, i, b",".join([b"*b%d" % (i - 1)] * 9)) for i in range(1, 10)),
    "merge bomb": b"k0: &m0 {x: 1}\n"
    + b"".join(b"k%d: &m%d {<<: [*m%d, *m%d]}\n" % (i, i, i - 1, i - 1) for i in range(1, 25)),
    "merge chain": b"k0: &m0 {x: 1}\n"
    + b"".join(b"k%d: &m%d {<<: *m%d, y%d: 1}\n" % (i, i, i - 1, i) for i in range(1, 3000)),
    "scalar": b"a: " + b"x" * 50_000_000,
    "keys": b"\n".join(b"k%d: 1" % i for i in range(90_000)),
    "tags": b"a: [" + b"!x," * 300_000,
    "aliases": b"*a " * 300_000,
    "complex keys": b"? " * 500_000,
    "quotes": b"'" * 1_000_000,
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_files_cost_little_and_give_a_fault(name: str) -> None:
    with at_most(million_steps=90):
        parsed = read(HOSTILE[name])
        assert parsed.faults
        assert len(parsed.faults) <= 101


def test_limits_can_be_raised() -> None:
    deep = "a: " + "[" * 80 + "]" * 80
    assert [fault.code for fault in read(deep).faults] == ["DM008"]
    assert read(deep, Limits(depth=100)).faults == ()
    assert [fault.code for fault in read("a: 1\n" * 3, Limits(size_bytes=10)).faults] == ["DM001"]
    assert [fault.code for fault in read("a: [1, 2, 3]\n", Limits(nodes=4)).faults] == ["DM009"]


FRAGMENTS = [
    *"[]{},:-?!&*#|>@`%\"'\\ \t\n\r=~<.0189ae\0\u00a0\u0085\u2028\ufeffé🙂",
    "a: ", "b:\n  ", "- ", "? ", "&x ", "*x", "<<: ", "!!int ", "---\n", "...\n",
    "%YAML 1.2\n", "{{ x }}", "cuda: 0", "\r\n", "  ", "# c\n", "0: ", "'0': ",
    "\ud800".encode("utf-8", "surrogatepass").decode("latin-1"),
]  # fmt: skip


def hold_inside(parsed: ParsedYaml) -> None:
    """Faults or a mapping; every span on lines and columns that the text has."""
    assert parsed.faults or isinstance(parsed.data, dict)
    lines = parsed.source.lines
    spans = [fault.position for fault in parsed.faults]
    spans += [node.value for node in parsed.positions.values()] + [
        node.key for node in parsed.positions.values() if node.key
    ]
    for span in spans:
        assert 1 <= span.start.line <= len(lines)
        assert span.end.line == span.start.line
        assert 1 <= span.start.column <= span.end.column <= len(lines[span.start.line - 1]) + 1
    for fault in parsed.faults:
        assert fault.message
        if fault.edit:
            assert fault.edit.position.end.column <= len(lines[fault.edit.position.start.line - 1]) + 1


@given(st.binary(max_size=60))
def test_whatever_the_bytes_only_faults_come_out_and_every_span_lies_inside_the_file(content: bytes) -> None:
    hold_inside(read(content))


@given(st.lists(st.sampled_from(FRAGMENTS), max_size=14).map("".join))
def test_whatever_looks_like_yaml_only_faults_come_out_and_every_span_lies_inside_the_file(text: str) -> None:
    hold_inside(read(text.encode("utf-8", "surrogatepass")))


plain = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**30), 10**30)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text("abé🙂 01:-", max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text("abé.*0", max_size=5), inner, max_size=3)
    ),
    max_leaves=8,
)


@given(st.dictionaries(st.text("abc.*01", min_size=1, max_size=6), plain, max_size=4))
def test_json_is_read_as_it_is_and_every_node_has_a_place(value: dict[str, object]) -> None:
    parsed = read(json.dumps(value, ensure_ascii=False))
    assert parsed.faults == ()
    assert parsed.data == value
    assert set(parsed.positions) == set(paths(value))


def paths(node: object, here: tuple[str | int, ...] = ()) -> list[tuple[str | int, ...]]:
    children: list[tuple[str | int, object]] = []
    if isinstance(node, dict):
        children = list(node.items())
    elif isinstance(node, list):
        children = list(enumerate(node))
    return [here, *(path for key, child in children for path in paths(child, (*here, key)))]
