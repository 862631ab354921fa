"""A network on a neuromorphic chip, for people: which layers are on which cores, how full they are, what they take."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.table import Table
from rich.text import Text

from pararev_hw.reports import units
from pararev_hw.types import ChipRun

HEADS = (
    ("neurons", False), ("layers", False), ("cores", True), ("split", False), ("size", True), ("fullest core", False),
    ("spikes", True), ("messages", True), ("events", True), ("synapse", True), ("soma", True), ("network", True),
)  # fmt: skip
CAPTION = "Counts and energies of one sample. A message goes to each core that reads a spike."
_SIZES = {"neurons": "neurons", "synapse_bytes": "weights", "axons_in": "axons in", "axons_out": "axons out"}


def rows(mapping: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """A row of text for each population."""
    cores = mapping["cores"]
    cells = []
    for layer in mapping["layers"]:
        use = fullest([cores[c] for c in layer["cores"]])
        tiles = "x".join(map(str, layer["tiles"]))
        split = f"{layer['channel_groups']} by channel, {tiles} by place"
        energy = (units.joules(layer["energy_j"].get(part, 0.0)) for part in ("synapse", "soma", "network"))
        counts = (units.count(round(layer[name])) for name in ("spikes", "messages", "events"))
        cells.append(
            (
                layer["name"],
                ", ".join(layer["layers"]),
                ranges(layer["cores"]),
                split if layer["channel_groups"] > 1 or tiles.strip("1x") else "whole",
                units.count(layer["neurons"]),
                use,
                *counts,
                *energy,
            )
        )
    return cells


def fullest(cores: Sequence[Mapping[str, Any]]) -> str:
    """How much of its scarcest room the fullest of these cores uses: "98 % of its weights"."""
    used = [(share, name) for core in cores for name, share in core["use"].items() if share is not None]
    if not used:
        return "no limits given"
    share, name = max(used)
    return f"{units.percent(share)} of its {_SIZES[name]}"


def ranges(numbers: Sequence[int]) -> str:
    """ "0-3, 7"."""
    runs: list[list[int]] = []
    for n in sorted(numbers):
        if runs and n == runs[-1][1] + 1:
            runs[-1][1] = n
        else:
            runs.append([n, n])
    return ", ".join(str(a) if a == b else f"{a}-{b}" for a, b in runs)


def mapping_table(mapping: Mapping[str, Any]) -> Table:
    """The mapping for the terminal."""
    table = Table(title=Text(summary_line(mapping)), box=None)
    shown = (0, 2, 4, 5, 7, 8)
    for k in shown:
        table.add_column(HEADS[k][0], justify="right" if HEADS[k][1] else "left", overflow="fold")
    for cells in rows(mapping):
        table.add_row(*(Text(cells[k]) for k in shown))
    return table


def summary_line(mapping: Mapping[str, Any]) -> str:
    """Cores, steps and packets in a sentence."""
    chips = f" of {mapping['chips']} chips" if mapping["chips"] > 1 else ""
    tiles = "1 tile" if mapping["tiles_used"] == 1 else f"{mapping['tiles_used']} tiles"
    packets, hops = (units.count(round(mapping[name])) for name in ("packets", "hops"))
    return (
        f"{mapping['cores_used']} of {mapping['cores_available']:,} cores{chips}, {tiles}; each "
        f"of {mapping['timesteps']} time steps takes {units.seconds(mapping['time_step_s'])}, "
        f"{units.seconds(mapping['barrier_s'])} of it the barrier; {packets} packets over {hops} links for one sample"
    )


def _of_batch(chip: ChipRun, energy_j: float | None) -> str:
    """What the tables show: all samples of the batch, one after another."""
    if chip.batch < 2:
        return ""
    latency = units.seconds(chip.time_step_s * chip.timesteps * chip.batch)
    return f" The batch of {chip.batch}, one sample after another, takes {latency} and {units.joules(energy_j)}."


def chip_lines(chip: ChipRun, energy_j: float | None, model: str, title: str) -> tuple[str, ...]:
    """What a report says first of a network on a chip."""
    latency = chip.time_step_s * chip.timesteps
    per_sample = None if energy_j is None else energy_j / chip.batch
    return (
        f"On {title}, one sample of {model} takes {units.seconds(latency)} ({chip.timesteps} time steps) and "
        f"{units.joules(per_sample)}; a time step is set by {chip.bound_by}. A sample that comes alone waits "
        f"{units.seconds(chip.fill_s)} longer, until the last layer has seen its first step."
        + _of_batch(chip, energy_j),
        f"Mapping: {summary_line(chip.document())}.",
    )
