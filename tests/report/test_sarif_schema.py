"""Our SARIF against the standard's own JSON Schema, as an npm package of Microsoft's carries it."""

from __future__ import annotations

import getpass
import json
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path
from typing import Any

from jsonschema import Draft4Validator

FAULTS = Path(__file__).parents[1] / "faults"
PACKAGE = "@microsoft/jest-sarif@1.0.0-beta.0"
MEMBER = "package/lib/schemas/sarif-2.1.0-rtm.5.json"


def sarif_schema() -> dict[str, Any]:
    """The schema, fetched by npm once into a folder of the system's temporary files."""
    folder = Path(tempfile.gettempdir()) / f"devmap-sarif-schema-{getpass.getuser()}"
    if not any(folder.glob("*.tgz")):
        npm = shutil.which("npm")
        assert npm is not None, (
            f"this test takes the SARIF schema out of {PACKAGE}: have npm and a registry that it reaches"
        )
        folder.mkdir(parents=True, exist_ok=True)
        fetched = subprocess.run(
            [npm, "pack", "--silent", PACKAGE],
            cwd=folder,
            check=False,
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert fetched.returncode == 0, fetched.stderr
    with tarfile.open(next(folder.glob("*.tgz"))) as archive:
        member = archive.extractfile(MEMBER)
        assert member is not None
        schema = json.load(member)
    assert isinstance(schema, dict)
    return schema


def test_every_kind_of_finding_makes_sarif_that_the_standard_allows() -> None:
    command = [sys.executable, "-m", "devmap", "validate", ".", "--format", "sarif"]
    log = json.loads(subprocess.run(command, cwd=FAULTS, capture_output=True, check=False).stdout)
    assert [error.message for error in Draft4Validator(sarif_schema()).iter_errors(log)] == []
    assert len({result["ruleId"] for result in log["runs"][0]["results"]}) > 50
    assert any(result.get("suppressions") for result in log["runs"][0]["results"])


def test_a_run_without_findings_is_sarif_too(tmp_path: Path) -> None:
    shutil.copy(FAULTS / "example.manifest.yaml", tmp_path)
    (tmp_path / "fine.devmap.yaml").write_text(
        "version: 1\nmodel: {manifest: example.manifest.yaml}\nmax_memory: {0: 3GB}\n", encoding="utf-8"
    )
    command = [sys.executable, "-m", "devmap", "validate", ".", "--format", "sarif"]
    log = json.loads(subprocess.run(command, cwd=tmp_path, capture_output=True, check=True).stdout)
    assert [error.message for error in Draft4Validator(sarif_schema()).iter_errors(log)] == []
    assert log["runs"][0]["results"] == []
