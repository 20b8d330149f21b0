"""`devmap completion`: the script that teaches a shell to complete devmap's words."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

__all__ = ["command"]


@click.command("completion")
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def command(context: click.Context, shell: str) -> int:
    """Print the script with which SHELL completes devmap's commands, options, files and rules.

    bash: eval "$(devmap completion bash)" in ~/.bashrc; zsh: the same in ~/.zshrc, after compinit; fish:
    devmap completion fish > ~/.config/fish/completions/devmap.fish
    """
    script = get_completion_class(shell)
    assert script is not None
    click.echo(script(context.find_root().command, {}, "devmap", "_DEVMAP_COMPLETE").source())
    return 0
