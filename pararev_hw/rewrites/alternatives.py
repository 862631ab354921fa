"""What a scheduler may choose from: for each opportunity, the tasks that would take the place of which.

Every combination of kinds below is taken everywhere at once and the graph that comes of it compared with the graph as
it is, so that the cost is a few rebuilt graphs and not one for each opportunity. Where tasks differ they fall into
parts that have nothing in common; each part is one alternative. Storing is the one kind whose parts are not quite
independent: what is reconstructed only for recomputations that are gone counts as still being done.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

from pararev_hw.rewrites import Kind, Opportunity, apply_all
from pararev_hw.tracing import Traced
from pararev_hw.training.collection import no_collection
from pararev_hw.types import Alternative, BlockGraph, CommEdge, SchedulingProblem

_COMBINATIONS: tuple[tuple[Kind, ...], ...] = (
    ("share",),
    ("fuse",),
    ("split",),
    ("share", "split"),
    ("fuse", "split"),
    ("store",),
    ("wait",),
)
_AND = "; "

Price = Callable[[BlockGraph], SchedulingProblem]


def alternatives(traced: Traced, price: Price, kinds: Collection[Kind]) -> tuple[Alternative, ...]:
    """Alternatives of the problem `price(traced.graph)`. `price` gives a graph's problem: a task for each of its tasks,
    in order. Names of opportunities, as `names_of` finds them in an alternative's, can be applied."""
    base = price(traced.graph)
    by_name: dict[str, Alternative] = {}
    steps: dict[tuple[Kind, ...], tuple[Traced, tuple[Opportunity, ...]]] = {(): (traced, ())}
    with no_collection():
        for combination in _COMBINATIONS:
            if not set(combination) <= set(kinds):
                continue
            before, taken_before = steps.get(combination[:-1], (traced, ()))
            rest = combination[-1:] if combination[:-1] in steps else combination
            changed, applied = apply_all(before, rest)
            steps[combination] = changed, (applied := (*taken_before, *applied))
            if {o.kind for o in applied} != set(combination):
                continue  # some kind found nothing, so a smaller combination says all of it
            for a in _parts(traced, base, changed, price(changed.graph), applied):
                by_name.setdefault(a.name, a)
    return tuple(by_name.values())


def names_of(chosen: Collection[str]) -> tuple[str, ...]:
    """The opportunities that alternatives of these names take."""
    return tuple(dict.fromkeys(name for a in chosen for name in a.split(_AND)))


@dataclass(frozen=True, slots=True)
class _Part:
    """Tasks of the graph as it is, and those that take their place."""

    before: tuple[int, ...]
    after: tuple[int, ...]


def _parts(
    traced: Traced, base: SchedulingProblem, changed: Traced, costs: SchedulingProblem, applied: Sequence[Opportunity]
) -> list[Alternative]:
    twin = _twins(traced, changed)
    links = _Links()
    owner = {k: i for i, t in enumerate(traced.graph.tasks) for k in t.ops}
    touched = set(range(len(traced.graph.tasks))) - set(twin.values())
    for j, task in enumerate(changed.graph.tasks):
        if j not in twin:
            for k in task.ops:
                before = owner.get(changed.tape.lines[k].origin)
                if before is not None:
                    links.join(("before", before), ("after", j))
                    touched.add(before)
    _join_rewired(traced, changed, twin, links, touched)
    members: dict[object, tuple[list[int], list[int]]] = {}
    for i in sorted(touched):
        members.setdefault(links.root(("before", i)), ([], []))[0].append(i)
    for j in range(len(changed.graph.tasks)):
        if j not in twin or twin[j] in touched:
            members.setdefault(links.root(("after", j)), ([], []))[1].append(j)
    parts = [_Part(tuple(a), tuple(b)) for a, b in members.values()]
    return _as_alternatives(traced, base, changed, costs, applied, twin, parts)


def _twins(traced: Traced, changed: Traced) -> dict[int, int]:
    """Tasks of the changed graph -> tasks of the other that are the same, op for op."""

    def content(t: Traced, ops: Sequence[int]) -> tuple[tuple[int, int], ...]:
        return tuple((t.tape.lines[k].origin, t.tape.lines[k].entry) for k in ops)

    original = {task.id: (i, content(traced, task.ops)) for i, task in enumerate(traced.graph.tasks)}
    twin_of = {}
    for j, task in enumerate(changed.graph.tasks):
        at = original.get(task.id)
        if at is not None and at[1] == content(changed, task.ops):
            twin_of[j] = at[0]
    return twin_of


