"""DM201, DM205, DM206, DM207, DM223: keys of the map, and what each of them decides."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

from devmap.config.values.device import Device, device_name
from devmap.config.values.words import shown
from devmap.config.yaml.edits import rename
from devmap.findings.model import Report, Rule, Severity
from devmap.inventory.stored_names import runtime_path
from devmap_validators.checks.config_map import map_path, quoted, runs_by_key
from devmap_validators.checks.suggestion import explain_miss, near_path, sure_path
from devmap_validators.checks.wording import counted

if TYPE_CHECKING:
    from collections.abc import Iterator

    from devmap.findings.context import Context

__all__ = ["RULES"]


_MOST_SUGGESTIONS = 50
"""A map with one wrong prefix has the same fault in every key."""


def _unmatched_key(context: Context) -> Iterator[Report]:
    if context.expansion is None or context.inventory is None:
        return
    index = context.inventory.index
    for number, key in enumerate(context.expansion.unmatched):
        path = map_path(context, key)
        near = near_path(key, index) if number < _MOST_SUGGESTIONS else None
        message = (
            f"{shown(key)} is not a module of this model"
            if "*" not in key
            else f"the glob {shown(key)} matches no module of this model"
        )
        stored = runtime_path(context.inventory, key) if number < _MOST_SUGGESTIONS else None
        if stored is not None:
            edit = rename(context.document.position(path, key=True), key, stored)
            explained = f"{shown(key)} is its name in the checkpoint; the running model calls it '{stored}'"
            yield Report(
                message, path, on_key=True, label=f"at run time '{stored}'", help=explained, edit=edit
            )
            continue
        if near is None:
            yield Report(message, path, on_key=True, help=explain_miss(key, index))
            continue
        edit = (
            rename(context.document.position(path, key=True), key, near)
            if near == sure_path(key, index)
            else None
        )
        yield Report(message, path, on_key=True, label=f"did you mean '{near}'?", edit=edit)


DM201 = Rule(
    code="DM201",
    name="unmatched-key",
    severity=Severity.ERROR,
    summary="A key of the device map names no module or tensor of the model",
    why=(
        "A key that matches nothing has no effect: the modules that it was meant for fall to another key, "
        "or to none. Loaders "
        "only warn, and the model runs out of memory or computes on the wrong device. A range or glob has "
        "to name one path at "
        "least."
    ),
    good="""\
version: 1
model: {manifest: example.manifest.yaml}
device_map: {'model.layers[0-1]': 0, '': 1}
max_memory: {0: 2GB, 1: 2GB}
""",
    bad="""\
version: 1
model: {manifest: example.manifest.yaml}
device_map: {'model.layer[0-1]': 0, '': 1}
max_memory: {0: 2GB, 1: 2GB}
""",
    check=_unmatched_key,
)


def _shadowed_key(context: Context) -> Iterator[Report]:
    config, expansion = context.document.config, context.expansion
    if config is None or expansion is None:
        return
    deciding = runs_by_key(context)
    for key, paths in expansion.paths.items():
        if not key or not paths or key in deciding:
            continue  # "" is for what the others leave; that they leave nothing is no fault
        inside = tuple(f"{path}." for path in paths)
        nearer = [
            other
            for other, named in expansion.paths.items()
            if other != key
            and other in deciding
            and any(path in paths or path.startswith(inside) for path in named)
        ]
        message = (
            f"'{key}' has no effect: {quoted(nearer)} {'covers' if len(nearer) == 1 else 'cover'} "
            "everything below it"
        )
        yield Report(
            message, map_path(context, key), on_key=True, help="remove it, or make the other keys narrower"
        )


DM205 = Rule(
    code="DM205",
    name="shadowed-key",
    severity=Severity.WARNING,
    summary="A key of the device map never decides anything",
    why=(
        "Every tensor below it is named by a longer or more exact key, so it can be changed or removed "
        "without any effect. "
        "Mostly it is left over, or one of the others is wider than meant."
    ),
    good="""\
version: 1
model: {manifest: example.manifest.yaml}
device_map: {'model.layers.0': 0, '': 0}
max_memory: {0: 2GB, 1: 2GB}
""",
    bad="""\
version: 1
model: {manifest: example.manifest.yaml}
device_map:
  'model.layers.0': 1
  model.layers.0.self_attn: 0
  model.layers.0.mlp: 0
  'model.layers.0.*norm': 0
  '': 0
