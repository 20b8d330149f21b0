"""A config as it was read.

Text, plain data after `extends`, profile and overrides, the place of every node, and the model.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from devmap.config.layers import Layer, LayerReader, content_of, profile_faults, with_parents, with_profile
from devmap.config.model.shape import validate_shape
from devmap.config.overrides import Overrides, apply_override, override_texts
from devmap.config.repository import is_outside, withheld
from devmap.config.yaml.positions import locate
from devmap.config.yaml.reader import read_yaml
from devmap.errors import ConfigError, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from devmap.config.model.placement_config import PlacementConfig
    from devmap.config.yaml.faults import DocumentPath, Fault
    from devmap.config.yaml.positions import NodePosition
    from devmap.config.yaml.reader import Limits, Plain
    from devmap.config.yaml.source import Position, Source

__all__ = ["Document", "load_document", "parse_document", "read_config"]


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
    is_abstract: bool = False
    """Whether it is there only for others to extend; `config` is None then."""

    def position(self, path: DocumentPath, *, key: bool = False) -> Position:
        """Return the place of a node, of its key if asked, or of the nearest node above it."""
        if () not in self.positions:
            return self.source.stretch(1, 1)
        return locate(path, self.positions, key=key)


def read_config(
    path: str | os.PathLike[str], profile: str | None = None, *, overrides: Overrides = ()
) -> PlacementConfig:
    """Read a config file.

    `profile` picks one of its profiles; `overrides` change keys for this call: texts
    `key.path=value` with the value in YAML, or a mapping from key paths to values.

    Raises:
        ConfigError: listing every fault of the file with its place.
        UsageError: when the file cannot be read at all.
    """
    document = load_document(path, profile=profile, overrides=overrides)
    if document.is_abstract:
        raise UsageError(
            f"{document.source.name} is abstract: it is there for others to extend",
            help="name a config that extends it, or take 'abstract: true' out of it",
        )
    errors = [fault for fault in document.faults if fault.severity == "error"]
    if document.config is None or errors:
        count = f"{len(errors)} problem{'s' if len(errors) != 1 else ''}"
        raise ConfigError(
            f"{document.source.name}: {count}",
            problems=errors,
            help=f"devmap validate {document.source.name}",
        )
    return document.config


def load_document(
    path: str | os.PathLike[str],
    *,
    profile: str | None = None,
    overrides: Overrides = (),
    limits: Limits | None = None,
    drafts: Mapping[Path, bytes] | None = None,
) -> Document:
    """Read a config file with its parents; what is wrong with it is in the document's faults.

    `drafts` stand in for the content of files, by resolved path.

    Raises:
        UsageError: when the file cannot be opened, or an override is no `key=value`.
    """
    name = os.fspath(path)
    try:
        content = content_of(Path(name), drafts or {}, limits=limits)
    except OSError as error:
        raise UsageError(
            f"{name}: {error.strerror or error}", help="give the path of a *.devmap.yaml file"
        ) from None
    return parse_document(content, name, profile=profile, overrides=overrides, limits=limits, drafts=drafts)


def parse_document(
    content: bytes,
    name: str,
    *,
    profile: str | None = None,
    overrides: Overrides = (),
    limits: Limits | None = None,
    drafts: Mapping[Path, bytes] | None = None,
) -> Document:
    """Return the document in `content`; relative paths start from the folder of `name`."""
    folder = Path(name).parent
    hidden = is_outside(Path(name), folder)
    parsed = read_yaml(content, name, limits=limits, hidden=hidden)
    if parsed.data is None:
        faults = _each_once(parsed.faults)
        return Document(parsed.source, folder, None, parsed.positions, faults, None, (parsed.source,))
    reading = LayerReader(limits, drafts or {}, [*parsed.faults], [parsed.source], folder)
    layer = with_parents(Layer(parsed.data, parsed.positions), Path(name), reading)
    whole = layer
    if profile is not None:
        layer = with_profile(layer, profile, reading)
    for override in override_texts(overrides):
        layer = Layer(*apply_override(layer.data, layer.positions, override))
    config, faults = validate_shape(layer.data, layer.positions)
    unread = {fault.path for fault in reading.faults if fault.code in _UNREAD}
    reading.faults += [
        fault for fault in faults if not (fault.path in unread and fault.code in _ABOUT_VALUES)
    ]
    reading.faults += profile_faults(whole, faults)
    is_abstract = layer.data.get("abstract") is True
    may_lack = reading.incomplete or is_abstract
    found = _each_once(fault for fault in reading.faults if not (may_lack and fault.code == "DM102"))
    if is_abstract or any(fault.severity == "error" for fault in found):
        config = None
    placed = None if config is None else config.placed_in(folder)
    sources = tuple(reading.sources)
    return Document(
        parsed.source, folder, layer.data, layer.positions, found, placed, sources, is_abstract=is_abstract
    )


_UNREAD = ("DM003", "DM007", "DM016", "DM018")
"""Faults of a value that is not what its text says: what follows from the wrong value says nothing more."""

_ABOUT_VALUES = ("DM103", "DM104", "DM105", "DM106", "DM107")


def _each_once(faults: Iterable[Fault]) -> tuple[Fault, ...]:
    """Faults without repetitions: one value can be wrong in a config and in each of its profiles."""
    unique = {(fault.code, fault.message, fault.position.sort_key()): fault for fault in faults}
    return tuple(
        _without_text(fault) if fault.position.source.is_hidden else fault for fault in unique.values()
    )


def _without_text(fault: Fault) -> Fault:
    message = withheld(fault.position, fault.message)
    return replace(fault, message=message, path=(), help="", label="", edit=None)
