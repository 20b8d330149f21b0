"""Contexts of small configs over the pack's example model."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import pytest

import devmap_validators
from devmap.api.machine import machine_of
from devmap.api.sources import inventory_of
from devmap.checking.engine import check
from devmap.checking.settings import Settings
from devmap.config.document import parse_document
from devmap.errors import DevmapError, InventoryError, ResolutionError
from devmap.findings.context import Context
from devmap.inventory.model import Inventory
from devmap.planning.resolve import resolve
from devmap_validators.rules import ALL_RULES

if TYPE_CHECKING:
    from devmap.config.document import Document
    from devmap.config.model.placement_config import PlacementConfig
    from devmap.findings.model import Finding

PACK = Path(devmap_validators.__file__).parent


class ContextOf(Protocol):
    """Builds a context from a config's text; keywords replace what would be worked out."""

    def __call__(self, text: str, **known: Any) -> Context: ...


class DocumentContext(Protocol):
    """Builds a context from a document."""

    def __call__(self, document: Document, **known: Any) -> Context: ...


class FindingsOf(Protocol):
    """Runs the pack over a context; codes pick some of what it finds."""

    def __call__(self, context: Context, *codes: str) -> tuple[Finding, ...]: ...


@pytest.fixture(scope="session")
def example() -> Inventory:
    """The model of the examples: four Llama layers, a head that is tied to the embedding."""
    return Inventory.from_manifest(PACK / "example.manifest.yaml")


@pytest.fixture(scope="session")
def document_context() -> DocumentContext:
    """A context as `devmap validate` makes it."""

    def build(document: Document, **known: Any) -> Context:
        context = Context(document)
        config = document.config
        if config is not None:
            context = _with_machine(_with_inventory(context, config), config)
            if "inventory" in known:
                context = dataclasses.replace(context, inventory=known["inventory"], inventory_error=None)
            context = _with_plan(context, config)
        return dataclasses.replace(context, **known)

    return build


@pytest.fixture(scope="session")
def context_of(document_context: DocumentContext) -> ContextOf:
    """A context for a config that stands in the pack's folder."""

    def build(text: str, **known: Any) -> Context:
        profile = known.pop("profile", None)
        content = text.encode("utf-8", "surrogateescape")
        return document_context(
            parse_document(content, str(PACK / "example.devmap.yaml"), profile=profile), **known
        )

    return build


@pytest.fixture(scope="session")
def findings_of() -> FindingsOf:
    """The findings of a context; what a rule raises is raised."""

    def run(context: Context, *codes: str) -> tuple[Finding, ...]:
        found = check(context, settings=Settings(strict=True), rules=ALL_RULES)
        return tuple(finding for finding in found if not codes or finding.code in codes)

    return run


def _with_inventory(context: Context, config: PlacementConfig) -> Context:
    if config.model.manifest is None:
        return context
    try:
        return dataclasses.replace(context, inventory=inventory_of(config))
    except InventoryError as error:
        return dataclasses.replace(context, inventory_error=error)


def _with_machine(context: Context, config: PlacementConfig) -> Context:
    if config.machine is not None and config.machine.nodes:
        return dataclasses.replace(context, machine=machine_of(config, probe=False))
    if config.machine is not None and not config.machine.devices:
        return dataclasses.replace(
            context, machine_error=DevmapError(f"there is no machine '{config.machine.name}'")
        )
    return dataclasses.replace(context, machine=config.machine)


def _with_plan(context: Context, config: PlacementConfig) -> Context:
    if context.inventory is None or (config.max_memory is None and context.machine is None):
        return context
    try:
        return dataclasses.replace(context, plan=resolve(config, context.inventory, machine=context.machine))
    except ResolutionError as error:
        return dataclasses.replace(context, plan_error=error)
    except DevmapError:
        return context  # a wrong manual map: the rules say what is wrong with it
