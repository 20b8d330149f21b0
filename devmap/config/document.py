"""A config as it was read: text, plain data after `extends`, profile and overrides, the place of every node, and the model."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from devmap.config.faults import DocumentPath, Fault
from devmap.config.model import PlacementConfig
from devmap.config.overrides import apply_override
from devmap.config.quoting import shown
from devmap.config.shape import locate, validate_shape
from devmap.config.source import Place, Position, Source
from devmap.config.yaml_reader import Limits, NodePosition, Plain, read_yaml
from devmap.errors import ConfigError, UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["Document", "load_document", "parse_document", "read_config"]

_LONGEST_CHAIN = 16


@dataclass(frozen=True)
class Document:
    """One config, read. `config` is None where `faults` hold an error."""

    source: Source
    folder: Path
    data: dict[str, Plain] | None
    """Plain data after merging; None where the file is no YAML mapping."""
    positions: Mapping[DocumentPath, NodePosition]
    faults: tuple[Fault, ...]
    config: PlacementConfig | None
    sources: tuple[Source, ...] = ()
    """Every file that was read, this one first, then its parents."""

    def position(self, path: DocumentPath, *, key: bool = False) -> Position:
        """The place of a node, of its key if asked, or of the nearest node above it."""
        if () not in self.positions:
            return Position(self.source, Place(1, 1), Place(1, 2))
        return locate(path, self.positions, key=key)


def read_config(path: str | os.PathLike[str], profile: str | None = None, *, overrides: Sequence[str] = ()) -> PlacementConfig:
    """Read a config file.

    `profile` picks one of its profiles; each override is `key.path=value`, the value in YAML.

    Raises:
        ConfigError: listing every fault of the file with its place.
        UsageError: when the file cannot be read at all.
    """
    document = load_document(path, profile=profile, overrides=overrides)
    errors = [fault for fault in document.faults if fault.severity == "error"]
    if document.config is None or errors:
        count = f"{len(errors)} problem{'s' if len(errors) != 1 else ''}"
        raise ConfigError(f"{document.source.name}: {count}", problems=errors, help=f"devmap validate {document.source.name}")
    return document.config


def load_document(
    path: str | os.PathLike[str], *, profile: str | None = None, overrides: Sequence[str] = (), limits: Limits | None = None
) -> Document:
    """Read a config file with its parents; what is wrong with it is in the document's faults.

    Raises:
        UsageError: when the file cannot be opened, or an override is no `key=value`.
    """
    name = os.fspath(path)
    try:
        content = Path(name).read_bytes()
    except OSError as error:
        raise UsageError(f"{name}: {error.strerror or error}", help="give the path of a *.devmap.yaml file") from None
    return parse_document(content, name, profile=profile, overrides=overrides, limits=limits)


def parse_document(
    content: bytes, name: str, *, profile: str | None = None, overrides: Sequence[str] = (), limits: Limits | None = None
) -> Document:
    """The document in `content`; relative paths start from the folder of `name`."""
    folder = Path(name).parent
    parsed = read_yaml(content, name, limits=limits)
    if parsed.data is None:
        return Document(parsed.source, folder, None, parsed.positions, parsed.faults, None, (parsed.source,))
    layer = _Layer(parsed.data, dict(parsed.positions))
    faults = list(parsed.faults)
    sources = [parsed.source]
    layer = _with_parents(layer, folder, faults, sources, limits, seen=(Path(name).resolve(),))
    faults += _profile_faults(layer, faults)
    if profile is not None:
        layer = _with_profile(layer, profile, faults)
    for override in overrides:
        data, positions = apply_override(layer.data, layer.positions, override)
        layer = _Layer(data, positions)
    config, shape_faults = validate_shape(layer.data, layer.positions)
    faults += [fault for fault in shape_faults if fault not in faults]
    if config is not None:
        config = config.placed_in(folder)
    if any(fault.severity == "error" for fault in faults):
        config = None
    return Document(parsed.source, folder, layer.data, layer.positions, tuple(faults), config, tuple(sources))


@dataclass(frozen=True, slots=True)
class _Layer:
    data: dict[str, Plain]
    positions: dict[DocumentPath, NodePosition]


def _merge(child: _Layer, parent: _Layer) -> _Layer:
    """Mappings merge key by key, and the child wins; everything else is replaced whole."""
    positions = dict(child.positions)

    def merged(below: dict[str, Plain], above: dict[str, Plain], path: DocumentPath) -> dict[str, Plain]:
        result: dict[str, Plain] = {}
        for key in [*below, *(key for key in above if key not in below)]:
            here = (*path, key)
            old, new = below.get(key), above.get(key)
            if key in above and key in below and isinstance(old, dict) and isinstance(new, dict) and path != ("profiles",):
                result[key] = merged(old, new, here)
            elif key in above:
                result[key] = new
            else:
                result[key] = old
                positions.update((known, node) for known, node in parent.positions.items() if known[: len(here)] == here)
        return result

    return _Layer(merged(parent.data, child.data, ()), positions)


def _with_parents(
    child: _Layer, folder: Path, faults: list[Fault], sources: list[Source], limits: Limits | None, *, seen: tuple[Path, ...]
) -> _Layer:
    name = child.data.get("extends")
    if not isinstance(name, str):
        return child
    position = locate(("extends",), child.positions)
    path = folder / name
    if path.resolve() in seen or len(seen) > _LONGEST_CHAIN:
        faults.append(Fault("DM113", f"{shown(name)} extends this config in turn", position, ("extends",), help="break the circle"))
        return child
    try:
        content = path.read_bytes()
    except OSError as error:
        message = f"the parent {shown(name)} cannot be read: {error.strerror or error}"
        faults.append(Fault("DM112", message, position, ("extends",), help="paths start from this file's folder"))
        return child
    parsed = read_yaml(content, os.fspath(path), limits=limits)
    sources.append(parsed.source)
    faults += parsed.faults
    if parsed.data is None:
        return child
    parent = _with_parents(_Layer(parsed.data, dict(parsed.positions)), path.parent, faults, sources, limits, seen=(*seen, path.resolve()))
    data = {key: value for key, value in parent.data.items() if key != "extends"}
    return _merge(child, _Layer(_rebased(data, path.parent, folder), parent.positions))


def _rebased(data: dict[str, Plain], parent: Path, child: Path) -> dict[str, Plain]:
    """The parent's relative paths, as seen from the child's folder."""

    def rebase(value: Plain, *, marked: bool) -> Plain:
        if not isinstance(value, str) or value.startswith(("/", "~")):
            return value
        if marked and not value.startswith("./") and not value.startswith("../") and not (parent / value).exists():
            return value
        return os.path.relpath(parent / value, child)

    result = dict(data)
    model, offload, policies = data.get("model"), data.get("offload"), data.get("policies")
    if isinstance(model, dict):
        checkpoint = {"checkpoint": rebase(model["checkpoint"], marked=True)} if "checkpoint" in model else {}
        manifest = {"manifest": rebase(model["manifest"], marked=False)} if "manifest" in model else {}
        result["model"] = {**model, **checkpoint, **manifest}
    if isinstance(offload, dict) and "folder" in offload:
        result["offload"] = {**offload, "folder": rebase(offload["folder"], marked=False)}
    if isinstance(policies, list):
        result["policies"] = [rebase(policy, marked=True) for policy in policies]
    if isinstance(data.get("machine"), str):
        result["machine"] = rebase(data["machine"], marked=True)
    return result


def _with_profile(layer: _Layer, profile: str, faults: list[Fault]) -> _Layer:
    profiles = layer.data.get("profiles")
    changes = profiles.get(profile) if isinstance(profiles, dict) else None
    if not isinstance(changes, dict):
        known = ", ".join(profiles) if isinstance(profiles, dict) and profiles else "none"
        position = locate(("profiles",), layer.positions, key=True)
        faults.append(
            Fault("DM111", f"there is no profile {shown(profile)}", position, ("profiles",), help=f"profiles of this config: {known}")
        )
        return layer
    here = ("profiles", profile)
    positions: dict[DocumentPath, NodePosition] = {path[2:]: node for path, node in layer.positions.items() if path[:2] == here}
    positions[()] = layer.positions[()]
    return _merge(_Layer(changes, positions), layer)


def _profile_faults(layer: _Layer, known: Sequence[Fault]) -> list[Fault]:
    """Faults that only show when a profile is picked; each is placed inside the profile."""
    profiles = layer.data.get("profiles")
    if not isinstance(profiles, dict) or any(fault.severity == "error" for fault in known):
        return []
    _, own = validate_shape(layer.data, layer.positions)
    own_places = {(fault.code, fault.position) for fault in own}
    found: list[Fault] = []
    for name in profiles:
        if not isinstance(profiles[name], dict):
            continue
        picked = _with_profile(layer, name, [])
        _, faults = validate_shape(picked.data, picked.positions)
        found += [
            replace(fault, path=("profiles", name, *fault.path)) for fault in faults if (fault.code, fault.position) not in own_places
        ]
    return found
