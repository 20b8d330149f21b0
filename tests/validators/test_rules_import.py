"""The pack is light: what is heavy loads only when a config needs it."""

from __future__ import annotations

import subprocess
import sys


def test_importing_the_rules_loads_neither_jsonschema_nor_torch() -> None:
    program = (
        "import sys, devmap_validators.rules; print([name for name in ('jsonschema', "
        "'torch', 'transformers') if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.strip() == "[]"
