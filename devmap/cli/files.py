"""Files that a command writes for its user."""

from __future__ import annotations

from pathlib import Path

import click

from devmap.config.atomic_files import write_named
from devmap.config.values.words import escaped

__all__ = ["write_page", "write_text"]


def write_text(path: Path, text: str) -> None:
    """Write a file in UTF-8, whole or not at all; what UTF-8 cannot say becomes a question mark.

    Raises:
        UsageError: when it cannot be written.
    """
    write_named(path, text.encode(errors="replace"))


def write_page(name: str, page: str) -> None:
    """Write an HTML page and say where it is; `-` prints it.

    Raises:
        UsageError: when it cannot be written.
    """
    if name == "-":
        click.echo(page, nl=False)
        return
    write_text(Path(name), page)
    click.echo(f"wrote {escaped(name)}", err=True)
