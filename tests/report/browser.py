"""A real Chromium for tests of pages.

A page is opened, a script acts on it as a user does, and says what it saw.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import tempfile
from html import unescape
from pathlib import Path

import pytest

_NAMES = ("chromium-headless-shell", "chromium", "chromium-browser", "google-chrome", "chrome")

_HARNESS = """
<pre id="seen" hidden></pre>
<script>
window.addEventListener("load", () => setTimeout(() => {
  const said = document.getElementById("seen");
  try { said.textContent = JSON.stringify((() => { %s })()); }
  catch (error) { said.textContent = JSON.stringify({ error: String(error) }); }
}, 200));
</script>
"""


def chromium() -> str:
    """The browser; where there is none the test is skipped and says what to install, and in CI it fails."""
    found = next((path for name in _NAMES if (path := shutil.which(name))), None)
    if found is None:
        missing = (
            "no Chromium is installed, and pages are tested in a real one: "
            "apt-get install chromium-headless-shell"
        )
        if os.environ.get("CI"):
            pytest.fail(missing)
        pytest.skip(missing)
    return found


def see(page: str, script: str, *, width: int = 1000, height: int = 1400, dark: bool = False) -> object:
    """What `script`, the body of a function, returns after the page has been drawn at this size.

    In pixels.
    """
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "page.html"
        file.write_text(page.replace("</body>", (_HARNESS % script) + "</body>"), encoding="utf-8")
        outcome = subprocess.run(
            [
                chromium(),
                "--headless",
                "--no-sandbox",
                "--disable-gpu",
                "--hide-scrollbars",
                f"--user-data-dir={folder}/profile",
                f"--window-size={width},{height}",
                "--virtual-time-budget=4000",
                f"--blink-settings=preferredColorScheme={0 if dark else 1}",
                "--dump-dom",
                file.as_uri(),
            ],
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )
    found = re.search(r'<pre id="seen" hidden="">(.*?)</pre>', outcome.stdout, re.DOTALL)
    assert found is not None, outcome.stderr
    seen: object = json.loads(unescape(found[1]))
    assert not (isinstance(seen, dict) and "error" in seen), seen
    return seen
