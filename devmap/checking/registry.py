"""The rules that are known: the built-in pack, the engine's own, and the packs that the settings name."""

from __future__ import annotations

import importlib
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from devmap.checking.installed import is_installed, places_of
from devmap.config.values.words import shown, shown_path
from devmap.errors import ConfigError, UsageError
from devmap.findings.meta import META_RULES
from devmap.findings.model import Rule
from devmap.findings.registry import verified

if TYPE_CHECKING:
    from devmap.checking.settings import Settings

__all__ = ["BUILT_IN_PACK", "explained_rules", "load_rules", "rules_of_policy", "with_policies"]

BUILT_IN_PACK = "devmap_validators.rules"


def load_rules(settings: Settings) -> tuple[Rule, ...]:
    """Return all rules, in order of their codes, whether they are selected or not.

    A pack is loaded because the settings name it, never because it is installed; and only from an installed
    distribution, unless code of the folder is allowed to run.

    Raises:
        UsageError: when a pack cannot be imported, has no `ALL_RULES`, clashes with another, or would be
        code of
            the folder that is checked.
    """
    return _load((BUILT_IN_PACK, *settings.packs), allow_code=settings.allow_code)


def explained_rules(settings: Settings) -> tuple[Rule, ...]:
    """Return all rules, and those of the policies that come with devmap.

    It run only where a config names their policy.
    """
    return with_policies(load_rules(settings))


def with_policies(rules: tuple[Rule, ...]) -> tuple[Rule, ...]:
    """Return the rules and those of the policies that come with devmap."""
    whole = next((rule for rule in rules if rule.code == _POLICY_VIOLATED), None)
    if whole is None:
        return rules
    # Reads four files, for `devmap explain` alone.
    from devmap_validators.checks.policies import built_in_rules  # noqa: PLC0415

    return (*rules, *built_in_rules(whole))


def rules_of_policy(name: str, rules: tuple[Rule, ...]) -> tuple[Rule, ...]:
    """Return the rules of a policy pack, built in or at a path from the current folder.

    None where there is no such pack.

    Raises:
        ConfigError: when the pack is wrong, with every fault.
    """
    # Reads one file, for `devmap explain` alone.
    from devmap_validators.checks.policies import part_of_policy, read_pack  # noqa: PLC0415

    whole = next((rule for rule in rules if rule.code == _POLICY_VIOLATED), None)
    pack = read_pack(name, Path())
    if whole is None or pack is None:
        return ()
    if pack.faults:
        raise ConfigError(f"the policy pack {shown(name)} is wrong", problems=pack.faults)
    return tuple(part_of_policy(rule, pack, whole) for rule in pack.rules)


_POLICY_VIOLATED = "DM603"


@cache
def _load(packs: tuple[str, ...], *, allow_code: bool) -> tuple[Rule, ...]:
    for pack in packs[1:] if not allow_code else ():
        _require_installed(pack)
    rules = [rule for pack in dict.fromkeys(packs) for rule in _rules_of(pack)]
    known = {rule.code for rule in rules}
    return verified([*rules, *(rule for rule in META_RULES if rule.code not in known)])


def _require_installed(pack: str) -> None:
    places = places_of(pack)
    if places and not is_installed(pack):
        raise UsageError(
            f"the rule pack {shown(pack)} would be imported from "
            f"{shown_path(places[0])}, which is not an installed "
            f"distribution",
            help="install it, or pass --allow-code if you trust every file of that folder",
        )


def _rules_of(pack: str) -> tuple[Rule, ...]:
    try:
        rules = importlib.import_module(pack).ALL_RULES
    except ImportError as error:
        raise UsageError(
            f"the rule pack '{pack}' cannot be imported: {error}",
            help="install it, or remove it from 'rules'",
        ) from error
    except AttributeError:
        raise UsageError(
            f"'{pack}' is not a rule pack: it has no ALL_RULES",
            help="name a module with a tuple ALL_RULES of rules",
        ) from None
    if not isinstance(rules, tuple) or not all(isinstance(rule, Rule) for rule in rules):
        raise UsageError(
            f"ALL_RULES of the pack '{pack}' is not a tuple of rules", help="see devmap.findings.model.Rule"
        )
    return rules
