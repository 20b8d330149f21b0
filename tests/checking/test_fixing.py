"""Fixes: what they change, what they leave alone, and that nothing gets worse."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import devmap_validators
from devmap.api.checks.fixing import fix
from devmap.api.checks.validation import validate
from devmap.checking.fixing import apply_edits, fixable
from devmap.checking.settings import Settings
from devmap.config.yaml.faults import Edit
from devmap.config.yaml.source import LineColumn, Position, Source
from devmap.findings.model import Finding, Severity
from devmap.report.formats.fixes import fixes_summary, render_diff

PACK = Path(devmap_validators.__file__).parent
MODEL = "model: {manifest: example.manifest.yaml}"
GOOD = f"version: 1\n{MODEL}\nmax_memory: {{0: 4GB, 1: 4GB}}\n"
SETTINGS = Settings(ignore=("DM411", "DM207"))


@pytest.fixture(name="folder")
def _folder(tmp_path: Path) -> Path:
    (tmp_path / "example.manifest.yaml").write_bytes((PACK / "example.manifest.yaml").read_bytes())
    return tmp_path


def mended(folder: Path, content: bytes) -> bytes:
    config = folder / "c.devmap.yaml"
    config.write_bytes(content)
    fix([str(config)], settings=SETTINGS)
    return config.read_bytes()


@pytest.mark.parametrize(
    ("wrong", "right"),
    [
        ("max_memry: {0: 4GB}\n", "max_memory: {0: 4GB}\n"),
        ("max_memory: {0: 4GB}\ndevice_map: balancd\n", "max_memory: {0: 4GB}\ndevice_map: balanced\n"),
        ("max_memory: {0: 4GB}\ndevice_map: 'Balanced'\n", "max_memory: {0: 4GB}\ndevice_map: 'balanced'\n"),
        (
            "max_memory: {0: 4GB, 1: 1GB}\ndevice_map: {'': 0, \"model.layer.0\": 1}\n",
            "max_memory: {0: 4GB, 1: 1GB}\ndevice_map: {'': 0, \"model.layers.0\": 1}\n",
        ),
        (
            "max_memory: {0: 4GB, 1: 1GB}\ndevice_map:\n  '': 0\n  layers.0: 1\n",
            "max_memory: {0: 4GB, 1: 1GB}\ndevice_map:\n  '': 0\n  model.layers.0: 1\n",
        ),
        ("max_memory: {0: 04000000000}\n", "max_memory: {0: 4000000000}\n"),
        (
            "max_memory: {0: 4GB}\noffload: {buffers: no}\n",
            "max_memory: {0: 4GB}\noffload: {buffers: false}\n",
        ),
        ("max_memory: {gpu0: 4GB}\n", "max_memory: {0: 4GB}\n"),
        ("max_memory: {'cuda: 0': 4GB}\n", "max_memory: {'cuda:0': 4GB}\n"),
        (
            "max_memory: {0: 4GB}\nno_split_module_classes: [LlamaDecoderLayr]\n",
            "max_memory: {0: 4GB}\nno_split_module_classes: [LlamaDecoderLayer]\n",
        ),
        (
            "max_memory: {0: 4GB}\nforbid: {cpu: [lm_heads]}\n",
            "max_memory: {0: 4GB}\nforbid: {cpu: [lm_head]}\n",
        ),
        ("max_memory: {0: 4GB}  # devmap: ignore[DM404] old\n", "max_memory: {0: 4GB}\n"),
        ("max_memory: {0: 4GB}\noffload: {folder: 7}\n", "max_memory: {0: 4GB}\noffload: {folder: '7'}\n"),
        (
            "max_memory: {0: 4GB, 1: 1GB}\ndevice_map: {'': 0, *.norm: 1}\n",
            "max_memory: {0: 4GB, 1: 1GB}\ndevice_map: {'': 0, '*.norm': 1}\n",
        ),
        ("max_memory: {0:4GB}\n", "max_memory: {0: 4GB}\n"),
        (
            "max_memry: {0: 04000000000}\nworklod: infrence\n",
            "max_memory: {0: 4000000000}\nworkload: inference\n",
        ),
    ],
)
def test_what_is_plain_is_fixed(wrong: str, right: str, folder: Path) -> None:
    head = f"version: 1\n{MODEL}\n"
    assert mended(folder, (head + wrong).encode()).decode() == head + right


@pytest.mark.parametrize(
    "text",
    [
        "max_memory: {0: 8gb}\n",
        "max_memory: {0: 4GB}\nmax_memry: {0: 4GB}\n",
        "max_memory: {0: 4GB, gpu0: 4GB}\n",
        "max_memory: {0: 4GB, 'cuda:0': 4GB}\n",
        "max_memory: {0: 4GB}\nmodel: {manifest: example.manifest.yaml}\n",
        "max_memory: {0: 4GB}\ndevice_map: {'': 0, model.layers.40: 0}\n",
        "max_memory: {0: 4GB, 1: 4GB}\ndevice_map: {'': 0, model.layers.0.mlp.p_proj: 1}\n",
        "max_memory: {0: 4GB, 1: 4GB}\ndevice_map: {'': 0, model.layer.0.mlp: 1}\n",
        "max_memory: {0: 4GB}\ndevice_map: &s balancd\n",
        "max_memory: {0: 4GB}\noffload: {folder: 007}\n",
        "max_memory: !!map {0: 4GB}\n",
        (
            "max_memory: {0: 4GB}\ndevice_map: {'': 0, model.layer.0: 0}  # devmap: ignore[DM201] the next "
            "release has it\n"
        ),
    ],
)
def test_what_a_person_has_to_decide_is_left_alone(text: str, folder: Path) -> None:
    content = f"version: 1\n{MODEL}\n{text}".encode()
    assert mended(folder, content) == content


def test_comments_formatting_line_ends_and_the_byte_order_mark_survive(folder: Path) -> None:
    head = "\ufeff# caf\u00e9 \U0001f642\r\nversion:   1 # one\r\n"
    before = f"{head}{MODEL}\r\n\r\n\r\nmax_memry : {{ 0 : 4GB ,  }}   # the card\r\n#end"
    assert mended(folder, before.encode()) == before.replace("max_memry", "max_memory").encode()


def test_each_fault_that_hid_another_is_fixed_in_turn(folder: Path) -> None:
    text = f"version: 1\n{MODEL}\nmax_memory: {{0: 4GB, 1: 2GB}}\ndevice_map:\n  '': 0\n" + "".join(
        f"  *.{number}.mlp.{name}_proj: 0\n" for number in range(4) for name in ("up", "down", "gate")
    )
    after = mended(folder, text.encode()).decode()
    assert after.count("'model.*.") == 12
    assert [
        finding
        for finding in validate([str(folder / "c.devmap.yaml")], settings=SETTINGS).findings
        if finding.code < "DM1"
    ] == []


def test_a_parents_fault_is_fixed_where_the_parent_is_checked_too(folder: Path) -> None:
    parent, child = folder / "base.devmap.yaml", folder / "child.devmap.yaml"
    wrong = f"version: 1\n{MODEL}\nmax_memry: {{0: 4GB}}\n"
    parent.write_text(wrong, encoding="utf-8")
    child.write_text("extends: base.devmap.yaml\nworklod: inference\n", encoding="utf-8")
    alone = fix([str(child)], settings=SETTINGS)
    assert parent.read_text(encoding="utf-8") == wrong
    assert child.read_text(encoding="utf-8") == "extends: base.devmap.yaml\nworkload: inference\n"
    assert [finding.code for finding in alone.after.findings] == ["DM101"]
    both = fix([str(folder)], settings=SETTINGS)
    assert parent.read_text(encoding="utf-8") == wrong.replace("memry", "memory")
    assert (both.fixed, [Path(change.file).name for change in both.changes]) == (1, ["base.devmap.yaml"])


def test_a_diff_shows_what_would_change_and_writes_nothing(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    text = f"version: 1\r\n{MODEL}\r\nmax_memry: {{0: 4GB}}\r\nworklod: inference"
    Path("c.devmap.yaml").write_bytes(text.encode())
    fixes = fix(["c.devmap.yaml"], settings=SETTINGS, write=False)
    assert Path("c.devmap.yaml").read_bytes() == text.encode()
    assert render_diff(fixes) == (
        "--- a/c.devmap.yaml\n+++ b/c.devmap.yaml\n@@ -1,4 +1,4 @@\n version: 1\r\n"
        f" {MODEL}\r\n-max_memry: {{0: 4GB}}\r\n-worklod: inference\n\\ No newline at end of file\n"
        "+max_memory: {0: 4GB}\r\n+workload: inference\n\\ No newline at end of file\n"
    )
    assert fixes_summary(fixes, written=False) == "would fix 2 problems in 1 file\n"
    assert fixes_summary(fixes) == "fixed 2 problems in 1 file\n"
    assert len(fixes.before.findings) == 2
    assert fixes.after.findings == ()


def test_nothing_to_fix_is_nothing_to_say(folder: Path) -> None:
    (folder / "c.devmap.yaml").write_text(GOOD, encoding="utf-8")
    fixes = fix([str(folder)], settings=SETTINGS)
    assert (fixes_summary(fixes), render_diff(fixes), fixes.changes) == ("", "", ())


def test_a_link_and_the_files_mode_survive(folder: Path) -> None:
    target = folder / "real.txt"
    target.write_text(GOOD.replace("memory", "memry"), encoding="utf-8")
    target.chmod(0o640)
    link = folder / "c.devmap.yaml"
    link.symlink_to(target)
    fix([str(link)], settings=SETTINGS)
    assert link.is_symlink()
    assert target.read_text(encoding="utf-8") == GOOD
    assert target.stat().st_mode & 0o777 == 0o640


def finding_at(source: Source, first: int, last: int, replacement: str, code: str = "DM201") -> Finding:
    position = Position(source, LineColumn(1, first), LineColumn(1, last))
    return Finding(code, "x", Severity.ERROR, "m", position=position, edit=Edit(position, replacement, "d"))


@given(st.lists(st.tuples(st.integers(1, 9), st.integers(0, 4), st.text("xyz", max_size=3)), max_size=8))
def test_of_edits_that_overlap_the_first_is_taken_and_the_rest_of_the_text_stays(
    spans: list[tuple[int, int, str]],
) -> None:
    text = "0123456789"
    source = Source("a", text)
    findings = [finding_at(source, start, min(start + length, 11), new) for start, length, new in spans]
    chosen = fixable(findings, Path("a").resolve())
    edits = [finding.edit for finding in chosen if finding.edit is not None]
    for one, other in pairwise(edits):
        assert one.position.end <= other.position.start
    expected, last = "", 0
    for edit in edits:
        expected += text[last : edit.position.start.column - 1] + edit.replacement
        last = edit.position.end.column - 1
    assert apply_edits(text.encode(), edits).decode() == expected + text[last:]


def _tokens() -> st.SearchStrategy[str]:
    return st.sampled_from(
        [
            "version: 1\n",
            f"{MODEL}\n",
            "max_memory: {0: 4GB, 1: 4GB, cpu: 4GB}\n",
            "max_memry: {0: 4GB}\n",
            "device_map: balancd\n",
            "device_map: {'': 0, model.layer.0: 1}\n",
            "device_map: {'': 0, model.layer.0.mlp: 1}\n",
            "device_map: {'': gpu1, *.norm: 0}\n",
            "device_map: {lm_hed: 0, 'model.layers[0-7]': 1, '': auto}\n",
            "workload: infrence\n",
            "worklod: {kind: training, optimizer: adam}\n",
            "offload: {buffers: yes, host_memory: 04000000000}\n",
            "offlod: {foldr: ./x}\n",
            "no_split_module_classes: [LlamaDecoderLayr]\n",
            "forbid: {1: [lm_heads], cpu: [model.norms]}\n",
            "same_device: [[model.embed_token, lm_head]]\n",
            "policies: [prodution]\n",
            "# devmap: ignore-file[DM404] old\n",
            "# devmap: ignore-file[DM20, unmatched-kye]\n",
            "objective: latncy  # devmap: ignore[DM106]\n",
            "profiles: {small: {max_memry: {0: 4GB}}}\n",
            "profiles: {small: {device_map: {'': 0, model.layer.1: 1}}}\n",
            "\n",
            "# a comment\n",
            "headroom: {gpu0: 10%, 1: 010%}\n",
            "headroom: 5%  # devmap: ignore[DM205, DM404] both\n",
            "x: [\n",
            "model: {checkpont: 7}\n",
        ]
    )


@pytest.fixture(name="scratch", scope="module")
def _scratch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("fixing")
    (folder / "example.manifest.yaml").write_bytes((PACK / "example.manifest.yaml").read_bytes())
    return folder


@settings(max_examples=120, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(
    lines=st.lists(_tokens(), min_size=2, max_size=7),
    complete=st.booleans(),
    ends=st.sampled_from(["\n", "\r\n"]),
    mark=st.booleans(),
)
def test_a_fix_is_idempotent_brings_no_new_finding_and_leaves_the_rest_of_the_bytes(
    lines: list[str], complete: bool, ends: str, mark: bool, scratch: Path
) -> None:
    head = ["version: 1\n", f"{MODEL}\n"] if complete else []
    kept = [line for line in lines if line not in head]
    content = ("\ufeff" if mark else "").encode() + "".join(dict.fromkeys([*head, *kept])).replace(
        "\n", ends
    ).encode()
    config = scratch / "c.devmap.yaml"
    config.write_bytes(content)
    first = fix([str(config)], settings=Settings())
    after = config.read_bytes()
    assert fix([str(config)], settings=Settings()).changes == ()
    assert config.read_bytes() == after
    assert [finding for finding in first.after.findings if finding.code == "DM902"] == []
    if not [
        finding
        for finding in first.before.findings
        if finding.code < "DM2" and finding.severity is Severity.ERROR
    ]:
        planned = not [finding for finding in first.before.findings if finding.severity is Severity.ERROR]
        seen = {finding.code for finding in first.before.findings}
        new = {finding.code for finding in first.after.findings} - seen
        assert not {code for code in new if code < "DM4" or planned}
    untouched = [
        line
        for line in content.split(ends.encode())
        if line.strip() and line not in after.split(ends.encode())
    ]
    assert len(untouched) <= first.fixed
    assert after.count(b"\r") == after.count(b"\r\n")
    assert after.startswith(b"\xef\xbb\xbf") == mark
