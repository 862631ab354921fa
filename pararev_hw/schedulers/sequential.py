"""One task at a time: what every other schedule is compared with."""

from __future__ import annotations

from pararev_hw.schedulers.evaluate import finish
from pararev_hw.types import Costs, Schedule


def schedule(costs: Costs) -> Schedule:
    """All tasks on the lane that runs them fastest, predecessors first, ties by index.

    Raises Infeasible where it does not fit the memory limit.
    """
    return finish(costs, None, "sequential")
