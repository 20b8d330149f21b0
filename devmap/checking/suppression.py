"""Comments applied to findings, and the comments that nothing needed."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from devmap.config.values.words import near_words, sure_word
from devmap.config.yaml.comments import MOST_WORDS, Selector, Suppression, read_suppressions
from devmap.config.yaml.edits import rename
from devmap.config.yaml.faults import Edit
from devmap.config.yaml.source import LineColumn, Position
from devmap.findings.meta import UNKNOWN_SUPPRESSION, UNUSED_SUPPRESSION
from devmap.findings.model import Report
from devmap.findings.registry import matches

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from devmap.config.document import Document
    from devmap.config.yaml.source import Source
    from devmap.findings.model import Finding, Rule

__all__ = ["suppressed", "unused"]


def suppressed(
    findings: Iterable[Finding],
    sources: Sequence[Source],
    rules: Sequence[Rule],
    *,
    require_reasons: bool = False,
) -> tuple[list[Finding], set[Selector]]:
    """Return the findings, each marked that a comment of its file suppresses.

    And the words of comments that did.

    With `require_reasons` a comment without one suppresses nothing, and the finding says so.
    """
    comments = {source.name: read_suppressions(source) for source in sources}
    if not any(comments.values()):
        return list(findings), set()
    by_code = {rule.code: rule for rule in rules}
    by_place: dict[tuple[str, int | None], list[Suppression]] = {}
    for name, held in comments.items():
        for comment in held:
            if not comment.whole_file or comment.at_head:
                line = None if comment.whole_file else comment.position.start.line
                by_place.setdefault((name, line), []).append(comment)
    used: set[Selector] = set()
    marked: list[Finding] = []
    for finding in findings:
        rule = by_code.get(finding.code)
        reasons: list[str] = []
        for selector, comment in _comments_about(finding, by_place):
            if rule is not None and rule.suppressible and matches(rule, selector.word):
                used.add(selector)
                reasons.append(comment.reason)
        if reasons and require_reasons and not any(reasons):
            hint = "; ".join(filter(None, (finding.help, "the comment that ignores it lacks its reason")))
            marked.append(dataclasses.replace(finding, help=hint))
            continue
        given = next(filter(None, reasons), "") if reasons else None
        marked.append(finding if given is None else dataclasses.replace(finding, suppressed=given))
    return marked, used


def _comments_about(
    finding: Finding, by_place: Mapping[tuple[str, int | None], Sequence[Suppression]]
) -> Iterator[tuple[Selector, Suppression]]:
    """Yield every word that may suppress a finding.

    Where it is shown, and where its value stands in a parent.
    """
    for place in (finding.position, finding.origin):
        if place is None:
            continue
        name, line = place.file, place.start.line
        for comment in (*by_place.get((name, None), ()), *by_place.get((name, line), ())):
            yield from ((selector, comment) for selector in comment.selectors)


def unused(
    document: Document, used: set[Selector], ran: Iterable[Rule], known: Sequence[Rule]
) -> Iterator[tuple[Rule, Report]]:
    """Yield what is wrong with the comments of the document's own file, and the rule that says so.

    A word for a rule that did not run is left alone, and so is every word where the config could not be read:
    nothing is known then.
    """
    running = tuple(ran)
    comments = read_suppressions(document.source)
    if sum(len(comment.selectors) for comment in comments) >= MOST_WORDS:
        message = (
            f"more than {MOST_WORDS:,} words suppress findings in this file; "
            "those after this comment do nothing"
        )
        hint = "ignore rules for whole files with per-path-ignores in the settings"
        yield UNUSED_SUPPRESSION, Report(message, position=comments[-1].position, help=hint)
    for comment in comments:
        if not comment.selectors:
            hint = "write # devmap: ignore[CODE] reason"
            yield (
                UNUSED_SUPPRESSION,
                Report("this comment names no rule", position=comment.position, help=hint),
            )
            continue
        if comment.whole_file and not comment.at_head:
            message = "'ignore-file' counts only at the head of the file"
            yield (
                UNUSED_SUPPRESSION,
                Report(message, position=comment.position, help="move it above the first key"),
            )
            continue
        for selector in comment.selectors:
            if selector in used:
                continue
            if not any(matches(rule, selector.word) for rule in known):
                yield UNKNOWN_SUPPRESSION, _unknown(selector, comment, known)
            elif document.config is not None:
                yield from _without_effect(selector, comment, running, known)


def _unknown(selector: Selector, comment: Suppression, known: Sequence[Rule]) -> Report:
    word = selector.word
    words = [name for rule in known for name in (rule.name, rule.code)]
    sure = sure_word(word, words)
    near = (sure,) if sure is not None else near_words(word, words)
    return Report(
        f"no rule is called '{word}'",
        position=selector.position,
        help="`devmap rules` lists codes and names",
        label=f"did you mean '{near[0]}'?" if near else "",
        edit=rename(selector.position, word, sure)
        if sure is not None
        else None
        if near
        else _removal(selector, comment),
    )


def _without_effect(
    selector: Selector, comment: Suppression, running: Sequence[Rule], known: Sequence[Rule]
) -> Iterator[tuple[Rule, Report]]:
    word, edit = selector.word, _removal(selector, comment)
    if not any(matches(rule, word) and rule.suppressible for rule in known):
        hint = "fix the config: it cannot be read as it is"
        yield (
            UNKNOWN_SUPPRESSION,
            Report(f"'{word}' cannot be suppressed", position=selector.position, help=hint, edit=edit),
        )
    elif any(matches(rule, word) for rule in running):
        where = "this file" if comment.whole_file else "this line"
        message = f"{where} has nothing that 'ignore[{word}]' suppresses"
        yield UNUSED_SUPPRESSION, Report(message, position=selector.position, help="remove it", edit=edit)


def _removal(selector: Selector, comment: Suppression) -> Edit:
    """Return the word taken away with its comma.

    The whole comment where the word is its only one, and its line where nothing else is on it.
    """
    source, line = comment.position.source, comment.position.start.line
    if len(comment.selectors) > 1:
        number = comment.selectors.index(selector)
        start = comment.selectors[number - 1].position.end if number else selector.position.start
        end = selector.position.end if number else comment.selectors[1].position.start
        return Edit(Position(source, start, end), "", f"remove '{selector.word}'")
    before = source.line(line)[: comment.position.start.column - 1].rstrip()
    after = source.line(line)[comment.position.end.column - 1 :].strip()
    if not before and not after and line < len(source.lines):
        return Edit(Position(source, LineColumn(line, 1), LineColumn(line + 1, 1)), "", "remove the comment")
    return Edit(
        Position(source, LineColumn(line, len(before) + 1), comment.position.end), "", "remove the comment"
    )
