"""Lock files: a plan written beside its config as `*.devmap.lock.yaml`.

The same bytes for the same plan everywhere.
"""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING
from urllib.parse import quote

from devmap.config.atomic_files import write_atomically
from devmap.config.regular_files import read_regular
from devmap.config.values.device import Device, parse_device
from devmap.config.values.words import shown
from devmap.config.yaml.decoding import Limits
from devmap.config.yaml.positions import locate
from devmap.config.yaml.reader import read_yaml
from devmap.config.yaml.writer import render_yaml
from devmap.errors import LockError
from devmap.plan.fold import covers

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from devmap.config.yaml.faults import DocumentPath
    from devmap.config.yaml.reader import ParsedYaml
    from devmap.plan.model import Plan

__all__ = [
    "LOCK_SUFFIXES",
    "Lock",
    "LockedDevice",
    "lock_of",
    "lock_path",
    "parse_lock",
    "read_lock",
    "render_lock",
    "write_lock",
]

LOCK_SUFFIXES = (".devmap.lock.yaml", ".devmap.lock.yml")
_HEADER = (
    "# Written by `devmap resolve --lock`. Change the config and write it "
    "again; an edit here is found by its digest.\n"
)
_VERSION = 1
_LIMITS = Limits(size_bytes=1 << 26, nodes=4_000_000)
"""A lock of a model with a module per expert has hundreds of thousands of entries."""
_HELP = "write it again with `devmap resolve CONFIG --lock`"


@dataclass(frozen=True, slots=True)
class LockedDevice:
    """One device's bytes: what it may hold, the weights on it, and what is kept beside them."""

    device: Device
    capacity_bytes: int | None
    weight_bytes: int
    reserved_bytes: int


@dataclass(frozen=True)
class Lock:
    """What a lock file says."""

    inventory_fingerprint: str
    config_fingerprint: str
    strategy: str
    dtype: str | None
    device_map: Mapping[str, int | str]
    executes_on: Mapping[str, int | str] = field(default_factory=lambda: MappingProxyType({}))
    """For each streamed atom the device that executes it."""
    devices: tuple[LockedDevice, ...] = ()
    stages: Mapping[str, int] = field(default_factory=lambda: MappingProxyType({}))
    """For a plan over several nodes the stage of each module or tensor; the node stands before its device."""
    digest: str = ""
    """What the file says of its own content."""
    version: int = _VERSION

    @property
    def expected_digest(self) -> str:
        """The digest of what the lock holds."""
        return f"sha256:{hashlib.sha256(render_yaml(_content(self)).encode()).hexdigest()}"

    @property
    def is_hand_edited(self) -> bool:
        """Whether the content is no longer what devmap wrote."""
        return self.digest != self.expected_digest

    def home(self, path: str) -> int | str | None:
        """Return where a module or tensor lives; None if the map does not name it or anything above it."""
        return covers(self.device_map, path)

    def executing(self, path: str) -> int | str | None:
        """Return where a module or tensor is computed."""
        executes = covers(self.executes_on, path)
        return self.home(path) if executes is None else executes


def lock_path(config_path: Path, profile: str | None = None) -> Path:
    """Return the lock that belongs to a config.

    `x.devmap.yaml` has `x.devmap.lock.yaml` beside it, and one more for each profile.

    Whatever in a profile's name a file's name cannot hold is written in percents.

    >>> lock_path(Path("models/x.devmap.yaml")).as_posix(), lock_path(Path("other.yml")).as_posix()
    ('models/x.devmap.lock.yaml', 'other.devmap.lock.yaml')
    >>> lock_path(Path("x.devmap.yaml"), "laptop").as_posix()
    'x.laptop.devmap.lock.yaml'
    >>> lock_path(Path("x.devmap.yaml"), "a/b").as_posix()
    'x.a%2Fb.devmap.lock.yaml'
    """
    name = config_path.name
    for suffix in (".devmap.yaml", ".devmap.yml", ".yaml", ".yml"):
        if name.endswith(suffix):
            name = name.removesuffix(suffix)
            break
    of_profile = "" if profile is None else f".{quote(profile, safe=' ')}"
    return config_path.with_name(f"{name}{of_profile}{LOCK_SUFFIXES[0]}")


def lock_of(plan: Plan) -> Lock:
    """Return what the lock of a plan says, its digest included."""
    lock = Lock(
        inventory_fingerprint=plan.inventory_fingerprint,
        config_fingerprint=plan.config_fingerprint,
        strategy=plan.strategy,
        dtype=plan.dtype,
        device_map=dict(plan.device_map),
        executes_on={placement.path: placement.executes_on.plain for placement in plan.streamed},
        devices=tuple(
            LockedDevice(use.device, use.capacity_bytes, use.weight_bytes, use.reserved_bytes)
            for use in plan.devices
        ),
        stages={}
        if plan.pipeline is None
        else {
            plan.placements[at].path: stage.index for stage in plan.pipeline.stages for at in stage.numbers
        },
    )
    return _with_digest(lock)


def render_lock(plan: Plan) -> str:
    """Return the text of a plan's lock file."""
    lock = lock_of(plan)
    return _HEADER + render_yaml({**_content(lock), "digest": lock.digest})


