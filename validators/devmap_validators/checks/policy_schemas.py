"""The JSON Schemas of policy packs.

What is wrong with one, found when its pack is read, and judging by one in bounded steps.

jsonschema judges. What could make it run for ever, or reach out of the file, is taken from it: patterns are
matched in linear time, references stay inside their schema and are followed here, and everything that is
evaluated counts steps. The keywords that would look at a schema again and again (`unevaluatedProperties`) or
resolve names at run time (`$dynamicRef`) are refused.
"""

from __future__ import annotations

import json
from contextvars import ContextVar
from functools import cache
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from devmap.config.values.words import shown
from devmap_validators.checks.linear_patterns import PatternError, Steps, TooCostlyError, compile_pattern

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from jsonschema import ValidationError

    from devmap.config.yaml.faults import DocumentPath
    from devmap.config.yaml.reader import Plain

__all__ = ["MOST_STEPS", "CostlySchemaError", "schema_faults", "violations"]

MOST_STEPS = 1_000_000
"""What the policies of one config may take together: a keyword takes 20, a letter under a pattern one for
each place in the pattern that it is compared with. About a second."""

_KEYWORD_STEPS = 20
_MOST_SCHEMAS = 2_000
"""Subschemas of one rule."""
_MOST_IN_PLACE = 1_000
"""Subschemas that one value may be held against at once, references followed."""

_ONE = ("additionalProperties", "contains", "else", "if", "items", "not", "propertyNames", "then")
_LISTS = ("allOf", "anyOf", "oneOf", "prefixItems")
_MAPPINGS = ("$defs", "definitions", "dependentSchemas", "patternProperties", "properties")
_IN_PLACE_ONE = ("else", "if", "not", "then")
_IN_PLACE_LISTS = ("allOf", "anyOf", "oneOf")
_REFUSED = {
    "$anchor": "name a part in $defs and refer to it as '#/$defs/NAME'",
    "$dynamicAnchor": "name a part in $defs and use $ref",
    "$dynamicRef": "use $ref",
    "$id": "a rule's schema has no address of its own",
    "$recursiveAnchor": "name a part in $defs and use $ref",
    "$recursiveRef": "use $ref",
    "unevaluatedItems": "use prefixItems with items",
    "unevaluatedProperties": "use additionalProperties",
}

Fault = tuple["DocumentPath", str]


class CostlySchemaError(Exception):
    """A schema whose evaluation takes too many steps, or goes too deep; the message says which."""


def schema_faults(schema: dict[str, Plain]) -> Iterator[Fault]:
    """Everything that is wrong with a schema: a path below it and a sentence.

    Time is linear in the schema.
    """
    found = dict(_subschemas(schema))
    if len(found) > _MOST_SCHEMAS:
        yield (), f"the schema has {len(found):,} parts; {_MOST_SCHEMAS:,} are allowed"
        return
    parts = {id(part) for part in found.values()}
    faults = [fault for path, part in found.items() for fault in _own_faults(path, part, schema, parts)]
    if not faults:
        faults = [*_shape_faults(schema), *_cost_faults(found, schema)]
    yield from faults


def _subschemas(schema: Plain) -> Iterator[tuple[DocumentPath, dict[str, Plain]]]:
    """Yield every subschema that is a mapping, by its path."""
    pending: list[tuple[DocumentPath, Plain]] = [((), schema)]
    while pending:
        path, part = pending.pop()
        if not isinstance(part, dict):
            continue
        yield path, part
        pending += [((*path, key), part[key]) for key in _ONE if key in part]
        for key in _LISTS:
            values = part.get(key)
            pending += (
                [((*path, key, place), value) for place, value in enumerate(values)]
                if isinstance(values, list)
                else []
            )
        for key in _MAPPINGS:
            values = part.get(key)
            pending += (
                [((*path, key, name), value) for name, value in values.items()]
                if isinstance(values, dict)
                else []
            )


