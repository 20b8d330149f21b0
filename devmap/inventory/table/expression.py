"""Small expressions over the figures of a config: `hidden_size // num_attention_heads`.

The built-in table states with them what depends on a model's size: counts of layers, shapes of buffers that
no checkpoint holds. They are arithmetic, comparisons, `and`, `or`, `not`, `in`, `if`-`else`, `items[0]`,
`len(...)`, `isqrt(...)`, `override('head_dim')`, the largest that a layer of its own config has, `int(...)`
and `size('proj.weight', 0)`, a size of a stored tensor; an absent figure is None.
"""

from __future__ import annotations

import ast
import functools
import math
import operator
from typing import TYPE_CHECKING, Any, NamedTuple

from devmap.errors import InventoryError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

__all__ = ["evaluate"]

_BINARY: dict[type[ast.operator], Callable[[Any, Any], object]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
    ast.RShift: operator.rshift,
}
_UNARY: dict[type[ast.unaryop], Callable[[Any], object]] = {ast.Not: operator.not_, ast.USub: operator.neg}
_COMPARE: dict[type[ast.cmpop], Callable[[Any, Any], object]] = {
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.Lt: operator.lt,
    ast.GtE: operator.ge,
    ast.Gt: operator.gt,
    ast.LtE: operator.le,
    ast.Is: operator.is_,
    ast.IsNot: operator.is_not,
    ast.In: lambda item, items: item in (items or ()),
}


def evaluate(
    expression: str,
    figures: Mapping[str, object],
    size: Callable[[str, int], int | None] = lambda _name, _dim: None,
    numbers: Sequence[int] = (),
) -> object:
    """Return the value of an expression; a dotted name reaches into a nested mapping.

    `size('weight', 0)` is a size of a stored tensor, `number(-1)` the last of `numbers`, which are those in
    a module's path.

    >>> evaluate("hidden_size // num_heads", {"hidden_size": 64, "num_heads": 4})
    16
    >>> evaluate("rope.factor or 1", {"rope": None})
    1

    Raises:
        InventoryError: when a figure has a type that the arithmetic cannot work with.
    """
    try:
        return _value(_parsed(expression), _Scope(figures, size, numbers))
    except (TypeError, ValueError, ZeroDivisionError, OverflowError) as error:
        raise InventoryError(
            f"config.json gives no value for '{expression}': {error}",
            help="compare config.json with the model's own",
        ) from None


class _Scope(NamedTuple):
    figures: Mapping[str, object]
    size: Callable[[str, int], int | None]
    numbers: Sequence[int]


@functools.cache
def _parsed(expression: str) -> ast.expr:
    return ast.parse(expression, mode="eval").body


def _value(node: ast.expr, scope: _Scope) -> object:
    handler = _HANDLERS.get(type(node))
    if handler is None:
        raise ValueError(f"'{ast.unparse(node)}' is not understood")
    return handler(node, scope)


def _attribute(node: ast.Attribute, scope: _Scope) -> object:
    found = _value(node.value, scope)
    return found.get(node.attr) if isinstance(found, dict) else None


def _binary(node: ast.BinOp, scope: _Scope) -> object:
    return _BINARY[type(node.op)](_value(node.left, scope), _value(node.right, scope))


def _comparison(node: ast.Compare, scope: _Scope) -> object:
    return _COMPARE[type(node.ops[0])](_value(node.left, scope), _value(node.comparators[0], scope))


def _junction(node: ast.BoolOp, scope: _Scope) -> object:
    found: object = None
    for value in node.values:
        found = _value(value, scope)
        if bool(found) is not isinstance(node.op, ast.And):
            break
    return found


def _call(node: ast.Call, scope: _Scope) -> object:
    name = node.func.id if isinstance(node.func, ast.Name) else ""
    values = [_value(each, scope) for each in node.args]
    match name, values:
        case "int" | "isqrt", [int() | float() as number]:
            return int(number) if name == "int" else math.isqrt(max(0, int(number)))
        case "override", [str() as key]:
            return _override(scope.figures.get("per_layer_config"), key)
        case "min", [int() as one, int() as other]:
            return min(one, other)
        case "number", [int() as place] if -len(scope.numbers) <= place < 0:
            return scope.numbers[place]
        case "len", [list() as items]:
            return len(items)
        case "size", [str() as tensor, int() as dim]:
            return scope.size(tensor, dim)
        case _:
            # A fault of the expression, told like all others.
            raise ValueError(f"'{ast.unparse(node)}' is not understood")


def _override(layers: object, key: str) -> int | None:
    """Return the largest value that a layer's own config gives a figure."""
    own = (
        [layer.get(key) for layer in layers.values() if isinstance(layer, dict)]
        if isinstance(layers, dict)
        else []
    )
    return max((value for value in own if isinstance(value, int)), default=None)


def _item(node: ast.Subscript, scope: _Scope) -> object:
    items, place = _value(node.value, scope), _value(node.slice, scope)
    if isinstance(items, list) and isinstance(place, int) and place < len(items):
        return items[place]
    return items if isinstance(items, int) else None


_HANDLERS: dict[type[ast.expr], Callable[[Any, _Scope], object]] = {
    ast.Constant: lambda node, _: node.value,
    ast.Name: lambda node, scope: scope.figures.get(node.id),
    ast.List: lambda node, scope: [_value(item, scope) for item in node.elts],
    ast.IfExp: lambda node, scope: _value(node.body if _value(node.test, scope) else node.orelse, scope),
    ast.UnaryOp: lambda node, scope: _UNARY[type(node.op)](_value(node.operand, scope)),
    ast.Attribute: _attribute,
    ast.BinOp: _binary,
    ast.Compare: _comparison,
    ast.BoolOp: _junction,
    ast.Call: _call,
    ast.Subscript: _item,
}
