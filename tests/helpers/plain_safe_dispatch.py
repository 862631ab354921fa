"""Safe dispatch as it was before it was made faster: every ready task is looked at on every lane whenever something
ends, and every window of the safe order is copied. What the faster one gives must equal this."""

from __future__ import annotations

import heapq
import math
from bisect import insort
from collections.abc import Sequence

import numpy as np

from pararev_hw.schedulers.compiled_dispatch import GONE
from pararev_hw.schedulers.safe_dispatch import WINDOW, Planned, SafeDispatch


class PlainRun:
    """One listing, arguments as `SafeDispatch.run` takes them."""

    def __init__(self, p: SafeDispatch, rank: Sequence[float], order: Sequence[int]) -> None:
        n = p.count
        self.p, self.rank, self.order = p, rank, order
        self.position = [0] * n
        for k, i in enumerate(order):
            self.position[i] = k
        self.head = 0  # position of the first task of the order that has not started
        self.started = [False] * n
        self.begun = list(p.early)
        self.begun_s = [-1.0] * len(p.sizes)
        self.unfinished = [len(u) for u in p.users]
        self.live = sum(s for s, e in zip(p.sizes, p.early, strict=True) if e)
        self.leaving = 0  # what lived no time: it makes room when time goes on
        self.places = [sorted([self.position[i] for i in u]) for u in p.users] if p.room < math.inf else []
        self.first = [0] * len(p.sizes)  # index into places: the first that has not started
        self.last = [len(u) - 1 for u in p.users]
        self.profile = self._profile()
        self.arrived: list[list[float]] = [[] for _ in range(n)]  # by lane: when what a task waits for is there

    def _profile(self) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
        """Bytes alive while each task of the order runs, when all before it are done."""
        change = np.zeros(self.p.count + 1, np.int64)
        for b, places in enumerate(self.places):
            change[0 if self.p.early[b] else places[0]] += self.p.sizes[b]
            change[-1 if self.p.stays[b] else places[-1] + 1] -= self.p.sizes[b]
        return np.cumsum(change)[:-1]

    def planned(self, times_s: Sequence[Sequence[float]]) -> Planned:
        p, n = self.p, self.p.count
        lane, starts_s, ends_s = [-1] * n, [0.0] * n, [0.0] * n
        missing = [len(i) for i in p.into]
        ready = sorted((self.rank[i], i) for i in range(n) if missing[i] == 0)
        running: list[tuple[float, int]] = []
        wake: list[float] = []
        free_at = [0.0] * p.lanes
        free = list(range(p.lanes))
        now, left, forced = 0.0, n, -1
        while left:
            at, looked = 0, 0
            while at < len(ready) and free and looked < WINDOW:
                i = ready[at][1]
                k = free[0] if p.alike else self._lane(i, times_s[i], now, free_at, lane, ends_s, wake)
                if k >= 0 and (i == forced or self._fits(i)):
                    self._start(i, now)
                    lane[i], starts_s[i], ends_s[i] = k, now, now + times_s[i][k]
                    heapq.heappush(running, (ends_s[i], i))
                    if p.alike:
                        heapq.heappop(free)
                    free_at[k] = ends_s[i]
                    del ready[at]
                    left -= 1
                else:
                    at += 1
                    looked += 1
            if not left:
                break
            if not running and not wake:
                forced = self.order[self.head]  # outside the window, or held up by what lives no time
                ready.remove((self.rank[forced], forced))
                ready.insert(0, (self.rank[forced], forced))
                continue
            then = min([running[0][0]] if running else [math.inf])
            if wake and wake[0] < then:
                then = heapq.heappop(wake)
            if then > now:
                self.live, self.leaving = self.live - self.leaving, 0
            now = max(now, then)
            while wake and wake[0] <= now:
                heapq.heappop(wake)
            while running and running[0][0] <= now:
                _, i = heapq.heappop(running)
                if p.alike:
                    heapq.heappush(free, lane[i])
                self._end(i, now)
                for j in p.out[i]:
                    missing[j] -= 1
                    if missing[j] == 0:
                        insort(ready, (self.rank[j], j))
        return Planned(lane, starts_s, ends_s)

    def _lane(
        self,
        i: int,
        times_s: Sequence[float],
        now: float,
        free_at: list[float],
        lane: list[int],
        ends_s: list[float],
        wake: list[float],
    ) -> int:
        """The lane where the task ends first, -1 where it cannot start there yet."""
        arrived = self.arrived[i]
        if not arrived:  # once: when a task is ready, all that lead to it have ended
            into = [(lane[src], ends_s[src] + delay_s) for src, delay_s in self.p.into[i]]
            arrived += [max((at for src_lane, at in into if src_lane != k), default=0.0) for k in range(self.p.lanes)]
        best, best_end, best_start = -1, math.inf, 0.0
        for k, time_s in enumerate(times_s):
            if time_s < math.inf:
                start = max(now, free_at[k], arrived[k])
                if start + time_s < best_end:
                    best, best_end, best_start = k, start + time_s, start
        if best_start > now:
            if free_at[best] <= now:
                heapq.heappush(wake, best_start)
            return -1
        return best

    def _fits(self, i: int) -> bool:
        """Whether the task fits now, and the rest of the order after it."""
        p = self.p
        if p.room == math.inf:
            return True
        new = [b for b in p.touches[i] if not self.begun[b]]
        need = sum(p.sizes[b] for b in new)
        if self.live + need > p.room:
            return False
        here, head = self.position[i], self.head
        until = max((self.places[b][self.first[b]] for b in new), default=head)
        if until <= head:
            return True  # nothing new is alive before the order has it alive
        window = self.profile[head:until].copy()
        for b in new:
            window[: self.places[b][self.first[b]] - head] += p.sizes[b]
        for b in p.touches[i]:
            after = self._end_without(b, here)
            if after < here:
                window[max(0, after + 1 - head) : here - head] -= p.sizes[b]
        return bool(window.max() <= p.room)

    def _end_without(self, b: int, here: int) -> int:
        """The last position at which a buffer is needed once the task at `here` has run, `here` where that is the same
        as before."""
        places, last = self.places[b], self.last[b]
        if self.p.stays[b] or places[last] != here:
            return here
        started, order = self.started, self.order
        last -= 1
        while last >= 0 and started[order[places[last]]]:
            last -= 1
        return places[last] if last >= 0 else -1

    def _start(self, i: int, now: float) -> None:
        p = self.p
        here = self.position[i]
        self.started[i] = True
        if p.room < math.inf:
            profile = self.profile
            for b in p.touches[i]:
                places = self.places[b]
                if not self.begun[b]:
                    self.begun[b], self.begun_s[b] = True, now
                    self.live += p.sizes[b]
                    profile[self.head : places[self.first[b]]] += p.sizes[b]
                after = self._end_without(b, here)
                if after < here:
                    profile[max(self.head, after + 1) : here] -= p.sizes[b]
                while self.last[b] >= 0 and self.started[self.order[places[self.last[b]]]]:
                    self.last[b] -= 1
                while self.first[b] < len(places) and self.started[self.order[places[self.first[b]]]]:
                    self.first[b] += 1
            profile[here] = GONE
        while self.head < p.count and self.started[self.order[self.head]]:
            self.head += 1

    def _end(self, i: int, now: float) -> None:
        for b in self.p.touches[i]:
            self.unfinished[b] -= 1
            if self.unfinished[b] == 0 and not self.p.stays[b]:
                if self.begun_s[b] == now:
                    self.leaving += self.p.sizes[b]
                else:
                    self.live -= self.p.sizes[b]
