"""Rows of one kind that show themselves in a terminal and a notebook, and become a pandas data frame on request."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING, Generic, TypeVar, overload

if TYPE_CHECKING:
    import pandas as pd

Row = TypeVar("Row", covariant=True)
SHOWN = 60  # rows of a table in a terminal or a notebook; a data frame has them all


@dataclass(frozen=True, slots=True, repr=False)
class Table(Sequence[Row], Generic[Row]):
    """A sequence of `rows`; `cells[k]` are the values of row k under `columns`.

    Example:
        >>> from pararev_hw.types import Table
        >>> table = Table("animals", rows=("cat", "dog"), columns=("name", "letters"),
        ...     cells=(("cat", 3), ("dog", 3)))
        >>> table[1]
        'dog'
        >>> table.to_pandas()["letters"].tolist()
        [3, 3]
    """

    title: str
    rows: tuple[Row, ...]
    columns: tuple[str, ...]
    cells: tuple[tuple[object, ...], ...]

    @overload
    def __getitem__(self, index: int) -> Row: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[Row, ...]: ...
    def __getitem__(self, index: int | slice) -> Row | tuple[Row, ...]:
        return self.rows[index]

    def __len__(self) -> int:
        return len(self.rows)

    def to_pandas(self) -> pd.DataFrame:
        """The table as a data frame, a column for each of `columns`."""
        import pandas as pd  # heavy, and only asked for here

        return pd.DataFrame(list(self.cells), columns=list(self.columns))

    def __repr__(self) -> str:
        texts = [self.columns, *(tuple(map(_shown, row)) for row in self.cells[:SHOWN])]
        widths = [max(map(len, column)) for column in zip(*texts, strict=True)]
        lines = ["  ".join(t.ljust(w) for t, w in zip(row, widths, strict=True)).rstrip() for row in texts]
        return "\n".join([self.title, *lines, *([rest] if (rest := self._footer()) else [])])

    def _repr_html_(self) -> str:
        head = "".join(f"<th>{escape(c)}</th>" for c in self.columns)
        body = "".join(
            "<tr>" + "".join(f"<td>{escape(_shown(v))}</td>" for v in row) + "</tr>" for row in self.cells[:SHOWN]
        )
        return (
            f"<table><caption>{escape(self.title)}</caption><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
            f"<p>{escape(self._footer())}</p>"
        )

    def _footer(self) -> str:
        return f"{len(self) - SHOWN} more rows" if len(self) > SHOWN else ""


def _shown(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:.4g}"
    return ", ".join(map(_shown, value)) if isinstance(value, tuple) else str(value)