def _join_rewired(traced: Traced, changed: Traced, twin: Mapping[int, int], links: _Links, touched: set[int]) -> None:
    """A task that is the same, but follows a task that it did not follow, is part of the change."""
    before: dict[int, set[int]] = {}
    for e in traced.graph.edges:
        before.setdefault(e.dst, set()).add(e.src)
    stands: dict[object, set[int]] = {}
    for i in touched:
        stands.setdefault(links.root(("before", i)), set()).add(i)
    for e in changed.graph.edges:
        if e.dst not in twin:
            continue
        i = twin[e.dst]
        sources = {twin[e.src]} if e.src in twin else stands.get(links.root(("after", e.src)), set())
        if sources.isdisjoint(before.get(i, set())):
            links.join(("before", i), ("after", e.dst))
            for b in before.get(i, set()) & touched:
                links.join(("before", i), ("before", b))
            touched.add(i)


def _as_alternatives(
    traced: Traced,
    base: SchedulingProblem,
    changed: Traced,
    costs: SchedulingProblem,
    applied: Sequence[Opportunity],
    twin: Mapping[int, int],
    parts: Sequence[_Part],
) -> list[Alternative]:
    part_before = {i: p for p, part in enumerate(parts) for i in part.before}
    part_after = {j: p for p, part in enumerate(parts) for j in part.after}
    edge = {(e.src, e.dst): e for e in costs.edges}
    out: dict[int, list[int]] = {}
    into: dict[int, list[int]] = {}
    for src, dst in edge:
        out.setdefault(src, []).append(dst)
        into.setdefault(dst, []).append(src)
    now = {i: j for j, i in twin.items()}

    def stands_for(i: int) -> tuple[int, ...]:
        """The tasks of the changed graph in the place of task i."""
        return parts[part_before[i]].after if i in part_before else (now[i],) if i in now else ()

    def stood(j: int) -> tuple[int, ...]:
        return parts[part_after[j]].before if j in part_after else (twin[j],)

    joined = {(e.src, e.dst) for e in base.edges}
    result = []
    for p, part in enumerate(parts):
        ops = {k for i in part.before for k in traced.graph.tasks[i].ops}
        opportunities = [o for o in applied if not o.origins.isdisjoint(ops)]
        if not opportunities:
            continue
        at = {j: n for n, j in enumerate(part.after)}
        takes, gives = {}, {}
        for k, e in enumerate(base.edges):
            enters, leaves = part_before.get(e.dst) == p, part_before.get(e.src) == p
            if enters and not leaves:
                sources = stands_for(e.src)
                takes[k] = tuple(n for j, n in at.items() if not set(into.get(j, ())).isdisjoint(sources))
            elif leaves and not enters:
                sinks = stands_for(e.dst)
                gives[k] = tuple(n for j, n in at.items() if not set(out.get(j, ())).isdisjoint(sinks))
        inner = [CommEdge(at[s], at[d], e.delay_s, e.bytes, e.energy_j) for (s, d), e in edge.items()
                 if s in at and d in at]  # fmt: skip
        further = []
        for j, n in at.items():
            for src in into.get(j, ()):
                olds = stood(src)
                if src not in at and olds and not any((a, b) in joined for a in olds for b in part.before):
                    e = edge[src, j]
                    further.append(CommEdge(olds[0], n, e.delay_s, e.bytes, e.energy_j))
        result.append(
            Alternative(
                name=_AND.join(dict.fromkeys(o.name for o in opportunities)),
                kind=opportunities[0].kind,
                replaces=part.before,
                tasks=tuple(costs.tasks[j] for j in part.after),
                in_edges=takes,
                out_edges=gives,
                internal_edges=tuple(inner),
                extra_deps=tuple(further),
            )
        )
    return result


class _Links:
    """Which nodes belong together."""

    def __init__(self) -> None:
        self._up: dict[tuple[str, int], tuple[str, int]] = {}

    def root(self, node: tuple[str, int]) -> tuple[str, int]:
        while node in self._up:
            node = self._up[node]
        return node

    def join(self, a: tuple[str, int], b: tuple[str, int]) -> None:
        a, b = self.root(a), self.root(b)
        if a != b:
            self._up[max(a, b)] = min(a, b)
