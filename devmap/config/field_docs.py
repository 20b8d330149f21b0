"""The docstrings under the fields of the models, for the JSON Schema.

pydantic can collect them while the classes are made, which takes a third of the time to import them; only the schema
needs them.
"""

from __future__ import annotations

import ast
import inspect

from devmap.config import model

__all__ = ["field_docs"]


def field_docs() -> dict[str, dict[str, str]]:
    """By class and field, each docstring on one line."""
    tree = ast.parse(inspect.getsource(model))
    return {node.name: _docs_of(node) for node in tree.body if isinstance(node, ast.ClassDef)}


def _docs_of(definition: ast.ClassDef) -> dict[str, str]:
    found: dict[str, str] = {}
    for field, after in zip(definition.body, definition.body[1:], strict=False):
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name) and isinstance(after, ast.Expr):
            text = after.value.value if isinstance(after.value, ast.Constant) else None
            if isinstance(text, str):
                found[field.target.id] = " ".join(text.split())
    return found
