"""Write the lock beside every example config; `--check` says which are stale instead.

A user calls `devmap resolve CONFIG --lock` for one config; this does it for all of them.
"""

from __future__ import annotations

import sys
from pathlib import Path

from devmap.api.resolution import resolve_file
from devmap.plan.lock import lock_path, render_lock

HERE = Path(__file__).parent


def main(arguments: list[str]) -> int:
    """Write or check every lock; 1 when `--check` finds a stale one."""
    stale = []
    for config in sorted(HERE.glob("*.devmap.yaml")):
        text = render_lock(resolve_file(config)[0])
        path = lock_path(config)
        if path.exists() and path.read_text(encoding="utf-8") == text:
            continue
        stale.append(path.name)
        if "--check" not in arguments:
            path.write_text(text, encoding="utf-8")
    print("\n".join(stale) if stale else "every lock is fresh")
    return 1 if stale and "--check" in arguments else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
