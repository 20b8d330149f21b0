"""`devmap explain`: one rule's page."""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import TYPE_CHECKING

import click

from devmap.checking.registry import explained_rules, rules_of_policy
from devmap.checking.settings import find_settings
from devmap.cli import options
from devmap.cli.completion import complete_rules
from devmap.cli.terminal import wrapped
from devmap.config.values.words import escaped
from devmap.errors import UsageError

if TYPE_CHECKING:
    from devmap.findings.model import Rule

__all__ = ["command"]


@click.command("explain")
@click.argument("rule", shell_complete=complete_rules)
@options.allow_code
def command(rule: str, *, allow_code: bool) -> int:
    """Explain RULE, a code such as DM201 or a name such as unmatched-key.

    Why it matters, a bad and a good config. A policy (production, or the path of a pack) explains all its
    rules.
    """
    rules = explained_rules(find_settings(Path.cwd()).with_options(allow_code=allow_code))
    found = next((known for known in rules if rule.lower() in {known.code.lower(), known.name}), None)
    if found is None:
        of_pack = rules_of_policy(rule, rules)
        for each in of_pack:
            click.echo(wrapped(_head(each)))
        if of_pack:
            return 0
        near = difflib.get_close_matches(
            rule, [name for known in rules for name in (known.code, known.name)], n=3
        )
        raise UsageError(
            f"there is no rule '{rule}'",
            help=f"did you mean {', '.join(near)}?"
            if near
            else "`devmap rules` lists them all; those of a policy pack of your own: devmap explain PATH",
        )
    click.echo(wrapped(_head(found)))
    for title, example in (("Bad:", found.bad), ("Good:", found.good)) if found.good else ():
        body = "\n".join(f"    {line}" if line else "" for line in example.strip().splitlines())
        click.echo(f"{title}\n\n{body}\n")
    if found.suppressible:
        click.echo(f"To allow it on one line: # devmap: ignore[{found.code}] reason")
    return 0


def _head(rule: Rule) -> str:
    return escaped(
        f"{rule.code} {rule.name} ({rule.severity.value})\n\n{rule.summary}\n\n{rule.why}\n", keep="\n"
    )
