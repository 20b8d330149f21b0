"""Configs checked: every finding of every file, with no GPU and no weights."""

from __future__ import annotations

import dataclasses
import os
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from devmap.api.checks.workers import in_workers, workers_for
from devmap.api.machine import machine_of, needs_machine
from devmap.api.sources import inventory_of
from devmap.checking.discovery import find_configs
from devmap.checking.engine import brought_rules, check
from devmap.checking.fixing import Checked, reached_by
from devmap.checking.inherited import once_for_all
from devmap.checking.registry import load_rules
from devmap.checking.settings import NearestSettings, Settings
from devmap.checking.status import exit_status
from devmap.config.document import Document, load_document, parse_document
from devmap.config.overrides import override_texts
from devmap.config.regular_files import is_there, real_path
from devmap.config.repository import repository_of, without_content
from devmap.errors import DevmapError, InventoryError, LockError, ResolutionError
from devmap.findings.context import Context
from devmap.plan.lock import lock_path, read_lock
from devmap.plan.locked_machine import locked_machine
from devmap.planning.resolve import resolve

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from devmap.config.model.placement_config import MachineProfile, PlacementConfig
    from devmap.config.overrides import Overrides
    from devmap.findings.model import Finding, Rule
    from devmap.inventory.model import Inventory
    from devmap.inventory.reader import Library

__all__ = ["Validation", "checker", "gathered", "named", "settings_of", "validate", "validate_text"]


@dataclass(frozen=True, slots=True)
class Validation:
    """What a run of checks found."""

    findings: tuple[Finding, ...]
    """In order of file, line, column and code; suppressed ones too."""
    files: tuple[str, ...]
    """The configs that were checked."""
    brought: tuple[Rule, ...] = ()
    """The rules of the policies that they name."""
    known: tuple[Rule, ...] = ()
    """The rules that their settings know, selected or not."""
    ended: tuple[str, ...] = ()
    """What settings ignored up to a day that is over, in words."""
    fails: bool = False
    """Whether a finding is at or above what its config's settings fail on."""


def validate(
    paths: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    *,
    settings: Settings | NearestSettings | None = None,
    profile: str | None = None,
    overrides: Overrides = (),
    allow_code: bool = False,
    through_transformers: bool = False,
    locked: bool = False,
    jobs: int = 1,
) -> Validation:
    """Check config files, and every config below the folders among `paths`; one path may stand alone.

    Without `profile` each config is checked as it stands and with each of its profiles. `settings` default to
    those of the `devmap.toml` or `pyproject.toml` nearest to each config. `overrides` change keys for this
    call: texts `key.path=value`, or a mapping from key paths to values. `locked` asks for a fresh lock beside
    each config. Imports no torch, unless a config has a factory and `allow_code` is set, or
    `through_transformers` is and Transformers has to tell what the headers do not. `jobs` processes share the
    files, as many as pay with 0; what they find is the same, in the same order. With `allow_code` or
    `through_transformers` there is one: the code of a config may start threads.

    Raises:
        UsageError: when a path does not exist, or nothing under it is a config.
    """
    nearest = settings_of(settings, allow_code=allow_code)
    files = find_configs(named(paths), excluded=lambda file: nearest.of(file).is_excluded(file))
    check_file = checker(
        nearest,
        profile=profile,
        overrides=overrides,
        allow_code=allow_code,
        through_transformers=through_transformers,
        locked=locked,
    )
    count = 1 if allow_code or through_transformers else workers_for(len(files), jobs=jobs)
    found: dict[str, Checked] = in_workers(files, check_file, count=count) if count > 1 else {}
    return gathered([found.get(file) or check_file(file) for file in files], nearest)


def named(paths: str | os.PathLike[str] | Sequence[str | os.PathLike[str]]) -> tuple[str, ...]:
    """Return one path, or several, as a tuple of texts."""
    if isinstance(paths, str | os.PathLike):
        return (os.fspath(paths),)
    return tuple(os.fspath(path) for path in paths)


