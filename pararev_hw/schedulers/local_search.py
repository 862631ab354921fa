"""Local search: the best schedule is disturbed a little, listed again, and kept where that was no loss.

Where every task has one lane of its own, as in a job shop, a step is some moves of `job_shop`'s tabu search. Elsewhere
two kinds of steps take turns. A *listing* adds noise to the starts of the present schedule and lists the tasks by them,
forward or backward, within the memory limit (`safe_dispatch`). A *move* takes one task elsewhere in one sequence of all
tasks, or to another lane; every schedule without idling is such a sequence with lanes. Moves are accepted as in
simulated annealing (S. Kirkpatrick et al., 1983, doi 10.1126/science.220.4598.671), and are left out where a memory
limit matters, since they do not know it.

What counts is what the simulator gives, with sharing, delays and the host clock. Where tasks slow each other down,
listings plan with the times that tasks took in the present schedule.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from pararev_hw.compiled import LOADING_S
from pararev_hw.errors import BadInput
from pararev_hw.schedulers import forward_backward, heft, job_shop, memory_list
from pararev_hw.schedulers.buffer_table import buffer_table_of, by_start
from pararev_hw.schedulers.deadline import Deadline, deadline_in, meeting
from pararev_hw.schedulers.evaluate import PROVED, evaluate_orders, makespan
from pararev_hw.schedulers.memory_list import SafeSearch
from pararev_hw.schedulers.safe_dispatch import Planned
from pararev_hw.simulate import play
from pararev_hw.types import Schedule, SchedulingProblem

PLACEMENTS = 300_000  # tasks placed, where neither iterations nor seconds are given
NOISES = (0.003, 0.01, 0.03, 0.1, 0.3)  # of the makespan
SHOP_MOVES = 5  # moves in a job shop that are one step
COMPILING_S = 4.0  # what compiling the search for job shops takes, once on a machine
LISTINGS, MOVES = 20, 200  # steps of either kind in one turn
WARM, COLD = 0.01, 1e-4  # temperature at the beginning and the end of a turn of moves, relative to the makespan


def schedule(
    problem: SchedulingProblem, seconds: float | None = None, seed: int = 0, iterations: int | None = None
) -> Schedule:
    """The best schedule that `iterations` steps find (by default as many as place some 300,000 tasks), or `seconds`.

    The steps are a sequence that the seed alone decides, and the best so far only gets better along it. So the same
    iterations give the same schedule on every run; with `seconds` alone, which the clock ends, a faster machine gets
    further along the same sequence. Where both are given, what is reached first counts; it ends where the bound is met.
    Raises Infeasible where nothing fits the memory limit.
    """
    if seconds is not None and not (seconds > 0 and math.isfinite(seconds)):
        raise BadInput(f"local-search for {seconds} seconds: give a positive number")
    if iterations is not None and iterations < 1:
        raise BadInput(f"local-search with {iterations} iterations: give at least 1")
    steps = default_iterations(problem) if iterations is None and seconds is None else iterations
    with meeting(deadline_in(seconds)) as deadline:
        return schedule_by(problem, deadline, seed, steps)


def schedule_by(problem: SchedulingProblem, deadline: Deadline, seed: int, steps: int | None) -> Schedule:
    """The best schedule of so many steps (None: of any number), or of those before the deadline."""
    best: _PlayedOrders | None = None
    for count, candidate in enumerate(_search(problem, seed, _compiles(problem, deadline, steps), deadline)):
        best = candidate
        if (steps is not None and count >= steps) or deadline.passed():
            break
    if best is None:
        return evaluate_orders(problem, None, "local-search")
    return evaluate_orders(problem, best.lanes, "local-search", waits=best.waits)


def _compiles(problem: SchedulingProblem, deadline: Deadline, steps: int | None) -> bool:
    """Whether compiling the search for job shops, where that was never done here, fits the budget and saves time."""
    if not job_shop.is_job_shop(problem) or buffer_table_of(problem).matters:
        return False
    plain_s = math.inf if steps is None else steps * SHOP_MOVES * len(problem.tasks) * job_shop.PLAIN_S
    if plain_s > COMPILING_S and deadline.affords(4 * COMPILING_S):
        return True
    return deadline.affords(LOADING_S) and job_shop.search_is_compiled()


def default_iterations(problem: SchedulingProblem) -> int:
    """Steps that place some 300,000 tasks, and no more than 100 per task."""
    n = len(problem.tasks)
    dear = 5 if buffer_table_of(problem).matters else 1  # listing within a memory limit takes so many times as long
    return min(100 * n, max(20, PLACEMENTS // dear // max(1, n)))


@dataclass(frozen=True, slots=True)
class _PlayedOrders:
    """Lane orders with the waits that they need, when tasks start and end when played, and the makespan."""

    lanes: list[list[int]]
    waits: list[tuple[int, int]]
    starts_s: list[float]
    ends_s: list[float]
    makespan_s: float


def _search(problem: SchedulingProblem, seed: int, compiled: bool, deadline: Deadline) -> Iterator[_PlayedOrders]:
    """The best so far, first of the list schedulers, then after every step; ends where the bound is met."""
    work = SafeSearch(problem)
    orders = work.safe_orders()
    if not problem.tasks or not orders:
        return
    draw = random.Random(seed)
    best = _beginning(problem, work, deadline)
    yield best
    if job_shop.is_job_shop(problem) and not work.held.matters:
        for candidate in _shop_moves(problem, best, work.enough_s, seed, compiled):
            best = candidate
            yield best
    while best.makespan_s > work.enough_s:
        present = best
        for candidate in _listings(problem, work, present, draw):
            if candidate.makespan_s < best.makespan_s:
                best = candidate
            yield best
            if best.makespan_s <= work.enough_s:
                return
        if work.held.matters:
            continue
        for moved in _moves(problem, best, draw):
            if moved is not None and moved.makespan_s < best.makespan_s:
                best = moved
            yield best
            if best.makespan_s <= work.enough_s:
                return


def _shop_moves(
    problem: SchedulingProblem, best: _PlayedOrders, enough_s: float, seed: int, compiled: bool
) -> Iterator[_PlayedOrders]:
    """The best so far after every SHOP_MOVES moves, until the bound is met or nothing can be moved."""
    search = job_shop.TabuSearch(problem, best.lanes, seed, compiled)
    movable = True
    while movable and best.makespan_s > enough_s:
        movable = search.move(SHOP_MOVES)
        if search.best_s < best.makespan_s * (1 - PROVED):
            best = _played(problem, search.best, [])
        yield best


def _beginning(problem: SchedulingProblem, work: SafeSearch, deadline: Deadline) -> _PlayedOrders:
    """The best of the list schedulers, each with a small budget; of the first of them where the deadline has passed."""
    budget = 20 * len(problem.tasks)
    safe = memory_list.search(problem, budget, deadline=deadline)
    assert safe is not None
    best = _played(problem, safe.lanes, safe.waits)
    if work.held.matters:
        return best
    if not deadline.passed():
        forward_backward_orders = forward_backward.search(problem, budget, deadline=deadline)
        best = min(best, _played(problem, forward_backward_orders, []), key=lambda k: k.makespan_s)
    if not deadline.passed():
        best = min(best, _played(problem, heft.heft_orders(problem), []), key=lambda k: k.makespan_s)
    return best


def _played(problem: SchedulingProblem, lanes: list[list[int]], waits: list[tuple[int, int]]) -> _PlayedOrders:
    played = play(problem, lanes, waits)
    at = {p.task: p for p in played}
    starts_s = [at[c.task].start_s for c in problem.tasks]
    ends_s = [at[c.task].end_s for c in problem.tasks]
    return _PlayedOrders(lanes, waits, starts_s, ends_s, makespan(played))


def _listings(
    problem: SchedulingProblem, work: SafeSearch, present: _PlayedOrders, draw: random.Random
) -> Iterator[_PlayedOrders]:
    """Schedules listed by the present one's starts with noise, or now and then by the ways to the end with noise."""
    n = len(problem.tasks)
    for step in range(LISTINGS):
        noise_s = draw.choice(NOISES) * present.makespan_s
        times_s = None if work.plain else _stretched(problem, present)
        order = by_start(work.order, present.starts_s, present.ends_s)
        if step == LISTINGS - 1:
            rank = [-level * (1 + 0.3 * draw.random()) for level in work.levels]
        elif draw.random() < 0.5:
            rank = [s + noise_s * draw.random() for s in present.starts_s]
        else:
            rank = list(present.starts_s)
            for i in draw.sample(range(n), max(1, n // 20)):
                rank[i] += noise_s * draw.uniform(-5, 5)
        if draw.random() < 0.5:
            listed, mirrored = work.forward.run(rank, order, times_s), False
        else:
            middle = work.forward.run(rank, order, times_s)
            backward = by_start(work.order, middle.starts_s, middle.ends_s)[::-1]
            listed, mirrored = work.backward.run([-e for e in middle.ends_s], backward, times_s), True
        candidate = _played_if_shorter(problem, work, listed, mirrored, present.makespan_s)
        if candidate is not None and candidate.makespan_s <= present.makespan_s:
            present = candidate
        yield present


def _played_if_shorter(
    problem: SchedulingProblem, work: SafeSearch, listed: Planned, mirrored: bool, than_s: float
) -> _PlayedOrders | None:
    """What a listing gives when played; None where it is worse anyway."""
    if work.plain and listed.makespan_s > than_s:
        return None
    orders = work.candidate(listed, mirrored)
    return _played(problem, orders.lanes, orders.waits)


def _stretched(problem: SchedulingProblem, present: _PlayedOrders) -> list[tuple[float, ...]]:
    """Times of the tasks on their lanes, in proportion to what each took in the present schedule."""
    stretched_s = []
    lane = [0] * len(problem.tasks)
    for k, line in enumerate(present.lanes):
        for i in line:
            lane[i] = k
    for i, c in enumerate(problem.tasks):
        alone_s = c.times_s[lane[i]]
        factor = (present.ends_s[i] - present.starts_s[i]) / alone_s if alone_s > 0 else 1.0
        stretched_s.append(tuple(t * factor for t in c.times_s))
    return stretched_s


def _moves(problem: SchedulingProblem, present: _PlayedOrders, draw: random.Random) -> Iterator[_PlayedOrders | None]:
    """Schedules after single moves in one sequence of all tasks, annealed; None for a move that made things worse."""
    n = len(problem.tasks)
    before: list[list[int]] = [[] for _ in range(n)]
    after: list[list[int]] = [[] for _ in range(n)]
    for e in problem.edges:
        before[e.dst].append(e.src)
        after[e.src].append(e.dst)
    allowed = [[k for k, t in enumerate(c.times_s) if t < math.inf] for c in problem.tasks]
    lane = [0] * n
    for k, line in enumerate(present.lanes):
        for i in line:
            lane[i] = k
    topological = problem.topological_order()
    sequence = by_start(topological, present.starts_s, present.ends_s)
    measure = _measure(problem)
    now_s = measure(sequence, lane)
    for step in range(MOVES):
        position = {i: k for k, i in enumerate(sequence)}
        i = draw.randrange(n)
        low = 1 + max((position[j] for j in before[i]), default=-1)
        high = min((position[j] for j in after[i]), default=n) - 1
        to = draw.randint(max(low, position[i] - n // 4 - 1), min(high, position[i] + n // 4 + 1))
        changed = sequence.copy()
        changed.pop(position[i])
        changed.insert(to, i)
        was = lane[i]
        if len(allowed[i]) > 1 and draw.random() < 0.5:
            lane[i] = draw.choice(allowed[i])
        took_s = measure(changed, lane)
        heat = WARM * (COLD / WARM) ** (step / MOVES) * present.makespan_s
        if took_s <= now_s or draw.random() < math.exp((now_s - took_s) / heat):
            sequence, now_s = changed, took_s
        else:
            lane[i] = was
        if now_s < present.makespan_s:
            present = _played(problem, _split(sequence, lane, problem.lanes), [])
            yield present
        else:
            yield None


def _split(sequence: Sequence[int], lane: Sequence[int], lanes: int) -> list[list[int]]:
    orders: list[list[int]] = [[] for _ in range(lanes)]
    for i in sequence:
        orders[lane[i]].append(i)
    return orders


def _measure(problem: SchedulingProblem) -> Callable[[Sequence[int], Sequence[int]], float]:
    """How long a sequence on lanes takes: by the simulator, or by the same sums where nothing stretches tasks."""
    if not forward_backward.is_plain(problem):
        return lambda sequence, lane: makespan(play(problem, _split(sequence, lane, problem.lanes)))
    times_s = [c.times_s for c in problem.tasks]
    into: list[list[tuple[int, float]]] = [[] for _ in times_s]
    for e in problem.edges:
        into[e.dst].append((e.src, e.delay_s))

    def measure(sequence: Sequence[int], lane: Sequence[int]) -> float:
        free_s, ends_s = [0.0] * problem.lanes, [0.0] * len(times_s)
        for i in sequence:
            k = lane[i]
            start_s = free_s[k]
            for src, delay_s in into[i]:
                ready_s = ends_s[src] + delay_s if lane[src] != k else ends_s[src]
                if ready_s > start_s:
                    start_s = ready_s
            ends_s[i] = free_s[k] = start_s + times_s[i][k]
        return max(free_s)

    return measure
