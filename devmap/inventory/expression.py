"""Small expressions over the figures of a config: `hidden_size // num_attention_heads`.

The built-in table states with them what depends on a model's size: counts of layers, shapes of buffers that
no checkpoint holds. They are arithmetic, comparisons, `and`, `or`, `not`, `in`, `if`-`else` and `int(...)`;
an absent figure is None.
"""

from __future__ import annotations

import ast
import functools
import operator
from typing import TYPE_CHECKING, Any

from devmap.errors import InventoryError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

__all__ = ["evaluate"]

_BINARY: dict[type[ast.operator], Callable[[Any, Any], object]] = {
    ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.FloorDiv: operator.floordiv, ast.Mod: operator.mod,
}  # fmt: skip
_COMPARE: dict[type[ast.cmpop], Callable[[Any, Any], object]] = {
    ast.Eq: operator.eq, ast.NotEq: operator.ne, ast.Lt: operator.lt, ast.GtE: operator.ge, ast.Gt: operator.gt, ast.LtE: operator.le,
    ast.Is: operator.is_, ast.IsNot: operator.is_not, ast.In: lambda item, items: item in (items or ()),
}  # fmt: skip


def evaluate(expression: str, figures: Mapping[str, object]) -> object:
    """The value of an expression; a dotted name reaches into a nested mapping.

    >>> evaluate("hidden_size // num_heads", {"hidden_size": 64, "num_heads": 4})
    16
    >>> evaluate("rope.factor or 1", {"rope": None})
    1

    Raises:
        InventoryError: when a figure has a type that the arithmetic cannot work with.
    """
    try:
        return _value(_parsed(expression), figures)
    except (TypeError, ValueError, ZeroDivisionError, OverflowError) as error:
        raise InventoryError(
            f"config.json gives no value for '{expression}': {error}",
            help="compare config.json with the model's own",
        ) from None


@functools.cache
def _parsed(expression: str) -> ast.expr:
    return ast.parse(expression, mode="eval").body


def _value(node: ast.expr, figures: Mapping[str, object]) -> object:
    handler = _HANDLERS.get(type(node))
    if handler is None:
        raise ValueError(f"'{ast.unparse(node)}' is not understood")
    return handler(node, figures)


def _attribute(node: ast.Attribute, figures: Mapping[str, object]) -> object:
    found = _value(node.value, figures)
    return found.get(node.attr) if isinstance(found, dict) else None


def _binary(node: ast.BinOp, figures: Mapping[str, object]) -> object:
    return _BINARY[type(node.op)](_value(node.left, figures), _value(node.right, figures))


def _comparison(node: ast.Compare, figures: Mapping[str, object]) -> object:
    return _COMPARE[type(node.ops[0])](_value(node.left, figures), _value(node.comparators[0], figures))


def _junction(node: ast.BoolOp, figures: Mapping[str, object]) -> object:
    found: object = None
    for value in node.values:
        found = _value(value, figures)
        if bool(found) is not isinstance(node.op, ast.And):
            break
    return found


def _call(node: ast.Call, figures: Mapping[str, object]) -> object:
    number = (
        _value(node.args[0], figures)
        if isinstance(node.func, ast.Name) and node.func.id == "int" and node.args
        else None
    )
    if not isinstance(number, int | float):
        # A fault of the expression, told like all others.
        raise ValueError(f"'{ast.unparse(node)}' is not understood")  # noqa: TRY004
    return int(number)


_HANDLERS: dict[type[ast.expr], Callable[[Any, Mapping[str, object]], object]] = {
    ast.Constant: lambda node, _: node.value,
    ast.Name: lambda node, figures: figures.get(node.id),
    ast.List: lambda node, figures: [_value(item, figures) for item in node.elts],
    ast.IfExp: lambda node, figures: _value(
        node.body if _value(node.test, figures) else node.orelse, figures
    ),
    ast.UnaryOp: lambda node, figures: not _value(node.operand, figures),
    ast.Attribute: _attribute,
    ast.BinOp: _binary,
    ast.Compare: _comparison,
    ast.BoolOp: _junction,
    ast.Call: _call,
}
