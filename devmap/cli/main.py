"""The `devmap` command: a group whose commands are imported only when they are called."""

from __future__ import annotations

import gc
import importlib
import io
import sys
from typing import TYPE_CHECKING

import click

from devmap.cli.exits import guarded

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

__all__ = ["COMMANDS", "cli", "main"]

COMMANDS = {
    "init": "Write a commented config for a checkpoint and this machine.",
    "validate": "Check configs; no GPU and no weights needed.",
    "resolve": "Print the concrete device map; --lock writes it beside the config.",
    "plan": "Show the plan: bytes per device, runs of layers, reasons.",
    "diff": "Show what moves between two configs or locks.",
    "inspect": "Show what a checkpoint is made of; -o writes a manifest.",
    "simulate": "Run the plan over fake tensors and show the peak bytes per device.",
    "run": "Load a model by its config, run a forward pass, print counters.",
    "doctor": "Measure this machine, as a machine profile for configs.",
    "rules": "List every rule.",
    "policy": "Try a policy pack on its own examples.",
    "explain": "Explain one rule.",
    "schema": "Print the JSON Schema of configs for editors.",
    "lsp": "Serve an editor: findings, hover, completion, quick fixes.",
    "completion": "Print the script with which bash, zsh or fish completes devmap's words.",
}
"""Every command with its one line for `devmap --help`; `devmap/cli/<name>_command.py` holds it."""


class LazyGroup(click.Group):
    """A group that knows its commands by name and loads each when it is needed."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        """Return the commands in the order of a user's work."""
        return list(COMMANDS)

    # Click's signature.
    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        """Return the command, imported now."""
        if cmd_name not in COMMANDS:
            return None
        collected = gc.isenabled()
        gc.disable()  # what an import makes stays: looking for garbage in it finds none, again and again
        try:
            module = importlib.import_module(f"devmap.cli.{cmd_name}_command")
        finally:
            if collected:
                gc.enable()
        command = module.command
        assert isinstance(command, click.Command)
        return command

    # Click's signature.
    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        """List the commands without importing one."""
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """Return the commands that begin with a word, without importing one.

        Click's own way loads each for its help.
        """
        from click.shell_completion import CompletionItem  # noqa: PLC0415 - only after TAB

        commands = [
            CompletionItem(name, help=line) for name, line in COMMANDS.items() if name.startswith(incomplete)
        ]
        return [*commands, *click.Command.shell_complete(self, ctx, incomplete)]

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command, or say which one may have been meant."""
        if args and args[0] not in COMMANDS and not args[0].startswith("-"):
            import difflib  # noqa: PLC0415 - only for a misspelt command

            near = difflib.get_close_matches(args[0], COMMANDS, n=1)
            hint = f" Did you mean '{near[0]}'?" if near else ""
            ctx.fail(f"No such command '{args[0]}'.{hint}")
        return super().resolve_command(ctx, args)


def _show_version(context: click.Context, _parameter: click.Parameter, asked: bool) -> None:
    if asked and not context.resilient_parsing:
        from devmap.cli.version import version  # noqa: PLC0415 - reads the metadata of the distribution

        click.echo(f"devmap {version()}")
        context.exit()


@click.group(
    cls=LazyGroup,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120},
    epilog="Exit status: 0 nothing wrong, 1 findings, 2 could not run, 130 interrupted.",
)
@click.option(
    "--version",
    "-V",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_show_version,
    help="Show the version and exit.",
)
def cli() -> None:
    """Check, resolve and run device maps.

    Where each module of a PyTorch model lives, in a YAML file beside the code.
    """


def main() -> None:
    """Run the command and exit with its status: the console script."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(
            stream, io.TextIOWrapper
        ):  # a name or an example that is not UTF-8 shall not end a command, nor spoil JSON
            stream.reconfigure(errors="replace")
    status = guarded(lambda: cli.main(prog_name="devmap", standalone_mode=False))
    gc.freeze()  # the process ends: nothing that it holds needs a last look
    raise SystemExit(status)
