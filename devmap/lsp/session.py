"""What the language server knows of the configs that are open, and what it answers: no protocol, no editor.

Places are lines and columns from 0 here, as editors count, with columns in code points; `server` turns them
into the units that a client asked for.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from devmap.api.checks.validation import checker
from devmap.api.machine import machine_of, needs_machine
from devmap.api.sources import inventory_of
from devmap.checking.settings import find_settings
from devmap.config.document import load_document
from devmap.errors import DevmapError
from devmap.lsp.cursor import cursor_at
from devmap.lsp.hover import hover_text
from devmap.lsp.known import Known
from devmap.lsp.proposals import proposals_at
from devmap.planning.resolve import resolve

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from devmap.api.checks.validation import FileCheck
    from devmap.config.document import Document
    from devmap.config.model.placement_config import PlacementConfig
    from devmap.config.yaml.source import Position
    from devmap.findings.model import Finding
    from devmap.inventory.model import Inventory
    from devmap.lsp.proposals import Proposal
    from devmap.plan.model import Plan

__all__ = ["Hover", "Session"]


@dataclass(frozen=True, slots=True)
class Hover:
    """What is told of a place, in Markdown, and the stretch that it is about."""

    text: str
    position: Position


@dataclass
class Session:
    """The open configs of one editor.

    `open` and `close` may be called at any time, everything else by one caller at a time.
    """

    drafts: dict[Path, bytes] = field(default_factory=dict)
    """The text of open files, saved or not, by resolved path: parents of a config count as they are on the
    screen."""
    _checks: dict[Path, FileCheck] = field(default_factory=dict)
    _inventories: dict[tuple[str, ...], Inventory] = field(default_factory=dict)
    _last: dict[Path, Known] = field(default_factory=dict)
    """For each file the last state in which it named a model that could be read."""

    def open(self, path: Path, text: str) -> None:
        """Take a file's text, when it is opened and at each change."""
        self.drafts[path.resolve()] = text.encode("utf-8", "surrogatepass")

    def close(self, path: Path) -> None:
        """Forget a file's text: what counts from now on is on the disk."""
        self.drafts.pop(path.resolve(), None)

    def saved(self) -> None:
        """Read models and settings anew: a file on the disk has changed."""
        self._checks.clear()
        self._inventories.clear()

    def findings(self, path: Path) -> tuple[Finding, ...]:
        """Return what `devmap validate` finds in a config; suppressed findings too.

        Raises:
            UsageError: when the settings are wrong, or the file is neither open nor on the disk.
        """
        folder = path.parent
        check = self._checks.get(folder)
        if check is None:
            check = self._checks[folder] = checker(find_settings(folder))
        return check(str(path), self.drafts).findings

    def known(self, path: Path, drafts: Mapping[Path, bytes] | None = None) -> Known:
        """Return a config, its model and its plan, each as far as it can be had. Runs no code of a config."""
        document = load_document(path, drafts=self.drafts if drafts is None else drafts)
        config = document.config
        if config is None:
            last = self._last.get(path)
            inventory = None if last is None else last.inventory
            return Known(
                document,
                None if last is None else last.config,
                inventory,
                problem="the config is not right yet",
            )
        try:
            inventory = self._inventory(config)
        except DevmapError as error:
            return Known(document, config, problem=error.message)
        plan, problem = _plan(config, inventory)
        found = self._last[path] = Known(document, config, inventory, plan, problem)
        return found

    def hover(self, path: Path, line: int, column: int) -> Hover | None:
        """Return what is to be told of the key or value at a place; None where there is nothing to tell."""
        known = self.known(path)
        at = _node_at(known.document, line + 1, column + 1)
        if at is None:
            return None
        node, position = at
        text = hover_text(known, node)
        return Hover(text, position) if text else None

    def proposals(self, path: Path, line: int, column: int) -> tuple[Proposal, ...]:
        """Return what may be typed at a place, the likeliest first."""
        content = self.drafts.get(path.resolve())
        if content is None:
            return ()
        lines = content.decode("utf-8", "replace").splitlines() or [""]
        cursor = cursor_at(lines, line, column)
        if cursor is None:
            return ()
        known = self.known(path)
        if known.document.config is None:
            # What is typed is seldom right before it is whole: without its line the rest often is.
            without = "\n".join("" if at == line else text for at, text in enumerate(lines))
            rest = self.known(path, {**self.drafts, path.resolve(): without.encode()})
            known = rest if rest.document.config is not None else known
        return tuple(proposals_at(known, cursor))

    def _inventory(self, config: PlacementConfig) -> Inventory:
        model = config.model
        key = (str(config.folder.resolve()), str(model.manifest), str(model.checkpoint), str(model.factory))
        if key not in self._inventories:
            self._inventories[key] = inventory_of(config)
        return self._inventories[key]


def _plan(config: PlacementConfig, inventory: Inventory) -> tuple[Plan | None, str]:
    """Return the plan of a config without a look at the machine that the editor runs on."""
    try:
        machine = machine_of(config, probe=False)
        if machine is None and needs_machine(config):
            return None, "the budgets are those of the machine that it runs on"
        return resolve(config, inventory, machine=machine), ""
    except DevmapError as error:
        return None, error.message


def _node_at(document: Document, line: int, column: int) -> tuple[tuple[str | int, ...], Position] | None:
    """Return the deepest node whose key or value stands at a place, and the stretch of it that does."""
    best: tuple[tuple[str | int, ...], Position] | None = None
    for path in document.positions:
        node = document.positions[path]
        for position in (node.key, node.value):
            if (
                position is not None
                and position.source.name == document.source.name
                and position.start.line == line
                and position.start.column <= column <= position.end.column
                and (best is None or len(path) > len(best[0]))
            ):
                best = (path, position)
    return best
