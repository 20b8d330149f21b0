"""`devmap resolve`: print the concrete device map, or write it as a lock."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from devmap.api.locks.lock_files import LockFile, LockState, lock_files
from devmap.api.resolution import resolve_file
from devmap.cli import options
from devmap.cli.completion import complete_configs
from devmap.config.values.words import escaped
from devmap.config.yaml.writer import render_yaml
from devmap.errors import UsageError
from devmap.plan.lock import write_lock

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

__all__ = ["command"]


@click.command("resolve")
@click.argument("paths", nargs=-1, metavar="CONFIG...", shell_complete=complete_configs)
@click.option(
    "--lock",
    is_flag=True,
    help="Write the plan beside each config, x.devmap.lock.yaml, and "
    "x.NAME.devmap.lock.yaml for each profile.",
)
@click.option(
    "--check", is_flag=True, help="Write nothing; status 1 where a lock is missing or would be another."
)
@click.option(
    "--output", "-o", type=click.Path(dir_okay=False), help="Write the lock of one config there instead."
)
@click.option(
    "--format",
    "output_format",
    type=click.Choice(["yaml", "json"]),
    default="yaml",
    show_default=True,
    help="How the map is printed.",
)
@options.profile
@options.overrides
@options.allow_code
@options.quiet
def command(
    paths: tuple[str, ...],
    *,
    lock: bool,
    check: bool,
    output: str | None,
    output_format: str,
    profile: str | None,
    overrides: tuple[str, ...],
    allow_code: bool,
    quiet: bool,
) -> int:
    """Resolve CONFIG to a concrete device map and print it.

    The map is a mapping from module paths to devices, as accelerate and transformers take it. With --lock or
    --check several configs may be named, and folders that hold some; nothing is printed then.
    """
    if not paths:
        raise UsageError(
            "no config was named", help="devmap resolve CONFIG, or devmap resolve --lock PATH..."
        )
    if (lock or check) and output is None:
        return _lock_all(
            lock_files(paths, profile=profile, overrides=overrides, allow_code=allow_code, check=check),
            quiet=quiet,
        )
    if len(paths) > 1 or check:
        raise UsageError(
            "one config is resolved at a time, but for --lock and --check without -o",
            help="devmap resolve --lock PATH... writes the locks of several",
        )
    plan, _ = resolve_file(paths[0], profile=profile, overrides=overrides, allow_code=allow_code)
    if output is not None:
        write_lock(plan, Path(output))
        if not quiet:
            click.echo(f"wrote {escaped(output)}", err=True)
        return 0
    device_map = dict(plan.device_map)
    click.echo(
        json.dumps(device_map, indent=2) if output_format == "json" else render_yaml(device_map),
        nl=output_format == "json",
    )
    return 0


def _lock_all(found: Iterable[LockFile], *, quiet: bool) -> int:
    """Say of each lock what is so of it; 1 unless all are fine.

    Where the only config of the call has no plan, its own error is raised: it says what would help.
    """
    seen = list(_told(found, quiet=quiet))
    failed = [each for each in seen if each.error is not None]
    if len(seen) == 1 and failed and failed[0].error is not None:
        raise failed[0].error
    for each in failed:
        assert each.error is not None
        problems = "".join(f"\n  {problem.code} {problem.message}" for problem in each.error.problems)
        text = escaped(each.error.message + problems, keep="\n")
        click.echo(f"error: {_named(each)}: {text}", err=True)
    if not quiet:
        states = [each.state for each in seen]
        counts = ", ".join(f"{states.count(state)} {state}" for state in LockState if state in states)
        click.echo(f"{len(seen)} lock{'s' if len(seen) != 1 else ''}: {counts}", err=True)
    return int(any(not each.state.is_fine for each in seen))


def _told(found: Iterable[LockFile], *, quiet: bool) -> Iterator[LockFile]:
    for each in found:
        if each.state is LockState.WRITTEN and not quiet:
            click.echo(f"wrote {escaped(str(each.path))}", err=True)
        elif each.state in {LockState.MISSING, LockState.STALE}:
            chosen = f" --profile {each.profile}" if each.profile else ""
            command = escaped(f"devmap resolve --lock {each.config}{chosen}")
            click.echo(f"{escaped(str(each.path))} is {each.state}; write it with `{command}`", err=True)
        yield each


def _named(each: LockFile) -> str:
    return escaped(f"{each.config}{f' with profile {each.profile!r}' if each.profile else ''}")
