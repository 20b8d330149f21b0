"""`devmap policy test`: a policy pack tried on its own examples."""

from __future__ import annotations

import click

from devmap.cli.completion import complete_paths

__all__ = ["command"]


@click.group("policy")
def command() -> None:
    """Work on policy packs."""


@command.command("test")
@click.argument("packs", nargs=-1, required=True, metavar="PACK...", shell_complete=complete_paths)
def test_command(packs: tuple[str, ...]) -> int:
    """Try each rule of PACK on the examples beside it.

    A rule's `good` examples have to keep it, its `bad` examples to break it. PACK is a file, or the name of
    a pack that comes with devmap. Exit status 1 where an example does not do so, or the pack itself is
    wrong.
    """
    from devmap.api.checks.policies import test_pack  # noqa: PLC0415 - imports the rule pack

    passed = True
    for name in packs:
        found = test_pack(name)
        passed = passed and found.passed
        for fault in found.faults:
            start = fault.position.start
            click.echo(f"{fault.position.file}:{start.line}:{start.column}: {fault.code} {fault.message}")
        for rule in found.rules:
            tried = f"{rule.good} good, {rule.bad} bad" if rule.good or rule.bad else "no examples"
            click.echo(f"{'FAILED' if rule.wrong else 'ok    '} {rule.code} {rule.name}: {tried}")
            for sentence in rule.wrong:
                click.echo(f"       {sentence}")
    return 0 if passed else 1
