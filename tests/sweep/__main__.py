"""The whole sweep: `python -m tests.sweep`, each specimen in a process of its own.

With a table at the end.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import select
import signal
import sys
import tempfile
import time
import warnings
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import transformers

import devmap.api.models.loading  # noqa: F401 - before the processes part, as is what the first model imports
from tests.sweep.tiny_configs import GROUPS, Specimen, specimens
from tests.sweep.trial import CHECKS, MODES, as_row, attempt
from tests.sweep.zoo import Zoo

if TYPE_CHECKING:
    from collections.abc import Iterable


def main(arguments: list[str] | None = None) -> int:
    """Run the sweep; 1 where a specimen that was built fails a check."""
    parser = argparse.ArgumentParser(prog="python -m tests.sweep", description=__doc__)
    parser.add_argument(
        "--zoo", type=Path, default=os.environ.get("DEVMAP_ZOO"), help="where tiny checkpoints are kept"
    )
    parser.add_argument("--groups", default=",".join(group for group in GROUPS if group != "base"))
    parser.add_argument("--only", default="", help="an expression for class names")
    parser.add_argument("--checks", default=",".join(CHECKS))
    parser.add_argument("--mode", default="spread", choices=MODES)
    parser.add_argument("--seconds", type=float, default=60, help="a specimen's limit")
    parser.add_argument("--out", type=Path, default=None, help="results as JSON lines")
    parser.add_argument("--quiet", action="store_true", help="print failures and the table alone")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    transformers.utils.logging.set_verbosity_error()
    groups, only = options.groups.split(","), re.compile(options.only)
    chosen = [each for each in specimens() if each.group in groups and only.search(each.name)]
    with tempfile.TemporaryDirectory() as scratch:
        zoo = Zoo(Path(options.zoo or scratch))
        Zoo(Path(scratch) / "warm").built(
            next(each for each in specimens() if each.name == "LlamaForCausalLM")
        )
        rows = []
        out = options.out.open("w", encoding="utf-8") if options.out else None
        for specimen in chosen:
            row = _in_a_child(specimen, zoo, tuple(options.checks.split(",")), options.mode, options.seconds)
            rows.append(row)
            if out is not None:
                out.write(json.dumps(row) + "\n")
                out.flush()
            failures = {check: row.get(check) for check in CHECKS if row.get(check, "-") not in {"ok", "-"}}
            if failures or not options.quiet:
                print(  # noqa: T201 - a command
                    specimen.group, specimen.name, row["reason"] or failures or "ok", flush=True
                )
    print(_table(rows))  # noqa: T201 - a command
    return int(any(row.get(check, "-") not in {"ok", "-"} for row in rows for check in CHECKS))


def _in_a_child(
    specimen: Specimen, zoo: Zoo, checks: tuple[str, ...], mode: str, seconds: float
) -> dict[str, Any]:
    """A crash, a hang or a leak of one class is that class's alone; imports are shared by forking."""
    readable, writable = os.pipe()
    child = os.fork()
    if not child:
        os.close(readable)
        os.setsid()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            quiet = os.open(os.devnull, os.O_WRONLY)
            os.dup2(quiet, 2)
            started = time.perf_counter()
            built = zoo.built(specimen)
            row = as_row(built, attempt(built, mode, checks=checks))
            row["seconds"] = round(time.perf_counter() - started, 2)
        os.write(writable, json.dumps(row).encode())
        os._exit(0)
    os.close(writable)
    text, end = b"", time.monotonic() + seconds
    while (left := end - time.monotonic()) > 0 and select.select([readable], [], [], left)[0]:
        part = os.read(readable, 1 << 16)
        if not part:
            break
        text += part
    os.close(readable)
    if not text:
        os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    head = {"name": specimen.name, "group": specimen.group, "model_type": specimen.model_type, "mode": mode}
    if text:
        return {**head, **json.loads(text)}
    how = (
        f"ended by signal {os.WTERMSIG(status)}"
        if os.WIFSIGNALED(status) and time.monotonic() < end
        else f"over {seconds:g} s"
    )
    if os.WIFEXITED(status):
        how = f"ended with status {os.WEXITSTATUS(status)}"
    return {**head, "reason": "", "loads": how, "parameters": 0}


def _table(rows: Iterable[dict[str, Any]]) -> str:
    rows = list(rows)
    lines = [
        f"| group | classes | built | {' | '.join(CHECKS)} |",
        f"| {'--- | ' * (3 + len(CHECKS))}".rstrip(),
    ]
    for group in [*dict.fromkeys(row["group"] for row in rows), "all"]:
        own = [row for row in rows if group in {row["group"], "all"}]
        cells = []
        for check in CHECKS:
            said = Counter(row.get(check, "-") for row in own)
            tried = sum(count for word, count in said.items() if word != "-")
            cells.append(f"{said['ok']} of {tried}")
        built = sum(not row["reason"] for row in own)
        lines.append(f"| {group} | {len(own)} | {built} | {' | '.join(cells)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
