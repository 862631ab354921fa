"""Two lanes: how much work can be done side by side at all.

At each moment at most two tasks run. Let x_ij be the time during which i and j run together, a_i the time during which
i runs alone. Alone a task works at the rate 1 / U_i, together both at 1 / U_ij (the fluid model of
`pararev_hw.simulate`), and every task must get its work done:

    a_i / U_i + sum over j of x_ij / U_ij >= time_i         makespan >= sum a_i + sum x_ij

where x_ij exists only for tasks that may overlap: neither must come before the other, and the memory that both force
to be alive fits. The least such sum is a linear program. Any y >= 0 with y_i <= U_i and y_i + y_j <= U_ij for those
pairs gives a bound, the sum of y_i * time_i (weak duality), so what the solver returns is scaled until it keeps these
inequalities, and the bound holds whatever the solver rounds.
"""

from __future__ import annotations

import numpy as np

from pararev_hw.schedulers.bounds.linear_program import most_of_pairs
from pararev_hw.schedulers.bounds.memory import forced_of
from pararev_hw.schedulers.buffer_table import buffer_table_of
from pararev_hw.types import SchedulingProblem
from pararev_hw.types.problem_arrays import Ints

MAX_TASKS = 400  # 80,000 pairs at most: a second for the solver


def pairing_bound(problem: SchedulingProblem) -> float:
    """Seconds that no schedule on two lanes can beat; 0 where there are other numbers of lanes, or too many tasks."""
    n = len(problem.tasks)
    if problem.lanes != 2 or not 1 < n <= MAX_TASKS:
        return 0.0
    buffers = buffer_table_of(problem)
    forced = forced_of(problem)
    overlap = np.triu(~forced.ordered(range(n)), 1)
    if buffers.matters:
        overlap &= forced.side_by_side(range(n)) <= (buffers.room or 0)
    bound_of: dict[bytes, float] = problem.of_tasks.setdefault("pairings", {})  # by the pairs that may overlap
    pairs = np.packbits(overlap).tobytes()
    if pairs not in bound_of:
        bound_of[pairs] = _best_pairing(problem, *np.nonzero(overlap))
    return bound_of[pairs]


def _best_pairing(problem: SchedulingProblem, first: Ints, second: Ints) -> float:
    """The bound where the tasks `first[k]` and `second[k]` may overlap, and no others."""
    compute = np.array([c.compute_demand for c in problem.tasks])
    bandwidth = np.array([c.bandwidth_demand for c in problem.tasks])
    work = np.array([c.best_s for c in problem.tasks])
    alone = np.maximum(1.0, np.maximum(compute, bandwidth))
    together = np.maximum(1.0, np.maximum(compute[first] + compute[second], bandwidth[first] + bandwidth[second]))
    scale = work.max()
    if scale <= 0:
        return 0.0
    dual = most_of_pairs(work / scale, alone, first, second, together)
    if dual is None:
        return 0.0
    y = np.clip(dual, 0.0, alone)
    worst = max(1.0, float(((y[first] + y[second]) / together).max(initial=1.0)))
    return float((y * work).sum() / worst) * (1 - 1e-12)
