"""What a shell proposes after TAB, beside the commands and options that click knows.

Commands name these functions where they are declared, so everything that only a TAB needs is imported in
them.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from devmap.errors import DevmapError, UsageError

if TYPE_CHECKING:
    import click
    from click.shell_completion import CompletionItem

__all__ = [
    "complete_configs",
    "complete_machines",
    "complete_modules",
    "complete_paths",
    "complete_plans",
    "complete_profiles",
    "complete_rules",
]

_MOST_MODULES = 200


def complete_paths(
    _context: click.Context, _parameter: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """Files and folders, as the shell itself completes them: it knows `~` and quotes."""
    from click.shell_completion import CompletionItem  # noqa: PLC0415 - only after TAB

    return [CompletionItem(incomplete, type="file")]


def complete_rules(
    _context: click.Context, _parameter: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """Codes and names that begin with the word, codes alone before a word is begun.

    Each with the rule's summary.
    """
    from click.shell_completion import CompletionItem  # noqa: PLC0415 - only after TAB

    from devmap.checking.registry import load_rules  # noqa: PLC0415 - only after TAB
    from devmap.checking.settings import find_settings  # noqa: PLC0415 - only after TAB

    try:
        rules = load_rules(find_settings(Path.cwd()))
    except UsageError:
        return []  # settings that cannot be read are the command's to report; a TAB has no place for it
    wanted = incomplete.lower()
    return [
        CompletionItem(word, help=rule.summary)
        for rule in rules
        for word in ((rule.code, rule.name) if wanted else (rule.code,))
        if word.lower().startswith(wanted)
    ]


def complete_configs(
    _context: click.Context, _parameter: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """Configs in the folder that is typed so far, and folders where none begins like that."""
    from devmap.checking.discovery import CONFIG_SUFFIXES  # noqa: PLC0415 - only after TAB

    return _files(incomplete, CONFIG_SUFFIXES)


def complete_plans(
    _context: click.Context, _parameter: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """Configs, locks, and plans as JSON: what `devmap diff` compares."""
    from devmap.checking.discovery import CONFIG_SUFFIXES  # noqa: PLC0415 - only after TAB
    from devmap.plan.lock import LOCK_SUFFIXES  # noqa: PLC0415 - only after TAB

    return _files(incomplete, (*CONFIG_SUFFIXES, *LOCK_SUFFIXES, ".json"))


def complete_profiles(
    context: click.Context, _parameter: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """Return the profiles of the config that the line names."""
    from click.shell_completion import CompletionItem  # noqa: PLC0415 - only after TAB

    from devmap.config.document import read_config  # noqa: PLC0415 - only after TAB

    try:
        config = read_config(_config_of(context))
    except DevmapError:
        # A config that is wrong, or not there, has no profiles to offer; the command says what is wrong.
        return []
    return [CompletionItem(name) for name in config.profiles if name.startswith(incomplete)]


def complete_modules(
    context: click.Context, _parameter: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """Return the modules of the config's model that begin with the word.

    One step further down than it goes.
    """
    from click.shell_completion import CompletionItem  # noqa: PLC0415 - only after TAB

    from devmap.api.sources import inventory_of  # noqa: PLC0415 - only after TAB
    from devmap.config.document import read_config  # noqa: PLC0415 - only after TAB

    try:
        inventory = inventory_of(read_config(_config_of(context)))
    except DevmapError:
        return []  # as for profiles
    fitting = [path for path in inventory.modules if path and path.startswith(incomplete)]
    depth = min((path.count(".") for path in fitting if path != incomplete), default=0)
    offered = [path for path in fitting if path.count(".") <= depth]
    return [CompletionItem(path, help=inventory.modules[path]) for path in offered[:_MOST_MODULES]]


def complete_machines(
    _context: click.Context, _parameter: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """Return the machines that devmap knows by name."""
    from click.shell_completion import CompletionItem  # noqa: PLC0415 - only after TAB

    from devmap.config.model.machines import PRESETS  # noqa: PLC0415 - only after TAB

    return [CompletionItem(name) for name in PRESETS if name.startswith(incomplete)]


def _config_of(context: click.Context) -> str:
    """Return the config that stands on the line already; the name of no file where there is none yet."""
    # An option that still lacks its value ends click's parsing early, and leaves what it read so far in
    # `args`.
    paths = context.params.get("paths") or context.args
    return str(context.params.get("config") or (paths[0] if paths else ""))


def _files(incomplete: str, suffixes: tuple[str, ...]) -> list[CompletionItem]:
    from click.shell_completion import CompletionItem  # noqa: PLC0415 - only after TAB

    folder, _, begun = incomplete.rpartition("/")
    head = f"{folder}/" if "/" in incomplete else ""
    try:
        names = sorted(entry.name for entry in Path(head or ".").expanduser().iterdir() if entry.is_file())
    except OSError:
        names = []  # no such folder, or none that may be read: nothing to offer from it
    fitting = [name for name in names if name.startswith(begun) and name.endswith(suffixes)]
    # The shell itself completes folders where no file fits: it knows `~` and quotes.
    return [CompletionItem(incomplete, type="dir"), *(CompletionItem(f"{head}{name}") for name in fitting)]
