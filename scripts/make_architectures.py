"""Write the built-in table of architectures from Transformers' own code.

Walks Transformers' mappings, builds every class on the meta device from its default config and with one
figure changed at a time, and writes down what the headers of a checkpoint cannot tell: module classes by
path, buffers that no checkpoint holds, ties, conversions of stored names, classes that stay whole, and what
a config leaves out. Run it with the Transformers version that the table should follow:

    python scripts/make_architectures.py                  # rewrites devmap/inventory/architectures/
    python scripts/make_architectures.py llama gemma3     # these alone
    python scripts/make_architectures.py --check llama    # says whether the files are fresh
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import sys
import warnings
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"
warnings.simplefilter("ignore")

sys.path.insert(0, str(Path(__file__).parents[1]))  # the tests' zoo of tiny models stands there

import transformers  # noqa: E402 - after the environment is set
from architectures.builds import model_types  # noqa: E402 - as above
from architectures.families import family_table, legacy_conversions, unsettled  # noqa: E402 - as above
from architectures.rendering import render  # noqa: E402 - as above

FOLDER = Path(__file__).parents[1] / "devmap" / "inventory" / "architectures"


def main() -> int:
    """Write the files, or compare them."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "--check", action="store_true", help="write nothing; exit with 1 when a file is not fresh"
    )
    parser.add_argument("--folder", type=Path, default=FOLDER, help="where the files stand")
    parser.add_argument("model_types", nargs="*", help="default: all")
    arguments = parser.parse_args()
    transformers.logging.set_verbosity_error()
    gc.disable()  # models are cycles of ten thousand objects: collected by families, not at each allocation
    stale: list[str] = []
    for model_type in arguments.model_types or model_types():
        content = render(family_table(model_type))
        gc.collect()
        print(*unsettled, sep="\n", end="\n" if unsettled else "", file=sys.stderr, flush=True)
        unsettled.clear()
        path = arguments.folder / f"{model_type}.json"
        if arguments.check:
            known = path.read_text(encoding="utf-8") if path.exists() else ""
            stale += [] if known == content else [model_type]
        else:
            path.write_text(content, encoding="utf-8")
            print(f"{path.name}: {len(content):,} bytes", flush=True)
    if not arguments.check and not arguments.model_types:
        (arguments.folder / "_legacy.json").write_text(
            json.dumps(legacy_conversions(), separators=(",", ":")) + "\n", encoding="utf-8"
        )
    if stale:
        print(f"not fresh: {', '.join(stale)}; run python scripts/make_architectures.py")
    return 1 if stale else 0


if __name__ == "__main__":
    sys.exit(main())
