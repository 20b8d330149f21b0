"""What planners decide: balance, exact fits, and a grid of budgets."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections import Counter
from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING

from planner_optimum import Verdict, best_split, judge, total_bytes, unit_bytes
from planner_peers import PLANNERS

from devmap import Inventory, ResolutionError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from planner_models import Architecture
    from torch import nn

__all__ = ["DEVICES", "Subject", "balance", "exact_fits", "grid", "subject_of"]

DEVICES = (2, 4, 8)
_ROOM = 400 * 2**30
"""Budget of a device that binds nowhere."""


@dataclass(frozen=True)
class Subject:
    """A model made ready once."""

    name: str
    model: nn.Module
    inventory: Inventory
    whole: list[str]
    units: list[int]
    nbytes: int


def subject_of(architecture: Architecture, model: nn.Module, whole: list[str]) -> Subject:
    """The model with the loads of its units."""
    return Subject(
        architecture.name,
        model,
        Inventory.from_module(model),
        whole,
        unit_bytes(model, whole),
        total_bytes(model),
    )


def _plan(planner: str, subject: Subject, budgets: dict[int | str, int], strategy: str) -> Verdict | str:
    """The judged map, or how the planner ended without one: `refused` when it said that nothing fits."""
    with warnings.catch_warnings(), contextlib.redirect_stderr(io.StringIO()):
        warnings.simplefilter("ignore")
        logging.disable(logging.WARNING)
        try:
            device_map = PLANNERS[planner](subject.model, subject.inventory, budgets, subject.whole, strategy)
        except ResolutionError as error:
            return "refused" if "promises" not in error.message else f"crashed: {error.message}"
        except Exception as error:  # noqa: BLE001 - a crash of a planner is what is counted
            return f"crashed: {type(error).__name__}: ...{str(error)[-40:]}"
        finally:
            logging.disable(logging.NOTSET)
    return judge(subject.model, device_map, budgets, subject.whole)


def balance(subjects: Sequence[Subject]) -> dict[str, list[float]]:
    """Print the largest share over the best contiguous split's; return the ratios of each planner."""
    print(
        "\n(a) Largest share / best contiguous split, strategy balanced, budgets that do not bind (1.000 "
        "is the optimum)"
    )
    print(
        f"{'model':24}{'GB':>7}  {'devices':>7}{'optimum GB':>12}"
        + "".join(f"{planner:>14}" for planner in PLANNERS)
    )
    ratios: dict[str, list[float]] = {planner: [] for planner in PLANNERS}
    for subject, devices in product(subjects, DEVICES):
        optimum = best_split(subject.units, devices)
        cells = []
        for planner, found in ratios.items():
            verdict = _plan(planner, subject, dict.fromkeys(range(devices), _ROOM), "balanced")
            if isinstance(verdict, str):
                cells.append(verdict)
                continue
            found.append(verdict.largest / optimum)
            cells.append(
                f"{found[-1]:.3f}" + ("" if not verdict.faults else " " + ",".join(sorted(verdict.faults)))
            )
        size = f"{subject.nbytes / 1e9:7.2f}" if devices == DEVICES[0] else " " * 7
        name = subject.name if devices == DEVICES[0] else ""
        print(f"{name:24}{size}  {devices:7}{optimum / 1e9:12.3f}" + "".join(f"{cell:>14}" for cell in cells))
    for label, of in (("mean", lambda found: sum(found) / len(found)), ("worst", max), ("best", min)):
        print(f"{label:24}{'':7}  {'':7}{'':12}" + "".join(f"{of(found):14.3f}" for found in ratios.values()))
    return ratios


def exact_fits(subjects: Sequence[Subject]) -> dict[str, Counter[str]]:
    """Print how planners use budgets in which everything fits to the byte."""
    print(
        "\n(b) Exact fits: every device has the optimum of (a) to the byte, cpu is offered too; both "
        "strategies"
    )
    counts: dict[str, Counter[str]] = {planner: Counter() for planner in PLANNERS}
    for subject, devices, strategy in product(subjects, DEVICES, ("balanced", "sequential")):
        optimum = best_split(subject.units, devices)
        budgets: dict[int | str, int] = {**dict.fromkeys(range(devices), optimum), "cpu": 4 * subject.nbytes}
        for planner, count in counts.items():
            verdict = _plan(planner, subject, budgets, strategy)
            count["cases"] += 1
            count["spill"] += not isinstance(verdict, str) and verdict.spills
            count["over budget"] += not isinstance(verdict, str) and "over budget" in verdict.faults
            count["no plan"] += isinstance(verdict, str)
    _print_counts(counts, ("cases", "spill", "over budget", "no plan"))
    return counts


def grid(subjects: Sequence[Subject]) -> dict[str, Counter[str]]:
    """Print how many plans are wrong over a grid of budgets."""
    shares = {"loose": 1.5, "tight": 1.05, "short": 0.6}
    print(
        f"\n(c) Grid: {len(subjects)} models x {DEVICES} devices x {tuple(shares)} "
        f"({tuple(shares.values())} of the model in all)"
    )
    print("    x cpu offered or not x disk offered or not x strategies balanced, sequential, balanced_low_0")
    counts: dict[str, Counter[str]] = {planner: Counter() for planner in PLANNERS}
    crashes: Counter[str] = Counter()
    for subject, devices, share, cpu, disk, strategy in product(
        subjects,
        DEVICES,
        shares.values(),
        (True, False),
        (True, False),
        ("balanced", "sequential", "balanced_low_0"),
    ):
        budgets: dict[int | str, int] = dict.fromkeys(range(devices), int(subject.nbytes * share / devices))
        budgets |= {"cpu": subject.nbytes} if cpu else {}
        budgets |= {"disk": 2 * subject.nbytes} if disk else {}
        for planner, count in counts.items():
            verdict = _plan(planner, subject, budgets, strategy)
            count["cases"] += 1
            if isinstance(verdict, str):
                crashes[f"{planner} {verdict}"] += verdict != "refused"
                count["crashed"] += verdict != "refused"
                count["refused"] += verdict == "refused"
                count["refused needlessly"] += verdict == "refused" and _surely_fits(subject, budgets)
                continue
            count["wrong"] += bool(verdict.faults)
            count.update(verdict.faults)
    for count in counts.values():
        count["wrong"] += count["crashed"]
    _print_counts(
        counts,
        (
            "cases",
            "wrong",
            "incomplete",
            "over budget",
            "unasked tier",
            "torn",
            "crashed",
            "refused",
            "refused needlessly",
        ),
    )
    for crash, times in crashes.items():
        if times:
            print(f"    {crash}: {times}")
    return counts


def _surely_fits(subject: Subject, budgets: dict[int | str, int]) -> bool:
    """Whether a plan is known.

    All on cpu, all streamed from disk, or the largest first, each on the first device with room.
    """
    if subject.nbytes <= budgets.get("cpu", 0) or subject.nbytes <= budgets.get("disk", 0):
        return True
    free = [budget for device, budget in budgets.items() if isinstance(device, int)]
    for load in sorted(subject.units, reverse=True):
        at = next((at for at, nbytes in enumerate(free) if load <= nbytes), None)
        if at is None:
            return False
        free[at] -= load
    return True


def _print_counts(counts: dict[str, Counter[str]], columns: Sequence[str]) -> None:
    print(f"{'':14}" + "".join(f"{column:>{max(12, len(column) + 2)}}" for column in columns))
    for planner, count in counts.items():
        print(f"{planner:14}" + "".join(f"{count[column]:>{max(12, len(column) + 2)}}" for column in columns))
