"""The engine: picks the rules, runs them over what is known about a config.

Places and suppresses what they say.

Pure: a context in, findings out. A rule that fails becomes a finding of its own, and the others still run.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from devmap.checking.inherited import at_child
from devmap.checking.registry import load_rules
from devmap.checking.suppression import suppressed, unused
from devmap.config.repository import withheld
from devmap.findings.faults import fault_report
from devmap.findings.meta import CRASHED_RULE
from devmap.findings.model import Finding, Report, Rule
from devmap.findings.registry import select_rules

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from devmap.checking.settings import Settings
    from devmap.findings.context import Context

__all__ = ["brought_rules", "check"]


def check(
    context: Context,
    *,
    settings: Settings,
    rules: Sequence[Rule] | None = None,
    profiles: Mapping[str, Context] | None = None,
) -> tuple[Finding, ...]:
    """Return every finding about one config, in order of place, severity and code.

    Suppressed ones are there with their reason.

    `rules` defaults to all that the settings know. `profiles` are the contexts of the same config with each
    of its
    profiles: what only one of them has is reported with the profile's name, and a comment that is used by any
    of them is used.

    Raises:
        UsageError: when a selector of the settings means no rule, or a pack cannot be loaded.
    """
    known = load_rules(settings) if rules is None else tuple(rules)
    known += brought_rules(known, (context, *(profiles or {}).values()))
    name = context.document.source.name
    picked = select_rules(
        known,
        select=settings.select,
        ignore=(*settings.ignore, *settings.ignored_in(name)),
        extend_select=settings.extend_select,
    )
    found = list(_found(context, picked, known, strict=settings.strict))
    places = {(finding.code, _place(finding)) for finding in found}
    for profile, variant in (profiles or {}).items():
        more = [
            finding
            for finding in _found(variant, picked, known, strict=settings.strict)
            if (finding.code, _place(finding)) not in places
        ]
        found += [
            dataclasses.replace(finding, message=f"with profile '{profile}': {finding.message}")
            for finding in more
        ]
    found = at_child(found, context.document)
    found, used = suppressed(
        found,
        context.document.sources or (context.document.source,),
        known,
        require_reasons=settings.require_reasons,
    )
    running = {rule.code for rule in picked}
    found += [
        _finding(rule, report, context)
        for rule, report in unused(context.document, used, picked, known)
        if rule.code in running
    ]
    return _in_order(found)


def brought_rules(rules: Iterable[Rule], contexts: Iterable[Context]) -> tuple[Rule, ...]:
    """Return the rules that the config itself, or one of its profiles, brings along, each code once."""
    brought = [
        part
        for context in contexts
        for rule in rules
        if rule.parts is not None
        for part in rule.parts(context)
    ]
    return tuple({part.code: part for part in brought}.values())


def _found(
    context: Context, picked: Iterable[Rule], known: Iterable[Rule], *, strict: bool
) -> Iterator[Finding]:
    for rule in picked:
        yield from _findings_of(rule, context, strict=strict)
    codes = {rule.code for rule in known}
    for fault in context.document.faults:
        # No fault is lost, whatever packs are loaded: what the file's reader says makes the config unusable.
        if fault.code not in codes:
            nameless = dataclasses.replace(CRASHED_RULE, code=fault.code, name="invalid-config")
            yield _finding(nameless, fault_report(fault), context)


_MOST_OF_A_RULE = 500
"""What one rule may say of one config: nobody reads more, and each may look for what was meant."""


def _findings_of(rule: Rule, context: Context, *, strict: bool) -> Iterator[Finding]:
    try:
        for count, report in enumerate(rule.check(context)):
            if count == _MOST_OF_A_RULE:
                message = f"there is more of this kind; {_MOST_OF_A_RULE} are shown for one file"
                yield _finding(
                    rule, dataclasses.replace(report, message=message, label="", edit=None), context
                )
                break
            yield _finding(rule, report, context)
    except Exception as error:
        if strict:
            raise
        message = f"the rule {rule.code} {rule.name} failed: {type(error).__name__}: {error}"
        report = Report(
            message, help=f"report it to the rule's author; --ignore {rule.code} continues without the rule"
        )
        yield _finding(CRASHED_RULE, report, context)


def _finding(rule: Rule, report: Report, context: Context) -> Finding:
    position = report.position or context.document.position(report.path, key=report.on_key)
    if position.source.is_hidden:
        message = withheld(position, report.message)
        return Finding(rule.code, rule.name, report.severity or rule.severity, message, position=position)
    return Finding(
        code=rule.code,
        name=rule.name,
        severity=report.severity or rule.severity,
        message=report.message,
        path=report.path,
        position=position,
        help=report.help,
        label=report.label,
        edit=report.edit,
    )


def _in_order(findings: Iterable[Finding]) -> tuple[Finding, ...]:
    """Sorted, and each said once: the same code, message and place is the same finding."""
    unique = {(finding.code, finding.message, _place(finding)): finding for finding in findings}
    return tuple(sorted(unique.values(), key=_order))


def _place(finding: Finding) -> tuple[object, ...]:
    position = finding.origin or finding.position
    return () if position is None else (position.file, position.start, position.end)


def _order(finding: Finding) -> tuple[str, int, int, int, str, str]:
    place = finding.position.sort_key() if finding.position else ("", 0, 0)
    return (*place, finding.severity.rank, finding.code, finding.message)