def settings_of(settings: Settings | NearestSettings | None, *, allow_code: bool) -> NearestSettings:
    """Return where each config's settings come from: the ones given, or those nearest to it."""
    if isinstance(settings, NearestSettings):
        return settings
    return NearestSettings(fixed=settings, allow_code=allow_code)


def gathered(checked: Sequence[Checked], nearest: NearestSettings) -> Validation:
    """Return what the checks of several configs found together.

    A file without a model that another of them extends is no config by itself, and is not asked for one.
    """
    parents = {real_path(name) for each in checked for name in each.sources[1:]}
    by_file = {
        each.file: tuple(
            finding
            for finding in each.findings
            if not (
                finding.code == "DM102" and finding.path == ("model",) and real_path(each.file) in parents
            )
        )
        for each in checked
    }
    fails = any(exit_status(findings, nearest.of(file).fail_on) for file, findings in by_file.items())
    known = {rule.code: rule for file in by_file for rule in load_rules(nearest.of(file))}
    return Validation(
        tuple(sorted(once_for_all(by_file), key=lambda finding: finding.sort_key())),
        tuple(by_file),
        tuple({rule.code: rule for each in checked for rule in each.brought}.values()),
        tuple(known.values()),
        tuple(dict.fromkeys(words for file in by_file for words in nearest.of(file).ended)),
        fails=fails,
    )


class FileCheck(Protocol):
    """Checks one config file; `drafts` stand in for the content of files, by resolved path."""

    def __call__(self, file: str, drafts: Mapping[Path, bytes] | None = None) -> Checked:
        """Everything that is found in one file."""


def checker(
    settings: Settings | NearestSettings,
    *,
    profile: str | None = None,
    overrides: Overrides = (),
    allow_code: bool = False,
    through_transformers: bool = False,
    locked: bool = False,
) -> FileCheck:
    """Return what checks one config file after another, models being read once.

    It can be pickled before it is first called.
    """
    return partial(
        _check_file,
        nearest=settings_of(settings, allow_code=allow_code),
        sources=_Sources(allow_code=allow_code, through_transformers=through_transformers),
        profile=profile,
        overrides=override_texts(overrides),
        locked=locked,
    )


def _check_file(
    file: str,
    drafts: Mapping[Path, bytes] | None = None,
    *,
    nearest: NearestSettings,
    sources: _Sources,
    profile: str | None,
    overrides: tuple[str, ...],
    locked: bool,
) -> Checked:
    settings = nearest.of(file)

    def read(chosen: str | None) -> Document:
        return load_document(file, profile=chosen, overrides=overrides, limits=settings.limits, drafts=drafts)

    return _check(read, settings, sources, profile=profile, locked=locked)


def validate_text(
    content: bytes,
    name: str,
    *,
    settings: Settings | NearestSettings | None = None,
    profile: str | None = None,
    overrides: Overrides = (),
    allow_code: bool = False,
    through_transformers: bool = False,
    locked: bool = False,
) -> Validation:
    """Check a config that is not read from its file, as an editor has it; `name` says where it would be."""
    nearest = settings_of(settings, allow_code=allow_code)
    settings = nearest.of(name)

    def read(chosen: str | None) -> Document:
        return parse_document(content, name, profile=chosen, overrides=overrides, limits=settings.limits)

    sources = _Sources(allow_code=allow_code, through_transformers=through_transformers)
    checked = _check(read, settings, sources, profile=profile, locked=locked)
    return gathered([checked], nearest)


