"""`devmap explain`: one rule's page."""

from __future__ import annotations

import difflib
from pathlib import Path

import click

from devmap.checking.registry import explained_rules
from devmap.checking.settings import find_settings
from devmap.cli import options
from devmap.cli.completion import complete_rules
from devmap.cli.terminal import wrapped
from devmap.errors import UsageError

__all__ = ["command"]


@click.command("explain")
@click.argument("rule", shell_complete=complete_rules)
@options.allow_code
def command(rule: str, *, allow_code: bool) -> int:
    """Explain RULE, a code such as DM201 or a name such as unmatched-key.

    Why it matters, a bad and a good config.
    """
    rules = explained_rules(find_settings(Path.cwd()).with_options(allow_code=allow_code))
    found = next((known for known in rules if rule.lower() in {known.code.lower(), known.name}), None)
    if found is None:
        near = difflib.get_close_matches(
            rule, [name for known in rules for name in (known.code, known.name)], n=3
        )
        raise UsageError(
            f"there is no rule '{rule}'",
            help=f"did you mean {', '.join(near)}?" if near else "devmap rules lists them all",
        )
    head = f"{found.code} {found.name} ({found.severity.value})\n\n{found.summary}\n\n{found.why}\n"
    click.echo(wrapped(head))
    for title, example in (("Bad:", found.bad), ("Good:", found.good)) if found.good else ():
        body = "\n".join(f"    {line}" if line else "" for line in example.strip().splitlines())
        click.echo(f"{title}\n\n{body}\n")
    if found.suppressible:
        click.echo(f"To allow it on one line: # devmap: ignore[{found.code}] reason")
    return 0
