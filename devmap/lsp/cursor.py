"""Where the cursor stands in a config that is being typed, which is seldom a whole YAML file.

The YAML reader wants a file that is right; completion is asked for where it is not yet. So the place is
found by indentation and brackets: enough for configs, whose keys are plain words and dotted paths.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["Cursor", "cursor_at"]

_ENTRY = re.compile(
    r"""^(?P<indent>[ ]*)(?P<dash>-[ ]+)?(?P<key>"[^"]*"|'[^']*'|[^\s#:'"\-\[{][^:#]*?)[ ]*:(?:[ ]|$)"""
)
_TYPED = re.compile(r"""^(?P<indent>[ ]*)(?P<dash>-[ ]*)?(?P<word>["']?[^\s:#,{}]*)$""")
_OPEN, _CLOSE = "{[", "}]"


@dataclass(frozen=True, slots=True)
class Cursor:
    """What is being typed."""

    path: tuple[str, ...]
    """The keys above: `("device_map",)` inside the device map, `()` at the top of the file."""
    word: str
    """What stands before the cursor of the key or value, without an opening quote."""
    key: str | None
    """The key whose value is typed; None where a key, or an entry of a list, is typed."""
    in_list: bool = False


def cursor_at(lines: Sequence[str], line: int, column: int) -> Cursor | None:
    """Return where a cursor stands; None in a comment, or where that cannot be told.

    `line` and `column` count from 0, columns in code points.
    """
    if not 0 <= line < len(lines):
        return None
    before = lines[line][:column]
    if re.search(r"(^|\s)#", before):
        return None
    flow = _in_flow(lines, line, before)
    return flow if flow is not None else _in_block(lines, line, before)


def _in_block(lines: Sequence[str], line: int, before: str) -> Cursor | None:
    entry = _ENTRY.match(before)
    if entry is not None:
        value = before[entry.end() :].lstrip()
        path = _above(lines, line, len(entry["indent"]) + len(entry["dash"] or ""))
        return Cursor(path, value.lstrip("\"'"), _unquoted(entry["key"]))
    typed = _TYPED.match(before)
    if typed is None:
        return None
    # A list may stand as far to the left as the key that holds it.
    indent = len(typed["indent"]) + (1 if typed["dash"] else 0)
    return Cursor(
        _above(lines, line, indent), typed["word"].lstrip("\"'"), None, in_list=typed["dash"] is not None
    )


def _above(lines: Sequence[str], line: int, indent: int) -> tuple[str, ...]:
    """Return the keys that hold what is indented by so many blanks at a line."""
    found: list[str] = []
    for text in reversed(lines[:line]):
        entry = _ENTRY.match(text)
        if entry is None or text.lstrip().startswith("#"):
            continue
        depth = len(entry["indent"]) + len(entry["dash"] or "")
        if depth < indent:
            found.append(_unquoted(entry["key"]))
            indent = len(entry["indent"])
        if not indent:
            break
    return tuple(reversed(found))


def _in_flow(lines: Sequence[str], line: int, before: str) -> Cursor | None:
    """Inside brackets, which may have been opened a few lines above."""
    first = line
    while first and lines[first].startswith((" ", "}", "]")) and line - first < 50:
        first -= 1
    text = "\n".join([*lines[first:line], before])
    stack = _open_brackets(text)
    if not stack:
        return None
    path: list[str] = []
    begins = 0
    for at, _ in stack:
        key = re.search(r"""(?:^|[\s{,])("[^"]*"|'[^']*'|[^\s{},:]+)\s*:\s*$""", text[begins:at])
        if key is not None:
            path.append(_unquoted(key[1]))
        begins = at + 1
    head = text[: stack[0][0]]
    start = first + head.count("\n")
    indent = len(lines[start]) - len(lines[start].lstrip(" "))
    opened, kind = stack[-1]
    # What is typed begins after the last comma of this bracket; inner brackets are closed.
    typed = re.split(r",\s*", re.sub(r"[\[{][^\[{\]}]*[\]}]", "", text[opened + 1 :]))[-1].lstrip()
    whole = (*_above(lines, start, indent), *path)
    if kind == "{" and (value := re.match(r"""("[^"]*"|'[^']*'|[^:"']*?)\s*:\s*(.*)$""", typed, re.DOTALL)):
        return Cursor(whole, value[2].lstrip("\"'"), _unquoted(value[1]))
    return Cursor(whole, typed.lstrip("\"'"), None, in_list=kind == "[")


def _open_brackets(text: str) -> list[tuple[int, str]]:
    """Return the brackets that are open at the end of a text, outside of quotes.

    Where each stands, and which it is.

    The first has to follow a key; a bracket in a plain path, as in `layers[0-3]`, is part of the path.
    """
    stack: list[tuple[int, str]] = []
    quote = ""
    for at, character in enumerate(text):
        if quote:
            quote = "" if character == quote else quote
        elif character in "\"'" and (at == 0 or text[at - 1] in " {[,:\n"):
            quote = character
        elif character in _OPEN and re.search(r"[:\[{,]\s*$", text[:at]):
            stack.append((at, character))
        elif character in _CLOSE and stack and (stack[-1][1] == "{") == (character == "}"):
            stack.pop()
    return stack


def _unquoted(text: str) -> str:
    return text.strip().strip("\"'")
