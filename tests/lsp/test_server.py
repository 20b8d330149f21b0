"""`devmap lsp` as an editor uses it: a process of its own, spoken to by pygls's client."""

from __future__ import annotations

import asyncio
import shutil
import sys
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from lsprotocol import types as lsp
from pygls.lsp.client import LanguageClient

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

EXAMPLES = Path(__file__).parent.parent.parent / "examples"
CONFIG = """\
version: 1
model: {manifest: m.manifest.yaml, dtype: bfloat16}
device_map:
  model.embed_tokens: 0
  model.layers[0-9]: 0
  "": balanced
max_memory: {0: 23GB, 1: 23GB, cpu: 120GB}
"""
SECONDS = 60
"""For an answer that never comes; a test that passes waits for none of it."""


class Editor:
    """A client with one file open."""

    def __init__(self, client: LanguageClient, file: Path) -> None:
        self.client = client
        self.uri = file.as_uri()
        self.version = 1
        self.published: asyncio.Queue[lsp.PublishDiagnosticsParams] = asyncio.Queue()
        client.feature(lsp.TEXT_DOCUMENT_PUBLISH_DIAGNOSTICS)(partial(self.published.put_nowait))

    async def open(self, text: str) -> list[lsp.Diagnostic]:
        self.client.text_document_did_open(
            lsp.DidOpenTextDocumentParams(lsp.TextDocumentItem(self.uri, "yaml", self.version, text))
        )
        return await self.diagnostics()

    async def type(self, text: str) -> list[lsp.Diagnostic]:
        self.version += 1
        self.client.text_document_did_change(
            lsp.DidChangeTextDocumentParams(
                lsp.VersionedTextDocumentIdentifier(self.version, self.uri),
                [lsp.TextDocumentContentChangeWholeDocument(text)],
            )
        )
        return await self.diagnostics()

    async def diagnostics(self) -> list[lsp.Diagnostic]:
        while True:
            found = await asyncio.wait_for(self.published.get(), SECONDS)
            if found.uri == self.uri and found.version in {None, self.version}:
                return list(found.diagnostics)

    async def hover(self, line: int, character: int) -> str:
        found = await self.client.text_document_hover_async(
            lsp.HoverParams(lsp.TextDocumentIdentifier(self.uri), lsp.Position(line, character))
        )
        assert found is None or isinstance(found.contents, lsp.MarkupContent)
        return (
            "" if found is None or not isinstance(found.contents, lsp.MarkupContent) else found.contents.value
        )

    async def complete(self, line: int, character: int) -> list[lsp.CompletionItem]:
        found = await self.client.text_document_completion_async(
            lsp.CompletionParams(lsp.TextDocumentIdentifier(self.uri), lsp.Position(line, character))
        )
        assert isinstance(found, lsp.CompletionList)
        return list(found.items)

    async def actions(self, line: int) -> list[lsp.CodeAction]:
        place = lsp.Position(line, 0)
        found = await self.client.text_document_code_action_async(
            lsp.CodeActionParams(
                lsp.TextDocumentIdentifier(self.uri), lsp.Range(place, place), lsp.CodeActionContext([])
            )
        )
        return [action for action in found or [] if isinstance(action, lsp.CodeAction)]


@asynccontextmanager
async def editor(folder: Path) -> AsyncIterator[Editor]:
    client = LanguageClient("a test", "1")
    await client.start_io(sys.executable, "-m", "devmap", "lsp", "--stdio", cwd=folder)
    answer = await client.initialize_async(
        lsp.InitializeParams(lsp.ClientCapabilities(), root_uri=folder.as_uri())
    )
    assert answer.server_info is not None
    assert answer.server_info.name == "devmap"
    client.initialized(lsp.InitializedParams())
    try:
        yield Editor(client, folder / "a.devmap.yaml")
    finally:
        await client.shutdown_async(None)
        client.exit(None)
        await client.stop()  # type: ignore[no-untyped-call]  # pygls does not annotate it


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    shutil.copy(EXAMPLES / "llama-3-70b.manifest.yaml", tmp_path / "m.manifest.yaml")
    return tmp_path


def talk(folder: Path, story: Callable[[Editor], Awaitable[None]]) -> None:
    async def told() -> None:
        async with editor(folder) as one:
            await story(one)

    asyncio.run(told())


def applied(text: str, action: lsp.CodeAction) -> str:
    """The text after the one edit of a quick fix; its columns are ASCII here."""
    assert action.edit is not None
    assert action.edit.changes is not None
    ((edit,),) = action.edit.changes.values()
    lines = text.splitlines(keepends=True)
    start, end = edit.range.start, edit.range.end
    assert start.line == end.line
    line = lines[start.line]
    lines[start.line] = line[: start.character] + edit.new_text + line[end.character :]
    return "".join(lines)


def test_findings_come_while_one_types_and_go_with_their_cause(folder: Path) -> None:
    async def story(one: Editor) -> None:
        assert await one.open(CONFIG) == []
        wrong = CONFIG.replace("model.embed_tokens", "model.embed_token")
        (found,) = await one.type(wrong)
        assert found.code == "DM201"
        assert found.severity is lsp.DiagnosticSeverity.Error
        assert found.range == lsp.Range(lsp.Position(3, 2), lsp.Position(3, 19))
        fix = next(action for action in await one.actions(3) if action.is_preferred)
        assert applied(wrong, fix) == CONFIG
        assert await one.type(CONFIG) == []
        (broken,) = await one.type("version: 1\nmodel: {\n")
        assert broken.code is not None
        assert str(broken.code).startswith("DM0")

    talk(folder, story)


