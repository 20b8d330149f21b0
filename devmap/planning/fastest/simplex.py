"""A small dense linear program, solved by the simplex method with its dual prices.

Dantzig's rule, and Bland's (which cannot cycle) once that has taken long: G. Dantzig, "Linear Programming and
Extensions" (1963); R. Bland, "New finite pivoting rules for the simplex method" (1977). Callers must not
trust the last digits: here the prices are used where any non-negative prices give a valid bound.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["Optimum", "minimise"]

_TOLERANCE = 1e-9
_BIG = 1e5
"""The price of leaving an equation unmet; callers scale their costs to about 1."""
_DANTZIG_PIVOTS = 400
_MOST_PIVOTS = 1500


@dataclass(frozen=True, slots=True)
class Optimum:
    """The best point found and the prices of the `<=` rows, none negative."""

    values: tuple[float, ...]
    prices: tuple[float, ...]
    is_feasible: bool


def minimise(
    costs: Sequence[float],
    equal: Sequence[tuple[Sequence[float], float]],
    below: Sequence[tuple[Sequence[float], float]],
) -> Optimum:
    """Return the least of costs x over x >= 0, under two kinds of constraints.

    Every row of `equal` is met and every row of `below` is not exceeded; right sides are not negative.

    >>> minimise([1.0, 3.0], [([1.0, 1.0], 1.0)], [([1.0, 0.0], 0.25)]).values
    (0.25, 0.75)
    """
    variables, slacks, rows = len(costs), len(below), len(equal) + len(below)
    width = variables + slacks + len(equal)
    table: list[list[float]] = []
    basis: list[int] = []
    for number, (row, right) in enumerate(below):
        table.append([*row, *(float(number == at) for at in range(slacks)), *[0.0] * len(equal), right])
        basis.append(variables + number)
    for number, (row, right) in enumerate(equal):
        table.append([*row, *[0.0] * slacks, *(float(number == at) for at in range(len(equal))), right])
        basis.append(variables + slacks + number)
    reduced = [*costs, *[0.0] * slacks, *[_BIG] * len(equal), 0.0]
    for row in table[slacks:]:
        reduced = [cost - _BIG * amount for cost, amount in zip(reduced, row, strict=True)]
    for pivot in range(_MOST_PIVOTS):
        column = _entering(reduced, width, bland=pivot > _DANTZIG_PIVOTS)
        leaving = None if column is None else _leaving(table, basis, column)
        if column is None or leaving is None:
            break
        _pivot(table, reduced, leaving, column)
        basis[leaving] = column
    values = [0.0] * width
    for at, column in enumerate(basis):
        values[column] = table[at][-1]
    unmet = sum(values[variables + slacks :])
    prices = tuple(max(0.0, reduced[variables + at]) for at in range(slacks))
    return Optimum(tuple(values[:variables]), prices, unmet < 1e-6 * max(rows, 1))


def _entering(reduced: Sequence[float], width: int, *, bland: bool) -> int | None:
    if bland:
        return next((at for at in range(width) if reduced[at] < -_TOLERANCE), None)
    column = min(range(width), key=reduced.__getitem__)
    return column if reduced[column] < -_TOLERANCE else None


def _leaving(table: Sequence[Sequence[float]], basis: Sequence[int], column: int) -> int | None:
    ratios = [
        (row[-1] / row[column], basis[at], at) for at, row in enumerate(table) if row[column] > _TOLERANCE
    ]
    return min(ratios)[2] if ratios else None


def _pivot(table: list[list[float]], reduced: list[float], leaving: int, column: int) -> None:
    scale = 1.0 / table[leaving][column]
    row = [amount * scale for amount in table[leaving]]
    table[leaving] = row
    for at, other in enumerate(table):
        if at != leaving and other[column]:
            factor = other[column]
            table[at] = [amount - factor * own for amount, own in zip(other, row, strict=True)]
    factor = reduced[column]
    reduced[:] = [amount - factor * own for amount, own in zip(reduced, row, strict=True)]
