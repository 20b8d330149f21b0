"""Schemas of policies: faults found when a pack is read, and judging in bounded steps."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from devmap_validators.checks.linear_patterns import Steps
from devmap_validators.checks.policy_schemas import (
    MOST_STEPS,
    CostlySchemaError,
    schema_faults,
    violations,
)

DOUBLING: dict[str, Any] = {
    "$ref": "#/$defs/d0",
    "$defs": {
        **{
            f"d{i}": {"allOf": [{"$ref": f"#/$defs/d{i + 1}"}, {"$ref": f"#/$defs/d{i + 1}"}]}
            for i in range(30)
        },
        "d30": {"type": "object"},
    },
}


@pytest.mark.parametrize(
    ("schema", "path", "words"),
    [
        ({"$ref": "#"}, (), "never end"),
        ({"allOf": [{"$ref": "#/$defs/a"}], "$defs": {"a": {"anyOf": [{"$ref": "#"}]}}}, (), "never end"),
        ({"properties": {"a": {"not": {"$ref": "#/properties/a"}}}}, ("properties", "a"), "never end"),
        ({"$ref": "https://example.com/x"}, ("$ref",), "stays inside its schema"),
        ({"$ref": "other.json#/a"}, ("$ref",), "stays inside its schema"),
        ({"items": {"$ref": "#/$defs/no"}}, ("items", "$ref"), "no such part"),
        ({"$ref": "#/const", "const": {"a": 1}}, ("$ref",), "no such part"),
        ({"$ref": 7}, ("$ref",), "stays inside its schema"),
        ({"$id": "https://example.com/x"}, ("$id",), "not read"),
        ({"$dynamicRef": "#x"}, ("$dynamicRef",), "not read"),
        ({"unevaluatedProperties": False}, ("unevaluatedProperties",), "additionalProperties"),
        ({"pattern": "(a)\\1"}, ("pattern",), "a reference back"),
        ({"patternProperties": {"(": {}}}, ("patternProperties", "("), "not closed"),
        ({"type": "nothing"}, ("type",), "not a valid JSON Schema"),
        (DOUBLING, (), "held against more than 1,000"),
        ({"properties": {str(i): {} for i in range(3000)}}, (), "2,000 are allowed"),
    ],
)
def test_each_fault_is_found_when_the_pack_is_read(schema: Any, path: tuple[str, ...], words: str) -> None:
    (found, *_) = list(schema_faults(schema))
    assert found[0] == path
    assert words in found[1]


def test_a_schema_that_goes_into_a_value_may_refer_to_itself() -> None:
    schema: Any = {"type": "object", "additionalProperties": {"anyOf": [{"$ref": "#"}, {"type": "integer"}]}}
    assert list(schema_faults(schema)) == []
    assert violations(schema, {"a": {"b": {"c": 1}}}, Steps(MOST_STEPS)) == []
    assert violations(schema, {"a": {"b": {"c": "x"}}}, Steps(MOST_STEPS)) != []


def test_what_doubles_with_each_level_of_the_value_ends_at_the_limit_of_steps() -> None:
    twice: Any = {"allOf": [{"properties": {"a": {"$ref": "#"}}}, {"properties": {"a": {"$ref": "#"}}}]}
    assert list(schema_faults(twice)) == []
    value: Any = {}
    for _ in range(40):
        value = {"a": value}
    with pytest.raises(CostlySchemaError, match="takes too long"):
        violations(twice, value, Steps(MOST_STEPS))


def test_a_long_chain_of_references_is_too_deep_or_judged() -> None:
    chain: Any = {"$ref": "#/$defs/d0", "$defs": {f"d{i}": {"$ref": f"#/$defs/d{i + 1}"} for i in range(900)}}
    chain["$defs"]["d900"] = {"type": "object"}
    assert list(schema_faults(chain)) == []
    with pytest.raises(CostlySchemaError, match="goes too deep"):
        violations(chain, {}, Steps(MOST_STEPS))


def test_many_equal_items_are_compared_once() -> None:
    items = [{"a": number} for number in range(20_000)]
    assert violations({"uniqueItems": True}, items, Steps(MOST_STEPS)) == []
    assert violations({"uniqueItems": True}, [*items, {"a": 0}], Steps(MOST_STEPS)) != []


_LEAVES = st.one_of(
    st.sampled_from(["string", "integer", "object", "array", "null"]).map(lambda kind: {"type": kind}),
    st.sampled_from(["^a", "b$", "[ab]+", "a|b"]).map(lambda text: {"pattern": text}),
    st.integers(0, 3).map(lambda size: {"minimum": size, "maxProperties": size, "minItems": size}),
    st.lists(st.sampled_from(["a", "b"]), max_size=2).map(
        lambda names: {"required": list(dict.fromkeys(names))}
    ),
    st.sampled_from(
        [
            True,
            False,
            {"const": "a"},
            {"enum": [1, "b", None]},
            {"uniqueItems": True},
            {"$ref": "#/$defs/part"},
        ]
    ),
)
_SCHEMAS = st.recursive(
    _LEAVES,
    lambda inner: st.one_of(
        st.lists(inner, min_size=1, max_size=2).flatmap(
            lambda parts: st.sampled_from(["allOf", "anyOf", "oneOf", "prefixItems"]).map(
                lambda key: {key: parts}
            )
        ),
        st.tuples(
            st.sampled_from(["not", "items", "contains", "propertyNames", "additionalProperties"]), inner
        ).map(lambda pair: {pair[0]: pair[1]}),
        st.tuples(inner, inner).map(
            lambda pair: {"properties": {"a": pair[0]}, "additionalProperties": pair[1]}
        ),
        st.tuples(inner, inner).map(
            lambda pair: {"patternProperties": {"^a": pair[0]}, "additionalProperties": pair[1]}
        ),
        st.tuples(inner, inner, inner).map(
            lambda three: {"if": three[0], "then": three[1], "else": three[2]}
        ),
    ),
    max_leaves=6,
)
_VALUES = st.recursive(
    st.sampled_from([None, True, 0, 2, "a", "ab", "b"]),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.sampled_from(["a", "b", "ab"]), inner, max_size=3)
    ),
    max_leaves=6,
)


@given(_SCHEMAS, _VALUES)
def test_it_judges_as_jsonschema_does(part: Any, value: Any) -> None:
    schema: Any = {"allOf": [part], "$defs": {"part": {"type": ["string", "object"]}}}
    assert list(schema_faults(schema)) == []
    ours = {tuple(error.absolute_path) for error in violations(schema, value, Steps(MOST_STEPS))}
    theirs = {tuple(error.absolute_path) for error in Draft202012Validator(schema).iter_errors(value)}
    assert ours == theirs
