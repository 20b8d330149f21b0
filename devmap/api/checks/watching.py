"""Wait for changes in configs and in the files that they stand on.

Parents, manifests, locks, policies, settings.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

from devmap.checking.discovery import find_configs
from devmap.checking.settings import SETTINGS_FILES
from devmap.config.document import load_document
from devmap.errors import UsageError
from devmap.plan.lock import lock_path

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from devmap.config.document import Document

__all__ = ["changes", "watched_files"]

Stamp = tuple[int, int] | None
"""Time of the last change in nanoseconds and size in bytes; None for a file that is not there."""

_OF_A_CHECKPOINT = ("config.json", "model.safetensors", "model.safetensors.index.json")


def changes(
    paths: Sequence[str], *, seconds: float = 0.5, sleep: Callable[[float], None] = time.sleep
) -> Iterator[tuple[str, ...]]:
    """Yield the names of what changed: nothing at once, then each time that something did.

    Files are looked at every so many `seconds`; a file that comes, goes or is replaced has changed too, and
    so has a folder among `paths` in which a config came or went. It never ends by itself.
    """
    before = _stamps(watched_files(paths))
    yield ()
    while True:
        sleep(seconds)
        now = _stamps({*before, *watched_files(paths)})
        changed = tuple(sorted(str(path) for path, stamp in now.items() if stamp != before.get(path)))
        if changed:
            before = _stamps(watched_files(paths))
            yield changed


def watched_files(paths: Sequence[str]) -> frozenset[Path]:
    """Return the configs that `paths` mean and the files that they stand on.

    Whether these are there or not.
    """
    try:
        configs = find_configs(list(paths))
    except UsageError:  # all of them are gone for the moment: an editor may be replacing one
        configs = [path for path in paths if not Path(path).is_dir()]
    return frozenset(path for config in configs for path in _around(Path(config)))


def _around(config: Path) -> Iterator[Path]:
    yield config
    for folder in (config.absolute().parent, *config.absolute().parents[1:]):
        yield from (folder / name for name in SETTINGS_FILES)
    try:
        document = load_document(config)
    except UsageError:
        return
    yield from (Path(source.name) for source in document.sources)
    yield lock_path(config)
    yield from (document.folder / name for name in _named(document))


def _named(document: Document) -> Iterator[str]:
    """Paths that the config names, from its folder."""
    data = document.data or {}
    components = data.get("components")
    for model in (data.get("model"), *(components.values() if isinstance(components, dict) else ())):
        for key in ("manifest", "checkpoint") if isinstance(model, dict) else ():
            path = model.get(key) if isinstance(model, dict) else None
            if isinstance(path, str):
                yield path
                yield from (f"{path}/{name}" for name in _OF_A_CHECKPOINT)
    policies, machine, profiles = data.get("policies"), data.get("machine"), data.get("profiles")
    yield from (each for each in policies if isinstance(each, str)) if isinstance(policies, list) else ()
    if isinstance(machine, str):
        yield machine
    nodes = machine.get("nodes") if isinstance(machine, dict) else None
    yield from (each for each in nodes.values() if isinstance(each, str)) if isinstance(nodes, dict) else ()
    for profile in profiles if isinstance(profiles, dict) else ():
        yield lock_path(Path(document.source.name), str(profile)).name


def _stamps(paths: Iterable[Path]) -> Mapping[Path, Stamp]:
    found: dict[Path, Stamp] = {}
    for path in paths:
        try:
            status = path.stat()
        except (OSError, ValueError):
            found[path] = None
        else:
            found[path] = (status.st_mtime_ns, status.st_size)
    return found
