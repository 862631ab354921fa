"""Schedules and memory drawn on matplotlib axes, for notebooks; reports draw their own, self-contained pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from pararev_hw.documents import shown
from pararev_hw.errors import BadInput
from pararev_hw.types.base import PHASES, ROLES
from pararev_hw.types.schedule import Placement

_OTHER = "task"


def _axes(ax: Axes | None, height: float) -> Axes:
    """The axes that are given, or new ones."""
    if ax is None:
        return plt.subplots(figsize=(9, height), layout="constrained")[1]
    if not isinstance(ax, Axes):
        raise BadInput(f"ax is {shown(ax)}: it must be matplotlib's Axes")
    return ax


def timeline_axes(placements: Sequence[Placement], lanes: int, title: str, ax: Axes | None) -> Axes:
    """A bar per task, a row per lane, a colour per phase where ids name one."""
    ax = _axes(ax, height=min(1.2 + 0.5 * lanes, 9))
    by_phase: dict[str, list[Placement]] = {}
    for p in placements:
        by_phase.setdefault(next((x for x in PHASES if x in p.task), _OTHER), []).append(p)
    for k, (phase, bars) in enumerate(by_phase.items()):
        ax.barh(
            [p.lane for p in bars],
            [(p.end_s - p.start_s) * 1e3 for p in bars],
            left=[p.start_s * 1e3 for p in bars],
            height=0.8,
            color=f"C{PHASES.index(phase) if phase in PHASES else len(PHASES) + k}",
            edgecolor="white",
            linewidth=0.3,
            label=phase,
        )
    ax.set(xlabel="time (ms)", ylabel="lane", ylim=(lanes - 0.5, -0.5), title=title)  # lane 0 on top
    ax.yaxis.set_major_locator(MaxNLocator(integer=True))
    if by_phase:
        ax.legend(loc="upper left", bbox_to_anchor=(1, 1), frameon=False)
    return ax


def memory_axes(times_s: Sequence[float], live: Mapping[str, Sequence[int]], title: str, ax: Axes | None) -> Axes:
    """Live bytes by role, stacked, from what persists at the bottom to what passes at the top."""
    ax = _axes(ax, height=3.5)
    roles = [r for r in ROLES if r in live] + [r for r in live if r not in ROLES]
    if roles and times_s:
        stacks = [[b / 2**20 for b in live[r]] for r in roles]
        ax.stackplot([t * 1e3 for t in times_s], stacks, labels=roles, step="post")
        ax.legend(loc="upper left", bbox_to_anchor=(1, 1), frameon=False)
    ax.set(xlabel="time (ms)", ylabel="memory (MiB)", title=title)
    return ax
