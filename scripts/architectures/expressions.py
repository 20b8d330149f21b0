"""Expressions for the sizes of buffers that no checkpoint holds, found by comparing builds.

A size is a constant, the size of a stored tensor beside it, or what one or two figures of the config make. An
expression counts only if it gives every build's size.
"""

from __future__ import annotations

import itertools
import re
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from architectures.trees import Seen

__all__ = ["condition_of", "dimension_of", "figures_of", "layer_kinds", "scalar_of"]

Vector = np.ndarray[Any, np.dtype[np.float64]]


def figures_of(config: Any, scope: str) -> dict[str, Any]:
    """A nested config as config.json holds it."""
    for key in scope.split(".") if scope else ():
        config = getattr(config, key)
    found: dict[str, Any] = config.to_dict()
    kinds = getattr(config, "layer_types", None)
    if kinds and "layer_types" not in found and len(kinds) == getattr(config, "num_hidden_layers", None):
        found["layer_types"] = list(kinds)
    return found


def numbers_in(figures: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, float]]:
    """The numbers of a config by the expression that reads each."""
    for key, value in figures.items():
        if not isinstance(key, str) or not key.isidentifier():
            continue
        name = prefix + key
        if isinstance(value, bool):
            continue
        if key == "per_layer_config" and isinstance(value, dict):
            overrides = [each for each in value.values() if isinstance(each, dict)]
            for inner in dict.fromkeys(name for each in overrides for name in each):
                numbers = [each[inner] for each in overrides if type(each.get(inner)) is int]
                if numbers:
                    yield f"override('{inner}')", float(max(numbers))
            continue
        if isinstance(value, int | float):
            yield name, float(value)
        elif (
            isinstance(value, list | tuple)
            and value
            and len(value) <= 8
            and all(type(item) is int for item in value)
        ):
            yield f"len({name})", float(len(value))
            for place, item in enumerate(value):
                yield f"{name}[{place}]", float(item)
        elif isinstance(value, list | tuple) and value:
            yield f"len({name})", float(len(value))
        elif isinstance(value, dict) and prefix.count(".") < 2:
            yield from numbers_in(value, f"{name}.")


def _vectors(rows: Sequence[Mapping[str, float]]) -> dict[str, Vector]:
    names = dict.fromkeys(name for row in rows for name in row)
    return {name: np.array([row.get(name, np.nan) for row in rows]) for name in names}


def dimension_of(
    name: str, seen: Sequence[Seen], figures: Sequence[Mapping[str, Any]], place: int
) -> str | None:
    """The expression of one size over all builds."""
    wanted = np.array([float(each.shape[place]) for each in seen])
    is_constant = bool((wanted == wanted[0]).all())
    if is_constant and name.endswith("inv_freq") and wanted[0] > 1:
        with np.errstate(all="ignore"):
            usual = _by_rope(wanted, _vectors([dict(numbers_in(row)) for row in figures]))
        if usual is not None:  # no build had another head size: the usual rule is the better guess
            return usual
    if is_constant and not name.endswith(("position_ids", "token_type_ids")):
        return str(int(wanted[0]))
    beside = [
        {
            f"size('{name}', {dim})": float(size)
            for name, shape in each.sizes.items()
            for dim, size in enumerate(shape)
        }
        for each in seen
    ]
    if is_constant:
        # Positions are numbered as far as there are embeddings for them, if any stand beside.
        embedded = {
            key: sizes
            for key, sizes in _vectors(beside).items()
            if "position" in key and key.endswith(", 0)")
        }
        equal = [key for key, sizes in embedded.items() if wanted[0] > 1 and _equal(sizes, wanted)]
        return equal[0] if equal else str(int(wanted[0]))
    sizes_beside = _vectors(beside)
    for key, sizes in sizes_beside.items():  # a window's pairs of places, from the table of their distances
        edge = (np.floor(np.sqrt(sizes)) + 1) // 2
        side = f"((isqrt({key}) + 1) // 2)"
        for times in (2, 4):
            if _equal(edge**times, wanted):
                return " * ".join([side] * times)
    if _differs_within_a_build(wanted, seen):
        return _by_number(name, wanted, seen, figures, place)
    found = _search(wanted, sizes_beside, pairs=False)
    return found or scalar_of(wanted, figures)


