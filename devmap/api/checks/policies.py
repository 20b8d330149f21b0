"""A policy pack tried on the examples that it brings."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from devmap.errors import UsageError
from devmap_validators.checks.linear_patterns import Steps
from devmap_validators.checks.policies import BUILT_IN_POLICIES, read_pack
from devmap_validators.checks.policy_schemas import MOST_STEPS, CostlySchemaError, violations

if TYPE_CHECKING:
    from devmap.config.yaml.faults import Fault

__all__ = ["PackTest", "RuleTest", "test_pack"]


@dataclass(frozen=True, slots=True)
class RuleTest:
    """What became of one rule's examples."""

    code: str
    name: str
    good: int
    """Examples that have to keep the rule."""
    bad: int
    """Examples that have to break it."""
    wrong: tuple[str, ...]
    """Sentences on the examples that did not do so."""


@dataclass(frozen=True, slots=True)
class PackTest:
    """What became of a pack's examples."""

    name: str
    faults: tuple[Fault, ...]
    """What is wrong with the pack itself; its rules are not tried then."""
    rules: tuple[RuleTest, ...]

    @property
    def passed(self) -> bool:
        """Whether the pack is right and every example did what it has to."""
        return not self.faults and not any(rule.wrong for rule in self.rules)


def test_pack(name: str) -> PackTest:
    """Try each rule of a pack on its `good` and `bad` examples.

    An example is a part of what the rule judges: of the config in its long form, of the plan, or of the
    lock. What the example leaves out is not there.

    Raises:
        UsageError: when there is no such pack.
    """
    pack = read_pack(name, Path())
    if pack is None:
        raise UsageError(
            f"there is no policy pack '{name}'",
            help=f"give a file, or one that comes with devmap: {', '.join(BUILT_IN_POLICIES)}",
        )
    rules = []
    for rule in () if pack.faults else pack.rules:
        wrong = []
        for kind, examples in (("good", rule.good), ("bad", rule.bad)):
            for number, example in enumerate(examples, 1):
                try:
                    broken = bool(violations(rule.schema, example, Steps(MOST_STEPS)))
                except CostlySchemaError as error:
                    wrong.append(f"{kind} example {number}: {error}")
                    continue
                if broken is (kind == "good"):
                    wrong.append(f"{kind} example {number} {'breaks' if broken else 'keeps'} the rule")
        rules.append(RuleTest(rule.code, rule.name, len(rule.good), len(rule.bad), tuple(wrong)))
    return PackTest(pack.name, pack.faults, tuple(rules))


test_pack.__test__ = False  # type: ignore[attr-defined]  # pytest would take it for a test
