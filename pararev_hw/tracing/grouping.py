"""Ops become tasks: groups of ops with one key (block, branch, phase) that never form a cycle.

Ops are taken in program order, which is a topological one. An op joins the open group of its key unless another group
that must follow that group must also come before the op: then the group is closed and a new one opens ("#2").

*Glue*, the light ops that stand between branches (residual sums, concatenations, sums of cotangents), belongs to no
branch. It joins the group that made its operands, if every other operand was needed by that group already. So it
never makes a branch wait for something that its own work does not need: the sum `x2 + F(x1)` stays out of F when x2
comes from a unit that may run beside F, and becomes a task of its own, a "join".
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from pararev_hw.types import Phase


@dataclass(frozen=True, slots=True)
class Key:
    """Where an op belongs: `call` tells the calls of one block apart, one per time step say."""

    block: str
    branch: str
    phase: Phase
    call: int = 0


@dataclass(frozen=True, slots=True)
class Member:
    """What grouping needs to know of an op. `view`: it moves nothing and is made with what it looks at."""

    key: Key
    after: tuple[int, ...]
    glue: bool = False
    view: bool = False


@dataclass(frozen=True, slots=True)
class Group:
    key: Key
    number: int  # 1, or 2, 3 ... where groups of this block, branch and phase had to be split, or it was called again
    ops: tuple[int, ...]


def group(members: Sequence[Member]) -> tuple[tuple[Group, ...], tuple[int, ...]]:
    """Groups in a topological order, and for each op the index of its group (-1: a view of what was there before)."""
    return _Grouping(members).result()


def each_alone(members: Sequence[Member]) -> tuple[tuple[Group, ...], tuple[int, ...]]:
    """Every op that is no view is a group of its own; the result is that of `group`."""
    of: list[int] = []
    ops: list[list[int]] = []
    numbers: dict[Key, int] = {}
    keys: list[tuple[Key, int]] = []
    for op, member in enumerate(members):
        if member.view:
            of.append(max((of[a] for a in member.after), default=-1))
            if of[-1] >= 0:
                ops[of[-1]].append(op)
            continue
        of.append(len(ops))
        ops.append([op])
        numbers[member.key] = numbers.get(member.key, 0) + 1
        keys.append((member.key, numbers[member.key]))
    return tuple(Group(key, n, tuple(group_ops)) for (key, n), group_ops in zip(keys, ops, strict=True)), tuple(of)


class _Grouping:
    """Open groups, and for each those that it directly follows and that directly follow it."""

    def __init__(self, members: Sequence[Member]) -> None:
        self.members = members
        self.of: list[int] = []
        self.keys: list[Key] = []
        self.numbers: list[int] = []
        self.ops: list[list[int]] = []
        self.before: list[set[int]] = []
        self.after: list[set[int]] = []
        self.place: list[int] = []  # in an order that no group breaks: a search for what lies between two needs no more
        self.open: dict[Key, int] = {}
        self.count: dict[Key, int] = {}
        for op, member in enumerate(members):
            self.of.append(self._place(op, member))

    def _place(self, op: int, member: Member) -> int:
        before = {self.of[a] for a in member.after if self.of[a] >= 0}
        if member.view and not before:
            return -1
        if member.view:
            at = max(before)
            self.ops[at].append(op)
            return at
        at = self._glue_to(member, before) if member.glue else self._fit(member.key, before)
        if at < 0:
            meets = member.glue and any(self.keys[b].phase == member.key.phase for b in before)
            at = self._new(replace(member.key, branch="join") if meets else member.key)
        self.ops[at].append(op)
        for b in sorted(before - {at}):
            self._follow(b, at)
        return at

    def _fit(self, key: Key, before: set[int]) -> int:
        at = self.open.get(key, -1)
        return at if at >= 0 and not self._any_follows(before - {at}, at) else -1

    def _glue_to(self, member: Member, before: set[int]) -> int:
        """The group among `before` that already follows all the others, in the same phase; -1 if there is none."""
        for b in sorted(before, reverse=True):
            if self.keys[b].phase == member.key.phase and all(self._any_follows({b}, o) for o in before if o != b):
                return b
        return -1

    def _any_follows(self, groups: set[int], first: int) -> bool:
        """Whether one of `groups` comes after `first`."""
        return first in self._reached(groups, self.before, lambda g: self.place[g] >= self.place[first], first)

    def _reached(
        self, start: set[int], links: Sequence[set[int]], inside: Callable[[int], bool], until: int = -1
    ) -> set[int]:
        """Groups that links lead to from `start`, `inside` alone; the search ends where it meets `until`."""
        visited = set(start)
        stack = list(start)
        while stack:
            for g in links[stack.pop()]:
                if g not in visited and inside(g):
                    visited.add(g)
                    if g == until:
                        return visited
                    stack.append(g)
        return visited

    def _follow(self, before: int, at: int) -> None:
        """`at` now follows `before`; the order of places is mended between the two (Pearce and Kelly, 2006)."""
        if before in self.before[at]:
            return
        self.before[at].add(before)
        self.after[before].add(at)
        low, high = self.place[at], self.place[before]
        if high < low:
            return
        later = self._reached({at}, self.after, lambda g: self.place[g] <= high)
        sooner = self._reached({before}, self.before, lambda g: self.place[g] >= low)
        moved = [*sorted(sooner, key=self.place.__getitem__), *sorted(later, key=self.place.__getitem__)]
        for g, place in zip(moved, sorted(self.place[g] for g in moved), strict=True):
            self.place[g] = place

    def _new(self, key: Key) -> int:
        at = len(self.keys)
        self.keys.append(key)
        name = replace(key, call=0)
        self.count[name] = self.count.get(name, 0) + 1
        self.numbers.append(self.count[name])
        self.ops.append([])
        self.before.append(set())
        self.after.append(set())
        self.place.append(at)
        self.open[key] = at
        return at

    def result(self) -> tuple[tuple[Group, ...], tuple[int, ...]]:
        by_first_op = sorted(range(len(self.keys)), key=lambda g: self.ops[g][0])
        order = _topological(by_first_op, self.before)
        rank = {g: k for k, g in enumerate(order)}
        groups = tuple(Group(self.keys[g], self.numbers[g], tuple(sorted(self.ops[g]))) for g in order)
        return groups, tuple(rank[g] if g >= 0 else -1 for g in self.of)


def _topological(order: Sequence[int], before: Sequence[set[int]]) -> list[int]:
    """`order`, changed only where a group stands before one that it follows.

    Groups are taken in order. One that waits for another is placed as soon as that one is, after what stands between
    them and is ready too.
    """
    missing = {g: len(before[g]) for g in order}
    after: dict[int, list[int]] = {}
    for g in order:
        for b in before[g]:
            after.setdefault(b, []).append(g)
    position = {g: k for k, g in enumerate(order)}
    ordered: list[int] = []
    for k, g in enumerate(order):
        ready, later = ([k] if not missing[g] else []), list[int]()
        while ready:
            at = heapq.heappop(ready)
            ordered.append(order[at])
            for f in after.get(order[at], ()):
                missing[f] -= 1
                if not missing[f] and position[f] <= k:
                    heapq.heappush(ready if position[f] > at else later, position[f])
            if not ready:
                ready, later = later, []
    return ordered
