"""The published schema as an editor uses it: the real yaml-language-server over a good and a bad file."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from click.testing import CliRunner

from devmap.cli.main import cli
from tests.integration.language_server import LanguageServer

if TYPE_CHECKING:
    from collections.abc import Iterator


BAD = """\
version: 1
model: {manifest: a.manifest.yaml, dtyp: bfloat16}
device_map: balancd
max_memory: {0: 8gb, cpu: 90%}
workloads: inference
"""

UNFINISHED = """\
version: 1
model:
  manifest: a.manifest.yaml
  dty
device_map:\x20
max
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, minilm_folder: Path) -> Path:
    """A folder with what `devmap init` writes, the schema beside it among that.

    And two files that somebody works on.
    """
    place = tmp_path_factory.mktemp("editor")
    config = place / "good.devmap.yaml"
    result = CliRunner().invoke(cli, ["init", str(minilm_folder), "--machine", "2x4090", "-o", str(config)])
    assert result.exit_code == 0, result.output
    modeline = config.read_text(encoding="utf-8").splitlines(keepends=True)[0]
    assert modeline.startswith("# yaml-language-server: $schema=")
    (place / "bad.devmap.yaml").write_text(modeline + BAD, encoding="utf-8")
    (place / "unfinished.devmap.yaml").write_text(modeline + UNFINISHED, encoding="utf-8")
    return place


@pytest.fixture(scope="module")
def server(folder: Path) -> Iterator[LanguageServer]:
    with LanguageServer(folder) as running:
        yield running


def test_what_init_writes_has_no_problem(server: LanguageServer, folder: Path) -> None:
    assert server.open(folder / "good.devmap.yaml") == []


def test_each_mistake_is_marked_in_its_place(server: LanguageServer, folder: Path) -> None:
    found = {
        (problem["range"]["start"]["line"], problem["range"]["start"]["character"]): problem["message"]
        for problem in server.open(folder / "bad.devmap.yaml")
    }
    lines = ["", *BAD.splitlines()]
    marked = {
        lines[line][column:].partition(",")[0].partition(":")[0].rstrip("}"): message
        for (line, column), message in found.items()
    }
    assert set(marked) == {"dtyp", "balancd", "8gb", "workloads"}
    assert "not allowed" in marked["dtyp"]
    assert "not allowed" in marked["workloads"]
    assert '"balanced"' in marked["balancd"]


def labels(answer: Any) -> dict[str, str]:
    """The proposed words with the text that explains each."""
    found: dict[str, str] = {}
    for item in answer["items"]:
        text = item.get("documentation") or ""
        found.setdefault(item["label"], text if isinstance(text, str) else text["value"])
    return found


def test_strategies_and_devices_are_proposed_with_their_meaning(server: LanguageServer, folder: Path) -> None:
    path = folder / "unfinished.devmap.yaml"
    server.open(path)
    proposed = labels(server.at("completion", path, "device_map: "))
    assert {"auto", "sequential", "balanced", "balanced_low_0", "fastest", "cpu", "disk"} <= set(proposed)
    assert "smallest possible largest load" in proposed["balanced"]


def test_keys_are_proposed_with_their_description(server: LanguageServer, folder: Path) -> None:
    path = folder / "unfinished.devmap.yaml"
    server.open(path)
    proposed = labels(server.at("completion", path, "\nmax"))
    assert "Bytes that each device may hold" in proposed["max_memory"]
    assert "headroom" in proposed
    assert "version" not in proposed, "what stands there already is not proposed"
    inner = labels(server.at("completion", path, "\n  dty"))
    assert "The dtype that the model runs in" in inner["dtype"]


@pytest.mark.parametrize(
    ("after", "says"),
    [
        ("\ndevice_m", "The longest match wins"),
        ("\nmax_mem", "`cpu` and `disk` are used only when they stand here"),
        ("\nworkload", "What the model will do"),
        ("\nversi", "The version of this format"),
        ("\nmod", "Where the model's description and weights come from"),
        ("  dty", "The dtype that the model runs in"),
    ],
)
def test_hovering_over_a_key_shows_its_description(
    server: LanguageServer, folder: Path, after: str, says: str
) -> None:
    path = folder / "hover.devmap.yaml"
    modeline = (folder / "bad.devmap.yaml").read_text(encoding="utf-8").splitlines(keepends=True)[0]
    text = (
        "version: 1\nmodel:\n  checkpoint: a\n  dtype: bfloat16\ndevice_map: "
        "balanced\nmax_memory: {0: 8GB}\nworkload: server\n"
    )
    path.write_text(modeline + text, encoding="utf-8")
    server.open(path)
    assert says in server.at("hover", path, after)["contents"]["value"]


def test_the_problem_matcher_of_the_documentation_reads_what_concise_prints(tmp_path: Path) -> None:
    page = (Path(__file__).parent.parent.parent / "docs" / "editors.md").read_text(encoding="utf-8")
    task = json.loads(
        next(
            block for block in re.findall(r"```json\n(.*?)```", page, re.DOTALL) if "problemMatcher" in block
        )
    )
    pattern = task["problemMatcher"]["pattern"]
    config = tmp_path / "x.devmap.yaml"
    config.write_text(BAD, encoding="utf-8")
    result = CliRunner().invoke(cli, ["validate", "--format", "concise", str(config)])
    lines = result.stdout.splitlines()
    found = [match for line in lines if (match := re.match(pattern["regexp"], line))]
    assert len(found) == len(lines) > 2
    parts = {(match[pattern["line"]], match[pattern["severity"]], match[pattern["code"]]) for match in found}
    assert ("2", "error", "DM101") in parts
