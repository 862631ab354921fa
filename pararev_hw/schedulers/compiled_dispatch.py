"""`safe_dispatch` in a compiled loop: the same decisions on the same numbers, tens of times faster."""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pararev_hw.compiled import loop, part
from pararev_hw.types.problem_arrays import Floats, Ints

Flags = NDArray[np.bool_]
UNLIMITED = 2**62  # bytes of room where there is no limit
GONE = -(2**62)  # stands in the profile for tasks that have started


@dataclass(frozen=True, slots=True)
class DispatchArrays:
    """What stays the same from one listing to the next, in the order in which the loop takes it."""

    room: int
    alike: bool
    lanes: int
    window: int
    sizes: Ints  # of buffers
    early: Flags
    stays: Flags
    user_start: Ints  # ranges of tasks by buffer
    touch_start: Ints  # buffers by task
    touch: Ints
    out_start: Ints
    out: Ints
    into_start: Ints
    into: Ints
    into_delay_s: Floats

    @property
    def all(self) -> tuple[object, ...]:
        return tuple(getattr(self, name) for name in self.__dataclass_fields__)


def ranges(lists: Sequence[Sequence[int]]) -> tuple[Ints, Ints]:
    """Where each list begins when all stand in one array, and that array."""
    counts = np.fromiter(map(len, lists), np.int64, len(lists))
    start = np.concatenate((np.zeros(1, np.int64), np.cumsum(counts)))
    return start, np.array([x for some in lists for x in some], np.int64)