def write_lock(plan: Plan, path: Path) -> None:
    """Write a plan's lock, whole or not at all.

    Raises:
        LockError: when the folder cannot be written to.
    """
    try:
        write_atomically(path, render_lock(plan).encode())
    except OSError as error:
        raise LockError(
            f"{path}: cannot be written: {error.strerror}", help="name another file with -o"
        ) from error


def read_lock(path: Path) -> Lock:
    """Read a lock file.

    Raises:
        LockError: when it cannot be read, or is no lock; with file and line.
    """
    try:
        content = read_regular(path, limit_bytes=_LIMITS.size_bytes)
    except OSError as error:
        raise LockError(f"{path}: cannot be read: {error.strerror or error}", help=_HELP) from error
    return parse_lock(content, os.fspath(path))


def parse_lock(content: bytes, name: str) -> Lock:
    """Return the lock in `content`; `name` is the file's name for messages.

    Whether it was edited is for its reader to ask.

    Raises:
        LockError: when it is no lock: broken YAML (`problems` holds every fault), keys that are absent or
            wrong.
    """
    parsed = read_yaml(content, name, limits=_LIMITS)
    if parsed.data is None or parsed.faults:
        first = parsed.faults[0]
        raise LockError(
            f"{name}:{first.position.start.line}: {first.message}", help=_HELP, problems=parsed.faults
        )
    return _LockReader(parsed, name).lock()


class _LockReader:
    """Takes the parts of a lock out of a document.

    A class because each needs the document and its name for messages.
    """

    def __init__(self, parsed: ParsedYaml, name: str) -> None:
        assert parsed.data is not None
        self.document = parsed.data
        self.positions = parsed.positions
        self.name = name

    def lock(self) -> Lock:
        version = self.document.get("version")
        if version != _VERSION or isinstance(version, bool):
            raise self.wrong(("version",), f"expected a lock of version {_VERSION}, found {shown(version)}")
        unknown = [key for key in self.document if key not in _KEYS]
        if unknown:
            raise self.wrong((unknown[0],), f"{shown(unknown[0])} is not a key of a lock")
        dtype = self.document.get("dtype")
        return Lock(
            inventory_fingerprint=self.text("inventory"),
            config_fingerprint=self.text("config"),
            strategy=self.text("strategy"),
            dtype=None if dtype is None else self.text("dtype"),
            device_map=self.placements("device_map"),
            executes_on=self.placements("executes_on"),
            devices=self.devices(),
            stages={
                path: self.count(("stages", path), stage)
                for path, stage in self.mapping(("stages",), self.document.get("stages", {})).items()
            },
            digest=self.text("digest"),
        )

    def text(self, key: str) -> str:
        value = self.document.get(key)
        if not isinstance(value, str):
            raise self.wrong((key,), f"'{key}' must be text, found {shown(value)}")
        return value

    def mapping(self, path: DocumentPath, value: object) -> dict[str, object]:
        if not isinstance(value, dict):
            raise self.wrong(path, f"'{path[-1]}' must be a mapping, found {shown(value)}")
        return value

    def placements(self, key: str) -> dict[str, int | str]:
        found: dict[str, int | str] = {}
        for path, value in self.mapping((key,), self.document.get(key)).items():
            found[path] = self.device((key, path), value).plain
        return found

    def device(self, path: DocumentPath, value: object) -> Device:
        try:
            return parse_device(value)
        except ValueError as error:
            raise self.wrong(path, str(error)) from None

    def devices(self) -> tuple[LockedDevice, ...]:
        found = []
        for key, value in self.mapping(("devices",), self.document.get("devices")).items():
            figures = self.mapping(("devices", key), value)
            capacity = figures.get("capacity")
            found.append(
                LockedDevice(
                    self.device(("devices", key), key),
                    None if capacity is None else self.count(("devices", key, "capacity"), capacity),
                    self.count(("devices", key, "weights"), figures.get("weights")),
                    self.count(("devices", key, "reserved"), figures.get("reserved")),
                )
            )
        return tuple(found)

    def count(self, path: DocumentPath, value: object) -> int:
        if isinstance(value, bool) or not isinstance(value, int) or value < 0:
            raise self.wrong(path, f"'{path[-1]}' must be a whole number of bytes, found {shown(value)}")
        return value

    def wrong(self, path: DocumentPath, message: str) -> LockError:
        line = locate(path, self.positions).start.line
        return LockError(f"{self.name}:{line}: {message}", help=_HELP)


_KEYS = (
    "version",
    "inventory",
    "config",
    "strategy",
    "dtype",
    "device_map",
    "executes_on",
    "devices",
    "stages",
    "digest",
)


def _content(lock: Lock) -> dict[str, object]:
    """Everything but the digest, in the file's order."""
    return {
        "version": lock.version,
        "inventory": lock.inventory_fingerprint,
        "config": lock.config_fingerprint,
        "strategy": lock.strategy,
        "dtype": lock.dtype,
        "device_map": dict(lock.device_map),
        "executes_on": dict(lock.executes_on),
        "devices": {
            str(use.device): {
                "capacity": use.capacity_bytes,
                "weights": use.weight_bytes,
                "reserved": use.reserved_bytes,
            }
            for use in lock.devices
        },
        **({"stages": dict(lock.stages)} if lock.stages else {}),
    }


def _with_digest(lock: Lock) -> Lock:
    values = {name: getattr(lock, name) for name in lock.__dataclass_fields__}
    bare = Lock(**{**values, "digest": ""})
    return Lock(**{**values, "digest": bare.expected_digest})
