"""The one place where exceptions become exit statuses: 0, 1, 2, 130."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

import click

from devmap.cli.terminal import wrapped
from devmap.config.values.words import escaped
from devmap.errors import ConfigError, DeviceMapError, DevmapError, LoadError, LockError, ResolutionError

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["FINDINGS", "INTERRUPTED", "OK", "UNABLE", "guarded"]

OK, FINDINGS, UNABLE, INTERRUPTED = 0, 1, 2, 130


_FOUND = (ConfigError, DeviceMapError, LoadError, LockError, ResolutionError)
"""Errors that say what is wrong with a config, its plan or its lock. All others: the command could not run.
"""

_EXTRAS = {"torch": "torch", "transformers": "transformers"}
"""Packages that only some commands need, and the extra that brings each."""


# A return for each kind of end is the point of it.
def guarded(command: Callable[[], object]) -> int:  # noqa: PLR0911
    """Run a command and return its exit status; every error becomes a message on stderr, never a traceback.

    With DEVMAP_DEBUG=1 in the environment a bug of ours shows its traceback.
    """
    try:
        status = command()
    except click.exceptions.Exit as error:
        return error.exit_code
    except click.ClickException as error:
        error.show()
        return UNABLE
    except (KeyboardInterrupt, click.exceptions.Abort):
        click.echo("interrupted", err=True)
        return INTERRUPTED
    except BrokenPipeError:
        # The reader of our output went away (`devmap rules | head`); python would complain once more at exit.
        _drop_output()
        return OK
    except DevmapError as error:
        _show(error)
        return FINDINGS if isinstance(error, _FOUND) else UNABLE
    except ModuleNotFoundError as error:
        if error.name not in _EXTRAS:
            _report_bug(error)
            return UNABLE
        click.echo(f"error: this command needs {error.name}, which is not installed", err=True)
        click.echo(f"help: pip install 'torch-devmap[{_EXTRAS[error.name]}]'", err=True)
        return UNABLE
    # The boundary: what gets here is a bug of ours, and is reported as one.
    except Exception as error:  # noqa: BLE001
        if isinstance(error, OSError) and _is_of_output(error):
            _drop_output()
            _say(f"error: the output cannot be written: {error.strerror or error}")
        else:
            _report_bug(error)
        return UNABLE
    return status if isinstance(status, int) else OK


def _is_of_output(error: OSError) -> bool:
    """Return whether click raised it, which writes all output: a full disk behind it, for one."""
    frame = error.__traceback__
    while frame is not None and frame.tb_next is not None:
        frame = frame.tb_next
    return frame is not None and frame.tb_frame.f_globals.get("__name__", "").startswith("click.")


def _drop_output() -> None:
    """Send what is left of standard output nowhere, else Python would complain of it at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _show(error: DevmapError) -> None:
    _say(f"error: {_shown(error.message)}")
    for problem in error.problems:
        _say(f"  {_shown(_place(problem))}{problem.code} {_shown(problem.message)}")
    if isinstance(error, ResolutionError):
        for change in error.changes:
            _say(f"  fits with: {_shown(change)}")
    if error.help:
        _say(f"help: {_shown(error.help)}")


def _say(text: str) -> None:
    click.echo(wrapped(text, hanging=4, error=True), err=True)


def _place(problem: object) -> str:
    position = getattr(problem, "position", None)
    return "" if position is None else f"{position.file}:{position.start.line}:{position.start.column}: "


def _shown(text: str) -> str:
    """Return a text without what a terminal or a log would obey."""
    return escaped(text, keep="\n").replace("\n::", "\n:\\x3a")


def _report_bug(error: Exception) -> None:
    if os.environ.get("DEVMAP_DEBUG"):
        import traceback  # noqa: PLC0415 - only for a bug of ours

        traceback.print_exception(error)
    click.echo(
        f"error: devmap failed; this is a bug in devmap: {type(error).__name__}: {_shown(str(error))}",
        err=True,
    )
    click.echo("help: set DEVMAP_DEBUG=1 for the traceback, and report it with the config", err=True)
