"""The rules that the engine itself answers for: they are about the checks, not about the config."""

from __future__ import annotations

from typing import TYPE_CHECKING

from devmap.findings.model import Report, Rule, Severity

if TYPE_CHECKING:
    from devmap.findings.context import Context

__all__ = ["CRASHED_RULE", "META_RULES", "UNKNOWN_SUPPRESSION", "UNUSED_SUPPRESSION"]


def _found_by_the_engine(_context: Context) -> tuple[Report, ...]:
    return ()


UNUSED_SUPPRESSION = Rule(
    code="DM901",
    name="unused-suppression",
    severity=Severity.WARNING,
    summary="A comment `# devmap: ignore[...]` suppresses nothing",
    why=(
        "A comment that suppresses nothing hides the next problem on its line that somebody makes by "
        "mistake. It is left over from a "
        "problem that was solved, or stands on the wrong line."
    ),
    good="version: 1\nmodel: {checkpoint: ./gpt2}\nmax_memory: {0: 20GB}\n",
    bad="version: 1\nmodel: {checkpoint: ./gpt2}  # devmap: ignore[DM201] the layers were "
    "renamed\nmax_memory: {0: 20GB}\n",
    check=_found_by_the_engine,
    suppressible=False,
)

CRASHED_RULE = Rule(
    code="DM902",
    name="crashed-rule",
    severity=Severity.ERROR,
    summary="A rule failed with an exception",
    why=(
        "A rule that fails says nothing about the config, so the config is not known to be right. The "
        "other rules have run. It is a bug "
        "of the rule's pack: report it there, and use `--ignore` with the rule's code until it is fixed."
    ),
    good="version: 1\nmodel: {checkpoint: ./gpt2}\n",
    bad="version: 1\nmodel: {checkpoint: ./gpt2}\n",
    check=_found_by_the_engine,
    suppressible=False,
)

UNKNOWN_SUPPRESSION = Rule(
    code="DM903",
    name="unknown-suppression",
    severity=Severity.WARNING,
    summary="A comment `# devmap: ignore[...]` names a rule that does not exist or cannot be suppressed",
    why=(
        "The comment was written to allow something, and allows nothing: its word is misspelt, is a rule "
        "of a policy that this config "
        "does not name, or is one of the rules of the file itself, which keep a config from being read "
        "and always show."
    ),
    good="version: 1\nmodel: {checkpoint: ./gpt2}\nmax_memory: {0: 20GB}\n",
    bad="version: 1\nmodel: {checkpoint: ./gpt2}  # devmap: ignore[DM999] the layers were "
    "renamed\nmax_memory: {0: 20GB}\n",
    check=_found_by_the_engine,
    suppressible=False,
)

META_RULES = (UNUSED_SUPPRESSION, CRASHED_RULE, UNKNOWN_SUPPRESSION)
"""Always part of the registry."""