def test_a_hover_tells_what_a_key_places(folder: Path) -> None:
    async def story(one: Editor) -> None:
        await one.open(CONFIG)
        layers = await one.hover(4, 6)
        assert "`model.layers[0-9]`: 10 LlamaDecoderLayer" in layers
        assert "Places 17.1 GB in bfloat16." in layers
        assert "- device 0: 17.1 GB" in layers
        rest = await one.hover(5, 3)
        assert "The whole model: LlamaForCausalLM" in rest
        assert "without what more exact keys take" in rest
        assert "- cpu, runs on device 1" in rest
        assert "23.0 GB" in await one.hover(6, 14)
        assert "LlamaForCausalLM: 725 tensors, 141.1 GB in bfloat16" in await one.hover(1, 2)
        assert await one.hover(40, 0) == ""

    talk(folder, story)


def test_module_paths_devices_and_words_are_completed_in_a_file_that_is_not_right_yet(folder: Path) -> None:
    async def story(one: Editor) -> None:
        await one.open(CONFIG)
        typing = CONFIG.replace('  "": balanced', "  model.layers.7\n")
        await one.type(typing)
        items = await one.complete(5, len("  model.layers.7"))
        labels = [item.label for item in items]
        assert labels[0] == "model.layers.7"
        assert "model.layers.79" in labels
        assert "model.layers.70.mlp" in labels
        assert isinstance(items[0].text_edit, lsp.TextEdit)
        assert items[0].text_edit.range == lsp.Range(lsp.Position(5, 2), lsp.Position(5, 16))
        await one.type(CONFIG.replace("0\n  model.layers", "\n  model.layers"))
        values = [item.label for item in await one.complete(3, len("  model.embed_tokens: "))]
        assert values[:3] == ["0", "1", "cpu"]
        assert "balanced" in values
        await one.type(CONFIG + "head\n")
        (key,) = await one.complete(7, 4)
        assert key.label == "headroom"
        await one.type(CONFIG + "machine: 2x40\n")
        assert "2x4090" in [item.label for item in await one.complete(7, len("machine: 2x40"))]
        await one.type(CONFIG + "no_split_module_classes: [Llama\n")
        classes = [item.label for item in await one.complete(7, len("no_split_module_classes: [Llama"))]
        assert "LlamaDecoderLayer" in classes

    talk(folder, story)


def test_places_are_counted_as_the_protocol_does_after_characters_outside_of_the_basic_plane(
    folder: Path,
) -> None:
    async def story(one: Editor) -> None:
        (found,) = await one.open(CONFIG.replace("{0: 23GB,", "{0: '\U0001f600',"))
        # A smiley is one code point and two UTF-16 units, so the string ends two units after its quote
        # began, and one.
        assert found.range == lsp.Range(lsp.Position(6, 16), lsp.Position(6, 20))

    talk(folder, story)


def test_an_unsaved_parent_counts_as_it_stands_on_the_screen(folder: Path) -> None:
    (folder / "base.devmap.yaml").write_text(CONFIG, encoding="utf-8")

    async def story(one: Editor) -> None:
        assert await one.open("extends: base.devmap.yaml\n") == []
        base = (folder / "base.devmap.yaml").as_uri()
        wrong = CONFIG.replace("23GB, 1", "23Gb, 1")
        one.client.text_document_did_open(
            lsp.DidOpenTextDocumentParams(lsp.TextDocumentItem(base, "yaml", 1, CONFIG))
        )
        one.client.text_document_did_change(
            lsp.DidChangeTextDocumentParams(
                lsp.VersionedTextDocumentIdentifier(2, base),
                [lsp.TextDocumentContentChangeWholeDocument(wrong)],
            )
        )
        found: list[lsp.Diagnostic] = []
        while not found:
            found = await one.diagnostics()
        assert found[0].related_information is not None
        assert found[0].related_information[0].location.uri == base

    talk(folder, story)


def test_a_finding_may_be_allowed_by_a_quick_fix_where_its_rule_says_so(folder: Path) -> None:
    text = CONFIG.replace("model.embed_tokens: 0", "model.embed_tokens: 0\n  model.embed_token: 0")

    async def story(one: Editor) -> None:
        (found,) = await one.open(text)
        allow = next(action for action in await one.actions(4) if action.title.startswith("Allow"))
        allowed = applied(text, allow)
        assert f"model.embed_token: 0  # devmap: ignore[{found.code}] reason" in allowed
        assert await one.type(allowed) == []

    talk(folder, story)


def test_a_config_never_runs_code_for_an_editor(folder: Path) -> None:
    (folder / "spy.py").write_text("open('ran', 'w').close()\n", encoding="utf-8")

    async def story(one: Editor) -> None:
        await one.open("version: 1\nmodel: {factory: 'spy:make'}\ndevice_map: auto\nmax_memory: {0: 1GB}\n")
        await one.hover(1, 1)
        await one.hover(2, 2)
        assert not (folder / "ran").exists()

    talk(folder, story)


def test_other_yaml_is_left_alone(folder: Path) -> None:
    async def story(one: Editor) -> None:
        config = one.uri
        one.uri = (folder / "compose.yaml").as_uri()
        other = lsp.TextDocumentItem(one.uri, "yaml", 1, "services: {}\n")
        one.client.text_document_did_open(lsp.DidOpenTextDocumentParams(other))
        assert await one.hover(0, 1) == ""
        one.uri = config
        assert await one.open(CONFIG) == []  # the first that is published is the config's
        assert one.published.empty()

    talk(folder, story)