@loop
def dispatch(
    rank: Floats,
    order: Ints,
    times_s: Floats,  # [tasks, lanes]
    room: int,
    alike: bool,
    lanes: int,
    window: int,
    sizes: Ints,
    early: Flags,
    stays: Flags,
    user_start: Ints,
    touch_start: Ints,
    touch: Ints,
    out_start: Ints,
    out: Ints,
    into_start: Ints,
    into: Ints,
    into_delay_s: Floats,
    lane: Ints,
    starts_s: Floats,
    ends_s: Floats,
) -> None:
    n, buffers = len(order), len(sizes)
    limited = room < UNLIMITED
    position = np.empty(n, np.int64)
    for k in range(n):
        position[order[k]] = k
    place = np.empty(len(touch), np.int64)  # of each buffer's users in the order
    unfinished = np.zeros(buffers, np.int64)
    for k in range(n):
        for e in range(touch_start[order[k]], touch_start[order[k] + 1]):
            b = touch[e]
            place[user_start[b] + unfinished[b]] = k
            unfinished[b] += 1
    first, last = np.empty(buffers, np.int64), np.empty(buffers, np.int64)  # of the users that have not started
    begun, begun_s = np.zeros(buffers, np.bool_), np.empty(buffers)
    live, leaving = 0, 0
    for b in range(buffers):
        first[b], last[b] = user_start[b], user_start[b + 1] - 1
        begun[b], begun_s[b] = early[b], -1.0
        if early[b]:
            live += sizes[b]
    started = np.zeros(n, np.bool_)
    most, more = _tree(_profile(n, sizes, early, stays, user_start, place))
    missing = np.empty(n, np.int64)
    # the ready tasks that are looked at, in order of rank, and the others, all of which come after them
    ready, ranks, count = np.empty(window + 1, np.int64), np.empty(window + 1), 0
    others, looked_at = [(0.0, i) for i in range(0)], np.zeros(n, np.bool_)
    for i in range(n):
        missing[i] = into_start[i + 1] - into_start[i]
        if missing[i] == 0:
            count = _insert(ready, ranks, count, others, looked_at, i, rank[i])
    arrived, arrived_there = np.zeros((n, lanes)), np.zeros(n, np.bool_)
    running, runs = np.empty(n, np.int64), 0
    wake, wakes = np.empty(16), 0  # when to look again, without order
    busy, free_at = np.zeros(lanes, np.bool_), np.zeros(lanes)
    now, left, forced, idle, head = 0.0, n, -1, lanes, 0
    while left > 0:
        at, looked = 0, 0
        while at < count and idle > 0 and looked < window:
            i = ready[at]
            if alike:
                k = 0
                while busy[k]:
                    k += 1
            else:
                if not arrived_there[i]:  # once: when a task is ready, all that lead to it have ended
                    _arrive(i, into_start, into, into_delay_s, lane, ends_s, arrived)
                    arrived_there[i] = True
                k, starts_at = _lane(i, times_s, now, free_at, arrived)
                if starts_at > now:
                    if free_at[k] <= now and not _holds(wake, wakes, starts_at):
                        if wakes == len(wake):
                            wake = _larger(wake)
                        wake[wakes] = starts_at
                        wakes += 1
                    k = -1
            if k >= 0 and (
                i == forced
                or not limited
                or _fits(
                    i, room, live, head, position, order, touch_start, touch, sizes, stays, begun, started, user_start,
                    place, first, last, most, more,
                )
            ):  # fmt: skip
                started[i] = True
                if limited:
                    live += _begin(
                        i, now, head, position, order, touch_start, touch, sizes, stays, begun, begun_s, started,
                        user_start, place, first, last, most, more,
                    )  # fmt: skip
                while head < n and started[order[head]]:
                    head += 1
                lane[i], starts_s[i], ends_s[i] = k, now, now + times_s[i, k]
                running[runs] = i
                runs += 1
                busy[k] = True
                if alike or ends_s[i] > now:
                    idle -= 1
                free_at[k] = ends_s[i]
                count = _remove(ready, ranks, count, others, looked_at, at)
                left -= 1
            else:
                at += 1
                looked += 1
        if left == 0:
            break
        if runs == 0 and wakes == 0:
            forced = order[head]  # outside the window, or held up by what lives no time
            count = _put_first(ready, ranks, count, others, looked_at, forced, rank[forced])
            continue
        then = np.inf
        for at in range(runs):
            then = min(then, ends_s[running[at]])
        for at in range(wakes):
            then = min(then, wake[at])
        if then > now:
            live -= leaving
            leaving = 0
        now = max(now, then)
        later = 0
        for at in range(wakes):
            if wake[at] > now:
                wake[later] = wake[at]
                later += 1
        wakes, among, runs = later, runs, 0
        for at in range(among):  # in any order: what they set free and make ready is the same
            i = running[at]
            if ends_s[i] > now:
                running[runs] = i
                runs += 1
                continue
            busy[lane[i]] = False
            if alike or ends_s[i] > starts_s[i]:
                idle += 1
            for e in range(touch_start[i], touch_start[i + 1]):
                b = touch[e]
                unfinished[b] -= 1
                if unfinished[b] == 0 and not stays[b]:
                    if begun_s[b] == now:
                        leaving += sizes[b]
                    else:
                        live -= sizes[b]
            for e in range(out_start[i], out_start[i + 1]):
                j = out[e]
                missing[j] -= 1
                if missing[j] == 0:
                    count = _insert(ready, ranks, count, others, looked_at, j, rank[j])


@part
def _profile(n: int, sizes: Ints, early: Flags, stays: Flags, user_start: Ints, place: Ints) -> Ints:
    """Bytes alive while each task of the order runs, when all before it are done."""
    change = np.zeros(n + 1, np.int64)
    for b in range(len(sizes)):
        change[0 if early[b] else place[user_start[b]]] += sizes[b]
        change[n if stays[b] else place[user_start[b + 1] - 1] + 1] -= sizes[b]
    for k in range(1, n):
        change[k] += change[k - 1]
    return change


@part
def _holds(numbers: Floats, count: int, number: float) -> bool:
    holds = False
    for k in range(count):
        holds = holds or numbers[k] == number
    return holds


@part
def _larger(numbers: Floats) -> Floats:
    larger = np.empty(2 * len(numbers))
    for k in range(len(numbers)):
        larger[k] = numbers[k]
    return larger


