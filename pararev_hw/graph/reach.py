"""Which tasks come after which.

Of few tasks as sets of bits. Sets for a hundred thousand tasks take gigabytes, so of many it is answered pair by pair:

- A task's *level* in the order of the graph tells most pairs that are not ordered.
- *Chains*, the longest paths that are left, tell most that are: a comes before b where the first task of a chain that
  follows a stands no later than the last one that leads to b.
- *Intervals* of a depth-first walk tell more of both kinds (H. Yildirim, V. Chaoji, M. J. Zaki, "GRAIL", 2010,
  doi 10.14778/1920841.1920879).
- What is left is searched for, and the search stops at tasks of which these tell.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from pararev_hw.compiled import loop, part
from pararev_hw.graph.order import first_come_order, followers

FEW = 10_000  # tasks of which sets of bits are made: some megabytes, and quicker
CHAINS = 4


def descendants(count: int, edges: Iterable[tuple[int, int]]) -> list[int]:
    """For each of `count` tasks the set of all that must come after it, itself left out: j is among them where bit j is
    1. Edges form no cycle."""
    out = followers(count, edges)
    after = [0] * count
    for i in reversed(first_come_order(out)):
        for j in out[i]:
            after[i] |= after[j] | 1 << j
    return after


def which_follow(
    count: int, edges: Sequence[tuple[int, int]], pairs: Sequence[tuple[int, int]], few: int = FEW
) -> list[bool]:
    """For each pair whether its second task must come after its first. Edges between `count` tasks form no cycle."""
    if count <= few:
        after = descendants(count, edges)
        return [bool(after[a] >> b & 1) for a, b in pairs]
    ends = np.array(edges, np.int64).reshape(-1, 2)
    asked = np.array(pairs, np.int64).reshape(-1, 2)
    by_source = ends[np.argsort(ends[:, 0], kind="stable")]
    first = np.zeros(count + 1, np.int64)
    np.cumsum(np.bincount(ends[:, 0], minlength=count), out=first[1:])
    follows = _answers(
        count + len(ends) + len(asked), first, by_source[:, 1].copy(), asked[:, 0].copy(), asked[:, 1].copy()
    )
    return list(map(bool, follows))


@loop
def _answers(first: Any, after: Any, source: Any, target: Any) -> list[int]:
    """1 for each pair of which the target comes after the source, else 0; the followers of task i are those of `after`
    from `first[i]` on."""
    n = len(first) - 1
    order = _order(first, after)
    level = [0] * n
    for i in order:
        for e in range(first[i], first[i + 1]):
            level[after[e]] = max(level[after[e]], level[i] + 1)
    used = [0] * n
    entry, leave, place = [0] * (CHAINS * n), [0] * (CHAINS * n), [0] * (CHAINS * n)
    for c in range(CHAINS):
        _chain(c, first, after, order, used, entry, leave, place)
    begin, low, last = [0] * n, [0] * n, [0] * n
    _intervals(first, after, order, begin, low, last)
    seen = [-1] * n
    answers = [0] * len(source)
    waiting = [0]
    for q in range(len(source)):
        a, b = source[q], target[q]
        verdict = _verdict(a, b, n, level, entry, leave, place, begin, low, last)
        if verdict == 0:
            waiting.append(a)
            while len(waiting) > 1 and verdict == 0:
                i = waiting.pop()
                for e in range(first[i], first[i + 1]):
                    j = after[e]
                    if seen[j] == q:
                        continue
                    seen[j] = q
                    of_j = 1 if j == b else _verdict(j, b, n, level, entry, leave, place, begin, low, last)
                    if of_j == 1:
                        verdict = 1
                        break
                    if of_j == 0:
                        waiting.append(j)
            while len(waiting) > 1:
                waiting.pop()
        answers[q] = 1 if verdict == 1 else 0
    return answers


@part
def _order(first: Any, after: Any) -> list[int]:
    """Tasks after all that lead to them."""
    n = len(first) - 1
    missing = [0] * n
    for e in range(len(after)):
        missing[after[e]] += 1
    order = [i for i in range(n) if missing[i] == 0]
    at = 0
    while at < len(order):
        i = order[at]
        at += 1
        for e in range(first[i], first[i + 1]):
            missing[after[e]] -= 1
            if missing[after[e]] == 0:
                order.append(after[e])
    return order


@part
def _chain(c: int, first: Any, after: Any, order: Any, used: Any, entry: Any, leave: Any, place: Any) -> None:
    """The `c`-th chain: a path through as many tasks of no other chain as can be. `place` is a task's own on it (-1:
    none), `entry` that of the first task at or after it, `leave` that of the last at or before it."""
    n, base = len(order), c * len(order)
    length, then = [0] * n, [-1] * n
    begins = order[0]
    for k in range(n - 1, -1, -1):
        i = order[k]
        for e in range(first[i], first[i + 1]):
            if then[i] < 0 or length[after[e]] > length[then[i]]:
                then[i] = after[e]
        length[i] = (1 - used[i]) + (length[then[i]] if then[i] >= 0 else 0)
        if length[i] > length[begins]:
            begins = i
    for i in range(n):
        place[base + i], leave[base + i], entry[base + i] = -1, -1, n
    at, i = 0, begins
    while i >= 0:
        place[base + i], used[i] = at, 1
        at += 1
        i = then[i]
    for k in range(n):
        i = order[k]
        leave[base + i] = max(leave[base + i], place[base + i])
        for e in range(first[i], first[i + 1]):
            leave[base + after[e]] = max(leave[base + after[e]], leave[base + i])
    for k in range(n - 1, -1, -1):
        i = order[k]
        for e in range(first[i], first[i + 1]):
            entry[base + i] = min(entry[base + i], entry[base + after[e]])
        if place[base + i] >= 0:
            entry[base + i] = place[base + i]


@part
def _intervals(first: Any, after: Any, order: Any, begin: Any, low: Any, last: Any) -> None:
    """A depth-first walk: `last` is a task's number when it is left, `begin` the next number when it is entered, `low`
    the least number of all that it leads to."""
    n, number = len(order), 0
    cursor, entered = [0] * n, [0] * n
    waiting = [0]
    for root in order:
        if entered[root] == 1:
            continue
        entered[root], begin[root] = 1, number
        waiting.append(root)
        while len(waiting) > 1:
            i = waiting[-1]
            if first[i] + cursor[i] < first[i + 1]:
                j = after[first[i] + cursor[i]]
                cursor[i] += 1
                if entered[j] == 0:
                    entered[j], begin[j] = 1, number
                    waiting.append(j)
                continue
            waiting.pop()
            low[i], last[i] = number, number
            for e in range(first[i], first[i + 1]):
                low[i] = min(low[i], low[after[e]])
            number += 1


@part
def _verdict(
    a: int, b: int, n: int, level: Any, entry: Any, leave: Any, place: Any, begin: Any, low: Any, last: Any
) -> int:
    """1 where it is plain that b comes after a, -1 that it does not, 0 where neither is."""
    if level[a] >= level[b] or last[b] > last[a] or low[b] < low[a]:
        return -1
    if begin[a] <= last[b]:
        return 1
    for c in range(CHAINS):
        if entry[c * n + a] <= leave[c * n + b]:
            return 1
        if place[c * n + a] >= 0 or place[c * n + b] >= 0:
            return -1
    return 0
