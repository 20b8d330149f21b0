"""Coverage-guided fuzzing with atheris: `python scripts/fuzz.py TARGET MINUTES`, as `make fuzz` runs it.

A find is written to tests/fuzz/finds; make a seed of it (tests/fuzz/seeds/TARGET), a test, and mend its kind.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import atheris

with atheris.instrument_imports(include=["devmap", "devmap_validators"]):
    from tests.fuzz.targets import TARGETS, seeds_of


def main() -> None:
    """Fuzz one target for some minutes."""
    target, minutes = sys.argv[1], float(sys.argv[2])
    here = Path(__file__).parents[1] / "tests" / "fuzz"
    corpus = here / "corpus" / target
    corpus.mkdir(parents=True, exist_ok=True)
    (here / "finds").mkdir(exist_ok=True)
    for number, seed in enumerate(seeds_of(target)):
        (corpus / f"seed{number}").write_bytes(seed)
    # The limits are the promise, with room for what counting branches costs.
    options = [
        f"-max_total_time={int(minutes * 60)}",
        "-timeout=10",
        "-rss_limit_mb=2000",
        "-max_len=20000",
        "-print_final_stats=1",
        "-verbosity=0",
        f"-artifact_prefix={here / 'finds'}/{target}-",
    ]
    atheris.Setup([sys.argv[0], str(corpus), *options], TARGETS[target])
    atheris.Fuzz()


if __name__ == "__main__":
    main()