@part
def _tree(profile: Ints) -> tuple[Ints, Ints]:
    """The most of the leaves under each node, and what is to be added to all of them; the root is node 1, and the
    leaves are the second half of the nodes."""
    leaves = 1
    while leaves < len(profile):
        leaves *= 2
    most, more = np.full(2 * leaves, GONE), np.zeros(2 * leaves, np.int64)
    for k in range(len(profile)):
        most[leaves + k] = profile[k]
    for node in range(leaves - 1, 0, -1):
        most[node] = max(most[2 * node], most[2 * node + 1])
    return most, more


@part
def _add(most: Ints, more: Ints, start: int, end: int, amount: int) -> None:
    """Add to the leaves from `start` to before `end`."""
    if start >= end:
        return
    left, right = start + len(most) // 2, end + len(most) // 2
    first, last = left, right - 1
    while left < right:
        if left % 2 == 1:
            most[left] += amount
            more[left] += amount
            left += 1
        if right % 2 == 1:
            right -= 1
            most[right] += amount
            more[right] += amount
        left, right = left // 2, right // 2
    _renew(most, more, first)
    _renew(most, more, last)


@part
def _renew(most: Ints, more: Ints, leaf: int) -> None:
    node = leaf // 2
    while node > 0:
        most[node] = max(most[2 * node], most[2 * node + 1]) + more[node]
        node //= 2


@part
def _most(most: Ints, more: Ints, start: int, end: int) -> int:
    """The most of the leaves from `start` to before `end`."""
    left, right = start + len(most) // 2, end + len(most) // 2 - 1
    of_left, of_right = most[left], most[right]
    while left // 2 != right // 2:
        if left % 2 == 0:
            of_left = max(of_left, most[left + 1])
        if right % 2 == 1:
            of_right = max(of_right, most[right - 1])
        left, right = left // 2, right // 2
        of_left += more[left]
        of_right += more[right]
    greatest: int = max(of_left, of_right)
    while left > 1:
        left //= 2
        greatest += more[left]
    return greatest


@part
def _insert(
    ready: Ints, ranks: Floats, count: int, others: list[tuple[float, int]], looked_at: Flags, i: int, rank: float
) -> int:
    """Task i put where its rank belongs, ties by number; how many are looked at then."""
    low, high = 0, count
    while low < high:
        middle = (low + high) // 2
        if ranks[middle] < rank or (ranks[middle] == rank and ready[middle] < i):
            low = middle + 1
        else:
            high = middle
    if low == len(ready) - 1:
        heapq.heappush(others, (rank, i))
        return count
    count = _put(ready, ranks, count, others, looked_at, low, i, rank)
    return count


@part
def _put(
    ready: Ints,
    ranks: Floats,
    count: int,
    others: list[tuple[float, int]],
    looked_at: Flags,
    place: int,
    i: int,
    rank: float,
) -> int:
    for at in range(count, place, -1):
        ready[at], ranks[at] = ready[at - 1], ranks[at - 1]
    ready[place], ranks[place] = i, rank
    looked_at[i] = True
    if count == len(ready) - 1:
        looked_at[ready[count]] = False
        heapq.heappush(others, (ranks[count], ready[count]))
        return count
    return count + 1


@part
def _remove(ready: Ints, ranks: Floats, count: int, others: list[tuple[float, int]], looked_at: Flags, at: int) -> int:
    for k in range(at, count - 1):
        ready[k], ranks[k] = ready[k + 1], ranks[k + 1]
    while len(others) > 0:
        rank, i = heapq.heappop(others)
        if not looked_at[i]:  # or it was put first
            ready[count - 1], ranks[count - 1], looked_at[i] = i, rank, True
            return count
    return count - 1


@part
def _put_first(
    ready: Ints, ranks: Floats, count: int, others: list[tuple[float, int]], looked_at: Flags, i: int, rank: float
) -> int:
    """A ready task put before all others, whatever its rank."""
    for at in range(count):
        if ready[at] == i:
            count = _remove(ready, ranks, count, others, looked_at, at)
            break
    count = _put(ready, ranks, count, others, looked_at, 0, i, rank)
    return count


