"""Grouping with the ancestors of every group as a bit set, as it was until 0.2.0: plain, and quadratic in memory."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from pararev_hw.tracing.grouping import Group, Key, Member


class BitSetGrouping:
    """Open groups, and for each its ancestors as a bit set over groups."""

    def __init__(self, members: Sequence[Member]) -> None:
        self.members = members
        self.of: list[int] = []
        self.keys: list[Key] = []
        self.numbers: list[int] = []
        self.ops: list[list[int]] = []
        self.ancestors: list[int] = []
        self.successors: list[set[int]] = []
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
        self._add(op, at, before)
        return at

    def _fit(self, key: Key, before: set[int]) -> int:
        at = self.open.get(key, -1)
        bit = 1 << at if at >= 0 else 0
        return at if at >= 0 and not any(self.ancestors[b] & bit for b in before if b != at) else -1

    def _glue_to(self, member: Member, before: set[int]) -> int:
        """The group among `before` that already follows all the others, in the same phase; -1 if there is none."""
        union = 0
        for b in before:
            union |= 1 << b
        for b in sorted(before, reverse=True):
            if self.keys[b].phase == member.key.phase and not union & ~(self.ancestors[b] | 1 << b):
                return b
        return -1

    def _new(self, key: Key) -> int:
        at = len(self.keys)
        self.keys.append(key)
        name = replace(key, call=0)
        self.count[name] = self.count.get(name, 0) + 1
        self.numbers.append(self.count[name])
        self.ops.append([])
        self.ancestors.append(0)
        self.successors.append(set())
        self.open[key] = at
        return at

    def _add(self, op: int, at: int, before: set[int]) -> None:
        self.ops[at].append(op)
        gained = 0
        for b in before:
            if b != at:
                gained |= self.ancestors[b] | 1 << b
                self.successors[b].add(at)
        todo = [at]
        while todo:
            g = todo.pop()
            if gained & ~self.ancestors[g]:
                self.ancestors[g] |= gained
                todo.extend(self.successors[g])

    def result(self) -> tuple[tuple[Group, ...], tuple[int, ...]]:
        by_first_op = sorted(range(len(self.keys)), key=lambda g: self.ops[g][0])
        order = _topological(by_first_op, self.ancestors)
        rank = {g: k for k, g in enumerate(order)}
        groups = tuple(Group(self.keys[g], self.numbers[g], tuple(sorted(self.ops[g]))) for g in order)
        return groups, tuple(rank[g] if g >= 0 else -1 for g in self.of)


def _topological(order: list[int], ancestors: list[int]) -> list[int]:
    """`order`, changed only where a group stands before one of its ancestors."""
    placed, ordered = 0, []
    waiting: list[int] = []
    for g in order:
        waiting.append(g)
        progress = True
        while progress:
            progress = False
            for w in list(waiting):
                if not ancestors[w] & ~placed:
                    waiting.remove(w)
                    ordered.append(w)
                    placed |= 1 << w
                    progress = True
    return ordered
