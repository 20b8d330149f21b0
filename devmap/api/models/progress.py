"""The bar that a long load shows on stderr."""

from __future__ import annotations

import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from devmap.runtime.residents import Progress

__all__ = ["progress_bar"]


@contextmanager
def progress_bar(what: str, *, shown: bool | None = None) -> Iterator[Progress | None]:
    """Show a bar over bytes done and bytes in all, with bytes a second; None when it is not to be shown.

    `shown` None follows the terminal: no bar where stderr is a file or a pipe.
    """
    if not (sys.stderr.isatty() if shown is None else shown):
        yield None
        return
    from rich.console import Console  # noqa: PLC0415 - 70 ms that only a bar is worth
    from rich.progress import (  # noqa: PLC0415
        BarColumn,
        DownloadColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
        TransferSpeedColumn,
    )

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task(what, total=None)

        def advance(done_bytes: int, total_bytes: int) -> None:
            bar.update(task, completed=done_bytes, total=total_bytes)

        yield advance
