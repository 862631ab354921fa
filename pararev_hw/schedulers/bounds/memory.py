"""What a memory limit costs at least: in bytes for any schedule at all, and in time for every schedule that keeps it.

All of it rests on one observation. While task i runs, every buffer is alive that has been touched by i or by something
that must have run before i, and will be touched by i or by something that must run after it. That is i's *forced*
memory. While i and j run at the same moment, "before" and "after" mean before or after one of the two: the forced
memory of the pair.

- *Least memory.* No schedule needs less than the most forced memory of any task.
- *Tasks that exclude each other.* Two tasks never overlap if one must come before the other, or if their pair's forced
  memory exceeds the room. A set of tasks of which any two exclude each other is served one at a time, so the
  one-machine bound of `bounds` holds for it, whatever the number of lanes.
- *Area.* A buffer of b bytes that lives at least l seconds takes b * l of the room * makespan that there are. It lives
  at least as long as any of its users runs, and as two of them one after the other where one must follow the other;
  one that stays lives at least from the start of each user to the end, by that user's time and tail.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from pararev_hw.graph.reach import descendants
from pararev_hw.schedulers.buffer_table import BufferTable, buffer_table_of
from pararev_hw.types import SchedulingProblem

MAX_WORK = 40_000_000  # buffers x pairs of tasks that are looked at
MAX_TASKS = 4000  # of more, sets of descendants would take too much memory


class Forced:
    """Which buffers must be alive while tasks run. Rows are tasks, columns buffers."""

    def __init__(self, problem: SchedulingProblem, buffers: BufferTable | None = None) -> None:
        self.held = buffer_table_of(problem) if buffers is None else buffers
        n = len(problem.tasks)
        self.after = after_of(problem)
        self.sizes = np.array(self.held.bytes, np.int64 if self.held.total < 2**62 else object)
        self.touched = np.zeros((n, len(self.sizes)), bool)  # by the task or by something before it
        self.needed = np.zeros((n, len(self.sizes)), bool)  # by the task or by something after it
        for b, users in enumerate(self.held.users):
            self.touched[list(users), b] = self.needed[list(users), b] = True
            if self.held.stays[b]:
                self.needed[:, b] = True
        out = (
            [[] for _ in range(n)] if not problem.edges else [[e.dst for e in edges] for edges in problem.successors()]
        )
        order = problem.topological_order()
        for i in order:
            for j in out[i]:
                self.touched[j] |= self.touched[i]
        for i in reversed(order):
            for j in out[i]:
                self.needed[i] |= self.needed[j]

    def alone(self) -> NDArray[np.int64]:
        """Bytes that must be alive while each task runs."""
        forced_bytes: NDArray[np.int64] = (self.touched & self.needed) @ self.sizes
        return forced_bytes

    def side_by_side(self, tasks: Sequence[int]) -> NDArray[np.int64]:
        """`[tasks, tasks]`: bytes that must be alive while two of the tasks run at the same moment.

        Of all bytes, those of buffers that neither touched, or neither needs, are not forced: what is left out for
        both reasons is taken off once. Sums of whole numbers below 2**53 are exact as floats.
        """
        untouched, unneeded = ~self.touched[list(tasks)], ~self.needed[list(tasks)]
        if self.held.total >= 2**53:
            rows = [~((u & untouched) | (v & unneeded)) @ self.sizes for u, v in zip(untouched, unneeded, strict=True)]
            return np.array(rows)
        parts = [x.astype(np.float64) for x in (untouched, unneeded, untouched & unneeded)]
        neither_touched, neither_needed, both = ((x * self.sizes) @ x.T for x in parts)
        forced_bytes: NDArray[np.int64] = (self.held.total - neither_touched - neither_needed + both).astype(np.int64)
        return forced_bytes

    def ordered(self, tasks: Sequence[int]) -> NDArray[np.bool_]:
        """`[tasks, tasks]`: whether one of two tasks must come before the other."""
        n, at = len(self.after), list(tasks)
        width = (n + 7) // 8
        packed = np.frombuffer(b"".join(self.after[i].to_bytes(width, "little") for i in at), np.uint8)
        before = np.unpackbits(packed.reshape(len(at), width), axis=1, count=n, bitorder="little")[:, at]
        either: NDArray[np.bool_] = (before | before.T).astype(bool)
        return either


def forced_of(problem: SchedulingProblem) -> Forced:
    """What is forced in a problem, one for all who ask, under whatever limit."""
    if "forced" not in problem.of_buffers:
        problem.of_buffers["forced"] = Forced(problem)
    forced: Forced = problem.of_buffers["forced"]
    return forced


def after_of(problem: SchedulingProblem) -> list[int]:
    """The descendants of each task."""
    if "after" not in problem.of_tasks:
        edges = [(e.src, e.dst) for e in problem.edges]
        problem.of_tasks["after"] = descendants(len(problem.tasks), edges)
    after: list[int] = problem.of_tasks["after"]
    return after


def least_memory(problem: SchedulingProblem) -> tuple[int, int | None]:
    """Bytes that every schedule needs at its peak, static ones included, and the task that forces them (None: none)."""
    if not problem.tasks or len(problem.tasks) > MAX_TASKS:
        buffers = buffer_table_of(problem)
        alone = [sum(buffers.bytes[b] for b in touches) for touches in buffers.touches]
    else:
        alone = forced_of(problem).alone().tolist()
    most = max(alone, default=0)
    return problem.static_bytes + most, alone.index(most) if most else None


def excluding_sets(problem: SchedulingProblem, works: Sequence[float]) -> Iterator[list[int]]:
    """Sets of tasks of which no two may run at once because of the memory limit, one around each of a few long ones."""
    buffers = buffer_table_of(problem)
    if not buffers.matters or len(problem.tasks) > MAX_TASKS:
        return
    assert buffers.room is not None
    if "pairs" not in problem.of_buffers:
        problem.of_buffers["pairs"] = _side_by_side(problem, buffers, works)
    longest, forced_bytes, ordered = problem.of_buffers["pairs"]
    excludes = (forced_bytes > buffers.room) | ordered
    for first in range(min(8, len(longest))):
        members, shut_out = [first], excludes[first].copy()
        for j in range(len(longest)):
            if j != first and shut_out[j]:
                members.append(j)
                shut_out &= excludes[j]
        if len(members) > 1:
            yield [longest[k] for k in members]


def _side_by_side(
    problem: SchedulingProblem, buffers: BufferTable, works: Sequence[float]
) -> tuple[list[int], NDArray[np.int64], NDArray[np.bool_]]:
    """The tasks that hold most, the longest first; for each two what they force together, and whether one of them must
    come before the other."""
    forced = forced_of(problem)
    alone = forced.alone()
    most = max(2, int((MAX_WORK / max(1, len(buffers.bytes))) ** 0.5))
    # what holds half the room excludes all its like: the heaviest by memory, then by time
    chosen = sorted(range(len(works)), key=lambda i: (-int(alone[i]), -works[i], i))[:most]
    longest = sorted(chosen, key=lambda i: (-works[i], i))
    return longest, forced.side_by_side(longest), forced.ordered(longest)


def area_bound(problem: SchedulingProblem, works: Sequence[float], tails: Sequence[float]) -> float:
    """Seconds that the buffers need at least to live in the room."""
    buffers = buffer_table_of(problem)
    if not buffers.matters or not buffers.room or len(problem.tasks) > MAX_TASKS:
        return 0.0
    if "area" not in problem.of_buffers:
        problem.of_buffers["area"] = _area(buffers, after_of(problem), works, tails)
    area: float = problem.of_buffers["area"]
    return area / buffers.room


def _area(buffers: BufferTable, after: Sequence[int], works: Sequence[float], tails: Sequence[float]) -> float:
    """Bytes x seconds that the buffers take at least."""
    area = 0.0
    for size, users, stays in zip(buffers.bytes, buffers.users, buffers.stays, strict=True):
        life = max(works[i] for i in users)
        first = users[0] if len(users) < 2 else min(users, key=lambda i: -after[i].bit_count())
        follow = [works[i] for i in users if after[first] >> i & 1]
        life = max(life, works[first] + max(follow, default=0.0))
        if stays:
            life = max(life, *(works[i] + tails[i] for i in users))
        area += size * life
    return area
