"""The real yaml-language-server, spoken to as an editor does: JSON-RPC over its standard input and output."""

from __future__ import annotations

import getpass
import json
import queue
import shutil
import subprocess
import tempfile
import threading
import time
from pathlib import Path
from typing import IO, Any, Self

__all__ = ["LanguageServer", "server_command"]

VERSION = "1.25.0"
_SECONDS = 30.0


def server_command() -> list[str]:
    """The server on PATH, or the one in a folder of the system's temporary files.

    Where npm installs it once.
    """
    found = shutil.which("yaml-language-server")
    if found is not None:
        return [found, "--stdio"]
    folder = Path(tempfile.gettempdir()) / f"devmap-yaml-language-server-{VERSION}-{getpass.getuser()}"
    program = folder / "node_modules" / ".bin" / "yaml-language-server"
    if not program.exists():
        npm = shutil.which("npm")
        needs = (
            "this test runs the real yaml-language-server: put it on PATH, or have "
            "Node.js with npm and a registry that it reaches"
        )
        assert npm is not None, f"npm is not installed; {needs}"
        folder.mkdir(parents=True, exist_ok=True)
        command = [
            npm,
            "install",
            "--no-audit",
            "--no-fund",
            "--prefix",
            str(folder),
            f"yaml-language-server@{VERSION}",
        ]
        result = subprocess.run(command, check=False, capture_output=True, text=True, timeout=120)
        assert result.returncode == 0, f"npm could not install it; {needs}\n{result.stderr}"
    return [str(program), "--stdio"]


class LanguageServer:
    """A running server with one folder open; a context manager."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._process = subprocess.Popen(
            server_command(), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._to, self._from = self._process.stdin, self._process.stdout
        self._arrived: queue.Queue[dict[str, Any] | None] = queue.Queue()
        self._next = 0
        self._diagnostics: dict[str, list[dict[str, Any]]] = {}
        self._reader = threading.Thread(target=_read_all, args=(self._from, self._arrived), daemon=True)
        self._reader.start()

    def __enter__(self) -> Self:
        capabilities = {
            "textDocument": {
                "hover": {"contentFormat": ["markdown"]},
                "completion": {
                    "completionItem": {"snippetSupport": True, "documentationFormat": ["markdown"]}
                },
                "publishDiagnostics": {},
            },
            "workspace": {"configuration": True},
        }
        roots = [{"uri": self._folder.as_uri(), "name": self._folder.name}]
        self.request(
            "initialize",
            processId=None,
            rootUri=self._folder.as_uri(),
            capabilities=capabilities,
            workspaceFolders=roots,
        )
        self._notify("initialized")
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()
        self._reader.join()
        self._to.close()
        self._from.close()

    def request(self, method: str, **parameters: object) -> Any:
        """Ask and wait for the answer, serving what the server asks meanwhile."""
        self._next += 1
        number = self._next
        self._send({"id": number, "method": method, "params": parameters})
        end = time.monotonic() + _SECONDS
        while True:
            message = self._take(end, method)
            if message.get("id") == number and "method" not in message:
                assert "error" not in message, message
                return message["result"]

    def open(self, path: Path) -> list[dict[str, Any]]:
        """Open a file and return the diagnostics that the server publishes for it."""
        uri = path.as_uri()
        text = path.read_text(encoding="utf-8")
        self._notify(
            "textDocument/didOpen",
            textDocument={"uri": uri, "languageId": "yaml", "version": 1, "text": text},
        )
        end = time.monotonic() + _SECONDS
        while uri not in self._diagnostics:
            self._take(end, f"diagnostics of {path.name}")
        return self._diagnostics[uri]

    def at(self, method: str, path: Path, after: str) -> Any:
        """Ask about the place right after the first occurrence of a text."""
        text = path.read_text(encoding="utf-8")
        before = text[: text.index(after) + len(after)]
        position = {"line": before.count("\n"), "character": len(before) - before.rfind("\n") - 1}
        return self.request(f"textDocument/{method}", textDocument={"uri": path.as_uri()}, position=position)

    def _take(self, end: float, waited_for: str) -> dict[str, Any]:
        try:
            message = self._arrived.get(timeout=max(end - time.monotonic(), 0.001))
        except queue.Empty:
            raise AssertionError(
                f"yaml-language-server gave no answer in {_SECONDS:.0f} s: {waited_for}"
            ) from None
        assert message is not None, f"yaml-language-server ended: {waited_for}"
        if message.get("method") == "textDocument/publishDiagnostics":
            self._diagnostics[message["params"]["uri"]] = message["params"]["diagnostics"]
        elif "method" in message and "id" in message:
            self._send({"id": message["id"], "result": _answer(message)})
        return message

    def _notify(self, method: str, **parameters: object) -> None:
        self._send({"method": method, "params": parameters})

    def _send(self, message: dict[str, Any]) -> None:
        body = json.dumps({"jsonrpc": "2.0", **message}).encode()
        self._to.write(b"Content-Length: %d\r\n\r\n%s" % (len(body), body))
        self._to.flush()


def _answer(message: dict[str, Any]) -> object:
    """What an editor answers: its settings when it is asked for them, otherwise nothing."""
    if message["method"] != "workspace/configuration":
        return None
    settings = {"validate": True, "hover": True, "completion": True, "schemaStore": {"enable": False}}
    return [settings if item.get("section") == "yaml" else {} for item in message["params"]["items"]]


def _read_all(stream: IO[bytes], arrived: queue.Queue[dict[str, Any] | None]) -> None:
    while True:
        length = 0
        while (line := stream.readline()) not in {b"\r\n", b""}:
            name, _, value = line.partition(b":")
            if name.lower() == b"content-length":
                length = int(value)
        if not length:
            arrived.put(None)
            return
        arrived.put(json.loads(stream.read(length)))
