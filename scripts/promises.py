"""Break each promise of the resolver on purpose, and see its own test fail.

`python scripts/promises.py` tries all, `python scripts/promises.py balanced ties` some; `make mutants` does
the former. A mutant is one deliberate defect: a text in one module that is replaced by another. It is
applied in a copy of the tree, the test that holds the promise runs there, and must fail. A mutant that
survives means that the test does not hold what it is named for; one whose text is gone has to be written
again beside the code. Takes minutes, so `make test` does not run it.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
COPIED = ("devmap", "docs", "examples", "schema", "tests", "validators", "pyproject.toml", "README.md")
PLANNING = "devmap/planning"
TESTS = "tests/planning"
EVERY_CONFIG = (
    f"{TESTS}/test_resolve.py"
    "::test_every_config_gives_a_plan_that_keeps_every_promise_or_says_what_is_missing"
)


@dataclass(frozen=True)
class Mutant:
    """One promise, the defect that breaks it, and the test that has to notice."""

    name: str
    promise: str
    module: str
    text: str
    instead: str
    test: str


MUTANTS = (
    Mutant(
        "sizes",
        "Sizes are exact at the run dtype",
        f"{PLANNING}/problem/units.py",
        "weight = [atom.nbytes for atom in atoms]",
        "weight = [atom.nbytes - (atom.nbytes > 1) for atom in atoms]",
        EVERY_CONFIG,
    ),
    Mutant(
        "tied-bytes",
        "A tied tensor is counted once per device",
        "devmap/inventory/atoms.py",
        "[sizes[name] if owner.get(name, name) == name else 0 for name "
        "in names] if owner else sizes.values()",
        "[sizes[name] for name in names] if owner else sizes.values()",
        f"{TESTS}/test_resolve.py::test_tied_tensors_share_a_device_and_their_bytes_count_once",
    ),
    Mutant(
        "straddling",
        "No class in no_split_module_classes straddles devices",
        "devmap/inventory/atoms.py",
        "if beyond > place + 1 and classes[place] not in whole:",
        "if beyond > place + 1:",
        EVERY_CONFIG,
    ),
    Mutant(
        "ties",
        "Tied tensors share a device",
        f"{PLANNING}/problem/units.py",
        "joined = _join(parent, pin_of, home[group[0]], home[name])",
        "joined = True",
        f"{TESTS}/test_resolve.py::test_tied_tensors_share_a_device_and_their_bytes_count_once",
    ),
    Mutant(
        "copies",
        "Where a pin parts a tie, the plan says which copy costs what",
        f"{PLANNING}/result/assembly.py",
        "for copy in problem.copies",
        "for copy in problem.copies[1:]",
        f"{TESTS}/test_resolve.py::test_pins_that_part_a_tie_say_what_the_copy_costs",
    ),
    Mutant(
        "offered",
        "cpu and disk are tiers only when offered",
        f"{PLANNING}/problem/budgets.py",
        "if config.offload.folder is not None:",
        "if config.offload is not None:",
        EVERY_CONFIG,
    ),
    Mutant(
        "disk-limit",
        "Disk limits count like any other",
        f"{PLANNING}/problem/model.py",
        "if budget.usable_bytes is None\n",
        'if budget.usable_bytes is None or budget.device.plain == "disk"\n',
        EVERY_CONFIG,
    ),
    Mutant(
        "budget",
        "Never a map that is over a budget",
        f"{PLANNING}/problem/model.py",
        "else max(0, budget.usable_bytes - kept[budget.device.is_accelerator])",
        "else max(0, budget.usable_bytes + 1 - kept[budget.device.is_accelerator])",
        EVERY_CONFIG,
    ),
    Mutant(
        "predecessor",
        "A streamed block executes on the accelerator of its nearest resident predecessor",
        f"{PLANNING}/placement/execution.py",
        "        execution_devices.append(nearest)\n",
        "        execution_devices.append(accelerators[-1] if accelerators "
        "and home in (CPU, DISK) else nearest)\n",
        f"{TESTS}/test_resolve.py::test_a_streamed_block_executes_on_its_nearest_resident_predecessor",
    ),
    Mutant(
        "slot-room",
        "Room to stream is that of the largest block that streams",
        f"{PLANNING}/placement/slot_sizing.py",
        "return Fitting(Slots(count, size, largest,",
        "return Fitting(Slots(count, size - 1, largest,",
        EVERY_CONFIG,
    ),
    Mutant(
        "no-needless-room",
        "Room to stream is reserved only when something streams",
        f"{PLANNING}/placement/fill.py",
        "return self.problem.limits[device] - self.used[device]",
        "return self.problem.limits[device] - self.used[device] - 1",
        f"{TESTS}/test_resolve.py::test_an_exact_fit_is_used_to_the_byte",
    ),
    Mutant(
        "forward",
        "sequential and auto fill each device with all that fits, in order",
        f"{PLANNING}/placement/partition.py",
        "        start = _reach(row, one, start)\n        ends.append(start)",
        "        start = max(start, _reach(row, one, start) - 1)\n        ends.append(start)",
        f"{TESTS}/test_partition.py::test_filling_reaches_the_end_exactly_where_a_contiguous_split_fits",
    ),
    Mutant(
        "balanced",
        "balanced has the smallest possible largest load",
        f"{PLANNING}/placement/partition.py",
        "return _most_even(row, [one.capped(high) for one in bins])",
        "return _most_even(row, [one.capped(high + 1) for one in bins])",
        f"{TESTS}/test_partition.py"
        "::test_balanced_has_the_smallest_largest_load_then_the_fewest_cuts_then_is_the_most_even",
    ),
    Mutant(
        "balanced-low-0",
        "balanced_low_0 puts the fewest bytes on device 0 that let the rest fit",
        f"{PLANNING}/placement/partition.py",
        "low, high = 0, _reach(row, first, 0)",
        "low, high = min(1, _reach(row, first, 0)), _reach(row, first, 0)",
        f"{TESTS}/test_partition.py"
        "::test_balanced_low_0_gives_the_first_device_the_fewest_bytes_that_let_the_rest_fit",
    ),
    Mutant(
        "fastest",
        "fastest takes the least predicted time",
        f"{PLANNING}/fastest/search.py",
        "    return min(found, key=rank)",
        "    return max(found, key=rank)",
        f"{TESTS}/test_fastest.py::test_no_placement_at_all_is_faster_where_there_are_few",
    ),
    Mutant(
        "bound",
        "No placement is faster than the bound",
        f"{PLANNING}/fastest/bound.py",
        "            for column in columns\n        )\n    return total\n",
        "            for column in columns\n        )\n    return total * 1.01\n",
        f"{TESTS}/test_fastest.py"
        "::test_the_bound_is_never_above_the_best_placement_and_fastest_never_below_it",
    ),
    Mutant(
        "refused",
        "It fails only where no placement fits",
        f"{PLANNING}/placement/solve.py",
        "    if packing.solution is not None:\n        return packing.solution\n",
        "",
        f"{TESTS}/test_packing.py::test_what_only_fits_out_of_order_is_packed_and_said_to_be",
    ),
    Mutant(
        "missing-bytes",
        "A failure says what is missing in bytes",
        f"{PLANNING}/infeasible/error.py",
        "default=0), 1)",
        "default=0), 1) * 0",
        EVERY_CONFIG,
    ),
    Mutant(
        "changes",
        "Each suggested change makes it fit",
        f"{PLANNING}/infeasible/suggestions.py",
        "found += islice((change for change in kind if fits(change.config)), 1)",
        "found += islice(kind, 1)",
        f"{TESTS}/test_shortfall.py::test_every_suggested_change_set_as_an_override_resolves",
    ),
    Mutant(
        "hash-seed",
        "Same input, same bytes out, whatever the hash seed",
        f"{PLANNING}/problem/budgets.py",
        "for device in sorted(amounts)",
        "for device in sorted(amounts, key=lambda device: hash(str(device)))",
        "tests/plan/test_lock.py::test_a_lock_has_the_same_bytes_whatever_the_hash_seed_and_the_locale",
    ),
)


def main(words: list[str]) -> int:
    """Try the mutants whose names are given, or all; 1 where one survives or cannot be applied."""
    chosen = [mutant for mutant in MUTANTS if not words or mutant.name in words]
    alive = 0
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for item in COPIED:
            source = ROOT / item
            if source.is_dir():
                shutil.copytree(source, folder / item, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copy(source, folder)
        for test in sorted({mutant.test for mutant in chosen}):
            if not _passes(folder, test):
                print(f"FAILS WITHOUT A DEFECT  {test}")
                return 1
        for mutant in chosen:
            path = folder / mutant.module
            before = path.read_text(encoding="utf-8")
            if before.count(mutant.text) != 1:
                print(f"CANNOT BE APPLIED  {mutant.name}: its text is not once in {mutant.module}")
                alive += 1
                continue
            path.write_text(before.replace(mutant.text, mutant.instead), encoding="utf-8")
            survived = _passes(folder, mutant.test)
            path.write_text(before, encoding="utf-8")
            alive += survived
            print(f"{'SURVIVED' if survived else 'killed  '}  {mutant.name}: {mutant.promise}", flush=True)
    print(f"{len(chosen) - alive} of {len(chosen)} killed")
    return 1 if alive else 0


def _passes(folder: Path, test: str) -> bool:
    """Whether a test passes in the copy; the copy's packages come before the installed ones."""
    places = os.pathsep.join((str(folder), str(folder / "validators")))
    environment = {**os.environ, "PYTHONPATH": places, "PYTHONDONTWRITEBYTECODE": "1", "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", test]
    ran = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    if ran.returncode not in {0, 1}:
        raise SystemExit(f"pytest could not run {test}:\n{ran.stdout[-2000:]}{ran.stderr[-2000:]}")
    return ran.returncode == 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