def _own_faults(
    path: DocumentPath, part: dict[str, Plain], root: dict[str, Plain], parts: Collection[int]
) -> Iterator[Fault]:
    for key, instead in _REFUSED.items():
        if key in part:
            yield (*path, key), f"'{key}' is not read in a policy: {instead}"
    reference = part.get("$ref")
    target = None if reference is None else _target(reference, root)
    if reference is not None and (target is None or (isinstance(target, dict) and id(target) not in parts)):
        message = "a reference stays inside its schema and begins with '#', such as '#/$defs/size'"
        if isinstance(reference, str) and reference.startswith("#"):
            message = "there is no such part in this schema"
        yield (*path, "$ref"), f"{shown(reference)}: {message}"
    patterns = part.get("patternProperties")
    named: list[tuple[DocumentPath, object]] = [((*path, "pattern"), part.get("pattern"))]
    named += (
        [((*path, "patternProperties", text), text) for text in patterns]
        if isinstance(patterns, dict)
        else []
    )
    for place, text in named:
        if isinstance(text, str):
            try:
                compile_pattern(text)
            except PatternError as error:
                yield place, f"the pattern {shown(text)}: {error}"


def _shape_faults(schema: dict[str, Plain]) -> Iterator[Fault]:
    """Yield what the meta-schema of draft 2020-12 says."""
    # 60 ms, and only for configs with policies.
    from jsonschema import Draft202012Validator, FormatChecker, SchemaError  # noqa: PLC0415

    try:
        # Without a format checker: what patterns may be is told above.
        Draft202012Validator.check_schema(schema, format_checker=FormatChecker(formats=()))
    except SchemaError as error:
        yield tuple(error.absolute_path), f"not a valid JSON Schema: {error.message[:120]}"


def _cost_faults(found: dict[DocumentPath, dict[str, Plain]], root: dict[str, Plain]) -> Iterator[Fault]:
    """References that lead back to where they stand.

    And parts that hold one value against too many others.
    """
    sizes: dict[int, int] = {}
    under_way: set[int] = set()

    for path, part in found.items():
        pending = [part]
        while pending:
            now = pending[-1]
            below = _in_place(now, root)
            unknown = [each for each in below if id(each) not in sizes]
            if any(id(each) in under_way or each is now for each in unknown):
                yield path, "references lead back to this part without going into a value: it would never end"
                return
            if unknown:
                under_way.add(id(now))
                pending.append(unknown[0])
                continue
            under_way.discard(id(now))
            sizes[id(now)] = 1 + sum(sizes[id(each)] for each in below)
            pending.pop()
        if sizes[id(part)] > _MOST_IN_PLACE:
            yield (
                path,
                f"one value is held against more than {_MOST_IN_PLACE:,} parts here, references followed",
            )
            return


def _in_place(part: dict[str, Plain], root: dict[str, Plain]) -> list[dict[str, Plain]]:
    """Return the subschemas that are held against the same value as this one."""
    values: list[object] = [part.get(key) for key in _IN_PLACE_ONE]
    for key in _IN_PLACE_LISTS:
        listed = part.get(key)
        values += listed if isinstance(listed, list) else []
    dependent = part.get("dependentSchemas")
    values += dependent.values() if isinstance(dependent, dict) else []
    values.append(_target(part.get("$ref"), root))
    return [value for value in values if isinstance(value, dict)]


def _target(reference: object, root: dict[str, Plain]) -> dict[str, Plain] | bool | None:
    """Return what a reference means inside its schema; None where it means nothing there."""
    if not isinstance(reference, str) or not reference.startswith("#"):
        return None
    if reference[1:2] not in {"", "/"}:
        return None
    node: object = root
    for written in reference.removeprefix("#").split("/")[1:]:
        name = unquote(written).replace("~1", "/").replace("~0", "~")
        if isinstance(node, dict) and name in node:
            node = node[name]
        elif isinstance(node, list) and name.isdecimal() and len(name) < 6 and int(name) < len(node):
            node = node[int(name)]
        else:
            return None
    return node if isinstance(node, dict | bool) else None


# Judging.

_STEPS: ContextVar[Steps] = ContextVar("steps")
_ROOT: ContextVar[dict[str, Any]] = ContextVar("root")