def _differs_within_a_build(wanted: Vector, seen: Sequence[Seen]) -> bool:
    of_build: dict[int, float] = {}
    return any(
        of_build.setdefault(id(each.build), size) != size for each, size in zip(seen, wanted, strict=True)
    )


def _by_number(
    name: str,
    wanted: Vector,
    seen: Sequence[Seen],
    figures: Sequence[Mapping[str, Any]],
    place: int,
) -> str | None:
    """A size that differs between the layers of one model: by lists of their numbers, or by stage."""
    depth = min(len(each.numbers) for each in seen)
    by_stage = _by_stage(wanted, seen, figures, depth)
    if by_stage is not None:
        return by_stage
    lists = [
        key
        for key in dict.fromkeys(key for row in figures for key in row)
        if re.search(r"layers?(_ids?|_idx|_indices)?$|indexe?s$", key)
        and all(isinstance(row.get(key), list) and row[key] for row in figures)
    ]
    for back, key in itertools.product(range(1, depth + 1), lists):
        inside = [each.numbers[-back] in row[key] for each, row in zip(seen, figures, strict=True)]
        halves = [
            [place for place, is_inside in enumerate(inside) if is_inside is side] for side in (True, False)
        ]
        if not all(halves):
            continue
        found = [
            dimension_of(name, [seen[n] for n in half], [figures[n] for n in half], place) for half in halves
        ]
        if None not in found:
            return f"{found[0]} if number(-{back}) in {key} else {found[1]}"
    return None


