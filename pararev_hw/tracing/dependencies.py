"""Which op must follow which: from the data alone, never from the order in which Python happened to call things.

An op follows the op that made a tensor it is given, the last writers of the bytes it reads (read after write), and,
for the bytes it writes, their last readers (write after read) and writers (write after write). Accesses are intervals
of a storage, so writes to disjoint parts of one tensor stay independent.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

# plain tuples: a step has tens of thousands of each
Span = tuple[int, int, int]  # storage, first byte, one past the last byte
Access = tuple[Sequence[int], Sequence[Span], Sequence[Span]]  # what an op touches: who made its tensors, reads, writes
Flow = tuple[int, int, int, int]  # src, dst, storage, bytes: op dst reads so many bytes of a storage that op src wrote


def dependencies(accesses: Iterable[Access]) -> tuple[tuple[tuple[int, ...], ...], tuple[Flow, ...]]:
    """For each op the ops that it must follow (sorted), and the data that flows between ops."""
    writers: dict[int, list[Span]] = {}  # storage -> (op, lo, hi), the newest last
    readers: dict[int, list[Span]] = {}
    after: list[tuple[int, ...]] = []
    flows: list[Flow] = []
    for k, (makers, reads, writes) in enumerate(accesses):
        follow = set(makers)
        for storage, lo, hi in reads:
            for op, first, end in writers.get(storage, ()):
                if first < hi and lo < end:
                    follow.add(op)
                    flows.append((op, k, storage, (hi if hi < end else end) - (lo if lo > first else first)))
        for storage, lo, hi in writes:
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
        for storage, lo, hi in reads:
            readers.setdefault(storage, []).append((k, lo, hi))
        for storage, lo, hi in writes:
            writers.setdefault(storage, []).append((k, lo, hi))
        follow.discard(k)
        after.append(tuple(sorted(follow)))
    return tuple(after), tuple(flows)
