"""Where findings about a lock stand, and the command that writes it anew."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from devmap.config.yaml.faults import DocumentPath
    from devmap.findings.context import Context

__all__ = ["lock_command", "lock_path_in"]


def lock_command(context: Context) -> str:
    """Return the command that writes the lock of a config, or of the profile that is laid over it."""
    profile = "" if context.profile is None else f" --profile {shlex.quote(context.profile)}"
    return f"devmap resolve {shlex.quote(context.document.source.name)}{profile} --lock"


def lock_path_in(context: Context, otherwise: DocumentPath = ()) -> DocumentPath:
    """Return the profile whose lock it is: each has its own; without one `otherwise`."""
    profiles = (context.document.data or {}).get("profiles")
    known = context.profile is not None and isinstance(profiles, dict) and context.profile in profiles
    return ("profiles", context.profile) if known and context.profile is not None else otherwise
