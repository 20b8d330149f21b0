"""The Language Server Protocol over standard input and output, on pygls.

Specification: https://microsoft.github.io/language-server-protocol/specifications/lsp/3.17/specification/
"""

from __future__ import annotations

import asyncio
import re
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit
from urllib.request import url2pathname

from lsprotocol import types as lsp
from pygls.lsp.server import LanguageServer

from devmap.checking.discovery import is_config_name
from devmap.errors import DevmapError
from devmap.findings.model import Severity
from devmap.lsp.session import Session

if TYPE_CHECKING:
    from devmap.config.yaml.source import Position
    from devmap.findings.model import Finding
    from devmap.lsp.proposals import Proposal

__all__ = ["make_server", "serve"]

_PAUSE_SECONDS = 0.15
"""A file is checked when its reader has not typed for so long."""
_OTHERS_PAUSE_SECONDS = 0.5
"""The other open files, which may extend that one, come a little later."""
_SEVERITIES = {
    Severity.ERROR: lsp.DiagnosticSeverity.Error,
    Severity.WARNING: lsp.DiagnosticSeverity.Warning,
    Severity.NOTE: lsp.DiagnosticSeverity.Information,
}
_KINDS = {
    "key": lsp.CompletionItemKind.Property,
    "module": lsp.CompletionItemKind.Module,
    "class": lsp.CompletionItemKind.Class,
    "word": lsp.CompletionItemKind.EnumMember,
}


def serve(version: str) -> None:
    """Serve one editor over standard input and output until it says to stop; `version` is what it is told."""
    make_server(version).start_io()


def make_server(version: str) -> DevmapServer:
    """Return a server with every feature, not yet started."""
    server = DevmapServer(version)
    for method, handler, options in (
        (lsp.TEXT_DOCUMENT_DID_OPEN, server.did_open, None),
        (lsp.TEXT_DOCUMENT_DID_CHANGE, server.did_change, None),
        (lsp.TEXT_DOCUMENT_DID_SAVE, server.did_save, None),
        (lsp.TEXT_DOCUMENT_DID_CLOSE, server.did_close, None),
        (lsp.TEXT_DOCUMENT_HOVER, server.hover, None),
        (
            lsp.TEXT_DOCUMENT_COMPLETION,
            server.completion,
            lsp.CompletionOptions(trigger_characters=[".", '"', "'", "{", "[", " "]),
        ),
        (
            lsp.TEXT_DOCUMENT_CODE_ACTION,
            server.code_actions,
            lsp.CodeActionOptions(code_action_kinds=[lsp.CodeActionKind.QuickFix]),
        ),
    ):
        server.feature(method, options)(
            partial(handler)
        )  # pygls marks what it registers, and a method takes no mark
    return server


