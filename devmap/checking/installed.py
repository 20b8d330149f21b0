"""Whether a module is part of an installed distribution, told without importing anything.

Settings lie in the folder that is checked, and a stranger's change may bring both a line of settings and a
module. So the modules that settings name are imported only from where distributions are installed, or where
one was installed to be edited; never because the current folder happens to be where Python looks first.
"""

from __future__ import annotations

import json
import site
import sysconfig
from importlib import metadata, util
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from devmap.config.regular_files import real_path

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

__all__ = ["is_installed", "places_of"]


def places_of(module: str) -> tuple[Path, ...]:
    """Return the files or folders that a module would be imported from; none where there is no such module.

    Only the top package is looked up: to look further would import it.
    """
    try:
        spec = util.find_spec(module.partition(".")[0])
    except (ImportError, ValueError):
        return ()
    if spec is None:
        return ()
    folders = list(spec.submodule_search_locations or ())
    if not folders and spec.origin is not None and spec.has_location:
        folders = [spec.origin]
    return tuple(real_path(folder) for folder in folders)


def is_installed(module: str) -> bool:
    """Return whether everything that a module would be imported from belongs to an installed distribution."""
    places = places_of(module)
    roots = _site_folders()
    if places and all(any(place.is_relative_to(root) for root in roots) for place in places):
        return True
    top = module.partition(".")[0]
    edited = [folder for distribution, folder in _edited(roots) if top in _top_names(distribution)]
    return bool(places) and all(any(place.is_relative_to(folder) for folder in edited) for place in places)


def _site_folders() -> tuple[Path, ...]:
    """Return where distributions are installed: this environment's, the system's and the user's."""
    paths = sysconfig.get_paths()
    folders = [paths["purelib"], paths["platlib"], *site.getsitepackages()]
    if site.ENABLE_USER_SITE:
        folders.append(site.getusersitepackages())
    return tuple(dict.fromkeys(real_path(folder) for folder in folders))


def _edited(roots: tuple[Path, ...]) -> Iterator[tuple[metadata.Distribution, Path]]:
    """Yield the distributions that are installed to be edited, each with the folder that its code lies in."""
    # The folders are named: by default metadata is looked for in the current folder too.
    for distribution in metadata.distributions(path=[str(root) for root in roots]):
        origin = distribution.read_text("direct_url.json")
        try:
            found = json.loads(origin) if origin else {}
        except ValueError:
            continue
        url = urlsplit(str(found.get("url", "")))
        if found.get("dir_info", {}).get("editable") and url.scheme == "file":
            yield distribution, real_path(unquote(url.path))


def _top_names(distribution: metadata.Distribution) -> set[str]:
    """Return the top packages and modules of a distribution, as they were when it was installed."""
    listed = (distribution.read_text("top_level.txt") or "").split()
    files = {file.parts[0].removesuffix(".py") for file in distribution.files or ()}
    return {*listed, *files}
