"""Changes to a config for one run.

`--set key.path=value` on the command line, a list or a mapping in a program.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, TypeAlias

from devmap.config.yaml.positions import NodePosition
from devmap.config.yaml.reader import read_yaml
from devmap.config.yaml.source import Source
from devmap.errors import UsageError

if TYPE_CHECKING:
    from devmap.config.yaml.faults import DocumentPath
    from devmap.config.yaml.reader import Plain

__all__ = ["Overrides", "apply_override", "override_texts"]

Overrides: TypeAlias = Sequence[str] | Mapping[str, object]
"""Texts such as `max_memory.cpu=64GB`, or a mapping such as `{"max_memory.cpu": "64GB"}`."""

_TOO_LATE = ("extends", "profiles")


def override_texts(overrides: Overrides) -> tuple[str, ...]:
    """Return overrides as `--set` takes them; a mapping's keys are paths, its values plain Python values.

    >>> override_texts({"max_memory.cpu": "64GB", "headroom": None})
    ('max_memory.cpu="64GB"', 'headroom=null')

    Raises:
        UsageError: when they are one text rather than several, or a key is no text.
    """
    if isinstance(overrides, str):
        raise UsageError(
            f"overrides={overrides!r} is one text", help=f"pass a list, [{overrides!r}], or a mapping"
        )
    if not isinstance(overrides, Mapping):
        return tuple(overrides)
    for key in overrides:
        if not isinstance(key, str):
            raise UsageError(
                f"the key {key!r} of overrides is no text", help="write {'max_memory.0': '20GB'}"
            )
    # JSON is YAML. What is no JSON (a path, a torch.dtype) is meant by its name.
    return tuple(
        f"{key}={json.dumps(value, ensure_ascii=False, default=_word)}" for key, value in overrides.items()
    )


def _word(value: object) -> str:
    return str(value).removeprefix("torch.")


def apply_override(
    data: dict[str, Plain], positions: Mapping[DocumentPath, NodePosition], override: str
) -> tuple[dict[str, Plain], dict[DocumentPath, NodePosition]]:
    """Return the data with one `key.path=value` applied; the value is read as YAML. The input is not changed.

    A key that holds dots goes in brackets: `device_map[model.layers[0-3]]=cpu`.

    Raises:
        UsageError: when the text is no `key=value`, or a part of the path is no mapping.
    """
    path, text = _split(override)
    if path[0] in _TOO_LATE:
        raise UsageError(
            f"--set {override}: '{path[0]}' is read before --set is", help="change the file, or use --profile"
        )
    parsed = read_yaml(f"value: {text}\n".encode("utf-8", "surrogateescape"), f"--set {override}")
    if parsed.data is None or parsed.faults or len(parsed.data) != 1:
        reason = parsed.faults[0].message if parsed.faults else "the value is not a single value"
        raise UsageError(
            f"--set {override}: {reason}", help="the value is read as YAML; quote it if it is text"
        )
    position = Source(f"--set {override}", override).stretch(1, 1, len(override))
    result = dict(data)
    node = result
    for depth, part in enumerate(path[:-1], 1):
        inner = node.get(part, {})
        if not isinstance(inner, dict):
            raise UsageError(
                f"--set {override}: '{part}' holds no keys",
                help=f"set it whole: --set {'.'.join(path[:depth])}=...",
            )
        node[part] = inner = dict(inner)
        node = inner
    node[path[-1]] = parsed.data["value"]
    changed = {known: at for known, at in positions.items() if known[: len(path)] != path}
    for length in range(1, len(path) + 1):
        changed.setdefault(path[:length], NodePosition(position, position))
    return result, changed


def _split(override: str) -> tuple[tuple[str, ...], str]:
    """Return the path and the value's text of `a.b[c.d]=value`."""
    usage = UsageError(f"--set {override}: expected key=value", help="for example --set max_memory.cpu=64GB")
    parts: list[str] = []
    offset = 0
    while offset < len(override) and override[offset] != "=":
        if override[offset] == "[":
            end = _closing(override, offset)
            if end is None:
                raise usage
            parts.append(override[offset + 1 : end])
            offset = end + 1
        else:
            match = _WORD.match(override, offset)
            if match is None:
                raise usage
            parts.append(match["word"].strip())
            offset = match.end()
    if not parts or offset >= len(override) or not all(parts[:1]):
        raise usage
    return tuple(parts), override[offset + 1 :]


def _closing(text: str, opening: int) -> int | None:
    """Return the offset of the bracket that closes the one at `opening`."""
    depth = 0
    for offset in range(opening, len(text)):
        depth += {"[": 1, "]": -1}.get(text[offset], 0)
        if depth == 0:
            return offset
    return None


_WORD = re.compile(r"\.?(?P<word>[^.=\[\]]+)")
