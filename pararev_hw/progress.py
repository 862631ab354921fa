"""Who is told, in a line for each, of the things that take time."""

from __future__ import annotations

from collections.abc import Callable

Progress = Callable[[str], None]


def silent(_: str) -> None:
    """Tells nobody."""
