"""A scheduling problem as a constraint model for OR-Tools' CP-SAT: https://developers.google.com/optimization.

The model is a relaxation of the problem and nothing else: every schedule in seconds, played by the simulator, is a
solution of it, so that what CP-SAT proves about it holds. Of the host clock, and of a chip that lanes share, it knows
that they are there once, and not who waits for or slows whom at each moment.

- Lanes that are all alike are one resource of that capacity; otherwise a task has one optional interval per lane that
  it may use, and intervals of a lane do not overlap.
- An edge holds always, and with its delay where the second task is not on the lane of the first.
- A buffer is an interval from its first start to its last end; all of them fit into the memory at any time.
- An alternative is a choice: its tasks run, or those that it replaces.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from ortools.sat.python import cp_model
from ortools.sat.python.cp_model import BoolVarT, CpModel, IntervalVar, IntVar

from pararev_hw.schedulers.alternatives import Expanded
from pararev_hw.schedulers.deadline import NEVER, Deadline
from pararev_hw.schedulers.ticks import Ticks

Truth = BoolVarT | Literal[True]  # a literal of the model, or what holds in every schedule
Length = IntVar | int

LARGEST = 2**62  # CP-SAT computes in 64 bits: a sum of bytes times ticks must stay below


@dataclass(frozen=True, slots=True)
class Model:
    """The constraints, and the variables in which a schedule is read and written. All times in ticks."""

    cp: CpModel
    starts: Sequence[IntVar]
    lengths: Sequence[Length]
    runs: Sequence[Truth]  # task -> whether it runs; True where it must
    on_lane: Sequence[Mapping[int, Truth]]  # task -> lane -> whether it runs there; empty where lanes are alike
    chosen: Sequence[BoolVarT]  # alternative -> whether it is chosen
    makespan: IntVar
    sizes_exact: bool  # False: buffers were rounded up, so that a bound of the model is none of the problem
    alike_by: Sequence[int]  # tasks in whose order lanes that nobody tells apart are numbered; empty where they differ


class Solutions(cp_model.CpSolverSolutionCallback):
    """Every solution of a search, as `read` tells it from the values."""

    def __init__(self, read: Callable[[Any], Any]) -> None:
        super().__init__()
        self.read, self.solutions = read, list[Any]()

    def on_solution_callback(self) -> None:
        self.solutions.append(self.read(self))


class NoTimeLeft(Exception):
    """The deadline came before the model was built."""


def build(
    expanded: Expanded, ticks: Ticks, horizon: int, least: int, room: int | None, deadline: Deadline = NEVER
) -> Model:
    """The model of schedules that end within `horizon` ticks, not before `least`, and hold at most `room` bytes.

    Raises NoTimeLeft where the deadline passes meanwhile.
    """
    model = CpModel()
    alike = all(len(set(c.times_s)) == 1 for c in expanded.tasks) and not any(e.delay_s for e in expanded.arcs)
    makespan = model.new_int_var(min(least, horizon), horizon, "makespan")
    selected = [model.new_bool_var(f"choose {a}") for a in range(1 + max(expanded.owner, default=-1))]
    runs = [_runs(model, expanded, selected, i) for i in range(len(expanded.tasks))]
    starts = [model.new_int_var(0, horizon, f"start {i}") for i in range(len(expanded.tasks))]
    lengths: list[Length] = []
    on_lane: list[dict[int, Truth]] = []
    lanes: list[list[IntervalVar]] = [[] for _ in range(expanded.lanes)]
    everywhere: list[IntervalVar] = []
    for i, c in enumerate(expanded.tasks):
        _check_time(deadline)
        times = {k: ticks.floor(t) for k, t in enumerate(c.times_s) if t < math.inf}
        length, interval = _interval(model, i, starts[i], sorted(set(times.values())), runs[i], horizon)
        lengths.append(length)
        everywhere.append(interval)
        model.add(starts[i] + length <= makespan).only_enforce_if(_literals(runs[i]))
        on_lane.append({} if alike else _lanes_of(model, i, starts[i], length, times, runs[i], interval, lanes))
    if any(len(c) != 1 for c in on_lane):
        model.add_cumulative(everywhere, [1] * len(everywhere), expanded.lanes)
    for line in lanes:
        if len(line) > 1:
            model.add_no_overlap(line)
    alike_by = _break_symmetry(model, expanded, on_lane)
    for e in expanded.arcs:
        _check_time(deadline)
        src, dst = e.src, e.dst
        both = _literals(runs[src], runs[dst])
        model.add(starts[dst] >= starts[src] + lengths[src]).only_enforce_if(both)
        delay = ticks.floor(e.delay_s)
        for lane, here in on_lane[src].items() if delay else ():
            there = on_lane[dst].get(lane)
            if there is not True:
                away = [] if there is None else [there.negated()]
                apart = model.add(starts[dst] >= starts[src] + lengths[src] + delay)
                apart.only_enforce_if([*both, *_literals(here), *away])
    _add_shared(model, expanded, ticks, runs, makespan)
    sizes_exact = room is None or _add_memory(model, expanded, starts, lengths, runs, makespan, horizon, room, deadline)
    model.minimize(makespan)
    return Model(model, starts, lengths, runs, on_lane, selected, makespan, sizes_exact, alike_by)


def _check_time(deadline: Deadline) -> None:
    if deadline.passed():
        raise NoTimeLeft


def _runs(model: CpModel, expanded: Expanded, selected: Sequence[BoolVarT], task: int) -> Truth:
    if expanded.owner[task] >= 0:
        return selected[expanded.owner[task]]
    if not expanded.replaced_by[task]:
        return True
    runs = model.new_bool_var(f"runs {task}")
    model.add_exactly_one([runs, *(selected[a] for a in expanded.replaced_by[task])])
    return runs


def _literals(*literals: Truth) -> list[BoolVarT]:
    """Those of the literals that are not simply true."""
    return [x for x in literals if x is not True]


def _interval(
    model: CpModel, task: int, start: IntVar, lengths: Sequence[int], runs: Truth, horizon: int
) -> tuple[Length, IntervalVar]:
    """Length and interval of a task, of one of these lengths."""
    if len(lengths) == 1 and runs is True:
        return lengths[0], model.new_fixed_size_interval_var(start, lengths[0], f"task {task}")
    if len(lengths) == 1:
        return lengths[0], model.new_optional_fixed_size_interval_var(start, lengths[0], runs, f"task {task}")
    length = model.new_int_var_from_domain(cp_model.Domain.from_values(lengths), f"length {task}")
    end = model.new_int_var(0, 2 * horizon, f"end {task}")
    if runs is True:
        return length, model.new_interval_var(start, length, end, f"task {task}")
    return length, model.new_optional_interval_var(start, length, end, runs, f"task {task}")


def _lanes_of(
    model: CpModel,
    task: int,
    start: IntVar,
    length: Length,
    times: Mapping[int, int],
    runs: Truth,
    interval: IntervalVar,
    lanes: Sequence[list[IntervalVar]],
) -> dict[int, Truth]:
    """On which lanes a task may run, each with the literal that it does; its intervals go into `lanes`."""
    if len(times) == 1:
        (lane,) = times
        lanes[lane].append(interval)
        return {lane: runs}
    here: dict[int, Truth] = {k: model.new_bool_var(f"{task} on {k}") for k in times}
    if runs is True:
        model.add_exactly_one(here.values())
    else:
        model.add_exactly_one([*here.values(), runs.negated()])
    for k, literal in here.items():
        lanes[k].append(model.new_optional_fixed_size_interval_var(start, times[k], literal, f"{task} on {k}"))
        if not isinstance(length, int):
            model.add(length == times[k]).only_enforce_if(literal)
    return here


def _break_symmetry(model: CpModel, expanded: Expanded, on_lane: Sequence[Mapping[int, Truth]]) -> list[int]:
    """Where no task tells lanes apart, the k-th longest that must run uses one of the first k lanes."""
    if any(len(set(c.times_s)) > 1 for c in expanded.tasks) or not any(on_lane):
        return []
    must = [i for i in range(len(on_lane)) if expanded.owner[i] < 0 and not expanded.replaced_by[i]]
    longest = sorted(must, key=lambda i: (-expanded.tasks[i].best_s, i))
    for rank, i in enumerate(longest[: expanded.lanes - 1]):
        for lane in range(rank + 1, expanded.lanes):
            model.add(on_lane[i][lane] == 0)
    return longest


def _add_shared(model: CpModel, expanded: Expanded, ticks: Ticks, runs: Sequence[Truth], makespan: IntVar) -> None:
    """What lanes share is there once: all that tasks ask of it, and of the host, takes no more than the makespan."""
    for asked_s in (
        [c.best_s * c.compute_demand for c in expanded.tasks],
        [c.best_s * c.bandwidth_demand for c in expanded.tasks],
        [c.host_s for c in expanded.tasks],
    ):
        if any(asked_s):
            spent = [(ticks.floor(s), lit) for s, lit in zip(asked_s, runs, strict=True)]
            model.add(sum(t if lit is True else t * lit for t, lit in spent if t) <= makespan)


def _add_memory(
    model: CpModel,
    expanded: Expanded,
    starts: Sequence[IntVar],
    lengths: Sequence[Length],
    runs: Sequence[Truth],
    makespan: IntVar,
    horizon: int,
    room: int,
    deadline: Deadline,
) -> bool:
    """Buffers as intervals in the memory. False where their sizes had to be rounded up."""
    total = sum(b.bytes for b in expanded.buffers)
    if total <= room:
        return True
    unit = math.gcd(*(b.bytes for b in expanded.buffers))
    exact = total // unit * (horizon + 1) < LARGEST
    if not exact:
        unit = max(unit, -(-total * (horizon + 1) // LARGEST))
    intervals, sizes = [], []
    for b, buffer in enumerate(expanded.buffers):
        _check_time(deadline)
        first = model.new_int_var(0, horizon, f"from {b}")
        last = makespan if buffer.stays else model.new_int_var(0, horizon, f"until {b}")
        life = model.new_int_var(0, horizon, f"life {b}")
        intervals.append(model.new_interval_var(first, life, last, f"buffer {b}"))
        sizes.append(-(-buffer.bytes // unit))
        for i in buffer.users:
            conditions = _literals(runs[i], True if buffer.owner is None else runs[buffer.owner])
            model.add(first <= starts[i]).only_enforce_if(conditions)
            if not buffer.stays:
                model.add(last >= starts[i] + lengths[i]).only_enforce_if(conditions)
    model.add_cumulative(intervals, sizes, max(0, room // unit))
    return exact
