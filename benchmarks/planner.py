"""The planner against Accelerate's and Transformers' own, in one run.

What they decide, and how long they take.

python benchmarks/planner.py            # about two minutes on two cores (the same as --quick)
python benchmarks/planner.py --full     # every model in the grid, peers at full size: about half an hour
python benchmarks/planner.py --only a,b # some of the tables
"""

from __future__ import annotations

import argparse
import datetime as dt
import importlib.metadata
import os
import platform
import sys
import time

from planner_cases import balance, exact_fits, grid, subject_of
from planner_models import ARCHITECTURES, QUICK, build, whole_classes
from planner_speed import checking, planning, whole_process


def main() -> int:
    """Print the tables."""
    parser = argparse.ArgumentParser(
        description="devmap's planner against Accelerate's and Transformers' own."
    )
    length = parser.add_mutually_exclusive_group()
    length.add_argument(
        "--quick", action="store_true", help="a small grid, peers at reduced size (the default)"
    )
    length.add_argument("--full", action="store_true", help="the whole grid, peers at full size")
    parser.add_argument("--only", default="abcdef", help="letters of the tables to print, such as a,b")
    arguments = parser.parse_args()
    start = time.perf_counter()
    _print_machine("full" if arguments.full else "quick")
    if set("abc") & set(arguments.only):
        _decisions(arguments.only, full=arguments.full)
    if "d" in arguments.only:
        if arguments.full:
            planning(runs=5, scales=(1, 2, 4), peer_scales=(1, 2, 4), bound=300)
        else:
            planning(runs=3, scales=(1, 2, 4), peer_scales=(1,), bound=60)
    if "e" in arguments.only:
        checking(runs=5 if arguments.full else 3, scales=(1.0, 2.0, 4.0), whole_peer=arguments.full)
    if "f" in arguments.only:
        whole_process(runs=15 if arguments.full else 5)
    print(f"\n{time.perf_counter() - start:.0f} s in all")
    return 0


def _decisions(only: str, *, full: bool) -> None:
    subjects = []
    for architecture in ARCHITECTURES:
        model = build(architecture)
        subjects.append(subject_of(architecture, model, whole_classes(model)))
    if "a" in only:
        balance(subjects)
    if "b" in only:
        exact_fits(subjects)
    if "c" in only:
        grid(subjects if full else [subject for subject in subjects if subject.name in QUICK])


def _print_machine(length: str) -> None:
    pages, page = os.sysconf("SC_PHYS_PAGES"), os.sysconf("SC_PAGE_SIZE")
    versions = ", ".join(
        f"{name} {importlib.metadata.version(name)}"
        for name in ("torch", "accelerate", "transformers", "torch-devmap")
    )
    when = dt.datetime.now(tz=dt.UTC).strftime("%Y-%m-%d %H:%M UTC")
    print(f"planner benchmark, {length}, {when}")
    machine = f"{os.cpu_count()} cores, {pages * page / 2**30:.0f} GiB, load {os.getloadavg()[0]:.1f}"
    print(f"{machine}; Python {platform.python_version()}, {versions}")


if __name__ == "__main__":
    sys.exit(main())
