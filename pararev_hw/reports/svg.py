"""Small parts that every figure is made of: escaped elements, a theme for light and dark, estimated text widths.

A figure is one `<svg>` string: valid XML, no reference to anything outside itself, its colours as CSS variables in an
embedded style, so that it looks the same alone and inside a page.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import lru_cache

WIDTH = 960  # of a figure, in px: a desktop column, and 7 pt text on an A4 page
NARROW = 440  # of the same figure for a telephone: its text is not scaled to less than 10 px
FONT_PX = 12.0

# Okabe and Ito, "Color universal design", 2008: told apart with any colour vision; brighter shades on dark paper.
PHASE_COLOURS = {
    "forward": ("#0072b2", "#56b4e9"),
    "recompute": ("#e69f00", "#f0b429"),
    "backward": ("#009e73", "#2fc59b"),
    "update": ("#cc79a7", "#e09ac2"),
    "other": ("#8a8f98", "#9aa1ab"),
}
# What is there all the time is grey; what a phase makes has that phase's colour.
ROLE_COLOURS = {
    "parameter": ("#5d6875", "#6d7986"),
    "buffer": ("#1c2733", "#d5dbe1"),
    "optimizer": ("#8d99a6", "#95a1ae"),
    "input": ("#bcc5ce", "#4a545f"),
    "gradient": ("#882255", "#c75a93"),
    "saved": ("#0072b2", "#56b4e9"),
    "recomputed": ("#e69f00", "#f0b429"),
    "cotangent": ("#009e73", "#2fc59b"),
    "transient": ("#cc79a7", "#e09ac2"),
    "other": ("#a6761d", "#c9a14a"),
}

_LIGHT = {"paper": "#ffffff", "ink": "#1a1f26", "quiet": "#5a6472", "line": "#d8dde3", "band": "#f1f4f7"}
_DARK = {"paper": "#14181d", "ink": "#e8ecf0", "quiet": "#a3adb8", "line": "#343c46", "band": "#1e242b"}


def _variables(theme: int) -> str:
    shared = (_LIGHT, _DARK)[theme]
    coloured = [
        *((f"phase-{name}", shades[theme]) for name, shades in PHASE_COLOURS.items()),
        *((f"role-{name}", shades[theme]) for name, shades in ROLE_COLOURS.items()),
        ("phase-forward-text", ("#ffffff", "#10151a")[theme]),
    ]
    return "".join(f"--{name}:{value};" for name, value in (*shared.items(), *coloured))


STYLE = (
    f".fig{{{_variables(0)}background:var(--paper);color:var(--ink);"
    'font-family:system-ui,-apple-system,"Segoe UI",Roboto,"Helvetica Neue",Arial,sans-serif;'
    f"font-size:{FONT_PX:g}px;font-variant-numeric:tabular-nums}}"
    f"@media screen and (prefers-color-scheme:dark){{.fig{{{_variables(1)}}}}}"
    ".fig text{fill:var(--ink)}.fig .quiet{fill:var(--quiet)}.fig .strong{font-weight:600}.fig .small{font-size:11px}"
    ".fig .halo{paint-order:stroke;stroke:var(--paper);stroke-width:4px;stroke-linejoin:round}"
    ".fig .end{text-anchor:end}.fig .mid{text-anchor:middle}"
    ".fig .grid{stroke:var(--line);stroke-width:1;fill:none}.fig .rule{stroke:var(--quiet);stroke-width:1;fill:none}"
    ".fig .band{fill:var(--band)}.fig .edge{stroke:var(--quiet);fill:none}"
    ".fig .critical{stroke:var(--ink);fill:none}"
    + "".join(f".fig .p-{name}{{fill:var(--phase-{name})}}" for name in PHASE_COLOURS)
    + "".join(f".fig .r-{name}{{fill:var(--role-{name})}}" for name in ROLE_COLOURS)
    + ".fig .zone{fill:transparent;cursor:ns-resize}.fig .range{fill:var(--ink);fill-opacity:.3;pointer-events:none}"
    + ".fig .on{fill:#10151a;font-size:11px}.fig .on-forward{fill:var(--phase-forward-text);font-size:11px}"
)

_ILLEGAL = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")  # XML 1.0, section 2.2
_ESCAPES = str.maketrans({"&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;", "'": "&#39;"})


def escape(text: str) -> str:
    """Text that is safe as XML or HTML content and in quoted attributes; characters that XML forbids become U+FFFD."""
    return _ILLEGAL.sub("\ufffd", text).translate(_ESCAPES)


def number(value: float) -> str:
    """A coordinate: two decimals at most."""
    return f"{value:.2f}".rstrip("0").rstrip(".") if value % 1 else f"{value:.0f}"


def element(tag: str, content: str = "", **attributes: str | float) -> str:
    """`<tag ...>content</tag>`: attribute values are escaped, `content` is markup. `class_` and `stroke_width` name
    the attributes `class` and `stroke-width`."""
    parts = [tag]
    for key, value in attributes.items():
        name = key.rstrip("_").replace("_", "-")
        parts.append(f'{name}="{escape(value) if isinstance(value, str) else number(value)}"')
    head = " ".join(parts)
    return f"<{head}>{content}</{tag}>" if content else f"<{head}/>"


def text(x: float, y: float, words: str, class_: str = "") -> str:
    """A line of text whose baseline is at y."""
    return element("text", escape(words), x=x, y=y, **({"class_": class_} if class_ else {}))


def title(words: str) -> str:
    """A tooltip, which is also the accessible name of the element that it is put into."""
    return f"<title>{escape(words)}</title>"


def legend(items: Iterable[tuple[str, str, str]], left: float, right: float) -> tuple[str, float]:
    """Signs with their words in lines between `left` and `right`: ("rect", class, words), ("circle", class, words) or
    ("line", class, words). Gives its last baseline too."""
    parts, x, y = [], left, 20.0
    for shape, class_, words in items:
        size = 20 + text_width(words)
        if x + size > right and x > left:
            x, y = left, y + 20
        if shape == "rect":
            parts.append(element("rect", x=x, y=y - 10, width=14, height=12, rx=2, class_=class_))
        elif shape == "circle":
            parts.append(element("circle", cx=x + 7, cy=y - 4, r=7, class_=class_))
        else:
            parts.append(element("path", d=f"M{number(x)} {number(y - 4)}h14", class_=class_, stroke_width=3))
        parts.append(text(x + 20, y, words))
        x += size + 22
    return "".join(parts), y


def figure(height: float, label: str, parts: Iterable[str], name: str, width: float = WIDTH) -> str:
    """The whole `<svg>`. `label` tells in words what the picture shows, `name` is a class that is this figure's own."""
    across, down = number(width), number(height)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {across} {down}" width="{across}" '
        f'height="{down}" class="fig {name}" role="img" aria-label="{escape(label)}">'
        f"<style>{STYLE}</style>"
        f'<rect width="{across}" height="{down}" fill="var(--paper)"/>' + "".join(parts) + "</svg>\n"
    )


_LABELS = 1 << 16  # that are remembered: the same ones stand in every picture, at every width
_NARROW = set("iljtfrI.,:;'|!()[]{}/\\` ")
_WIDE = set("mwMWQ@%&—")


@lru_cache(maxsize=_LABELS)
def text_width(words: str, size_px: float = FONT_PX) -> float:
    """Width in px, on the generous side: no common sans-serif sets a whole label wider."""
    ems = sum(
        0.42 if c in _NARROW else 0.98 if c in _WIDE else 0.72 if c.isupper() else 0.64 if ord(c) < 0x250 else 1.0
        for c in words
    )
    return ems * size_px


@lru_cache(maxsize=_LABELS)
def shorten(words: str, room_px: float, size_px: float = FONT_PX) -> str:
    """`words`, cut in the middle where it needs more room than there is; "" where not even three letters fit."""
    if text_width(words, size_px) <= room_px:
        return words
    keep = min(len(words) - 1, int(room_px / (0.42 * size_px)) + 1)
    while keep >= 3:
        head = words[: (keep + 1) // 2] + "…" + words[len(words) - keep // 2 :]
        if text_width(head, size_px) <= room_px:
            return head
        keep -= 1
    return ""
