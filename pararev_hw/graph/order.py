"""Order in a graph: which task an op belongs to, who follows whom, and how a schedule's lanes order the tasks."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from pararev_hw.errors import IllegalSchedule
from pararev_hw.types import BlockGraph, Schedule


def task_of_op(graph: BlockGraph) -> list[int]:
    """The task of each op, -1 where it belongs to none."""
    task_of = [-1] * len(graph.ops)
    for k, task in enumerate(graph.tasks):
        for op in task.ops:
            task_of[op] = k
    return task_of


def followers(count: int, edges: Iterable[tuple[int, int]]) -> list[list[int]]:
    """For each of `count` tasks those that an edge leads to, in the order of the edges."""
    out: list[list[int]] = [[] for _ in range(count)]
    for src, dst in edges:
        out[src].append(dst)
    return out


def first_come_order(out: Sequence[Sequence[int]]) -> list[int]:
    """Tasks after all that lead to them, first come, first served (A. B. Kahn, 1962, doi 10.1145/368996.369025); those
    of a cycle, and what follows one, are missing."""
    missing = [0] * len(out)
    for line in out:
        for j in line:
            missing[j] += 1
    order = [i for i, m in enumerate(missing) if m == 0]
    for i in order:  # grows while it is read
        for j in out[i]:
            missing[j] -= 1
            if missing[j] == 0:
                order.append(j)
    return order


def lane_orders(graph: BlockGraph, schedule: Schedule) -> tuple[tuple[int, ...], ...]:
    """Per lane, the indices of the graph's tasks in the order of their start.

    Raises IllegalSchedule where the schedule is not one of the graph's tasks.
    """
    index = {t.id: k for k, t in enumerate(graph.tasks)}
    placed = [p.task for p in schedule.placements]
    stranger = next((t for t in placed if t not in index), None)
    if stranger is not None or len(placed) != len(set(placed)):
        raise IllegalSchedule(f"the schedule places {stranger or 'a task twice'!r}: it is not one of {graph.model}")
    missing = sorted(set(index) - set(placed))
    if missing:
        raise IllegalSchedule(f"the schedule does not place {missing[0]!r}: it must place all {len(index)} tasks")
    lanes: list[list[tuple[float, float, int]]] = [[] for _ in range(schedule.lanes)]
    for p in schedule.placements:
        lanes[p.lane].append((p.start_s, p.end_s, index[p.task]))
    return tuple(tuple(task for _, _, task in sorted(lane)) for lane in lanes)


def wait_pairs(graph: BlockGraph, schedule: Schedule) -> tuple[tuple[int, int], ...]:
    """The waits of a schedule by the indices of the graph's tasks."""
    index = {t.id: k for k, t in enumerate(graph.tasks)}
    return tuple((index[before], index[after]) for before, after in schedule.waits)
