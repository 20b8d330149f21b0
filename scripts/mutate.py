"""Mutation testing of the rules.

`python scripts/mutate.py dm204 dm403`, or without words for all of them (hours).

mutmut (`pip install mutmut`) names a function by its file's path below `src`, so the rules are laid out
there, in `build/mutation`; nothing of the checkout is touched. A mutant that survives is a test that is
missing, unless nobody could tell the difference: a guard that only the type checker needs, the order in which
something is summed up, a bound on the work that a suggestion may cost.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
SCRATCH = ROOT / "build" / "mutation"
BESIDE = ("devmap", "docs", "examples", "schema", "tests", "validators")
CONFIG = """\
[mutmut]
source_paths = src
only_mutate =
    {mutated}
also_copy =
    {copied}
pytest_add_cli_args_test_selection =
    tests/validators
    tests/checking/test_device_map.py
"""


def main(words: list[str]) -> int:
    """Mutate the modules whose names begin with the words, run their tests, and list what survives."""
    shutil.rmtree(SCRATCH, ignore_errors=True)
    SCRATCH.mkdir(parents=True)
    for name in BESIDE:
        shutil.copytree(ROOT / name, SCRATCH / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(ROOT / "validators", SCRATCH / "src", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", SCRATCH)
    mutated = [f"src/devmap_validators/rules/*/{word}*.py" for word in words or [""]]
    lists = {"mutated": mutated, "copied": [name for name in BESIDE if name != "tests"]}
    config = CONFIG.format(**{key: "\n    ".join(names) for key, names in lists.items()})
    (SCRATCH / "setup.cfg").write_text(config, encoding="utf-8")
    ran = subprocess.run(["mutmut", "run"], cwd=SCRATCH, check=False)
    subprocess.run(["mutmut", "results"], cwd=SCRATCH, check=False)
    return ran.returncode


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
