"""Pages in a real browser: what Chromium logs of them, and what a script sees that runs inside a copy."""

from __future__ import annotations

import html
import json
import re
import shutil
import subprocess
from pathlib import Path

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")

QUIET = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync --disable-default-apps --disable-extensions --hide-scrollbars "
    "--enable-logging=stderr --virtual-time-budget=4000"
).split()

_BEFORE = """
<script>
addEventListener("load", () => {
  const seen = {};
"""
_AFTER = """  const out = document.createElement("pre");
  out.id = "probe";
  out.textContent = JSON.stringify(seen);
  document.body.append(out);
});
</script>
</body>"""


def chromium(page: Path, profile: Path, *extra: str) -> subprocess.CompletedProcess[str]:
    command = [str(CHROMIUM), *QUIET, f"--user-data-dir={profile}", *extra, page.as_uri()]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


def with_probe(page: str, probe: str) -> str:
    """A copy of the page that runs statements once it is loaded, which write what they see into `seen`: the page's own
    policy would refuse a foreign script."""
    copy, policies = re.subn(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", page)
    assert policies == 1
    return copy.replace("</body>", _BEFORE + probe + _AFTER)


def console(done: subprocess.CompletedProcess[str]) -> list[str]:
    return [line for line in done.stderr.splitlines() if ":CONSOLE" in line]


def seen_in(dom: str) -> dict[str, object]:
    found = re.search(r'<pre id="probe">(.*?)</pre>', dom, re.S)
    assert found, "the page's script did not run to its end"
    seen: dict[str, object] = json.loads(html.unescape(found[1]))
    return seen
