"""Validation pages in a real browser: nothing asked for from outside, nothing clipped, overlapping or overflowing."""

from __future__ import annotations

from pathlib import Path

import pytest

from pararev_hw.reports import write_paper, write_validation
from tests.helpers.browser import CHROMIUM, chromium, console, seen_in, with_probe
from tests.helpers.validation_helpers import case, validation
from tests.validation.test_validate_reports import CASES, ROWS, WITH_ENERGY, check

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed: apt-get install chromium"),
]

PROBE = """
  const figures = [...document.querySelectorAll("svg")];
  seen.requests = performance.getEntriesByType("resource").map((e) => e.name);
  seen.overflow = document.documentElement.scrollWidth - document.documentElement.clientWidth;
  seen.figures = figures.length;
  const heights = [...document.querySelectorAll("svg text")].map((t) => t.getBoundingClientRect().height);
  seen.small = heights.filter((h) => h > 0 && h < 10).length;
  seen.clipped = figures.flatMap((f) => {
    const all = f.getBoundingClientRect();
    return [...f.querySelectorAll("text, circle")].filter((t) => {
      const own = t.getBoundingClientRect();
      return own.left < all.left - 1 || own.right > all.right + 1 || own.bottom > all.bottom + 1;
    }).map((t) => t.textContent);
  });
  seen.overlaps = figures.flatMap((figure) => {
    const boxes = [...figure.querySelectorAll("text")].map((t) => [t.textContent, t.getBoundingClientRect()]);
    const bad = [];
    for (let i = 0; i < boxes.length; i++) for (let j = 0; j < i; j++) {
      const a = boxes[i][1], b = boxes[j][1];
      const x = Math.min(a.right, b.right) - Math.max(a.left, b.left);
      const y = Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top);
      if (x > 1 && y > 4) bad.push(boxes[i][0] + " on " + boxes[j][0]);
    }
    return bad;
  });
"""

MANY = [
    case(0.02 * 1.3**k, 0.02 * 1.3**k * (1 + 0.05 * (-1) ** k), name=f"{family}{k + 9}")
    for k in range(18)
    for family in ("pararevsnn", "revsresnet", "msresnet")
]


@pytest.mark.parametrize("window", ["1280,900", "500,900"])
@pytest.mark.parametrize(
    "cases", [CASES, WITH_ENERGY, MANY, CASES[:1], ()], ids=["some", "energy", "many", "one", "none"]
)
def test_a_validation_renders(cases: tuple, window: str, tmp_path: Path) -> None:
    page = write_validation(validation(cases), tmp_path / "out")[0]
    seen = probed(page, window)
    assert seen == {
        "requests": [],
        "overflow": 0,
        "figures": 2 * len(seen_files(page)),
        "small": 0,
        "clipped": [],
        "overlaps": [],
    }


@pytest.mark.parametrize("window", ["1280,900", "500,900"])
def test_the_paper_check_renders(window: str, tmp_path: Path) -> None:
    page = write_paper(check(ROWS * 8), tmp_path / "out")[0]
    assert probed(page, window) == {
        "requests": [],
        "overflow": 0,
        "figures": 2,
        "small": 0,
        "clipped": [],
        "overlaps": [],
    }


def seen_files(page: Path) -> list[Path]:
    return list(page.parent.glob("*.svg"))


def probed(page: Path, window: str) -> dict[str, object]:
    """What the probe sees in a copy of the page."""
    copy = page.parent / "probe.html"
    copy.write_text(with_probe(page.read_text(encoding="utf-8"), PROBE), encoding="utf-8")
    done = chromium(copy, page.parent / "profile", "--dump-dom", f"--window-size={window}")
    assert done.returncode == 0, done.stderr[-2000:]
    assert console(done) == []
    return seen_in(done.stdout)