def _check(
    read: Callable[[str | None], Document],
    settings: Settings,
    sources: _Sources,
    *,
    profile: str | None,
    locked: bool,
) -> Checked:
    """Findings of the config as it stands, and of each of its profiles unless one is picked."""
    document = read(profile)
    profiles = document.config.profiles if document.config is not None and profile is None else {}
    context = _context(document, sources, locked=locked, profile=profile)
    variants = {name: _context(read(name), sources, profile=name) for name in profiles}
    findings = check(context, settings=settings, profiles=variants)
    names = tuple(source.name for source in document.sources)
    brought = brought_rules(load_rules(settings), (context, *variants.values()))
    return Checked(document.source.name, findings, reached_by(context), names, brought)


class _Sources:
    """What configs share, looked at once: inventories by source."""

    def __init__(self, *, allow_code: bool, through_transformers: bool = False) -> None:
        self.allow_code = allow_code
        self._library: Library = "where needed" if through_transformers else "never"
        self._known: dict[tuple[str, ...], Inventory | InventoryError] = {}

    def inventory(self, config: PlacementConfig) -> Inventory | InventoryError:
        """Return the inventory of a config, or why there is none."""
        key = (
            str(real_path(config.folder)),
            *config.components,
            str(config.takes_turns),
            *(
                f"{model.manifest} {model.checkpoint} {model.variant} {model.factory} {model.dequantize} "
                f"{model.quantization and (model.quantization, model.dtype)}"
                for model in config.sources
            ),
            *(str(model.dtype) for model in config.components.values()),
        )
        if key not in self._known:
            try:
                self._known[key] = inventory_of(
                    config, allow_code=self.allow_code, through_transformers=self._library
                )
            except InventoryError as error:
                self._known[key] = error
        return self._known[key]

    def beside_manifest(self, config: PlacementConfig) -> Inventory | None:
        """Return what the headers of the checkpoint say where the config has a manifest too.

        And its checkpoint is on this machine.
        """
        model = config.model
        if model.manifest is None or model.checkpoint is None:
            return None
        without_manifest = config.model_copy(update={"model": model.model_copy(update={"manifest": None})})
        found = self.inventory(without_manifest)
        return None if isinstance(found, InventoryError) else found


def _context(document: Document, sources: _Sources, *, profile: str | None, locked: bool = False) -> Context:
    """Everything that can be known about a config without its weights."""
    repository = repository_of(document.folder)
    context = Context(
        document, profile=profile, allow_code=sources.allow_code, locked=locked, repository=repository
    )
    config = document.config
    if config is None:
        return context
    if sources.allow_code or not any(
        model.factory and not (model.manifest or model.checkpoint) for model in config.sources
    ):
        found = sources.inventory(config)
        context = dataclasses.replace(
            context,
            **({"inventory_error": found} if isinstance(found, InventoryError) else {"inventory": found}),
        )
    context = dataclasses.replace(context, checkpoint_inventory=sources.beside_manifest(config))
    context = _with_lock(context, Path(document.source.name), profile)
    machine: MachineProfile | None = None
    try:
        machine = machine_of(config, probe=False)
    except DevmapError as error:
        return dataclasses.replace(context, machine_error=error)
    context = dataclasses.replace(context, machine=machine)
    if (
        machine is None
        and needs_machine(config)
        and context.lock is not None
        and context.inventory is not None
    ):
        machine = locked_machine(
            context.lock, config, context.inventory
        )  # the lock fixes what the config leaves to the machine
    if context.inventory is None or (machine is None and needs_machine(config)):
        return context
    try:
        return dataclasses.replace(context, plan=resolve(config, context.inventory, machine=machine))
    except ResolutionError as error:
        return dataclasses.replace(context, plan_error=error)
    except DevmapError:
        return context  # a wrong manual map: the pack's rules say what is wrong with it, each in its place


def _with_lock(context: Context, config_path: Path, profile: str | None) -> Context:
    path = lock_path(config_path, profile)
    if not is_there(path):
        return context
    try:
        return dataclasses.replace(context, lock=read_lock(path))
    except LockError as error:
        return dataclasses.replace(context, lock_error=without_content(error, path, path.parent))
