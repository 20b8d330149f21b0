from __future__ import annotations

import pytest

from devmap.errors import InventoryError
from devmap.inventory.table.expression import evaluate


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("a // b", 3),
        ("int(a * 0.25) + 1", 3),
        ("absent or a", 10),
        ("a and b", 3),
        ("not a", False),
        ("'x' in words", True),
        ("'x' in absent", False),
        ("nested.deep.value or 7", 5),
        ("nested.none.value or 7", 7),
        ("1 if a > b else 2", 1),
        ("[a, b]", [10, 3]),
        ("absent is None", True),
        ("min(a, b)", 3),
        ("-b", -3),
        ("a // b >> 1", 1),
        ("min(a, 64 // 2 >> number(-2)) * 2 - 1", 15),
        ("b if number(-1) in layers else a", 3),
    ],
)
def test_expressions_work_over_figures(expression: str, expected: object) -> None:
    figures = {"a": 10, "b": 3, "words": ["x"], "nested": {"deep": {"value": 5}, "none": None}, "layers": [4]}
    assert evaluate(expression, figures, numbers=(2, 4)) == expected


@pytest.mark.parametrize(
    "expression",
    [
        "a // 0",
        "absent * 2",
        "open('x')",
        "a.__class__()",
        "[x for x in a]",
        "number(-1)",
        "number(0)",
        "a >> -1",
    ],
)
def test_what_gives_no_value_is_an_error_of_the_config(expression: str) -> None:
    with pytest.raises(InventoryError, match="gives no value"):
        evaluate(expression, {"a": 1})