class DevmapServer(LanguageServer):
    """The server of one editor: its session, and the checks that are about to be made."""

    def __init__(self, version: str) -> None:
        super().__init__("devmap", version, text_document_sync_kind=lsp.TextDocumentSyncKind.Incremental)
        self.session = Session()
        self._waiting: dict[str, asyncio.Task[None]] = {}
        self._one_at_a_time = asyncio.Lock()
        self._findings: dict[str, tuple[Finding, ...]] = {}

    async def did_open(self, params: lsp.DidOpenTextDocumentParams) -> None:
        """Check a file that is opened."""
        self._take(params.text_document.uri, pause=0)

    async def did_change(self, params: lsp.DidChangeTextDocumentParams) -> None:
        """Check a file once its reader pauses, and the open files that may extend it."""
        changed = params.text_document.uri
        self._take(changed, pause=_PAUSE_SECONDS)
        for uri in list(self.workspace.text_documents):
            if uri != changed:
                self._take(uri, pause=_OTHERS_PAUSE_SECONDS)

    async def did_save(self, params: lsp.DidSaveTextDocumentParams) -> None:  # noqa: ARG002 - whichever it was
        """Check every open file against what is on the disk now."""
        async with self._one_at_a_time:
            self.session.saved()
        for uri in list(self.workspace.text_documents):
            self._take(uri, pause=0)

    async def did_close(self, params: lsp.DidCloseTextDocumentParams) -> None:
        """Forget a file, and take its findings off the screen."""
        uri = params.text_document.uri
        waiting = self._waiting.pop(uri, None)
        if waiting is not None:
            waiting.cancel()
        self._findings.pop(uri, None)
        async with self._one_at_a_time:
            self.session.close(path_of(uri))
        self.text_document_publish_diagnostics(lsp.PublishDiagnosticsParams(uri, []))

    async def hover(self, params: lsp.HoverParams) -> lsp.Hover | None:
        """Tell what a key places."""
        uri = params.text_document.uri
        if not _is_config(uri):
            return None
        place = self._place(uri, params.position)
        async with self._one_at_a_time:
            found = await asyncio.to_thread(self.session.hover, path_of(uri), place.line, place.character)
        if found is None:
            return None
        content = lsp.MarkupContent(lsp.MarkupKind.Markdown, found.text)
        return lsp.Hover(content, self._range(uri, found.position))

    async def completion(self, params: lsp.CompletionParams) -> lsp.CompletionList:
        """Propose what may be typed."""
        uri = params.text_document.uri
        place = self._place(uri, params.position)
        async with self._one_at_a_time:
            found = await asyncio.to_thread(self.session.proposals, path_of(uri), place.line, place.character)
        line = self.workspace.get_text_document(uri).lines[place.line : place.line + 1] or [""]
        # The word is replaced from its own beginning: an editor's idea of a word ends at a dot.
        begun = re.search(r"""[^\s"'{}\[\],:]*$""", line[0][: place.character])
        begins = lsp.Position(place.line, begun.start() if begun else place.character)
        lines = self.workspace.get_text_document(uri).lines
        replaced = self.workspace.position_codec.range_to_client_units(lines, lsp.Range(begins, place))
        items = [_item(proposal, at, replaced) for at, proposal in enumerate(found)]
        return lsp.CompletionList(is_incomplete=False, items=items)

    async def code_actions(self, params: lsp.CodeActionParams) -> list[lsp.CodeAction]:
        """Offer the fixes of findings in a stretch, and to allow what may be allowed by a comment."""
        uri = params.text_document.uri
        actions: list[lsp.CodeAction] = []
        for finding in self._findings.get(uri, ()):
            if finding.position is None or finding.position.file != str(path_of(uri)):
                continue
            shown = self._range(uri, finding.position)
            if shown.end.line < params.range.start.line or shown.start.line > params.range.end.line:
                continue
            diagnostic = self._diagnostic(uri, finding)
            if finding.edit is not None and finding.edit.position.file == str(path_of(uri)):
                edit = lsp.TextEdit(self._range(uri, finding.edit.position), finding.edit.replacement)
                actions.append(_action(finding.edit.description, uri, edit, diagnostic, preferred=True))
            allow = self._allowing(uri, finding)
            if allow is not None:
                title = f"Allow {finding.code} ({finding.name}) on this line"
                actions.append(_action(title, uri, allow, diagnostic, preferred=False))
        return actions

    def _take(self, uri: str, *, pause: float) -> None:
        """Check a file after a pause, in the place of a check of it that has not begun."""
        if not _is_config(uri):
            return
        waiting = self._waiting.pop(uri, None)
        if waiting is not None:
            waiting.cancel()
        self.session.open(path_of(uri), self.workspace.get_text_document(uri).source)
        self._waiting[uri] = asyncio.ensure_future(self._check(uri, pause))

    async def _check(self, uri: str, pause: float) -> None:
        await asyncio.sleep(pause)
        document = self.workspace.get_text_document(uri)
        path = path_of(uri)
        async with self._one_at_a_time:
            try:
                findings = await asyncio.to_thread(self.session.findings, path)
            except DevmapError as error:
                findings = ()
                diagnostics = [_about_the_file(error)]
            else:
                diagnostics = [self._diagnostic(uri, one) for one in findings if one.suppressed is None]
        self._findings[uri] = tuple(one for one in findings if one.suppressed is None)
        self.text_document_publish_diagnostics(
            lsp.PublishDiagnosticsParams(uri, diagnostics, version=document.version)
        )

    def _diagnostic(self, uri: str, finding: Finding) -> lsp.Diagnostic:
        """Return a finding at its place.

        One of another file (a parent, the lock) on the first line, with that place beside it.
        """
        message = finding.message + (f"\n{finding.help}" if finding.help else "")
        position = finding.position
        related = None
        where = lsp.Range(lsp.Position(0, 0), lsp.Position(0, 0))
        if position is not None and position.file == str(path_of(uri)):
            where = self._range(uri, position)
        elif position is not None:
            there = lsp.Position(position.start.line - 1, position.start.column - 1)
            location = lsp.Location(Path(position.file).resolve().as_uri(), lsp.Range(there, there))
            related = [lsp.DiagnosticRelatedInformation(location, finding.label or finding.message)]
        return lsp.Diagnostic(
            where,
            message,
            severity=_SEVERITIES[finding.severity],
            code=finding.code,
            source="devmap",
            related_information=related,
        )

    def _allowing(self, uri: str, finding: Finding) -> lsp.TextEdit | None:
        """Return a comment at the end of the finding's line that allows it.

        None where that is not possible.
        """
        from devmap.checking.registry import explained_rules  # noqa: PLC0415 - only for quick fixes
        from devmap.checking.settings import find_settings  # noqa: PLC0415 - the same

        assert finding.position is not None
        rules = explained_rules(find_settings(path_of(uri).parent))
        rule = next((rule for rule in rules if rule.code == finding.code), None)
        if rule is None or not rule.suppressible:
            return None
        line = finding.position.source.line(finding.position.start.line)
        if "#" in line:
            return None  # a comment stands there already, or a string that holds a `#`
        number = finding.position.start.line
        end = finding.position.source.stretch(number, len(line) + 1, 0)
        return lsp.TextEdit(self._range(uri, end), f"  # devmap: ignore[{finding.code}] reason")

    def _range(self, uri: str, position: Position) -> lsp.Range:
        """Return a stretch of code points from 1 as the client counts."""
        lines = self.workspace.get_text_document(uri).lines
        stretch = lsp.Range(
            lsp.Position(position.start.line - 1, position.start.column - 1),
            lsp.Position(position.end.line - 1, position.end.column - 1),
        )
        return self.workspace.position_codec.range_to_client_units(lines, stretch)

    def _place(self, uri: str, position: lsp.Position) -> lsp.Position:
        """Return a client's place in code points, both from 0."""
        lines = self.workspace.get_text_document(uri).lines
        place = self.workspace.position_codec.position_from_client_units(lines, position)
        return lsp.Position(place.line, place.character)


