"""Comments applied to findings, and the comments that nothing needed."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from devmap.config.comments import Selector, Suppression, read_suppressions
from devmap.config.faults import Edit
from devmap.findings.model import Report
from devmap.findings.registry import matches

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from devmap.config.document import Document
    from devmap.config.source import Position, Source
    from devmap.findings.model import Finding, Rule

__all__ = ["suppressed", "unused"]


def suppressed(findings: Iterable[Finding], sources: Sequence[Source], rules: Sequence[Rule]) -> tuple[list[Finding], set[Selector]]:
    """The findings, each marked that a comment of its file suppresses; and the words of comments that did."""
    comments = {source.name: read_suppressions(source) for source in sources}
    if not any(comments.values()):
        return list(findings), set()
    by_code = {rule.code: rule for rule in rules}
    used: set[Selector] = set()
    marked: list[Finding] = []
    for finding in findings:
        rule = by_code.get(finding.code)
        reasons: list[str] = []
        if rule is not None and rule.suppressible and finding.position is not None:
            for comment in comments.get(finding.position.file, ()):
                for selector in comment.selectors:
                    if _covers(comment, finding.position) and matches(rule, selector.word):
                        used.add(selector)
                        reasons.append(comment.reason)
        marked.append(dataclasses.replace(finding, suppressed=reasons[0]) if reasons else finding)
    return marked, used


def _covers(comment: Suppression, position: Position) -> bool:
    if comment.whole_file:
        return comment.at_head
    return comment.position.start.line == position.start.line


def unused(document: Document, used: set[Selector], ran: Iterable[Rule], known: Sequence[Rule]) -> Iterator[Report]:
    """What is wrong with the comments of the document's own file.

    A word for a rule that did not run is left alone, and so is every word where the config could not be read: nothing is
    known then.
    """
    running = tuple(ran)
    for comment in read_suppressions(document.source):
        if not comment.selectors:
            yield Report("this comment names no rule", position=comment.position, help="write # devmap: ignore[CODE] reason")
            continue
        if comment.whole_file and not comment.at_head:
            yield Report("'ignore-file' counts only at the head of the file", position=comment.position, help="move it above the first key")
            continue
        for selector in comment.selectors:
            report = _about(selector, comment, running, known)
            if selector not in used and report is not None and (document.config is not None or not _names_a_rule(selector, known)):
                yield report


def _names_a_rule(selector: Selector, known: Sequence[Rule]) -> bool:
    return any(matches(rule, selector.word) for rule in known)


def _about(selector: Selector, comment: Suppression, running: Sequence[Rule], known: Sequence[Rule]) -> Report | None:
    word = selector.word
    if not _names_a_rule(selector, known):
        message, hint = f"no rule is called '{word}'", "`devmap rules` lists codes and names"
    elif not any(matches(rule, word) and rule.suppressible for rule in known):
        message, hint = f"'{word}' cannot be suppressed", "mend the config: it cannot be read as it is"
    elif not any(matches(rule, word) for rule in running):
        return None
    else:
        where = "this file" if comment.whole_file else "this line"
        message, hint = f"{where} has nothing that 'ignore[{word}]' suppresses", "remove it"
    return Report(message, position=selector.position, help=hint, edit=_removal(comment))


def _removal(comment: Suppression) -> Edit | None:
    """The comment taken away, where the word is its only one."""
    if len(comment.selectors) > 1:
        return None
    position = comment.position
    text = position.source.line(position.start.line)
    before = text[: position.start.column - 1].rstrip()
    stretch = position.source.stretch(position.start.line, len(before) + 1, position.end.column - len(before) - 1)
    return Edit(stretch, "", "remove the comment")
