"""A layered drawing of a directed acyclic graph: columns by longest path, the critical path straight along the top.

After Sugiyama, Tagawa and Toda, "Methods for visual understanding of hierarchical system structures", 1981: layers, an
invisible slot in every column that an edge passes, and rows ordered by the mean row of the neighbours.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from pararev_hw.graph.reach import which_follow

LONGEST = 6  # columns: an edge that spans more is drawn as its two ends only,
MOST_PASSES = 6  # and so is one that would pass a column where as many pass already
SLACK = 2  # columns: a node that could stand further right than that does, close to what waits for it


@dataclass(frozen=True, slots=True)
class Slot:
    """A place in a column: a node, or (`node` None) where an edge passes."""

    node: int | None
    row: int


@dataclass(frozen=True, slots=True)
class Link:
    """A piece of the edge `src` -> `dst`, from row `row` of column `column` to row `to_row` of the next column."""

    src: int
    dst: int
    column: int
    row: int
    to_row: int


@dataclass(frozen=True, slots=True)
class Layout:
    """Columns from left to right, the links between neighbouring ones, and the edges too long to be drawn through."""

    columns: tuple[tuple[Slot, ...], ...]
    links: tuple[Link, ...]
    cut: tuple[tuple[int, int], ...]


def successors(count: int, edges: Iterable[tuple[int, int]]) -> list[list[int]]:
    """Direct successors of each node, sorted, each once."""
    out: list[set[int]] = [set() for _ in range(count)]
    for src, dst in edges:
        out[src].add(dst)
    return [sorted(s) for s in out]


def reduced(
    count: int, edges: Iterable[tuple[int, int]], keep: Collection[tuple[int, int]] = ()
) -> list[tuple[int, int]]:
    """The edges that no longer path implies (and those to `keep`). Node numbers are a topological order."""
    out = successors(count, edges)
    into: list[list[int]] = [[] for _ in range(count)]
    for i, line in enumerate(out):
        for j in line:
            into[j].append(i)
    direct = [(i, j) for i in range(count) for j in out[i]]
    # a longer path leaves its first node by another edge, and comes to its last by another: the fewer are asked
    others = [
        [(k, j) for k in out[i] if k < j] if len(out[i]) <= len(into[j]) else [(i, k) for k in into[j] if k > i]
        for i, j in direct
    ]
    pairs = [pair for ways in others for pair in ways]
    follows = iter(which_follow(count, direct, pairs))
    implied = [sum(next(follows) for _ in ways) > 0 for ways in others]
    return [edge for edge, by_others in zip(direct, implied, strict=True) if not by_others or edge in keep]


def layout(count: int, edges: Sequence[tuple[int, int]], critical: Sequence[int], most_rows: int) -> Layout:
    """Places nodes 0..count-1, numbered in a topological order, at most `most_rows` of them in a column."""
    column = _columns(count, edges, frozenset(critical), most_rows)
    path = frozenset(pairwise(critical))
    short = _drawn_through(edges, column, path)
    # A chain per edge: its source, a pass through each column between, its target. A pass is named by its edge.
    members: list[list[object]] = [[] for _ in range(max(column, default=-1) + 1)]
    for node in range(count):
        members[column[node]].append(node)
    for edge in short:
        for c in range(column[edge[0]] + 1, column[edge[1]]):
            members[c].append(edge)
    on_path: set[object] = {*critical, *path}
    neighbours = _neighbours(short, column)
    _order(members, neighbours, on_path)
    offset = [1 if on_path and not any(m in on_path for m in inside) else 0 for inside in members]
    row = {(c, m): k + offset[c] for c, inside in enumerate(members) for k, m in enumerate(inside)}
    columns = tuple(
        tuple(Slot(m if isinstance(m, int) else None, row[c, m]) for m in inside) for c, inside in enumerate(members)
    )
    links = []
    for src, dst in short:
        for c in range(column[src], column[dst]):
            here: object = src if c == column[src] else (src, dst)
            there: object = dst if c + 1 == column[dst] else (src, dst)
            links.append(Link(src, dst, c, row[c, here], row[c + 1, there]))
    return Layout(columns, tuple(links), tuple(sorted(set(edges) - set(short))))


def _drawn_through(
    edges: Sequence[tuple[int, int]], column: Sequence[int], path: Collection[tuple[int, int]]
) -> list[tuple[int, int]]:
    """The edges that are drawn from end to end: the critical ones, then the shortest, while there is room to pass."""
    passes = [0] * (max(column, default=0) + 1)
    drawn = []
    for edge in sorted(edges, key=lambda e: (e not in path, column[e[1]] - column[e[0]], e)):
        between = range(column[edge[0]] + 1, column[edge[1]])
        fits = len(between) < LONGEST and all(passes[c] < MOST_PASSES for c in between)
        if fits or edge in path:
            drawn.append(edge)
            for c in between:
                passes[c] += 1
    return sorted(drawn)


def _columns(count: int, edges: Sequence[tuple[int, int]], critical: frozenset[int], most_rows: int) -> list[int]:
    """Longest-path layers; a node with slack moves up to its successors; a crowded layer becomes several columns."""
    out = successors(count, edges)
    layer = [0] * count
    for i in range(count):
        for j in out[i]:
            layer[j] = max(layer[j], layer[i] + 1)
    for i in reversed(range(count)):
        latest = min((layer[j] for j in out[i]), default=0) - 1
        if latest - layer[i] > SLACK and i not in critical:
            layer[i] = latest
    crowd: dict[int, list[int]] = {}
    for i in sorted(range(count), key=lambda i: (i not in critical, i)):
        crowd.setdefault(layer[i], []).append(i)
    column, first = [0] * count, 0
    for at in sorted(crowd):
        for k, node in enumerate(crowd[at]):
            column[node] = first + k // most_rows
        first += -(-len(crowd[at]) // most_rows)
    return column


def _neighbours(
    edges: Sequence[tuple[int, int]], column: Sequence[int]
) -> tuple[Mapping[tuple[int, object], list[object]], Mapping[tuple[int, object], list[object]]]:
    """For a member of a column: its neighbours in the column before, and in the one after."""
    before: dict[tuple[int, object], list[object]] = {}
    after: dict[tuple[int, object], list[object]] = {}
    for src, dst in edges:
        chain: list[object] = [src, *[(src, dst)] * (column[dst] - column[src] - 1), dst]
        for k, c in enumerate(range(column[src], column[dst])):
            after.setdefault((c, chain[k]), []).append(chain[k + 1])
            before.setdefault((c + 1, chain[k + 1]), []).append(chain[k])
    return before, after


def _order(
    members: list[list[object]],
    neighbours: tuple[Mapping[tuple[int, object], list[object]], Mapping[tuple[int, object], list[object]]],
    on_path: Collection[object],
) -> None:
    """Sort every column: what is on the critical path first, the rest by the mean row of its neighbours."""
    before, after = neighbours
    for inside in members:
        inside.sort(key=lambda m: m not in on_path)
    for _ in range(4):
        for near, step in ((before, 1), (after, -1)):
            for c in range(len(members))[::step]:
                other = members[c - step] if 0 <= c - step < len(members) else []
                rows = {m: k for k, m in enumerate(other)}

                def key(
                    m: object, c: int = c, near: object = near, rows: Mapping[object, int] = rows
                ) -> tuple[bool, float]:
                    at = [rows[n] for n in near.get((c, m), ())]  # type: ignore[attr-defined]
                    here = members[c].index(m)
                    return (m not in on_path, sum(at) / len(at) if at else here)

                members[c] = sorted(members[c], key=key)