max_memory: {0: 2GB, 1: 2GB}
""",
    check=_shadowed_key,
)


def _conflicting_keys(context: Context) -> Iterator[Report]:
    config, expansion = context.document.config, context.expansion
    if config is None or expansion is None:
        return
    paths: dict[tuple[str, str], list[str]] = defaultdict(list)
    for path, first, second in expansion.conflicts:
        if (
            expansion.anchors[path] in {first, second}
            and config.device_map[first] != config.device_map[second]
        ):
            paths[first, second].append(path)
    for (first, second), named in paths.items():
        more = f" and {counted(len(named) - 1, 'other path')}" if len(named) > 1 else ""
        here, there = device_name(config.device_map[second]), device_name(config.device_map[first])
        message = f"'{second}' puts '{named[0]}'{more} on {here}, and '{first}' puts it on {there}"
        yield Report(
            message,
            map_path(context, second),
            on_key=True,
            help="make one of them narrower, or name the module itself",
        )


DM206 = Rule(
    code="DM206",
    name="conflicting-keys",
    severity=Severity.ERROR,
    summary="Two equally exact keys give the same module different devices",
    why=(
        "Two ranges or two globs that overlap are equally exact, so nothing but their order in the file "
        "would decide. A plain "
        "path beats a range, and a range beats a glob."
    ),
    good="""\
version: 1
model: {manifest: example.manifest.yaml}
device_map: {'model.layers[0-1]': 0, 'model.layers[2-3]': 1, '': 0}
max_memory: {0: 2GB, 1: 2GB}
""",
    bad="""\
version: 1
model: {manifest: example.manifest.yaml}
device_map: {'model.layers[0-2]': 0, 'model.layers[2-3]': 1, '': 0}
max_memory: {0: 2GB, 1: 2GB}
""",
    check=_conflicting_keys,
)


def _redundant_key(context: Context) -> Iterator[Report]:
    config, expansion = context.document.config, context.expansion
    if config is None or expansion is None:
        return
    in_conflict = {key for _, *keys in expansion.conflicts for key in keys}
    for key, paths in expansion.paths.items():
        target = config.device_map[key]
        if not key or key in in_conflict or not paths or not isinstance(target, Device):
            continue  # a strategy for a subtree is solved on its own, whatever stands above it
        above = {
            expansion.winner(path.rpartition(".")[0]) for path in paths if expansion.anchors[path] == key
        }
        if len(above) == 1 and (other := above.pop()) is not None and config.device_map[other] == target:
            shorter = f"'{other}'" if other else 'the key ""'
            message = f"'{key}' goes to {device_name(target)}, as {shorter} says already"
            yield Report(
                message, map_path(context, key), on_key=True, help="remove it, unless it is there on purpose"
            )


DM207 = Rule(
    code="DM207",
    name="redundant-key",
    severity=Severity.NOTE,
    summary="A key says what a shorter one says already",
    why=(
        "It has no effect now. It may stand there on purpose, to hold when the shorter key changes; then "
        "a comment helps the next reader."
    ),
    good="""\
version: 1
model: {manifest: example.manifest.yaml}
device_map: {'model.layers[2-3]': 1, '': 0}
max_memory: {0: 2GB, 1: 2GB}
""",
    bad="""\
version: 1
model: {manifest: example.manifest.yaml}
device_map: {'model.layers[0-1]': 0, 'model.layers[2-3]': 1, '': 0}
max_memory: {0: 2GB, 1: 2GB}
""",
    check=_redundant_key,
)


def _profile_without_effect(context: Context) -> Iterator[Report]:
    if context.profile is not None:  # a config that a profile was merged into says what that profile says
        return
    document = context.document.data
    profiles = document.get("profiles") if document is not None else None
    if not isinstance(profiles, dict):
        return
    for name, changes in profiles.items():
        if changes == {} or (isinstance(changes, dict) and _says_already(document, changes)):
            what = "is empty" if changes == {} else "changes nothing: the config says the same"
            yield Report(
                f"the profile {shown(name)} {what}",
                ("profiles", name),
                on_key=True,
                help="give it a change, or remove it",
            )


def _says_already(config: object, changes: object) -> bool:
    """Return whether merging `changes` into `config` leaves it as it is."""
    if isinstance(changes, dict):
        return isinstance(config, dict) and all(
            key in config and _says_already(config[key], value) for key, value in changes.items()
        )
    return type(config) is type(changes) and config == changes


DM223 = Rule(
    code="DM223",
    name="profile-without-effect",
    severity=Severity.WARNING,
    summary="A profile changes nothing",
    why=(
        "A profile exists to change the config. One that changes nothing: "
        "the config says the same, or nothing, "
        "was left over or has "
        "its change in the wrong place."
    ),
    good="""\
version: 1
model: {manifest: example.manifest.yaml}
max_memory: {0: 2GB}
profiles: {laptop: {max_memory: {0: 1GB}}}
""",
    bad="""\
version: 1
model: {manifest: example.manifest.yaml}
max_memory: {0: 2GB}
profiles: {laptop: {max_memory: {0: 2GB}}}
""",
    check=_profile_without_effect,
)


RULES = (DM201, DM205, DM206, DM207, DM223)
