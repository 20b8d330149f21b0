"""`--set key.path=value`: changes to a config from the command line."""

from __future__ import annotations

from typing import TYPE_CHECKING

from devmap.config.faults import DocumentPath
from devmap.config.source import Place, Position, Source
from devmap.config.yaml_reader import NodePosition, Plain, read_yaml
from devmap.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["apply_override"]


def apply_override(
    data: dict[str, Plain], positions: Mapping[DocumentPath, NodePosition], override: str
) -> tuple[dict[str, Plain], dict[DocumentPath, NodePosition]]:
    """The data with one `key.path=value` applied; the value is read as YAML. The input is not changed.

    A key that holds dots goes in brackets: `device_map[model.layers[0-3]]=cpu`.

    Raises:
        UsageError: when the text is no `key=value`, or a part of the path is no mapping.
    """
    name, separator, text = override.partition("=") if "]=" not in override else _split_after_bracket(override)
    path = _path(name.strip())
    if not separator or not path:
        raise UsageError(f"--set {override}: expected key=value", help="for example --set max_memory.cpu=64GB")
    parsed = read_yaml(f"value: {text}\n".encode(), f"--set {override}")
    if parsed.data is None or parsed.faults:
        reason = parsed.faults[0].message if parsed.faults else "no value"
        raise UsageError(f"--set {override}: {reason}", help="the value is read as YAML; quote it if it is text")
    source = Source(f"--set {override}", override)
    position = Position(source, Place(1, 1), Place(1, len(override) + 1))
    result = dict(data)
    node = result
    for part in path[:-1]:
        inner = node.get(part, {})
        if not isinstance(inner, dict):
            raise UsageError(f"--set {override}: '{part}' holds no keys", help=f"set it whole: --set {part}=...")
        node[part] = inner = dict(inner)
        node = inner
    node[path[-1]] = parsed.data["value"]
    changed = {known: at for known, at in positions.items() if known[: len(path)] != path}
    for length in range(1, len(path) + 1):
        changed.setdefault(path[:length], NodePosition(position, position))
    return result, changed


def _split_after_bracket(override: str) -> tuple[str, str, str]:
    name, separator, text = override.partition("]=")
    return name + "]", separator, text


def _path(name: str) -> tuple[str, ...]:
    head, bracket, rest = name.partition("[")
    parts = tuple(head.split(".")) if head else ()
    if bracket and rest.endswith("]"):
        return (*parts, rest[:-1])
    return parts
