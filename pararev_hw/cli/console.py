"""Standard output, standard error, and what goes where."""

from __future__ import annotations

import contextlib
import gc
import json
import sys
from collections.abc import Iterable, Iterator

from rich.console import Console, ConsoleOptions, RenderableType
from rich.progress import BarColumn, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as ProgressBar
from rich.segment import Segment
from rich.table import Table
from rich.text import Text

from pararev_hw.progress import Progress
from pararev_hw.types import CONTROL

MOST_CHARACTERS = 1500  # of a message: what it quotes may be a whole file


class _PlainConsole(Console):
    """A console that obeys nothing that a name or a message holds: terminal commands in them are shown as a mark."""

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        for segment in super().render(renderable, options):
            yield segment if segment.control else segment._replace(text=printable(segment.text))


def printable(text: str) -> str:
    """The text with its control characters, line ends apart, replaced by a mark."""
    return "\n".join(CONTROL.sub("\N{REPLACEMENT CHARACTER}", line) for line in text.split("\n"))


out = _PlainConsole(highlight=False, soft_wrap=False)
err = _PlainConsole(stderr=True, highlight=False)


@contextlib.contextmanager
def progress() -> Iterator[Progress]:
    """A line on standard error that says what is being done; on a terminal only, and gone afterwards.

    What a user's network prints meanwhile goes to standard error too: standard output is for the verb's result.
    """
    columns = (
        SpinnerColumn(),
        BarColumn(bar_width=24),
        TextColumn("{task.description}", markup=False),
        TimeElapsedColumn(),
    )
    with (
        contextlib.redirect_stdout(sys.stderr),
        ProgressBar(*columns, console=err, transient=True, disable=not err.is_terminal) as bar,
    ):
        task = bar.add_task("starting", total=None)
        yield lambda activity: bar.update(task, description=activity)


@contextlib.contextmanager
def imports_set_aside() -> Iterator[None]:
    """What was imported by now stays: Python's looks for cycles leave it out meanwhile."""
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


def print_json(document: object) -> None:
    print(json.dumps(document, allow_nan=False))


def say(message: str) -> None:
    """A line on standard error, its middle left out where it quotes too much."""
    if len(message) > MOST_CHARACTERS:
        cut = len(message) - MOST_CHARACTERS
        message = f"{message[: MOST_CHARACTERS // 2]} ... ({cut} characters) ... {message[-MOST_CHARACTERS // 2 :]}"
    err.print(Text(message), soft_wrap=True)


def columns(*names: str) -> Table:
    """A table whose first column is never cut or wrapped: names are there to be copied."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for k, name in enumerate(names):
        table.add_column(name, no_wrap=k == 0, overflow="fold")
    return table
