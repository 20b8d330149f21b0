"""Every format, rendered as people and machines get it."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ET
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from devmap.config.yaml.faults import Edit
from devmap.config.yaml.source import Source
from devmap.findings.meta import UNUSED_SUPPRESSION
from devmap.findings.model import Finding, Rule, Severity
from devmap.report.formats.findings import FORMATS, render, statistics
from devmap.report.formats.findings_schema import findings_schema

Golden = Callable[[str, str], None]

TEXT = (
    """\
version: 1
model: {manifest: llama.manifest.yaml}
device_map:
  model.embed_tokens: 0
  "":\tbalanced
  # 日本語 below
  model.layer.0: 1
  "モデル.層": gpu  # a wide key
  """
    "model."
    + "very_long_name." * 12
    + """x: 1
max_memory: {0: 20GB}
"""
)
SOURCE = Source("configs/llama.devmap.yaml", TEXT)
OTHER = Source("z, odd:name%.devmap.yaml", "\x1b[31m: \u202eevil\n")


def at(line: int, text: str, source: Source = SOURCE) -> tuple[int, int, int]:
    return line, source.line(line).index(text) + 1, len(text)


FINDINGS = (
    Finding(
        "DM201",
        "unmatched-key",
        Severity.ERROR,
        "'model.layer.0' is not a module of this model",
        ("device_map", "model.layer.0"),
        SOURCE.stretch(*at(7, "model.layer.0")),
        label="did you mean 'model.layers.0'?",
        edit=Edit(SOURCE.stretch(*at(7, "model.layer.0")), "model.layers.0", "rename to 'model.layers.0'"),
    ),
    Finding(
        "DM105",
        "invalid-device",
        Severity.ERROR,
        "'gpu' is not a valid device",
        ("device_map", "モデル.層"),
        SOURCE.stretch(*at(8, "gpu")),
    ),
    Finding(
        "DM106",
        "unknown-choice",
        Severity.WARNING,
        "a value after a tab",
        ("device_map", ""),
        SOURCE.stretch(*at(5, "balanced")),
    ),
    Finding(
        "DM206",
        "conflicting-keys",
        Severity.WARNING,
        "a long line",
        ("device_map",),
        SOURCE.stretch(*at(9, "x: 1")),
        help="shorten it\nor break it",
    ),
    Finding(
        "DM404",
        "budget-near-capacity",
        Severity.NOTE,
        "more than 90%",
        ("max_memory", "0"),
        SOURCE.stretch(*at(10, "20GB")),
    ),
    Finding(
        "DM404",
        "budget-near-capacity",
        Severity.WARNING,
        "known",
        ("max_memory", "0"),
        SOURCE.stretch(*at(10, "20GB")),
        suppressed='the other half is <idle> & "quiet"',
    ),
    Finding(
        "DM011",
        "empty-file",
        Severity.ERROR,
        "the file is empty",
        (),
        Source("empty.devmap.yaml", "").stretch(1, 1, 0),
    ),
    Finding("DM003", "forbidden-character", Severity.ERROR, "100%: bad, very\nbad", (), OTHER.stretch(1, 1)),
    Finding(
        "DM202",
        "uncovered-tensors",
        Severity.ERROR,
        "3 tensors have no device",
        ("a", 0),
        None,
        help="add them",
    ),
)
FILES = ("configs/llama.devmap.yaml", "empty.devmap.yaml", "fine.devmap.yaml", OTHER.name)
RULES = (
    UNUSED_SUPPRESSION,
    Rule(
        "DM201",
        "unmatched-key",
        Severity.ERROR,
        "A key names nothing",
        "It places nothing.",
        "a: 1\n",
        "b: 2\n",
        check=lambda _: (),
    ),
)


def shown(name: str, findings: tuple[Finding, ...] = FINDINGS, **options: Any) -> str:
    return render(findings, name, files=FILES, rules=RULES, **options)


@pytest.mark.parametrize("name", FORMATS)
def test_each_format_is_as_it_was(name: str, golden: Golden) -> None:
    golden(f"findings/{name}.txt", shown(name))


def test_colours_are_there_when_asked_for(golden: Golden) -> None:
    golden("findings/text_color.txt", shown("text", color=True, width=60))
    assert "\x1b[1;31m" in shown("text", color=True)
    assert "\x1b" not in shown("text", color=False)


@pytest.mark.parametrize("name", FORMATS)
def test_each_format_says_nothing_about_nothing_in_its_own_way(name: str, golden: Golden) -> None:
    golden(f"findings/{name}_nothing.txt", render((), name, files=("fine.devmap.yaml",)))


def test_json_follows_its_schema_and_has_no_absolute_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Draft202012Validator(findings_schema()).validate(json.loads(shown("json")))
    monkeypatch.chdir(tmp_path)
    source = Source(str(tmp_path / "sub" / "x.devmap.yaml"), "a: 1\n")
    for name in ("json", "sarif", "junit", "github", "gitlab"):
        text = render(
            [Finding("DM201", "x", Severity.ERROR, "m", (), source.stretch(1, 1))], name, files=[source.name]
        )
        assert str(tmp_path) not in text
        assert "sub/x.devmap.yaml" in text


def test_sarif_has_the_required_structure_with_rules_and_suppressions() -> None:
    schema = json.loads((Path(__file__).parent / "sarif-2.1.0-structure.json").read_text(encoding="utf-8"))
    log = json.loads(shown("sarif"))
    Draft202012Validator(schema).validate(log)
    run = log["runs"][0]
    rules = run["tool"]["driver"]["rules"]
    assert all(rules[result["ruleIndex"]]["id"] == result["ruleId"] for result in run["results"])
    assert (
        next(rule for rule in rules if rule["id"] == "DM201")["fullDescription"]["text"]
        == "It places nothing."
    )
    assert [result["suppressions"] for result in run["results"] if result["suppressions"]] == [
        [{"kind": "inSource", "justification": 'the other half is <idle> & "quiet"'}]
    ]
    uris = {
        place["physicalLocation"]["artifactLocation"]["uri"]
        for result in run["results"]
        for place in result.get("locations", [])
    }
    assert "z%2C%20odd%3Aname%25.devmap.yaml" in uris


def test_junit_is_xml_whose_counts_are_true() -> None:
    root = ET.fromstring(shown("junit"))
    cases = root.findall("./testsuite/testcase")
    assert int(root.attrib["tests"]) == len(cases)
    assert int(root.attrib["failures"]) == len(root.findall(".//failure")) == 8
    assert int(root.attrib["skipped"]) == len(root.findall(".//skipped")) == 1
    assert [case.attrib["classname"] for case in cases if not list(case)] == ["fine.devmap.yaml"]


def test_github_gets_errors_first_and_ten_of_each_and_the_number_of_the_rest() -> None:
    many = tuple(
        Finding("DM201", "x", severity, f"{severity} {number}", (), SOURCE.stretch(1, 1))
        for number in range(13)
        for severity in (Severity.WARNING, Severity.ERROR)
    )
    lines = shown("github", many).splitlines()
    assert [line.split()[0] for line in lines] == ["::error"] * 10 + ["::warning"] * 10 + ["6"]


def test_gitlab_fingerprints_differ_and_do_not_move_with_lines() -> None:
    entries = json.loads(shown("gitlab"))
    assert len({entry["fingerprint"] for entry in entries}) == len(entries) == 8
    moved = Source(SOURCE.name, f"# one more line\n{TEXT}")
    line, column, length = at(7, "model.layer.0")
    again = Finding(
        "DM201",
        "unmatched-key",
        Severity.ERROR,
        FINDINGS[0].message,
        FINDINGS[0].path,
        moved.stretch(line + 1, column, length),
    )
    assert json.loads(shown("gitlab", (again,)))[0]["fingerprint"] in {
        entry["fingerprint"] for entry in entries
    }


def test_statistics_count_open_findings_by_rule() -> None:
    assert statistics(FINDINGS).splitlines()[0] == "1  DM003  forbidden-character"
    assert "DM404" in statistics(FINDINGS)
    assert statistics(()) == ""


def test_there_is_no_other_format() -> None:
    with pytest.raises(ValueError, match="no format 'yaml'"):
        render((), "yaml")


texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)


@given(texts, st.integers(1, 3), st.integers(1, 40), st.integers(0, 20), texts)
def test_whatever_stands_in_a_file_every_format_renders_it_and_no_control_character_gets_out(
    text: str, line: int, column: int, length: int, message: str
) -> None:
    position = Source("x.devmap.yaml", text).stretch(line, column, length)
    finding = Finding("DM201", "x", Severity.ERROR, message, ("a", 1), position, suppressed=None)
    for name in FORMATS:
        out = render((finding,), name, files=("x.devmap.yaml",))
        assert out.endswith("\n")
        out.encode()
    json.loads(render((finding,), "json"))
    ET.fromstring(render((finding,), "junit"))
    lines = render((finding,), "text").split("\n")
    shown_line = next((row for row in lines if row.startswith(f" {position.start.line} | ")), "")
    assert "\x1b" not in shown_line
