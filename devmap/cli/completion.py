"""What a shell proposes after TAB, beside the commands and options that click knows.

Commands name these functions where they are declared, so everything that only a TAB needs is imported in
them.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from devmap.errors import UsageError

if TYPE_CHECKING:
    import click
    from click.shell_completion import CompletionItem

__all__ = ["complete_paths", "complete_rules"]


def complete_paths(
    _context: click.Context, _parameter: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """Files and folders, as the shell itself completes them: it knows `~` and quotes."""
    from click.shell_completion import CompletionItem  # noqa: PLC0415 - only after TAB

    return [CompletionItem(incomplete, type="file")]


def complete_rules(
    _context: click.Context, _parameter: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """Codes and names that begin with the word, codes alone before a word is begun, each with the rule's summary."""
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
