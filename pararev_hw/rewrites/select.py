"""Choices for a network on a device: which rewrites of its step are worth taking.

`--choices none` leaves the step as it was traced (recomputation may run ahead of the gradients, as far as the data let
it), `auto` searches for what makes the step shortest within the device's memory, and a list of kinds, `fuse,split`,
takes every opportunity of those kinds.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from pararev_hw import pipeline, schedulers
from pararev_hw.costmodels import cost, launches
from pararev_hw.errors import BadInput, Infeasible, unknown_name
from pararev_hw.progress import Progress, silent
from pararev_hw.reports import units
from pararev_hw.rewrites import REWRITES, Kind, apply, apply_all, find, search
from pararev_hw.rewrites.alternatives import alternatives, names_of
from pararev_hw.tracing import Traced
from pararev_hw.types import Alternative, BlockGraph, Hardware, SchedulingProblem

AHEAD = "ahead"  # what the data allow anyway: the opposite of "wait"
QUICK = ("sequential", "asap")  # schedulers that a search calls itself; for the others it asks heft


def parsed(choices: str) -> tuple[Kind, ...] | None:
    """The kinds that a list names, all of them for "all"; None for "auto". Raises UnknownName, BadInput."""
    if choices == "auto":
        return None
    if choices == "none":
        return ()
    parts = [part.strip() for part in choices.split(",")]
    for kind in parts:
        if kind not in (AHEAD, *REWRITES):
            raise unknown_name("choice", kind, ("auto", "none", AHEAD, *REWRITES))
    if AHEAD in parts and "wait" in parts:
        raise BadInput(
            "rewrites ahead and wait exclude each other: recomputation either runs ahead or waits for its gradient"
        )
    return tuple(kind for kind in REWRITES if kind in parts)


def rewrite(
    choices: str,
    device: Hardware,
    *,
    scheduler: str | None = None,
    lanes: int | None = None,
    launch: str | None = None,
    memory_limit: int | None = None,
    progress: Progress = silent,
) -> Callable[[Traced], Traced] | None:
    """`take` with everything but the step, for `target_graph.build_graph`; None for "none". Raises as `parsed` does."""
    if parsed(choices) == ():
        return None

    def reworked(traced: Traced) -> Traced:
        return take(
            traced,
            device,
            choices,
            scheduler=scheduler,
            lanes=lanes,
            launch=launch,
            memory_limit=memory_limit,
            progress=progress,
        )

    return reworked


def take(
    traced: Traced,
    device: Hardware,
    choices: str,
    *,
    scheduler: str | None = None,
    lanes: int | None = None,
    launch: str | None = None,
    memory_limit: int | None = None,
    progress: Progress = silent,
) -> Traced:
    """The step with the choices taken; its graph's assumptions say which. Nothing changes where none pays.

    "auto" optimises the makespan that `scheduler` (heft unless it is named) gives, or a quick one like it; on a GPU
    that of a CUDA graph, unless `launch` says otherwise. Raises Infeasible where nothing fits the device's memory.
    """
    kinds = parsed(choices)
    if kinds == ():
        return traced
    if kinds is not None:
        rewritten, applied = apply_all(traced, kinds)
        return _saying(rewritten, sentence([o.name for o in applied]))
    how = launch or launches(traced.graph, device)[-1]
    name = scheduler or "heft"
    progress(f"looking for choices in {traced.graph.model}")

    def price(graph: BlockGraph) -> SchedulingProblem:
        return cost(graph, device, how).problem(lanes, limited=False)

    direct = name in (*QUICK, "heft", "memory-list")
    stand_in = name if direct else "heft" if memory_limit is None else "memory-list"

    def latency_s(step: Traced) -> float:
        plan = pipeline.plan(step.graph, device, stand_in, lanes=lanes, launch=how, memory_limit=memory_limit)
        return pipeline.predict(plan).latency_s

    ways = alternatives(traced, price, tuple(REWRITES))
    progress(f"choosing among {len(ways)} alternatives of {traced.graph.model}")
    return _fitting(traced, names_of(_chosen(price(traced.graph), ways, name)), latency_s)


def _chosen(costs: SchedulingProblem, ways: Sequence[Alternative], name: str) -> tuple[str, ...]:
    if name == "exact":
        return schedulers.run(costs, name, alternatives=ways).chosen

    def makespan_s(problem: SchedulingProblem) -> float:
        return schedulers.run(problem, name).makespan_s

    quick = makespan_s if name in QUICK else search.heft_makespan
    return search.choose(costs, ways, quick, trials=400)


def _fitting(traced: Traced, names: Sequence[str], latency_s: Callable[[Traced], float]) -> Traced:
    """The step with these choices, or with as many blocks stored as the memory holds, the last ones first; the step as
    it is, where that is not slower."""
    stored = [o.name for o in find(traced, ["store"]) if o.name in names]
    others = [n for n in names if n not in stored]
    waits = [o.name for o in find(traced, ["wait"])]
    candidates: list[tuple[float, Traced, str]] = []
    refused: Infeasible | None = None

    def fits(step: Traced, words: str) -> bool:
        nonlocal refused
        try:
            candidates.append((latency_s(step), step, words))
        except Infeasible as error:
            refused = refused or error
            return False
        return True

    plain = fits(traced, "")
    low, high = 0, len(stored)  # the most that fit lie between
    while low <= high and names:
        count = high if high == len(stored) else (low + high) // 2
        selection = (*stored[:count], *others)
        if fits(apply(traced, selection), sentence(selection)):
            low = count + 1
        else:
            high = count - 1
    if not plain and not candidates:  # every graph that runs ahead is memory
        fits(apply(traced, waits), sentence(waits))
    if not candidates:
        assert refused is not None
        raise refused
    best = min(range(len(candidates)), key=lambda k: (candidates[k][0], k))
    _, step, words = candidates[best]
    if not words:
        return traced
    before = f"; as it is the step takes {units.seconds(candidates[0][0])}" if plain else "; as it is it does not fit"
    return _saying(step, words + before)


_DONE = {
    "store": ("recomputation stored instead", "recomputations stored instead"),
    "share": ("piece of common work done once", "pieces of common work done once"),
    "fuse": ("pair fused", "pairs fused"),
    "split": ("gradient split", "gradients split"),
    "wait": ("recomputation just in time", "recomputations just in time"),
}


def words_of(names: Sequence[str]) -> tuple[str, ...]:
    """("8 pairs fused", "12 gradients split"): what was done how often."""
    counts = {kind: sum(n.startswith(f"{kind} ") for n in names) for kind in _DONE}
    return tuple(f"{count} {_DONE[kind][count > 1]}" for kind, count in counts.items() if count)


def sentence(names: Sequence[str]) -> str:
    """The choices taken, as an assumption of the graph."""
    return "choices taken: " + (", ".join(words_of(names)) or "none, there is nothing to choose")


def _saying(step: Traced, words: str) -> Traced:
    return replace(step, graph=replace(step.graph, assumptions=(*step.graph.assumptions, words)))