def path_of(uri: str) -> Path:
    """Return the file of a document; a name of its own for one that was never saved.

    >>> path_of("file:///models/a%20b.devmap.yaml").as_posix()
    '/models/a b.devmap.yaml'
    """
    parts = urlsplit(uri)
    if parts.scheme != "file":
        return Path.cwd() / (Path(unquote(parts.path)).name or "untitled.devmap.yaml")
    return Path(url2pathname(parts.path))


def _is_config(uri: str) -> bool:
    """Return whether a document is a config by its name.

    An editor offers all YAML, and other files are not ours.
    """
    return is_config_name(path_of(uri).name)


def _about_the_file(error: DevmapError) -> lsp.Diagnostic:
    message = error.message + (f"\n{error.help}" if error.help else "")
    return lsp.Diagnostic(
        lsp.Range(lsp.Position(0, 0), lsp.Position(0, 0)),
        message,
        severity=lsp.DiagnosticSeverity.Error,
        source="devmap",
    )


def _item(proposal: Proposal, at: int, replaced: lsp.Range) -> lsp.CompletionItem:
    documentation = (
        lsp.MarkupContent(lsp.MarkupKind.Markdown, proposal.documentation) if proposal.documentation else None
    )
    return lsp.CompletionItem(
        proposal.text,
        kind=_KINDS[proposal.kind],
        detail=proposal.detail or None,
        documentation=documentation,
        sort_text=f"{at:05d}",
        text_edit=lsp.TextEdit(replaced, proposal.text),
    )


def _action(
    title: str, uri: str, edit: lsp.TextEdit, diagnostic: lsp.Diagnostic, *, preferred: bool
) -> lsp.CodeAction:
    return lsp.CodeAction(
        title,
        kind=lsp.CodeActionKind.QuickFix,
        diagnostics=[diagnostic],
        is_preferred=preferred,
        edit=lsp.WorkspaceEdit(changes={uri: [edit]}),
    )
