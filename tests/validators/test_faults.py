"""`tests/faults` holds broken configs.

Each says at its end what is found in it, `# expect: CODE@line:column`.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from devmap.api.checks.validation import validate
from devmap.checking.settings import Settings
from tests.validators.wording import as_lines

if TYPE_CHECKING:
    from tests.conftest import Golden

FOLDER = Path(__file__).parents[1] / "faults"
FILES = sorted(FOLDER.glob("*.devmap.yaml"))
EXPECTATION = re.compile(rb"# expect: ([A-Z]{2,8}[0-9]{3})@([0-9]+):([0-9]+)")


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name.removesuffix(".devmap.yaml"))
def test_every_fault_is_found_where_it_stands_and_nothing_else(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(FOLDER)
    expected = {
        (code.decode(), int(line), int(column))
        for code, line, column in EXPECTATION.findall(path.read_bytes())
    }
    found = set()
    for finding in validate([path.name], settings=Settings(strict=True)).findings:
        assert finding.position is not None
        found.add((finding.code, finding.position.start.line, finding.position.start.column))
    assert found == expected
    assert expected


def test_every_finding_says_what_the_golden_file_holds(
    golden: Golden, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(FOLDER)
    found = {path.name: validate([path.name], settings=Settings(strict=True)).findings for path in FILES}
    text = "".join(f"# {name}\n{as_lines(findings)}\n" for name, findings in found.items())
    golden("faults.txt", re.sub("(not a valid JSON Schema: ).*", r"\1(in the words of jsonschema)", text))


def test_there_are_many_of_them() -> None:
    assert len(FILES) >= 150


def test_the_manifest_is_the_one_of_the_examples() -> None:
    example = FOLDER.parents[1] / "validators" / "devmap_validators" / "example.manifest.yaml"
    assert (FOLDER / "example.manifest.yaml").read_bytes() == example.read_bytes()