def violations(schema: dict[str, Plain], instance: object, steps: Steps) -> list[ValidationError]:
    """Return what in `instance` breaks a schema without faults, in order of place.

    Raises:
        CostlySchemaError: when `steps` are used up, or schema and value go too deep.
    """
    steps_before, root_before = _STEPS.set(steps), _ROOT.set(schema)
    try:
        errors = list(_validator()(schema).iter_errors(instance))
    except TooCostlyError:
        raise CostlySchemaError(f"judging by it takes too long: more than {MOST_STEPS:,} steps") from None
    except RecursionError:
        raise CostlySchemaError("judging by it goes too deep: references lead from part to part") from None
    finally:
        _STEPS.reset(steps_before)
        _ROOT.reset(root_before)
    return sorted(errors, key=lambda error: list(map(str, error.absolute_path)))


@cache
def _validator() -> Any:
    """Jsonschema's class for draft 2020-12 with keywords that count, and some of our own."""
    # 60 ms, and only for configs with policies.
    from jsonschema import Draft202012Validator, validators  # noqa: PLC0415

    keywords = {
        **Draft202012Validator.VALIDATORS,
        "$ref": _ref,
        "additionalProperties": _additional_properties,
        "pattern": _pattern,
        "patternProperties": _pattern_properties,
        "uniqueItems": _unique_items,
    }
    counted = {name: _counted(keyword) for name, keyword in keywords.items() if name not in _REFUSED}
    # Keywords that are refused when a pack is read never get here; without an entry they would do nothing.
    return validators.create(
        meta_schema=Draft202012Validator.META_SCHEMA,
        validators=counted,
        type_checker=Draft202012Validator.TYPE_CHECKER,
    )


def _counted(keyword: Any) -> Any:
    def judge(validator: Any, value: Any, instance: Any, schema: Any) -> Iterator[ValidationError]:
        steps = _STEPS.get()
        steps.take(_KEYWORD_STEPS + (_nodes(value) if keyword.__name__ in _COMPARING else 0))
        for error in keyword(validator, value, instance, schema) or ():
            steps.take(_nodes(error.instance))  # its message holds the value's text
            yield error

    return judge


_COMPARING = ("const", "enum", "required", "dependentRequired")


def _nodes(value: object) -> int:
    """Return how many values a value is made of."""
    count, pending = 0, [value]
    while pending:
        count += 1
        now = pending.pop()
        pending += now.values() if isinstance(now, dict) else now if isinstance(now, list) else ()
    return count


def _ref(validator: Any, reference: str, instance: Any, _schema: Any) -> Iterator[ValidationError]:
    target = _target(reference, _ROOT.get())
    yield from validator.descend(instance, target)


def _pattern(validator: Any, text: str, instance: Any, _schema: Any) -> Iterator[ValidationError]:
    if validator.is_type(instance, "string") and not compile_pattern(text).search(instance, _STEPS.get()):
        yield _error(f"{instance!r} does not match {text!r}")


def _pattern_properties(
    validator: Any, patterns: dict[str, Any], instance: Any, _schema: Any
) -> Iterator[ValidationError]:
    if not validator.is_type(instance, "object"):
        return
    for text, below in patterns.items():
        for name, value in instance.items():
            if compile_pattern(text).search(name, _STEPS.get()):
                yield from validator.descend(value, below, path=name, schema_path=text)


def _additional_properties(
    validator: Any, below: Any, instance: Any, schema: Any
) -> Iterator[ValidationError]:
    if not validator.is_type(instance, "object"):
        return
    known, patterns = schema.get("properties", {}), schema.get("patternProperties", {})
    extras = [
        name
        for name in instance
        if name not in known
        and not any(compile_pattern(text).search(name, _STEPS.get()) for text in patterns)
    ]
    if isinstance(below, dict):
        for name in extras:
            yield from validator.descend(instance[name], below, path=name)
    elif below is False and extras:
        yield _error(f"more keys than allowed: {', '.join(map(shown, extras[:3]))}")


def _unique_items(validator: Any, wanted: bool, instance: Any, _schema: Any) -> Iterator[ValidationError]:
    if not wanted or not validator.is_type(instance, "array"):
        return
    _STEPS.get().take(_nodes(instance))
    texts = {json.dumps(item, sort_keys=True) for item in instance}
    if len(texts) < len(instance):
        yield _error("an item stands twice")


def _error(message: str) -> ValidationError:
    from jsonschema import ValidationError  # noqa: PLC0415 - loaded by now

    return ValidationError(message)
