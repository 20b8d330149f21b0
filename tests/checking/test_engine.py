"""The engine: what runs, where it is placed, what silences it, and that nothing is lost."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import pytest

from devmap.checking.engine import check
from devmap.checking.fixing import apply_edits
from devmap.checking.registry import load_rules
from devmap.checking.settings import PathIgnore, Settings
from devmap.config.document import parse_document
from devmap.errors import UsageError
from devmap.findings.context import Context
from devmap.findings.faults import fault_reports
from devmap.findings.meta import META_RULES
from devmap.findings.model import Finding, Report, Rule, Severity

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

GOOD = "version: 1\nmodel: {}\nmax_memory: {0: 1GB}\n"


def rule(
    code: str,
    name: str,
    reports: Iterable[Report] = (),
    *,
    severity: Severity = Severity.ERROR,
    optional: bool = False,
) -> Rule:
    return Rule(
        code,
        name,
        severity,
        "sum",
        "why",
        GOOD,
        GOOD,
        check=lambda _context: iter(tuple(reports)),
        optional=optional,
    )


def run(
    text: str, *rules: Rule, name: str = "x.devmap.yaml", profiles: tuple[str, ...] = (), **settings: Any
) -> list[Finding]:
    context = Context(parse_document(text.encode(), name))
    variants = {
        profile: Context(parse_document(text.encode(), name, profile=profile)) for profile in profiles
    }
    options = Settings(**settings)
    return list(check(context, settings=options, rules=(*rules, *META_RULES), profiles=variants))


def brief(findings: Iterable[Finding]) -> list[tuple[str, int, int]]:
    return [
        (finding.code, finding.position.start.line, finding.position.start.column)
        for finding in findings
        if finding.position
    ]


KEY = rule("DM201", "unmatched-key", [Report("no such key", ("max_memory", "0"), on_key=True)])
VALUE = rule("DM202", "bad-value", [Report("bad value", ("max_memory", "0"))], severity=Severity.WARNING)
MODEL = rule("DM301", "bad-model", [Report("bad model", ("model",), help="mend it", label="here")])


def test_reports_are_placed_on_keys_or_values_and_sorted_by_place() -> None:
    findings = run(GOOD, VALUE, KEY, MODEL)
    assert brief(findings) == [("DM301", 2, 8), ("DM201", 3, 14), ("DM202", 3, 17)]
    assert (findings[0].name, findings[0].help, findings[0].label) == ("bad-model", "mend it", "here")
    assert [finding.severity for finding in findings] == [Severity.ERROR, Severity.ERROR, Severity.WARNING]


def test_at_one_place_errors_come_before_warnings() -> None:
    warning = rule(
        "DM203", "a-warning", [Report("w", ("max_memory", "0"), on_key=True)], severity=Severity.WARNING
    )
    error = rule("DM204", "an-error", [Report("e", ("max_memory", "0"), on_key=True)])
    assert [finding.code for finding in run(GOOD, warning, error)] == ["DM204", "DM203"]


def test_what_is_said_twice_is_said_once() -> None:
    twice = rule(
        "DM205", "twice", [Report("x", ("model",)), Report("x", ("model",)), Report("y", ("model",))]
    )
    assert [finding.message for finding in run(GOOD, twice)] == ["x", "y"]


def test_a_rule_that_fails_is_a_finding_and_the_others_still_run() -> None:
    def fail(_context: Context) -> Iterator[Report]:
        yield Report("before", ("model",))
        raise ZeroDivisionError("by zero")

    broken = Rule("DM206", "broken", Severity.ERROR, "s", "w", GOOD, GOOD, check=fail)
    findings = run(GOOD, broken, KEY)
    assert [finding.code for finding in findings] == ["DM902", "DM206", "DM201"]
    assert "DM206 broken failed: ZeroDivisionError: by zero" in findings[0].message
    with pytest.raises(ZeroDivisionError):
        run(GOOD, broken, strict=True)


def test_faults_of_several_families_come_out_together_and_none_is_lost() -> None:
    duplicate = Rule(
        "DM006",
        "dup",
        Severity.ERROR,
        "s",
        "w",
        GOOD,
        GOOD,
        check=lambda c: fault_reports(c, "DM006"),
        suppressible=False,
    )
    text = "version: 1\nversion: 1\nmodel: {x: 1}\nmax_memory: {0: 8gb}\n"
    assert brief(run(text, duplicate)) == [("DM006", 2, 1), ("DM101", 3, 9), ("DM104", 4, 17)]


@pytest.mark.parametrize(
    ("options", "codes"),
    [
        ({}, ["DM301", "DM201", "DM202"]),
        ({"select": ("DM2",)}, ["DM201", "DM202"]),
        ({"select": ("unmatched-key", "DM301")}, ["DM301", "DM201"]),
        ({"ignore": ("DM2",)}, ["DM301"]),
        ({"ignore": ("DM2",), "extend_select": ("DM202",)}, ["DM301", "DM202"]),
        ({"select": ("DM2",), "ignore": ("unmatched-key",)}, ["DM202"]),
        ({"extend_select": ("optional-rule",)}, ["DM301", "DM201", "DM202", "DM302"]),
        ({"select": ("dm201",)}, ["DM201"]),
        ({"select": ("ALL",)}, ["DM301", "DM201", "DM202", "DM302"]),
        ({"per_path_ignores": {"x.devmap.yaml": PathIgnore(("DM201",))}}, ["DM301", "DM202"]),
    ],
)
def test_rules_are_selected_by_code_name_and_prefix_and_the_more_exact_word_wins(
    options: dict[str, Any], codes: list[str]
) -> None:
    extra = rule(
        "DM302", "optional-rule", [Report("opt", ("max_memory", "0"))], severity=Severity.NOTE, optional=True
    )
    assert [finding.code for finding in run(GOOD, KEY, VALUE, MODEL, extra, **options)] == codes


def test_a_selector_that_means_no_rule_is_a_usage_error_with_a_suggestion() -> None:
    with pytest.raises(UsageError, match="no rule is called 'unmatched-kye'") as caught:
        run(GOOD, KEY, ignore=("unmatched-kye",))
    assert "unmatched-key" in caught.value.help


def test_nothing_silences_what_keeps_a_config_from_being_read() -> None:
    text = "# devmap: ignore-file[DM1]\nversion: 1\nmodel: {x: 1}  # devmap: ignore[DM101]\n"
    unknown = Rule(
        "DM101",
        "unknown-key",
        Severity.ERROR,
        "s",
        "w",
        GOOD,
        GOOD,
        check=lambda c: fault_reports(c, "DM101"),
        suppressible=False,
    )
    findings = run(text, unknown, ignore=("DM101",))
    assert [(finding.code, finding.suppressed) for finding in findings if finding.code == "DM101"] == [
        ("DM101", None)
    ]


@pytest.mark.parametrize("word", ["DM201", "unmatched-key", "DM2", "DM301, DM201"])
def test_a_comment_on_the_line_suppresses_with_its_reason(word: str) -> None:
    text = GOOD.replace("1GB}", f"1GB}}  # devmap: ignore[{word}] it is known")
    findings = run(text, KEY, MODEL)
    assert [(finding.code, finding.suppressed) for finding in findings if finding.code == "DM201"] == [
        ("DM201", "it is known")
    ]
    assert [finding.suppressed for finding in findings if finding.code == "DM301"] == [None]


def test_a_comment_at_the_head_suppresses_in_the_whole_file() -> None:
    assert [
        finding.suppressed for finding in run(f"# devmap: ignore-file[DM201, DM3]\n{GOOD}", KEY, MODEL)
    ] == ["", ""]


@pytest.mark.parametrize(
    ("text", "column", "message"),
    [
        (
            GOOD.replace("model: {}", "model: {}  # devmap: ignore[DM201]"),
            29,
            "this line has nothing that 'ignore[DM201]' suppresses",
        ),
        (
            f"# devmap: ignore-file[DM301]\n{GOOD}",
            23,
            "this file has nothing that 'ignore[DM301]' suppresses",
        ),
        (GOOD.replace("model: {}", "model: {}  # devmap: ignore"), 12, "this comment names no rule"),
        (GOOD + "# devmap: ignore-file[DM201]\n", 1, "'ignore-file' counts only at the head of the file"),
    ],
)
def test_a_comment_that_suppresses_nothing_is_a_finding(text: str, column: int, message: str) -> None:
    quiet = rule("DM301", "bad-model")
    (found,) = [finding for finding in run(text, KEY, quiet) if finding.code == "DM901"]
    assert (found.message, found.position and found.position.start.column) == (message, column)


@pytest.mark.parametrize(
    ("word", "message", "label", "fixed"),
    [
        (
            "unmatched-kye",
            "no rule is called 'unmatched-kye'",
            "did you mean 'unmatched-key'?",
            "ignore[unmatched-key] x",
        ),
        ("nothing", "no rule is called 'nothing'", "", ""),
        ("DM101", "'DM101' cannot be suppressed", "", ""),
    ],
)
def test_a_comment_that_names_no_rule_to_suppress_has_a_rule_of_its_own(
    word: str, message: str, label: str, fixed: str
) -> None:
    unknown = Rule(
        "DM101",
        "unknown-key",
        Severity.ERROR,
        "s",
        "w",
        GOOD,
        GOOD,
        check=lambda _context: (),
        suppressible=False,
    )
    text = GOOD.replace("model: {}", f"model: {{}}  # devmap: ignore[{word}] x")
    (found,) = [
        finding for finding in run(text, rule("DM201", "unmatched-key"), unknown) if finding.code == "DM903"
    ]
    assert (found.message, found.label) == (message, label)
    assert found.position is not None
    assert found.position.start.column == 29
    assert found.edit is not None
    mended = apply_edits(text.encode(), [found.edit]).decode()
    assert mended == GOOD.replace("model: {}", f"model: {{}}  # devmap: {fixed}" if fixed else "model: {}")


@pytest.mark.parametrize(
    ("comment", "left"),
    [
        ("# devmap: ignore[DM201, DM301] why\n", "# devmap: ignore[DM201] why\n"),
        ("# devmap: ignore[DM301, DM201] why\n", "# devmap: ignore[DM201] why\n"),
        ("# devmap: ignore[DM201 DM301] why # more\n", "# devmap: ignore[DM201] why # more\n"),
    ],
)
def test_of_several_words_only_the_unused_one_goes(comment: str, left: str) -> None:
    text = GOOD.replace("1GB}\n", f"1GB}}  {comment}")
    (found,) = [finding for finding in run(text, KEY, rule("DM301", "bad-model")) if finding.code == "DM901"]
    assert found.edit is not None
    assert apply_edits(text.encode(), [found.edit]).decode() == GOOD.replace("1GB}\n", f"1GB}}  {left}")


def test_an_unused_comment_on_a_line_of_its_own_goes_with_its_line() -> None:
    text = f"# a head\r\n# devmap: ignore-file[DM301] old\r\n{GOOD}"
    (found,) = [finding for finding in run(text, rule("DM301", "bad-model")) if finding.code == "DM901"]
    assert found.edit is not None
    assert apply_edits(text.encode(), [found.edit]).decode() == f"# a head\r\n{GOOD}"


def brought(*codes: str) -> Rule:
    """A rule whose parts fire on the model, each with a code of its own."""
    whole = Rule("DM603", "policy-violated", Severity.ERROR, "s", "w", GOOD, GOOD, check=lambda _context: ())
    parts = tuple(
        Rule(
            code,
            f"rule-{code.lower()}",
            Severity.ERROR,
            "s",
            "w",
            "",
            "",
            lambda _c: [Report("no", ("model",))],
            part_of=whole,
        )
        for code in codes
    )
    return dataclasses.replace(whole, parts=lambda _context: parts)


@pytest.mark.parametrize(
    ("options", "codes"),
    [
        ({}, ["PRD001", "PRD002"]),
        ({"ignore": ("PRD001",)}, ["PRD002"]),
        ({"ignore": ("rule-prd002",)}, ["PRD001"]),
        ({"ignore": ("PRD",)}, []),
        ({"ignore": ("DM603",)}, []),
        ({"ignore": ("policy-violated",), "extend_select": ("PRD002",)}, ["PRD002"]),
        ({"select": ("PRD001",)}, ["PRD001"]),
        ({"select": ("DM6",)}, ["PRD001", "PRD002"]),
        ({"ignore": ("INF001",)}, ["PRD001", "PRD002"]),
    ],
)
def test_rules_that_a_config_brings_are_selected_one_by_one_and_together(
    options: dict[str, Any], codes: list[str]
) -> None:
    assert [finding.code for finding in run(GOOD, brought("PRD001", "PRD002"), **options)] == codes


@pytest.mark.parametrize(
    ("word", "open_codes"), [("PRD001", ["PRD002"]), ("DM603", []), ("policy-violated", [])]
)
def test_rules_that_a_config_brings_are_suppressed_one_by_one_and_together(
    word: str, open_codes: list[str]
) -> None:
    text = GOOD.replace("model: {}", f"model: {{}}  # devmap: ignore[{word}] agreed")
    assert [
        finding.code for finding in run(text, brought("PRD001", "PRD002")) if finding.suppressed is None
    ] == open_codes


def test_a_comment_for_a_rule_that_did_not_run_is_left_alone() -> None:
    text = GOOD.replace("model: {}", "model: {}  # devmap: ignore[DM301]")
    assert run(text, KEY, rule("DM301", "bad-model"), ignore=("DM301",), select=("DM2",))[0].code == "DM201"
    assert (
        run("version: 2\nmodel: {}  # devmap: ignore[DM201]\n", rule("DM201", "unmatched-key"))[0].code
        == "DM109"
    )


def test_taking_an_unused_comment_away_is_offered_as_a_fix() -> None:
    text = GOOD.replace("model: {}", "model: {}  # devmap: ignore[DM201] old")
    (found,) = list(run(text, rule("DM201", "unmatched-key")))
    assert found.edit is not None
    line = text.splitlines()[1]
    assert (
        line[: found.edit.position.start.column - 1] + line[found.edit.position.end.column - 1 :]
        == "model: {}"
    )


def test_a_profile_adds_what_only_it_has_and_uses_comments() -> None:
    text = GOOD + "profiles:\n  p: {max_memory: {1: 1GB}}  # devmap: ignore[DM207] a profile's own\n"

    def second(context: Context) -> Iterator[Report]:
        config = context.document.config
        if config is not None and config.max_memory and len(config.max_memory) > 1:
            yield Report("two devices", ("max_memory", "1"))

    own = Rule("DM207", "two-devices", Severity.ERROR, "s", "w", GOOD, GOOD, check=second)
    (everywhere, only) = run(text, own, KEY, profiles=("p",))
    assert everywhere.code == "DM201"
    assert (only.message, only.suppressed) == ("with profile 'p': two devices", "a profile's own")


def test_the_order_is_the_same_whatever_the_order_of_the_rules() -> None:
    assert run(GOOD, KEY, VALUE, MODEL) == run(GOOD, MODEL, VALUE, KEY)


def test_the_built_in_pack_and_the_engines_own_rules_are_known() -> None:
    codes = [known.code for known in load_rules(Settings())]
    assert codes == sorted(set(codes))
    assert {"DM001", "DM101", "DM110", "DM201", "DM901", "DM902"} <= set(codes)


@pytest.mark.parametrize("pack", ["no_such_pack_of_rules", "json"])
def test_a_pack_that_is_none_is_a_usage_error(pack: str) -> None:
    with pytest.raises(UsageError) as caught:
        load_rules(Settings(packs=(pack,)))
    assert caught.value.help
