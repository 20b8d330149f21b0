"""Rules by code, name or prefix."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from devmap.config.values.words import near_words
from devmap.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from devmap.findings.model import Rule

__all__ = ["find_rule", "matches", "matching", "select_rules", "verified", "without_meaning"]

_CODE = re.compile(r"[A-Z]{2,8}[0-9]{3,4}\Z")
_POLICY_CODE = re.compile(r"(?!DM)[A-Z]{2,8}(?:[0-9]{3,4})?\Z")
_NAME = re.compile(r"[a-z][a-z0-9]*(?:-[a-z0-9]+)*\Z")


def verified(rules: Iterable[Rule]) -> tuple[Rule, ...]:
    """Return the rules in order of their codes.

    Raises:
        UsageError: when a code or name is malformed or used twice.
    """
    ordered = tuple(sorted(rules, key=lambda rule: rule.code))
    taken: dict[str, Rule] = {}
    for rule in ordered:
        if not _CODE.match(rule.code) or not _NAME.match(rule.name):
            raise UsageError(
                f"the rule '{rule.code} {rule.name}' has an invalid code or name",
                help="a code is two to eight capitals and three or four digits (ACME101), a name is words "
                "joined by hyphens",
            )
        for word in (rule.code, rule.name):
            other = taken.setdefault(word, rule)
            if other is not rule:
                raise UsageError(
                    f"two rules are called '{word}'",
                    help="two rule packs clash: give one of them another code and name",
                )
    return ordered


def matches(rule: Rule, selector: str) -> bool:
    """Return whether a rule is meant by `selector`.

    Its code, its name, a prefix of its code (`DM2`), `ALL`, or the rule that it is part of.
    """
    word = selector.strip()
    itself = word == rule.name or word.upper() == "ALL" or (bool(word) and rule.code.startswith(word.upper()))
    return itself or (rule.part_of is not None and matches(rule.part_of, selector))


def matching(rules: Sequence[Rule], selector: str) -> tuple[Rule, ...]:
    """Return the rules that `selector` means; an exact code or name means one.

    Raises:
        UsageError: when it means none; says which may have been meant.
    """
    found = tuple(rule for rule in rules if matches(rule, selector))
    if not found:
        words = [word for rule in rules for word in (rule.name, rule.code)]
        near = near_words(selector.strip(), words)
        hint = (
            f"did you mean '{near[0]}'?"
            if near
            else "`devmap rules` lists codes and names; a prefix such as DM2 means a family"
        )
        raise UsageError(f"no rule is called '{selector}'", help=hint)
    return found


def find_rule(rules: Sequence[Rule], word: str) -> Rule:
    """Return the one rule of that code or name.

    Raises:
        UsageError: when there is none; says which may have been meant.
    """
    exact = next(
        (rule for rule in rules if word.strip() == rule.name or word.strip().upper() == rule.code), None
    )
    if exact is not None:
        return exact
    family = matching(rules, word)
    codes = ", ".join(rule.code for rule in family[:8])
    raise UsageError(
        f"'{word}' is a family of {len(family)} rules",
        help=f"name one of {codes}{', ...' if len(family) > 8 else ''}",
    )


def select_rules(
    rules: Sequence[Rule],
    *,
    select: Sequence[str] = (),
    ignore: Sequence[str] = (),
    extend_select: Sequence[str] = (),
) -> tuple[Rule, ...]:
    """Return the rules that run.

    Those of `select` (all that are not optional, where it is empty) and `extend_select`, without `ignore`.

    Of two selectors that mean the same rule the longer one wins, so that `ignore=["DM2"],
    extend_select=["DM201"]` leaves DM201 on. Rules that cannot be suppressed always run. A code of a policy
    (`PRD001`) may mean nothing here: it is a rule of those configs alone that name the policy.

    Raises:
        UsageError: when a selector means no rule.
    """
    weight: dict[str, tuple[int, bool]] = {rule.code: (0, not (select or rule.optional)) for rule in rules}
    for selectors, wanted in ((select, True), (extend_select, True), (ignore, False)):
        for selector in selectors:
            of_a_policy = _is_policy_code(selector.strip()) and not any(
                matches(rule, selector) for rule in rules
            )
            for rule in () if of_a_policy else matching(rules, selector):
                strength = _strength(rule, selector)
                if strength >= weight[rule.code][0]:
                    weight[rule.code] = (strength, wanted)
    return tuple(rule for rule in rules if weight[rule.code][1] or not rule.suppressible)


def _is_policy_code(word: str) -> bool:
    """Return whether a word has the form of a policy's code, or of a family of them.

    A lower-case word without a number is a misspelt name.
    """
    return _POLICY_CODE.match(word.upper() if word[-1:].isdigit() else word) is not None


def without_meaning(selectors: Iterable[str], rules: Sequence[Rule]) -> dict[str, str]:
    """Return the selectors that mean no rule.

    Each with the word that may have been meant (empty where none is near).
    """
    words = [word for rule in rules for word in (rule.name, rule.code)]
    missing = [selector for selector in selectors if not any(matches(rule, selector) for rule in rules)]
    return {selector: next(iter(near_words(selector.strip(), words)), "") for selector in missing}


def _strength(rule: Rule, selector: str) -> int:
    """Return how exactly a selector means a rule.

    1 for `ALL`, more for longer prefixes, the most for a code or a name.
    """
    word = selector.strip()
    if word.upper() == "ALL":
        return 1
    if rule.part_of is not None and not (word == rule.name or rule.code.startswith(word.upper())):
        return 2
    return len(rule.code) + 1 if word == rule.name else len(word) + 1
