"""Constraint programming: proves a schedule to be the best, or says how far from the best it can be.

OR-Tools' CP-SAT searches from a warm start, the best schedule of the other algorithms, above a bound of our own, so
there is always an answer: where the solver finds nothing better in its time, it is the warm start, and a note says so.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from pararev_hw.errors import BadInput
from pararev_hw.schedulers import local_search
from pararev_hw.schedulers.alternatives import Expanded, expand, select_alternatives
from pararev_hw.schedulers.bounds.makespan import lower_bound
from pararev_hw.schedulers.buffer_table import buffer_table_of, waits_that_keep
from pararev_hw.schedulers.deadline import NEVER, Deadline, deadline_in, meeting
from pararev_hw.schedulers.dispatch import orders_of_times
from pararev_hw.schedulers.evaluate import evaluate_orders, with_better_bound, with_bound
from pararev_hw.schedulers.forward_backward import is_plain
from pararev_hw.schedulers.ticks import Ticks, ticks_for
from pararev_hw.schedulers.warm_start import warm_start
from pararev_hw.types import Alternative, Placement, Schedule, SchedulingProblem

if TYPE_CHECKING:
    from pararev_hw.schedulers.exact_model import Model

SECONDS = 60.0
WORKERS = 8  # also on 2 cores: its workers are different searches, and together they close what one cannot
WARM_AFTER = 10.0  # from so many seconds on, the warm start has had all of its own local search
LAST_SOLUTIONS = 20  # last solutions that are played: of a relaxation the best need not be the last
WARM_SHARE = 0.25  # of the seconds, by when the warm start ends
SEARCH_SHARE = 2 / 3  # of what is left then, for local search where the simulator knows what the model does not
BUILD_SHARE = 2 / 3  # of what is left then, at most, for building the model: hints and presolving take a third of that
LEAST_SHARE = 0.02  # of the seconds that the solver has in any case, once it has its model
END_SHARE, TASK_S = 0.01, 1e-4  # the share of the seconds, and the seconds per task, that are left for what comes after
LOADING_S = 0.7  # processor seconds that OR-Tools takes to load
FIRST_LOOK = 1.0  # CP-SAT's deterministic seconds for one worker alone, which is all that most small problems need


def schedule(
    problem: SchedulingProblem,
    seconds: float = SECONDS,
    seed: int = 0,
    workers: int = WORKERS,
    alternatives: Sequence[Alternative] = (),
) -> Schedule:
    """The best schedule that CP-SAT finds within `seconds`; `optimal` where it is proved that there is none better.

    One worker takes a first look, then all of them share the rest of the time. What one worker finds is the same
    on every run, and with `workers=1` the seconds are counted in CP-SAT's own deterministic time. More workers race
    against the clock: a makespan that is proved to be optimal is the same on every run, the placements may not be.

    Of `alternatives` it takes those that pay; the schedule names them, and is one of the problem that `expanded.settle`
    makes of them. The model of lanes that share a chip, or wait for a host, is a relaxation: `optimal` means that the
    schedule, as it is played, meets a bound that holds with both. Raises Infeasible where nothing fits the memory.
    """
    if not (seconds > 0 and math.isfinite(seconds)) or workers < 1:
        raise BadInput(f"exact with {seconds} seconds and {workers} workers: both must be positive")
    deadline = deadline_in(seconds) if workers > 1 else NEVER
    with meeting(deadline):
        warm = warm_start(problem, min(1.0, seconds / WARM_AFTER), seed, deadline.part(WARM_SHARE))
        if workers > 1 and not warm.optimal and not is_plain(problem):
            # the simulator knows what the model does not: the solver waits for the search that asks it
            warm = _searched(problem, warm, deadline.part(SEARCH_SHARE), seed)
        if not problem.tasks or (warm.optimal and not alternatives):
            return replace(warm, scheduler="exact")
        expanded = expand(problem, alternatives)
        answer = _solve(problem, expanded, warm, _Effort(seconds, deadline, seed, workers))
        bound = (answer.bound_s, "constraint programming")
        if alternatives:  # what bounds the problem as it is says nothing of its alternatives
            warm = replace(warm, lower_bound_s=0.0, bound_by="nothing to do", optimal=False)
        played = _play(problem, expanded, alternatives, answer, deadline)
        if not answer.asked:
            warm = _searched(problem, warm, deadline, seed)
    best = min((warm, *played), key=lambda s: s.makespan_s)
    best = with_bound(best, bound) if alternatives else with_better_bound(best, bound)
    notes = (f"no better schedule than that of {warm.scheduler} was found: {answer.status}",)
    return replace(best, scheduler="exact", notes=notes if best.scheduler != "exact" and not best.optimal else ())


def _searched(problem: SchedulingProblem, warm: Schedule, deadline: Deadline, seed: int) -> Schedule:
    """The better of a schedule and what local search finds before the deadline."""
    if deadline.passed():
        return warm
    return min(warm, local_search.schedule_by(problem, deadline, seed, None), key=lambda s: s.makespan_s)


@dataclass(frozen=True, slots=True)
class _Effort:
    """How long the solver may search, and how: `deadline` is never where its own deterministic time is counted."""

    seconds: float
    deadline: Deadline
    seed: int
    workers: int


@dataclass(frozen=True, slots=True)
class _Answer:
    """What the solver says: a bound in seconds, its last solutions (lanes, waits, alternatives), and how it ended; or
    why it was not asked."""

    bound_s: float
    schedules: tuple[tuple[list[list[int]], list[tuple[int, int]], tuple[int, ...]], ...]
    status: str
    asked: bool = True


def _play(
    problem: SchedulingProblem,
    expanded: Expanded,
    alternatives: Sequence[Alternative],
    answer: _Answer,
    deadline: Deadline,
) -> list[Schedule]:
    """What the simulator makes of the solutions, the last of them first, as long as there is time; in their order."""
    played: list[Schedule] = []
    for lanes, waits, chosen in reversed(answer.schedules):
        if played and deadline.passed():
            break
        chosen_problem = select_alternatives(problem, expanded, chosen)
        bound = (answer.bound_s, "constraint programming")
        schedule = evaluate_orders(chosen_problem, lanes, "exact", waits=waits, bound=bound)
        played.append(replace(schedule, chosen=tuple(alternatives[a].name for a in chosen)))
    return played[::-1]


def _solve(problem: SchedulingProblem, expanded: Expanded, warm: Schedule, effort: _Effort) -> _Answer:
    if "ortools" not in sys.modules and not effort.deadline.affords(LOADING_S):
        return _Answer(0.0, (), "there was no time left to load the solver", asked=False)
    # imported late: OR-Tools takes half a second to load, and the other schedulers do without it
    from pararev_hw.schedulers.exact_model import NoTimeLeft, build

    times = [t for c in expanded.tasks for t in c.times_s] + [e.delay_s for e in expanded.arcs]
    ticks = ticks_for(times, warm.makespan_s)
    bound_s = 0.0 if len(expanded.tasks) > len(problem.tasks) else lower_bound(problem)[0]
    room = buffer_table_of(problem).room
    try:
        model = build(
            expanded,
            ticks,
            ticks.floor(warm.makespan_s) + 1,
            ticks.floor(bound_s),
            room,
            effort.deadline.part(BUILD_SHARE),
        )
    except NoTimeLeft:
        return _Answer(0.0, (), "the time left was too short for the solver's model", asked=False)
    _hint(model, problem, ticks, warm)
    return _search(model, problem, expanded, ticks, effort)


def _search(model: Model, problem: SchedulingProblem, expanded: Expanded, ticks: Ticks, effort: _Effort) -> _Answer:
    """A first look by one worker, then all of them; one alone has all of its deterministic time."""
    from ortools.sat.python import cp_model  # late: as above

    from pararev_hw.schedulers.exact_model import Solutions

    bound = 0
    solutions = []
    status = "unknown"
    least_s = LEAST_SHARE * effort.seconds
    for count in (1,) if effort.workers == 1 else (1, effort.workers):
        left_s = effort.deadline.left_s() - END_SHARE * effort.seconds - TASK_S * len(expanded.tasks)
        if count > 1 and left_s < least_s:
            break
        solver = cp_model.CpSolver()
        solver.parameters.num_workers = count
        solver.parameters.random_seed = effort.seed
        if effort.workers > 1:
            solver.parameters.max_time_in_seconds = max(least_s, left_s)
        if count == 1:
            solver.parameters.max_deterministic_time = effort.seconds if effort.workers == 1 else FIRST_LOOK
        collector = Solutions(lambda values: _read(model, problem, expanded, values))
        ended = solver.solve(model.cp, collector)
        solutions += collector.solutions[-LAST_SOLUTIONS:]
        status = f"the solver ended as {solver.status_name(ended).lower()}"
        if ended in (cp_model.OPTIMAL, cp_model.FEASIBLE):
            model.cp.clear_hints()  # type: ignore[no-untyped-call]
            _hint_again(model, solver)
        if ended != cp_model.INFEASIBLE:
            bound = max(bound, math.ceil(solver.best_objective_bound - 1e-6))
        if ended in (cp_model.OPTIMAL, cp_model.INFEASIBLE):
            break
    return _Answer(ticks.seconds(bound) if model.sizes_exact else 0.0, tuple(solutions), status)


def _hint(model: Model, problem: SchedulingProblem, ticks: Ticks, warm: Schedule) -> None:
    """The warm start, with lanes numbered as the model numbers them."""
    placed = {p.task: p for p in warm.placements}
    at = [placed[c.task] for c in problem.tasks]
    renamed = {k: at_ for at_, k in enumerate(dict.fromkeys([at[i].lane for i in model.alike_by]))}
    hint = model.cp.add_hint
    for i, p in enumerate(at):
        hint(model.starts[i], ticks.floor(p.start_s))
        length = model.lengths[i]
        if not isinstance(length, int):
            hint(length, ticks.floor(problem.tasks[i].times_s[p.lane]))
        for lane, literal in model.on_lane[i].items():
            if literal is not True:
                hint(literal, lane == renamed.get(p.lane, p.lane))
    for literal in model.chosen:
        hint(literal, False)


def _hint_again(model: Model, solver: Any) -> None:
    """The last solution, for whoever searches next."""
    for length in model.lengths:
        if not isinstance(length, int):
            model.cp.add_hint(length, solver.value(length))
    for start, lanes in zip(model.starts, model.on_lane, strict=True):
        model.cp.add_hint(start, solver.value(start))
        for literal in lanes.values():
            if literal is not True:
                model.cp.add_hint(literal, solver.boolean_value(literal))
    for literal in model.chosen:
        model.cp.add_hint(literal, solver.boolean_value(literal))


def _read(
    model: Model, problem: SchedulingProblem, expanded: Expanded, solver: Any
) -> tuple[list[list[int]], list[tuple[int, int]], tuple[int, ...]]:
    """Lane orders, waits and alternatives of a solution; tasks by their index in the problem that it settles on."""
    chosen = tuple(a for a, literal in enumerate(model.chosen) if solver.boolean_value(literal))
    chosen_problem = select_alternatives(problem, expanded, chosen)
    runs = [i for i, lit in enumerate(model.runs) if lit is True or solver.boolean_value(lit)]
    starts = [float(solver.value(model.starts[i])) for i in runs]
    ends = [s + solver.value(model.lengths[i]) for s, i in zip(starts, runs, strict=True)]
    position = {i: k for k, i in enumerate(chosen_problem.topological_order())}
    if any(model.on_lane):
        lanes: list[list[int]] = [[] for _ in range(problem.lanes)]
        for k in sorted(range(len(runs)), key=lambda k: (starts[k], ends[k], position[k])):
            on = model.on_lane[runs[k]]
            lanes[next(lane for lane, lit in on.items() if lit is True or solver.boolean_value(lit))].append(k)
    else:
        lanes = orders_of_times(starts, ends, chosen_problem.topological_order(), problem.lanes)
    if not buffer_table_of(chosen_problem).matters:
        return lanes, [], chosen
    planned = [
        Placement(chosen_problem.tasks[k].task, lane, starts[k], ends[k])
        for lane, line in enumerate(lanes)
        for k in line
    ]
    return lanes, waits_that_keep(chosen_problem, planned), chosen