@part
def _arrive(
    i: int, into_start: Ints, into: Ints, into_delay_s: Floats, lane: Ints, ends_s: Floats, arrived: Floats
) -> None:
    """When what the task waits for is there, by lane."""
    for e in range(into_start[i], into_start[i + 1]):
        at = ends_s[into[e]] + into_delay_s[e]
        for k in range(arrived.shape[1]):
            if k != lane[into[e]] and at > arrived[i, k]:
                arrived[i, k] = at


@part
def _lane(i: int, times_s: Floats, now: float, free_at: Floats, arrived: Floats) -> tuple[int, float]:
    """The lane where the task ends first, and when it could start there; -1 where no lane may run it."""
    best, best_end, best_start = -1, np.inf, 0.0
    for k in range(len(free_at)):
        start = max(now, free_at[k], arrived[i, k])
        if start + times_s[i, k] < best_end:
            best, best_end, best_start = k, start + times_s[i, k], start
    return best, best_start


@part
def _fits(
    i: int,
    room: int,
    live: int,
    head: int,
    position: Ints,
    order: Ints,
    touch_start: Ints,
    touch: Ints,
    sizes: Ints,
    stays: Flags,
    begun: Flags,
    started: Flags,
    user_start: Ints,
    place: Ints,
    first: Ints,
    last: Ints,
    most: Ints,
    more: Ints,
) -> bool:
    """Whether the task fits now, and the rest of the order after it."""
    need, until = 0, head
    for e in range(touch_start[i], touch_start[i + 1]):
        b = touch[e]
        if not begun[b]:
            need += sizes[b]
            until = max(until, place[first[b]])
    if live + need > room:
        return False
    if until == head or _most(most, more, head, until) + need <= room:
        return True
    fits = False
    for sign in (1, -1):  # as if it had begun, and back
        for e in range(touch_start[i], touch_start[i + 1]):
            b = touch[e]
            if not begun[b]:
                _add(most, more, head, place[first[b]], sign * sizes[b])
            if not stays[b] and place[last[b]] == position[i]:  # it is needed no longer than by the last of the others
                before = last[b] - 1
                while before >= user_start[b] and started[order[place[before]]]:
                    before -= 1
                begins = place[before] + 1 if before >= user_start[b] else 0
                _add(most, more, max(head, begins), min(until, position[i]), -sign * sizes[b])
        if sign == 1:
            fits = _most(most, more, head, until) <= room
    return fits


@part
def _begin(
    i: int,
    now: float,
    head: int,
    position: Ints,
    order: Ints,
    touch_start: Ints,
    touch: Ints,
    sizes: Ints,
    stays: Flags,
    begun: Flags,
    begun_s: Floats,
    started: Flags,
    user_start: Ints,
    place: Ints,
    first: Ints,
    last: Ints,
    most: Ints,
    more: Ints,
) -> int:
    """Takes the buffers of a task that starts; the bytes that come alive with it."""
    comes, here = 0, position[i]
    for e in range(touch_start[i], touch_start[i + 1]):
        b = touch[e]
        if not begun[b]:
            begun[b], begun_s[b] = True, now
            comes += sizes[b]
            _add(most, more, head, place[first[b]], sizes[b])
        if place[last[b]] == here:  # it is needed no longer than by the last of the others
            last[b] -= 1
            while last[b] >= user_start[b] and started[order[place[last[b]]]]:
                last[b] -= 1
            if not stays[b]:
                begins = place[last[b]] + 1 if last[b] >= user_start[b] else 0
                _add(most, more, max(head, begins), here, -sizes[b])
        while first[b] < user_start[b + 1] and started[order[place[first[b]]]]:
            first[b] += 1
    most[here + len(most) // 2] = GONE
    _renew(most, more, here + len(most) // 2)
    return comes
