"""`devmap lsp`: the language server."""

from __future__ import annotations

import importlib.util

import click

from devmap.cli.version import version
from devmap.errors import UsageError

__all__ = ["command"]


@click.command("lsp")
@click.option("--stdio", is_flag=True, help="Talk over standard input and output; it always does.")
def command(*, stdio: bool) -> int:  # noqa: ARG001 - editors pass it to every server
    """Serve an editor: findings while one types, what a key places, module paths to complete, quick fixes.

    Speaks the Language Server Protocol over standard input and output, and never runs a config's code. Needs
    pygls: pip install 'torch-devmap[lsp]'.
    """
    if importlib.util.find_spec("pygls") is None:
        raise UsageError("the language server needs pygls", help="pip install 'torch-devmap[lsp]'")
    from devmap.lsp.server import serve  # noqa: PLC0415 - an extra

    serve(version())
    return 0
