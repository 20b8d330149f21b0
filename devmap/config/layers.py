"""Configs put on top of each other.

Parents named by `extends`, profiles, each with the place of every node.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from devmap.config.model.shape import validate_shape
from devmap.config.regular_files import expand_user, is_there, read_regular, real_path
from devmap.config.repository import is_outside
from devmap.config.values.words import near_words, shown
from devmap.config.yaml.decoding import Limits
from devmap.config.yaml.faults import DocumentPath, Fault
from devmap.config.yaml.positions import NodePosition, locate
from devmap.config.yaml.reader import read_yaml

if TYPE_CHECKING:
    from collections.abc import Mapping

    from devmap.config.yaml.reader import Plain
    from devmap.config.yaml.source import Position, Source

__all__ = ["Layer", "LayerReader", "content_of", "profile_faults", "rebased", "with_parents", "with_profile"]


_LONGEST_CHAIN = 16
_MOST_WITH_PROFILES = 200_000
"""Profiles times values: each profile is laid over the whole config and checked with it."""
_NOT_IN_PROFILES = ("version", "extends", "abstract", "profiles")
_NOT_INHERITED = ("extends", "abstract")


@dataclass(frozen=True, slots=True)
class Layer:
    """Plain data and the place of its nodes, which may stand in several files."""

    data: dict[str, Plain]
    positions: Mapping[DocumentPath, NodePosition]


@dataclass(slots=True)
class LayerReader:
    """What comes together while a config and its parents are read."""

    limits: Limits | None
    drafts: Mapping[Path, bytes] = field(default_factory=dict)
    """What stands in for the content of files, by resolved path: edits that are tried and not written."""
    faults: list[Fault] = field(default_factory=list)
    sources: list[Source] = field(default_factory=list)
    folder: Path = field(default_factory=Path)
    """Where the config stands."""
    incomplete: bool = False
    """Whether a parent could not be had: keys that seem to be missing may stand in it."""


def with_parents(child: Layer, path: Path, reading: LayerReader, *, chain: tuple[Path, ...] = ()) -> Layer:
    """Return the layer on top of the config that its `extends` names, and of that one's parents.

    `path` is the child's own file. Relative paths of a parent are turned so that they start from the child's
    folder.
    """
    name = child.data.get("extends")
    if not isinstance(name, str):
        return child
    chain = (*chain, real_path(path))
    parent_path = path.parent / expand_user(name)
    parent = _read_parent(name, parent_path, locate(("extends",), child.positions), reading, chain)
    if parent is None:
        reading.incomplete = True
        return child
    parent = with_parents(parent, parent_path, reading, chain=chain)
    data = {key: value for key, value in parent.data.items() if key not in _NOT_INHERITED}
    return _merged(child, Layer(rebased(data, parent_path.parent, path.parent), parent.positions))


def _read_parent(
    name: str, path: Path, position: Position, reading: LayerReader, chain: tuple[Path, ...]
) -> Layer | None:
    """Return the parent's own layer.

    None, with a fault at the child's `extends` or in the parent's file, where there is none.
    """

    def refuse(code: str, message: str, hint: str) -> None:
        reading.faults.append(Fault(code, message, position, ("extends",), help=hint))

    if real_path(path) in chain:
        refuse(
            "DM113",
            f"{shown(name)} extends this config in turn",
            "break the circle: one of them has to stand alone",
        )
        return None
    if len(chain) > _LONGEST_CHAIN:
        refuse(
            "DM113",
            f"more than {_LONGEST_CHAIN} configs extend each other",
            "name the first of them directly",
        )
        return None
    try:
        content = content_of(path, reading.drafts, limits=reading.limits)
    except OSError as error:
        reason = error.strerror or str(error)
        refuse(
            "DM112",
            f"the parent {shown(name)} cannot be read: {reason}",
            "paths start from this file's folder",
        )
        return None
    hidden = is_outside(path, reading.folder)
    parsed = read_yaml(content, _shortest(path), limits=reading.limits, hidden=hidden)
    reading.sources.append(parsed.source)
    reading.faults += parsed.faults
    return None if parsed.data is None else Layer(parsed.data, parsed.positions)


def _shortest(path: Path) -> str:
    """Return the path without `x/..`, as it leads there from where one stands.

    As it is where a link is on the way.
    """
    short = os.path.normpath(path)
    return short if real_path(short) == real_path(path) else os.fspath(path)


def content_of(path: Path, drafts: Mapping[Path, bytes], *, limits: Limits | None = None) -> bytes:
    """Return the bytes of a file, or those that stand in for them.

    Of a file beyond the limits one byte more than they allow.

    Raises:
        OSError: when it cannot be read.
    """
    draft = drafts.get(real_path(path)) if drafts else None
    return read_regular(path, limit_bytes=(limits or Limits()).size_bytes) if draft is None else draft


def with_profile(layer: Layer, profile: str, reading: LayerReader) -> Layer:
    """Return the layer below one of its profiles; a fault where there is no such profile."""
    profiles = layer.data.get("profiles")
    known = profiles if isinstance(profiles, dict) else {}
    if profile not in known:
        near = near_words(profile, known)
        label = f"did you mean '{near[0]}'?" if near else ""
        hint = f"profiles of this config: {', '.join(known)}" if known else "this config has no profiles"
        position = locate(("profiles",), layer.positions, key=True)
        reading.faults.append(
            Fault(
                "DM111",
                f"there is no profile {shown(profile)}",
                position,
                ("profiles",),
                help=hint,
                label=label,
            )
        )
    changes = known.get(profile)
    return _on_top(changes, layer, profile) if isinstance(changes, dict) else layer


def _on_top(changes: dict[str, Plain], layer: Layer, profile: str) -> Layer:
    positions = {
        path[2:]: node for path, node in layer.positions.items() if path[:2] == ("profiles", profile)
    }
    changes = {key: value for key, value in changes.items() if key not in _NOT_IN_PROFILES}
    return _merged(Layer(changes, {**positions, (): layer.positions[()]}), layer)


def profile_faults(layer: Layer, known: tuple[Fault, ...]) -> list[Fault]:
    """Faults that show only when a profile is picked, each in its place inside the profile.

    `known` are the layer's own.
    """
    profiles = layer.data.get("profiles")
    places = {(fault.code, fault.position.file, fault.position.start) for fault in known}
    found: list[Fault] = []
    if isinstance(profiles, dict) and len(profiles) * len(layer.positions) > _MOST_WITH_PROFILES:
        message = (
            f"{len(profiles):,} profiles of a config with {len(layer.positions):,} "
            "values are too many to be checked"
        )
        hint = (
            f"profiles times values may be {_MOST_WITH_PROFILES:,}: split "
            "the config into several that extend one"
        )
        position = locate(("profiles",), layer.positions, key=True)
        return [Fault("DM107", message, position, ("profiles",), help=hint)]
    for name, changes in profiles.items() if isinstance(profiles, dict) else ():
        if not isinstance(changes, dict):
            continue  # a fault of the layer's own
        for key in _NOT_IN_PROFILES:
            if key in changes:
                path = ("profiles", name, key)
                message = f"'{key}' cannot stand in a profile"
                found.append(
                    Fault(
                        "DM101",
                        message,
                        locate(path, layer.positions, key=True),
                        path,
                        help="it belongs to the config itself",
                    )
                )
        picked = _on_top(changes, layer, name)
        _, faults = validate_shape(picked.data, picked.positions)
        found += [
            replace(fault, path=("profiles", name, *fault.path))
            for fault in faults
            if (fault.code, fault.position.file, fault.position.start) not in places
        ]
    return found


def _merged(child: Layer, parent: Layer) -> Layer:
    """Mappings merge key by key, and the child wins; everything else is replaced whole."""
    replaced: set[DocumentPath] = set()

    def merge(above: dict[str, Plain], below: dict[str, Plain], path: DocumentPath) -> dict[str, Plain]:
        result = dict(above)
        for key, old in below.items():
            new = above.get(key)
            if key not in above:
                result[key] = old
            elif isinstance(old, dict) and isinstance(new, dict):
                result[key] = merge(new, old, (*path, key))
            else:
                replaced.add((*path, key))
        return result

    data = merge(child.data, parent.data, ())
    positions = dict(child.positions)
    for path, node in parent.positions.items():
        if path not in positions and not any(path[:length] in replaced for length in range(1, len(path) + 1)):
            positions[path] = node
    return Layer(data, positions)


# Relative paths of one file as another file has to write them.


def rebased(config: dict[str, Plain], parent: Path, child: Path) -> dict[str, Plain]:
    """Return a config's plain data, its relative paths seen from the folder `child` instead of `parent`.

    Profiles too.

    A word that may also be a name (a hub id, a built-in policy, a machine's preset) is a path where it begins
    with a dot, or where such a file is there.
    """
    if real_path(parent) == real_path(child):
        return config

    def moved(value: Plain, *, may_be_name: bool) -> Plain:
        if not isinstance(value, str) or Path(value).is_absolute() or value.startswith("~"):
            return value
        if may_be_name and not value.startswith(("./", "../")) and not is_there(parent / value):
            return value
        return os.path.relpath(parent / value, child)

    result = dict(config)
    offload, policies = config.get("offload"), config.get("policies")
    result |= {key: _sources(config[key], moved) for key in config.keys() & {"model", "components"}}
    if isinstance(offload, dict) and "folder" in offload:
        result["offload"] = {**offload, "folder": moved(offload["folder"], may_be_name=False)}
    if isinstance(policies, list):
        result["policies"] = [moved(policy, may_be_name=True) for policy in policies]
    if "machine" in config:
        result["machine"] = moved(config["machine"], may_be_name=True)
    profiles = config.get("profiles")
    if isinstance(profiles, dict):
        result["profiles"] = {
            name: rebased(part, parent, child) if isinstance(part, dict) else part
            for name, part in profiles.items()
        }
    return result


def _sources(model: Plain, moved: _Moved) -> Plain:
    """Return where a model, or each of several by its name, comes from, with its paths moved."""
    if not isinstance(model, dict):
        return model
    names = {"checkpoint": True, "manifest": False}
    return {
        key: _sources(value, moved)
        if isinstance(value, dict)
        else moved(value, may_be_name=names[key])
        if key in names
        else value
        for key, value in model.items()
    }


class _Moved(Protocol):
    """Turns a path of a config so that it starts from another folder."""

    def __call__(self, value: Plain, *, may_be_name: bool) -> Plain:
        """Return the path as seen from there; what is no text as it is."""
