"""What a stranger's pull request may bring.

Each file ends in findings, soon, and with nothing that a log would obey.
"""

from __future__ import annotations

import json
import os
import resource
import struct
import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from devmap.api.checks.validation import validate
from devmap.errors import UsageError
from devmap.report.formats.findings import FORMATS, render
from tests.effort import at_most

if TYPE_CHECKING:
    from collections.abc import Sequence

HEAD = "version: 1\nmax_memory: {0: 1GB}\n"
MANIFEST = HEAD + "model: {manifest: m.manifest.yaml}\n"
HUGE = 9223372036854775807


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a small model, a FIFO and a link to a device without an end."""
    (tmp_path / "m.manifest.yaml").write_text(
        f'version: 1\nmodules: {{"": M, {"a" * 200}: Linear}}\ntensors: '
        f'{{{"a" * 200}.weight: "float32[2, 2]"}}\n'
    )
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "zero").symlink_to("/dev/zero")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def check(text: str) -> Sequence[str]:
    """The codes of what is found in a config, at little cost."""
    Path("x.devmap.yaml").write_text(text)
    with at_most(million_steps=150):
        result = validate(["x.devmap.yaml"])
    return [finding.code for finding in result.findings]


def safetensors(path: Path, header: str) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(struct.pack("<Q", len(header)) + header.encode())


@pytest.mark.parametrize("name", ["fifo", "./zero", "."])
@pytest.mark.parametrize(
    ("config", "code"),
    [
        (HEAD + "model: {{manifest: {0}}}\n", "DM217"),
        (HEAD + "model: {{checkpoint: {0}}}\n", "DM216"),
        (HEAD + "model: {{manifest: m.manifest.yaml}}\nextends: {0}\n", "DM112"),
        (HEAD + "model: {{manifest: m.manifest.yaml}}\nmachine: ./{0}\n", "DM310"),
        (HEAD + "model: {{manifest: m.manifest.yaml}}\npolicies: [./{0}]\n", "DM602"),
    ],
)
def test_what_is_no_regular_file_is_a_finding(folder: Path, config: str, code: str, name: str) -> None:
    del folder
    assert code in check(config.replace("{{", "{").replace("}}", "}").replace("{0}", name))


@pytest.mark.parametrize("name", ["fifo", "zero"])
def test_a_lock_that_is_no_regular_file_is_a_finding(folder: Path, name: str) -> None:
    (folder / "x.devmap.lock.yaml").symlink_to(name)
    assert check(MANIFEST) == ["DM504"]


def test_a_config_that_is_no_regular_file_ends_the_run_with_its_name(folder: Path) -> None:
    (folder / "walked.devmap.yaml").symlink_to("fifo")
    with pytest.raises(UsageError, match=r"walked\.devmap\.yaml: it is a FIFO"):
        validate(["."])


@pytest.mark.parametrize("settings", ["devmap.toml", "pyproject.toml"])
def test_settings_that_are_no_regular_file_do_not_hold_up_the_run(folder: Path, settings: str) -> None:
    (folder / settings).symlink_to("zero")
    if settings == "devmap.toml":
        (folder / "x.devmap.yaml").write_text(MANIFEST)
        with pytest.raises(UsageError, match="it is a device"):
            validate(["."])
    else:
        assert check(MANIFEST) == []


def test_a_lock_of_a_hundred_megabytes_is_refused_by_its_size(folder: Path) -> None:
    with (folder / "x.devmap.lock.yaml").open("wb") as file:
        file.truncate(100_000_000)
    assert check(MANIFEST) == ["DM504"]


@pytest.mark.parametrize("name", ["model.safetensors", "model.safetensors.index.json", "config.json"])
def test_no_file_of_a_checkpoint_is_waited_for(folder: Path, name: str) -> None:
    safetensors(folder / "ck" / "other.safetensors", "{}")
    (folder / "ck" / name).symlink_to(folder / "fifo")
    assert "DM021" in check(HEAD + "model: {checkpoint: ./ck}\n")


@pytest.mark.parametrize(
    "header",
    [
        "{"
        + ",".join(
            [f'"t{i}":{{"dtype":"F32","shape":[0],"data_offsets":[0,0]}}' for i in range(100_000)] * 2
        )[:-1]
        + "}}",
        json.dumps({"a": {"dtype": "F32", "shape": [HUGE] * 100_000, "data_offsets": [0, 0]}}),
        json.dumps({"a": {"dtype": "F32", "shape": [[1] * 50_000], "data_offsets": [0, 0]}}),
        json.dumps({"a": {"dtype": "F32", "shape": [1], "data_offsets": list(range(100_000))}}),
        '{"a":' * 100_000,
    ],
)
def test_a_header_costs_no_more_than_its_length(folder: Path, header: str) -> None:
    safetensors(folder / "ck" / "model.safetensors", header)
    codes = check(HEAD + "model: {checkpoint: ./ck}\n")
    assert "DM021" in codes
    assert all(len(finding.message) < 1500 for finding in validate(["x.devmap.yaml"]).findings)


@pytest.mark.parametrize("name", ["x\0y.safetensors", "n" * 5000, "\ud800.safetensors", "fifo"])
def test_an_index_may_name_anything(folder: Path, name: str) -> None:
    (folder / "ck").mkdir()
    os.mkfifo(folder / "ck" / "fifo")
    (folder / "ck" / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": name}}))
    assert "DM021" in check(HEAD + "model: {checkpoint: ./ck}\n")


@pytest.mark.parametrize(
    "name", ["x" * 5000, "~no-such-user-here/x", '"a\\0b"', '"a/\\uD800"', "../" * 1000, "a/" * 3000]
)
@pytest.mark.parametrize(
    "config",
    [
        HEAD + "model: {checkpoint: NAME}\n",
        HEAD + "model: {manifest: NAME}\n",
        MANIFEST + "extends: NAME\n",
        MANIFEST + "machine: NAME\n",
        MANIFEST + "policies: [NAME]\n",
        MANIFEST + "offload: {folder: NAME}\n",
    ],
)
def test_a_name_that_no_file_has_is_a_finding(folder: Path, config: str, name: str) -> None:
    del folder
    codes = check(config.replace("NAME", name))
    assert codes or "offload" in config
    assert not {"DM901", "DM902"} & set(codes)


def test_globs_are_matched_in_linear_time(folder: Path) -> None:
    del folder
    assert "DM201" in check(
        MANIFEST + f'device_map: {{"": 0, "{"*a" * 90}b": 0, "{"*" * 100}a{"?" * 199}": 0}}\n'
    )


def test_comments_and_brackets_are_read_in_linear_time(folder: Path) -> None:
    del folder
    assert check(MANIFEST + "# devmap: ignore[" * 40_000 + "\n")
    names = "".join(f'  "{number}": {{}} # devmap: ignore[DM201] x\n' for number in range(8_000))
    assert check(MANIFEST + "profiles:\n" + names)


@pytest.mark.parametrize(
    "pattern",
    [
        "^(a+)+$",
        "^(a|a)*$",
        "(?=a)",
        "(((((((((((a*)*)*)*)*)*)*)*)*)*)*$",
        "a{1000}{1000}",
        "^(a?){300}a{300}$",
    ],
)
def test_no_pattern_of_a_policy_holds_up_the_run(folder: Path, pattern: str) -> None:
    schema = f"{{properties: {{device_map: {{propertyNames: {{pattern: '{pattern}'}}}}}}}}"
    (folder / "p.yaml").write_text(f"version: 1\nrules: [{{code: ABC001, message: m, schema: {schema}}}]\n")
    assert check(
        MANIFEST + f'device_map: {{"": 0, "{"a" * 200}": 0, "{"a" * 5000}!": 0}}\npolicies: [./p.yaml]\n'
    )


def test_what_is_wrong_with_a_pack_stands_in_the_pack(folder: Path) -> None:
    (folder / "p.yaml").write_text(
        "version: 1\nrules:\n  - code: ABC001\n    message: m\n    schema: {$ref: '#'}\n"
        "  - code: ABC002\n    message: m\n    schema: {items: {$ref: 'https://example.com/x'}}\n"
    )
    Path("x.devmap.yaml").write_text(MANIFEST + "policies: [./p.yaml]\n")
    found = validate(["x.devmap.yaml"]).findings
    assert [
        (finding.code, finding.position.file, finding.position.start.line)
        for finding in found
        if finding.position
    ] == [
        ("DM602", "p.yaml", 5),
        ("DM602", "p.yaml", 8),
    ]


NASTY = "x\n::error::boom\x1b[31m\u202e\x07.devmap.yaml"


@pytest.mark.parametrize("format_name", FORMATS)
def test_nothing_that_a_log_would_obey_is_printed(folder: Path, format_name: str) -> None:
    pack = (
        'rules: [{code: ABC001, message: "m\\n::error::x\\u202e", help: "h\\n '
        ' ::error::x\\u202e", schema: false}]\n'
    )
    (folder / "p.yaml").write_text("version: 1\n" + pack.replace("schema: false", "schema: {not: {}}"))
    (folder / NASTY).write_text(
        MANIFEST + "policies: [p.yaml]\nbogus\u202e: 1 # devmap: ignore[DM101] \u202ereason\n"
    )
    (folder / "y.devmap.yaml").write_text(MANIFEST + "policies: [p.yaml]\n")
    result = validate(["."])
    text = render(result.findings, format_name, files=result.files)
    assert result.findings
    assert all(letter.isprintable() or letter == "\n" for letter in text)
    assert not any(line.lstrip().startswith("::error::") for line in text.splitlines())
    assert "##[" not in text
    if format_name in {"json", "sarif", "gitlab"}:
        files = json.dumps(json.loads(text))
        assert (
            json.dumps(NASTY)[1:-1] in files or "x%0A%3A%3Aerror" in files
        )  # the file's own name, for machines
    if format_name == "junit":
        assert ET.fromstring(text).tag == "testsuites"


def test_the_command_prints_no_control_character_of_a_name(folder: Path) -> None:
    (folder / NASTY).symlink_to("fifo")
    told = subprocess.run(
        [sys.executable, "-m", "devmap", "validate", "."],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert told.returncode == 2
    assert all(letter.isprintable() or letter == "\n" for letter in told.stderr)
    assert "\n::" not in told.stderr


def test_a_megabyte_of_anything_costs_bounded_memory(folder: Path) -> None:
    """Half a gigabyte is far more than any of these takes, and far less than what an unbounded one would."""
    (folder / "m.manifest.yaml").write_text("version: 1\nmodules: {a[0-99999999]: B}\n")
    script = (
        "import resource; resource.setrlimit(resource.RLIMIT_AS, (1 << 30, 1 << 30)); "
        "from devmap.cli.main import main; main()"
    )
    (folder / "x.devmap.yaml").write_text(MANIFEST + "# " + "x" * 1_000_000 + "\n")
    told = subprocess.run(
        [sys.executable, "-c", script, "validate", "x.devmap.yaml"],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert told.returncode == 1, told.stderr
    assert resource.RLIMIT_AS
