"""The layers of a step as a table: for the terminal, the page and a CSV file."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence

from rich.table import Table
from rich.text import Text

from pararev_hw.reports import units
from pararev_hw.reports.text import GAP, folded, plain_table
from pararev_hw.types import Layer
from pararev_hw.types.graph import THE_NETWORK

HEADS: tuple[tuple[str, bool], ...] = (
    ("layer", False), ("type", False), ("input", False), ("output", False), ("parameters", True), ("MACs", True),
    ("synaptic ops", True), ("rate", True), ("saved", True), ("time", True), ("energy", True), ("share", True),
)  # fmt: skip
CAPTION = (
    "Work and costs of all passes (forward, recompute, backward), each operation alone on one lane; with the network "
    "itself stand loss and update"
)
_WIDE = frozenset(name for name, _ in HEADS if name != "input")
_NARROW = frozenset(("layer", "output", "MACs", "synaptic ops", "rate", "time"))
LONGEST = 10  # layers that a terminal shows of a report
_COLUMNS = (
    *(
        "module",
        "type",
        "input_shape",
        "output_shape",
        "parameters",
        "macs",
        "true_macs",
        "forward_macs",
        "sops",
        "rate",
    ),
    *("saved_bytes", "time_s", "energy_j"),
)


def layer_cells(layers: Sequence[Layer]) -> list[tuple[tuple[str, float | None], ...]]:
    """A row for each layer: what is shown, and what it is sorted by."""
    total = sum(layer.time_s or 0.0 for layer in layers)
    return [_cells(layer, total) for layer in layers]


def _cells(layer: Layer, total_s: float) -> tuple[tuple[str, float | None], ...]:
    share = layer.time_s / total_s if layer.time_s is not None and total_s > 0 else None
    return (
        (layer.module or THE_NETWORK, None),
        (layer.type or "-", None),
        (_shape(layer.input_shape), None),
        (_shape(layer.output_shape), None),
        (units.count(layer.parameters), layer.parameters),
        (units.count(layer.true_macs), layer.true_macs),
        ("-" if layer.sops is None else units.count(layer.sops), layer.sops),
        ("-" if layer.rate is None else units.percent(layer.rate), layer.rate),
        (units.size(layer.saved_bytes), layer.saved_bytes),
        ("-" if layer.time_s is None else units.seconds(layer.time_s), layer.time_s),
        ("-" if layer.energy_j is None else units.joules(layer.energy_j), layer.energy_j),
        ("-" if share is None else units.percent(share), share),
    )


def _shape(shape: tuple[int, ...] | None) -> str:
    return "-" if shape is None else "x".join(map(str, shape)) or "scalar"


def layer_table(layers: Sequence[Layer], width: int) -> Table:
    """The layers for a terminal, in the order in which they run; a narrow one shows the most asked-for columns."""
    return _table("Layers", layers, width, sum(layer.time_s or 0.0 for layer in layers))


def _table(title: str, layers: Sequence[Layer], width: int, total_s: float) -> Table:
    table = plain_table(title)
    names = _WIDE if width >= 140 else _NARROW
    columns = [k for k, (name, _) in enumerate(HEADS) if name in names]
    rows = [[_cells(layer, total_s)[k][0] for k in columns] for layer in layers]
    heads = [HEADS[k] for k in columns]
    others = zip(*([name for name, _ in heads][1:], *(row[1:] for row in rows)), strict=True)
    room = width - sum(max(map(len, column)) + GAP for column in others)
    for k, (name, numeric) in enumerate(heads):
        table.add_column(name, justify="right" if numeric else "left", overflow="fold", no_wrap=k > 0)
    for name, *figures in rows:
        table.add_row(*map(Text, (folded(name, room), *figures)))
    return table


def longest_layers_table(layers: Sequence[Layer], width: int) -> Table:
    """The layers that take most time for a terminal, the longest first, those of no work left out."""
    total = sum(layer.time_s or 0.0 for layer in layers)
    ranked = sorted((layer for layer in layers if layer.time_s), key=lambda layer: -(layer.time_s or 0.0))
    longest = ranked[:LONGEST]
    caption = (
        f"The {len(longest)} of {len(layers)} layers that take most time" if len(longest) < len(layers) else "Layers"
    )
    return _table(caption, longest, width, total)


def layers_csv(layers: Sequence[Layer]) -> str:
    """The layers as CSV with a head, in SI units; shapes as 32x3x32x32, empty where not known."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(_COLUMNS)
    for layer in layers:
        row = [getattr(layer, name) for name in _COLUMNS]
        writer.writerow(["x".join(map(str, v)) if isinstance(v, tuple) else "" if v is None else v for v in row])
    return out.getvalue()
