"""Which op must follow which: from the data alone, never from the order in which Python happened to call things.

An op follows the op that made a tensor it is given, the last writers of the bytes it reads (read after write), and,
for the bytes it writes, their last readers (write after read) and writers (write after write). Accesses are intervals
of a storage, so writes to disjoint parts of one tensor stay independent.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

Span = tuple[int, int, int]  # storage, first byte, one past the last byte


class Access(NamedTuple):
    """What one op touches. `makers` are the ops that made the tensors it is given."""

    makers: tuple[int, ...]
    reads: tuple[Span, ...]
    writes: tuple[Span, ...]


class Flow(NamedTuple):
    """Op `dst` reads `bytes` of `storage` that op `src` wrote."""

    src: int
    dst: int
    storage: int
    bytes: int


def dependencies(accesses: Sequence[Access]) -> tuple[tuple[tuple[int, ...], ...], tuple[Flow, ...]]:
    """For each op the ops that it must follow (sorted), and the data that flows between ops."""
    writers: dict[int, list[Span]] = {}  # storage -> (op, lo, hi), the newest last
    readers: dict[int, list[Span]] = {}
    after: list[tuple[int, ...]] = []
    flows: list[Flow] = []
    for k, access in enumerate(accesses):
        follow = set(access.makers)
        for storage, lo, hi in access.reads:
            for op, first, end in writers.get(storage, ()):
                if first < hi and lo < end:
                    follow.add(op)
                    flows.append(Flow(op, k, storage, min(hi, end) - max(lo, first)))
        for storage, lo, hi in access.writes:
            for table in (writers, readers):
                spans = table.get(storage)
                if spans:
                    left = []  # what the write does not cover
                    for span in spans:
                        op, first, end = span
                        if first < hi and lo < end:
                            follow.add(op)
                        if first < lo or hi < end:
                            left.append(span)
                    table[storage] = left
        for storage, lo, hi in access.reads:
            readers.setdefault(storage, []).append((k, lo, hi))
        for storage, lo, hi in access.writes:
            writers.setdefault(storage, []).append((k, lo, hi))
        follow.discard(k)
        after.append(tuple(sorted(follow)))
    return tuple(after), tuple(flows)