def _by_stage(
    wanted: Vector, seen: Sequence[Seen], figures: Sequence[Mapping[str, Any]], depth: int
) -> str | None:
    """A size that follows a window: stages halve the image, and no window is larger than what is left."""
    vectors = _vectors([dict(numbers_in(row)) for row in figures])
    moving = {
        key: vector
        for key, vector in vectors.items()
        if not np.isnan(vector).any() and (vector >= 1).all() and not (vector == vector[0]).all()
    }
    for back in range(1, depth + 1):
        halvings = 2.0 ** np.array([each.numbers[-back] for each in seen])
        for window, image, patch in itertools.permutations(moving, 3):
            side = np.minimum(moving[window], moving[image] // moving[patch] // halvings)
            text = f"min({window}, {image} // {patch} >> number(-{back}))"
            for form, found in (("{a} * 2 - 1", side * 2 - 1), ("{a} * {a}", side * side), ("{a}", side)):
                if _equal(found, wanted):
                    return form.format(a=text)
    return None


def scalar_of(wanted: Vector, figures: Sequence[Mapping[str, Any]]) -> str | None:
    """The expression over figures of the config that gives a number in every build."""
    return _search(wanted, _vectors([dict(numbers_in(row)) for row in figures]), pairs=True)


_ONE: tuple[tuple[str, Any], ...] = (
    ("{a}", lambda a: a),
    ("{a} + 1", lambda a: a + 1),
    ("{a} + 2", lambda a: a + 2),
    ("{a} - 1", lambda a: a - 1),
    ("({a} + 1) // 2", lambda a: (a + 1) // 2),
    ("{a} // 2", lambda a: a // 2),
    ("{a} // 4", lambda a: a // 4),
    ("{a} // 3", lambda a: a // 3),
    ("{a} * 2", lambda a: a * 2),
    ("{a} * 3", lambda a: a * 3),
    ("{a} * 4", lambda a: a * 4),
    ("{a} * {a}", lambda a: a * a),
    ("{a} * 2 - 1", lambda a: a * 2 - 1),
    ("{a} * 2 + 1", lambda a: a * 2 + 1),
    ("{a} // 2 + 1", lambda a: a // 2 + 1),
    ("({a} * 2 - 1) * ({a} * 2 - 1) + 3", lambda a: (a * 2 - 1) ** 2 + 3),
    ("{a} // 8", lambda a: a // 8),
    ("{a} // 16", lambda a: a // 16),
    ("{a} - 2", lambda a: a - 2),
    ("{a} + 3", lambda a: a + 3),
)
_TWO: tuple[tuple[str, Any], ...] = (
    ("{a} // {b}", lambda a, b: a // b),
    ("({a} // {b} + 1) // 2", lambda a, b: (a // b + 1) // 2),
    ("{a} // {b} // 2", lambda a, b: a // b // 2),
    ("{a} // {b} // 4", lambda a, b: a // b // 4),
    ("{a} // {b} // 6", lambda a, b: a // b // 6),
    ("({a} // {b}) * ({a} // {b})", lambda a, b: (a // b) ** 2),
    ("({a} // {b}) * ({a} // {b}) + 1", lambda a, b: (a // b) ** 2 + 1),
    ("({a} // {b}) * ({a} // {b}) + 2", lambda a, b: (a // b) ** 2 + 2),
    ("int({a} * {b})", lambda a, b: np.floor(a * b)),
    ("(int({a} * {b}) + 1) // 2", lambda a, b: (np.floor(a * b) + 1) // 2),
    ("int({a} * {b}) // 2", lambda a, b: np.floor(a * b) // 2),
    ("{a} + {b}", lambda a, b: a + b),
    ("{a} + {b} + 1", lambda a, b: a + b + 1),
    ("{a} + {b} + 3", lambda a, b: a + b + 3),
    ("{a} - {b}", lambda a, b: a - b),
    ("{a} + {b} - 1", lambda a, b: a + b - 1),
    ("{a} * {b} + 1", lambda a, b: a * b + 1),
    ("{a} + 2 * {b}", lambda a, b: a + 2 * b),
    ("{a} // {b} + 1", lambda a, b: a // b + 1),
    ("{a} * 2 + {b}", lambda a, b: a * 2 + b),
    ("({a} - {b}) // 2", lambda a, b: (a - b) // 2),
)
_THREE: tuple[tuple[str, Any], ...] = (
    ("(int({a} // {b} * {c}) + 1) // 2", lambda a, b, c: (np.floor(a // b * c) + 1) // 2),
    ("(int({c} * {a}) // {b} + 1) // 2", lambda a, b, c: (np.floor(c * a) // b + 1) // 2),
    ("({a} // {b}) * ({a} // {b}) * {c}", lambda a, b, c: (a // b) ** 2 * c),
    ("({a} // {b}) * ({a} // {b}) + {c}", lambda a, b, c: (a // b) ** 2 + c),
    ("{a} * {b} // {c}", lambda a, b, c: a * b // c),
    ("{a} * {b} // {c} // 2", lambda a, b, c: a * b // c // 2),
    ("{a} // {b} // {c}", lambda a, b, c: a // b // c),
    ("{a} // ({b} * {c}) // 4", lambda a, b, c: a // (b * c) // 4),
    ("{a} * {b} * {c}", lambda a, b, c: a * b * c),
    ("{a} // {b} + {c}", lambda a, b, c: a // b + c),
    ("({a} // {b}) * ({a} // {c})", lambda a, b, c: (a // b) * (a // c)),
    ("({a} // {c}) * ({b} // {c})", lambda a, b, c: (a // c) * (b // c)),
    ("({a} // {c}) * ({b} // {c}) + 1", lambda a, b, c: (a // c) * (b // c) + 1),
    ("{a} + {b} - {c}", lambda a, b, c: a + b - c),
    ("{a} + {b} + {c}", lambda a, b, c: a + b + c),
)


def _search(wanted: Vector, vectors: dict[str, Vector], *, pairs: bool) -> str | None:
    with np.errstate(all="ignore"):
        varying = {
            name: vector
            for name, vector in vectors.items()
            if not (vector == vector[0]).all() or name.count(".")
        }
        for text, function in _ONE:
            for name, vector in varying.items():
                if _equal(function(vector), wanted):
                    return text.format(a=name)
        if not pairs:
            return None
        found = _by_pairs(wanted, vectors, varying) or _by_rope(wanted, vectors)
        if found:
            return found
        moving = {
            name: vector
            for name, vector in varying.items()
            if not np.isnan(vector).any() and (vector > 0).all()
        }
        if len(moving) > _MOST_IN_THREES:
            moving = {name: vector for name, vector in moving.items() if _matters(vector, wanted)}
        if len(moving) <= _MOST_IN_THREES:
            for names in itertools.permutations(moving, 3):
                a, b, c = (moving[name] for name in names)
                for text, function in _THREE:
                    if _equal(function(a, b, c), wanted):
                        return text.format(a=names[0], b=names[1], c=names[2])
    return None


_MOST_IN_THREES = 40
"""Figures of which every three are tried: 59,280 orders of them."""


def _matters(vector: Vector, wanted: Vector) -> bool:
    """Whether a figure's change changed the size in some build; each build changes one figure."""
    return bool((wanted[vector != _usual(vector)] != _usual(wanted)).any())


def _usual(vector: Vector) -> float:
    values, counts = np.unique(vector, return_counts=True)
    return float(values[counts.argmax()])


def _by_pairs(wanted: Vector, vectors: dict[str, Vector], varying: dict[str, Vector]) -> str | None:
    for first, second in itertools.product(varying, vectors):
        if first == second:
            continue
        a, b = vectors[first], vectors[second]
        for text, function in _TWO:
            if _equal(function(a, b), wanted):
                return text.format(a=first, b=second)
            if _equal(function(b, a), wanted):
                return text.format(a=second, b=first)
        if np.isnan(a).any() and _equal(np.where(np.isnan(a), b, a), wanted):
            return f"{first} or {second}"
    return None


_SHARES = (
    "rope_parameters.partial_rotary_factor",
    "rope_parameters.full_attention.partial_rotary_factor",
    "rope_parameters.sliding_attention.partial_rotary_factor",
    "partial_rotary_factor",
    "rotary_pct",
)


def _by_rope(wanted: Vector, vectors: dict[str, Vector]) -> str | None:
    """Half of a head's rotated part: the head's size is given, or the hidden size over the heads."""
    one = np.ones_like(wanted)
    shares: list[tuple[str, Vector]] = [("1.0", one)]
    for name in _SHARES:
        if name in vectors:
            vector = vectors[name]
            shares.append((name, vector))
            shares += [
                (f"({name} or {default})", np.where(np.isnan(vector), default, vector))
                for default in (1.0, 0.5, 0.25, 0.75)
            ]
    heads = {name: vector for name, vector in vectors.items() if "head" in name or name.startswith("n_")}
    widths = {
        name: vector
        for name, vector in vectors.items()
        if re.search(r"dim|hidden_size|d_model|n_embd|head_size", name)
        and not re.search(r"vocab|per_layer_input", name)
    }
    sizes: list[tuple[str, Vector]] = list(widths.items())
    for width, head in itertools.product(widths, heads):
        quotient = widths[width] // heads[head]
        sizes.append((f"({width} // {head})", quotient))
        sizes += [
            (f"({given} or {width} // {head})", np.where(np.isnan(vectors[given]), quotient, vectors[given]))
            for given in ("head_dim", "kv_channels", "attention_head_dim")
            if given in vectors
        ]
    for (size_text, size), (share_text, share) in itertools.product(sizes, shares):
        if share_text == "1.0":
            if _equal((size + 1) // 2, wanted):
                return f"({size_text} + 1) // 2"
            if _equal(size // 4, wanted):
                return f"{size_text} // 4"
        elif _equal((np.floor(size * share) + 1) // 2, wanted):
            return f"(int({size_text} * {share_text}) + 1) // 2"
    return None


def _equal(found: Vector, wanted: Vector) -> bool:
    return bool((found == wanted).all())


def condition_of(present: Sequence[bool], figures: Sequence[Mapping[str, Any]], name: str) -> str | None:
    """The expression that holds in just the builds that have a buffer of this name."""
    if all(present):
        return "True"
    for kind in ("full_attention", "sliding_attention", "chunked_attention", "linear_attention"):
        if name.startswith((f"{kind}_", f"original_{kind}")) and all(
            (kind in (row.get("layer_types") or ())) == there
            for row, there in zip(figures, present, strict=True)
        ):
            return f"'{kind}' in layer_types"
    keys = dict.fromkeys(key for row in figures for key in row if isinstance(key, str) and key.isidentifier())
    for key in keys:
        values = [row.get(key) for row in figures]
        if [bool(value) for value in values] == list(present):
            return key
        if [not value for value in values] == list(present):
            return f"not {key}"
        if [value is None for value in values] == list(present):
            return f"{key} is None"
        if [value is not None for value in values] == list(present):
            return f"{key} is not None"
    for key in keys:
        values = [row.get(key) for row in figures]
        for value in {
            value for value in values if isinstance(value, str | int) and not isinstance(value, bool)
        }:
            if [each == value for each in values] == list(present):
                return f"{key} == {value!r}"
            if [each != value for each in values] == list(present):
                return f"{key} != {value!r}"
    return None


@cache
def _periods() -> tuple[int, ...]:
    return tuple(range(2, 13))


def layer_kinds(lists: Sequence[Sequence[Any]], figures: Sequence[Mapping[str, Any]]) -> str | None:
    """The expression for one layer's kind, of which the number is `i`."""
    kinds = sorted({str(kind) for kinds in lists for kind in kinds})
    if len(kinds) == 1:
        return repr(kinds[0])
    if len(kinds) != 2:
        return None
    first, second = kinds
    for key in dict.fromkeys(
        key for row in figures for key in row if isinstance(key, str) and key.isidentifier()
    ):
        members = [row.get(key) or () for row in figures]
        if not all(isinstance(each, list | tuple) for each in members):
            continue
        for one, other in ((first, second), (second, first)):
            if all(
                list(map(str, kinds_)) == [one if i in members[n] else other for i in range(len(kinds_))]
                for n, kinds_ in enumerate(lists)
            ):
                return f"{one!r} if i in {key} else {other!r}"
    found = _by_offset(lists, figures, first, second)
    if found:
        return found
    periods = [str(period) for period in _periods()]
    periods += [
        key
        for key in dict.fromkeys(
            key for row in figures for key in row if isinstance(key, str) and key.isidentifier()
        )
        if all(type(row.get(key)) is int and 1 < row[key] < 100 for row in figures)
    ]
    for text in ("(i + 1) % {p}", "i % {p}"):
        for period in periods:
            size = [int(period) if period.isdecimal() else row[period] for row in figures]
            for one, other in ((first, second), (second, first)):
                add = 1 if text.startswith("(") else 0
                if all(
                    list(map(str, kinds_))
                    == [one if (i + add) % size[n] else other for i in range(len(kinds_))]
                    for n, kinds_ in enumerate(lists)
                ):
                    return f"{one!r} if {text.format(p=period)} else {other!r}"
    return None


def _by_offset(
    lists: Sequence[Sequence[Any]], figures: Sequence[Mapping[str, Any]], first: str, second: str
) -> str | None:
    """Every so many layers, from an offset on: both are figures."""
    names = [
        key
        for key in dict.fromkeys(
            key for row in figures for key in row if isinstance(key, str) and key.isidentifier()
        )
        if re.search(r"period|offset|interval|step|every|frequency", key)
        and all(type(row.get(key)) is int for row in figures)
    ]
    for period, offset in itertools.permutations(names, 2):
        for one, other in ((first, second), (second, first)):
            if all(
                figures[n][period] > 0
                and list(map(str, kinds))
                == [one if i % figures[n][period] == figures[n][offset] else other for i in range(len(kinds))]
                for n, kinds in enumerate(lists)
            ):
                return f"{one!r} if i % {period} == {offset} else {other!r}"
    return None
