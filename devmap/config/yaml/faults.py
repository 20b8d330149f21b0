"""Faults: what is wrong with a config as a file, and where it stands.

A fault is found before there is a model to check against; `devmap.checking` turns it into a finding.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from devmap.config.yaml.source import Position

__all__ = ["DocumentPath", "Edit", "Fault"]

DocumentPath = tuple[str | int, ...]
"""Where a node stands in a document: `("max_memory", "0")`. Keys of mappings are text, places in lists are
ints."""


@dataclass(frozen=True, slots=True)
class Edit:
    """A safe change of a file: the text between two positions is replaced."""

    position: Position
    replacement: str
    description: str


@dataclass(frozen=True, slots=True)
class Fault:
    """One problem of a file: its rule's code, a message, what to do, and its place."""

    code: str
    message: str
    position: Position
    path: DocumentPath = ()
    help: str = ""
    label: str = ""
    """The words beside the caret, such as `did you mean 'model.layers.0'?`."""
    edit: Edit | None = None
    severity: Literal["error", "warning"] = "error"
