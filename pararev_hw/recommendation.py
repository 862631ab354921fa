"""What to recommend: the front of latency against memory over schedules, launches and rewrites of a step, and on it the
fastest way, the fastest within a memory limit, and the one of least memory.

The search is bounded by work, not by a clock, so that the same network always gets the same answer, unless a `Budget`
says when it must end; what a step is too large for, or what there was no time for, is named in `Study.not_searched`.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice

from pararev_hw import graph as graphs
from pararev_hw import pipeline
from pararev_hw.costmodels import CostedGraph, cost, launches, working_out_once
from pararev_hw.costmodels.energy_models import forward_j_by_model
from pararev_hw.devices import bare_device
from pararev_hw.errors import Infeasible
from pararev_hw.pipeline import TIE, Plan
from pararev_hw.progress import Progress, silent
from pararev_hw.reports import units
from pararev_hw.rewrites import REWRITES, Draft, Kind, all_changed, changed, drafted, find, select
from pararev_hw.rewrites.titles import place
from pararev_hw.schedulers.bounds.makespan import lower_bound, without_pairs
from pararev_hw.schedulers.evaluate import with_bound
from pararev_hw.target_graph import build_graph
from pararev_hw.trace_options import DEFAULTS, TraceOptions
from pararev_hw.tracing import Traced
from pararev_hw.tracing.tape import Tape, regrouped
from pararev_hw.types import BlockGraph, Comparison, CriticalPath, Hardware, Prediction, Recommendation, Study

MOST_TASKS_FRONT = 6_000  # beyond it the front of one launch takes more than half a minute of one core
MOST_OPS_REWRITES = 12_000  # each rewritten step is built anew: about 0.1 ms an op
POINTS, POINTS_REWRITTEN = 10, 6  # memory limits tried on the step as traced, and on each rewritten one
STORED_SHARES = (0.5, 1.0)  # of the recomputations that can be stored
FINER_LEVELS = ("block", "module", "op")
MOST_TASKS_QUICK = 150  # finer tasks are always tried up to so many: a second or two of one core
MOST_TASKS_ONE_WAY = 1_000  # and up to so many with the first rewrites alone: some seconds
MOST_TASKS_FINER = 3_000  # and up to so many where parallel lanes gain little otherwise
MOST_TASKS_FINER_FRONT = 400
SHARED = ("work over lanes", "shared compute", "shared bandwidth")  # bounds that hold whatever the tasks are
LITTLE_GAIN, FINER_PAYS, FINER_BETTER = 1.1, 1.1, 1.02  # times


@dataclass(frozen=True, slots=True)
class Budget:
    """Seconds for a search; `elapsed_s` tells how many have gone."""

    seconds: float
    elapsed_s: Callable[[], float]

    @property
    def left_s(self) -> float:
        return self.seconds - self.elapsed_s()

    def left_out(self, part: str) -> str:
        """What there was no time for, in words."""
        return f"{part}: the {self.seconds:g} s given for the search were over"


@dataclass(frozen=True, slots=True)
class Search:
    """What may be tried: `scheduler` None is all that are quick, `choices` as `--choices` takes them, `memory_limit`
    in bytes (None: the memory of the sequential step), `orders` and `waits` played under the name of
    `scheduler`; the `budget` ends it early."""

    scheduler: str | None = None
    lanes: int | None = None
    launch: str | None = None
    memory_limit: int | None = None
    choices: str = "auto"
    orders: Sequence[Sequence[int]] | None = None
    waits: Sequence[tuple[int, int]] = ()
    budget: Budget | None = None

    def over(self) -> Budget | None:
        """The budget, where nothing is left of it."""
        return self.budget if self.budget is not None and self.budget.left_s <= 0 else None


@working_out_once()
def study(
    step: Traced | BlockGraph, device: Hardware, search: Search | None = None, progress: Progress = silent
) -> Study:
    """One network on one device, with recommendations. A step that holds no program (a graph from a file) is not
    rewritten. Raises Infeasible where nothing that was tried keeps the memory limit."""
    search = search or Search()
    if isinstance(step, Traced) and search.scheduler is None and search.orders is None:
        step = _in_tasks_that_pay(step, device, search)
    graph = step if isinstance(step, BlockGraph) else step.graph
    base = pipeline.study(
        graph, device, scheduler=search.scheduler, lanes=search.lanes, launch=search.launch, orders=search.orders,
        waits=search.waits, progress=progress,
    )  # fmt: skip
    base = replace(base, forward_j_by_model=forward_j_by_model(graph))
    if base.chip is not None:
        return base
    candidates = list(base.predictions)
    limit = base.sequential.peak_bytes if search.memory_limit is None else _within_device(search.memory_limit, device)
    not_searched: list[str] = []
    if device.kind == "gpu" and graph.values_asked is not None:
        not_searched.append(f"CUDA graphs, which cannot wait for values ({graph.values_asked})")
    if search.orders is None:
        candidates += _front(
            graph, device, search, limit, _front_launches(graph, device, search), progress, not_searched
        )
    variants, left_out = _variants(step, device, search, progress)
    not_searched += left_out
    fastest_launch = base.chosen.launch or "eager"
    for variant in variants:
        if (over := search.over()) is not None:
            not_searched.append(over.left_out(f"schedules with {', '.join(variant.choices)}"))
            continue
        candidates += _of_variant(variant, device, search, limit, fastest_launch, progress, not_searched)
    for variant in _finer(step, base, device, candidates, limit, search, progress, not_searched):
        predictions = _of_finer(variant, device, search, limit, fastest_launch, candidates, not_searched)
        variants += [variant] if predictions else []
        candidates += predictions
    return _decided(base, device, candidates, limit, search, tuple(variants), tuple(not_searched))


def _in_tasks_that_pay(step: Traced, device: Hardware, search: Search) -> Traced:
    """The step in the coarser tasks from which tracing went on by itself, where this device runs those in less time:
    tracing looks at work alone, and what it costs to start a task is the device's."""
    if step.coarse is None or device.kind == "neuromorphic":
        return step
    fastest, fastest_s = step, _quick_latency_s(step.graph, device, search)
    for level in FINER_LEVELS[: FINER_LEVELS.index(step.graph.granularity)]:
        draft = Draft(step, regrouped(step.coarse, level))
        graph = graphs.attach(draft.graph, step.graph.spikes)
        latency_s = _quick_latency_s(graph, device, search)
        if latency_s * FINER_BETTER < fastest_s:
            fastest, fastest_s = replace(draft.traced, graph=graph, coarse=step.coarse), latency_s
    return fastest


def _quick_latency_s(graph: BlockGraph, device: Hardware, search: Search) -> float:
    """Of HEFT's schedule; infinite where it does not fit."""
    try:
        with without_pairs():
            return pipeline.plan(graph, device, "heft", lanes=search.lanes, launch=search.launch).schedule.makespan_s
    except Infeasible:
        return math.inf


def _within_device(limit: int, hardware: Hardware) -> int:
    """A limit, or what the device has where that is less."""
    return min(limit, int(bare_device(hardware).get("memory_bytes", limit)))


def compare(
    targets: Sequence[str],
    device: Hardware,
    search: Search | None = None,
    progress: Progress = silent,
    measure: Callable[[BlockGraph], Hardware] | None = None,
    options: TraceOptions = DEFAULTS,
) -> Comparison:
    """Several networks on one device, each with its front of latency against memory.

    Sequential and parallel are launched the same way: as `search.launch` says, or on a GPU as a CUDA graph, with the
    step in eager PyTorch beside them (`Study.eager`). The chosen schedule is the fastest, within the limit where one is
    given; `measure` gives the device with the times of a graph's own operations.
    """
    steps = (traced(target, device, options, progress) for target in targets)
    return compare_steps(steps, device, search, progress, measure)


def compare_steps(
    steps: Iterable[Traced | BlockGraph],
    device: Hardware,
    search: Search | None = None,
    progress: Progress = silent,
    measure: Callable[[BlockGraph], Hardware] | None = None,
) -> Comparison:
    """As `compare`, of steps that are traced already; a graph that holds no program is not rewritten."""
    search = search or Search()
    studies = []
    for step in steps:
        graph = step if isinstance(step, BlockGraph) else step.graph
        launch = search.launch or launches(graph, device)[-1]
        measured = device if measure is None else measure(graph)
        result = study(step, measured, replace(search, launch=launch), progress)
        if search.memory_limit is None:
            result = _with_fastest_chosen(result, measured, launch, search.lanes)
        if search.launch is None and launch == "graph":
            with contextlib.suppress(Infeasible):
                plan = pipeline.plan(result.graph, measured, "sequential", launch="eager")
                result = replace(result, eager=pipeline.predict(plan))
        studies.append(result)
    return Comparison(bare_device(device), tuple(studies))


def _with_fastest_chosen(study: Study, hardware: Hardware, launch: str, lanes: int | None) -> Study:
    fastest = _fastest(study.predictions)
    path = study.critical_path
    if fastest.choices != study.chosen.choices:
        path = _critical_path(study.graph_of(fastest), hardware, launch, lanes)
    best = next(k for k, p in enumerate(study.predictions) if p is fastest)
    return replace(study, best=best, critical_path=path)


def traced(target: str, device: Hardware, options: TraceOptions = DEFAULTS, progress: Progress = silent) -> Traced:
    """The step of a target with its program, so that it can be rewritten."""
    steps: list[Traced] = []

    def capture(step: Traced) -> Traced:
        steps.append(step)
        return step

    build_graph(target, options, device=device, rewrite=capture, progress=progress)
    return steps[0]


def _front_launches(graph: BlockGraph, device: Hardware, search: Search) -> tuple[str, ...]:
    """Where the launch is free, a GPU's front is that of CUDA graphs: launching op by op costs time and saves nothing;
    a user's limit is kept under both."""
    if search.launch is not None:
        return (search.launch,)
    ways = launches(graph, device)
    return ways[-1:] if search.memory_limit is None else ways


def _front(
    graph: BlockGraph,
    device: Hardware,
    search: Search,
    limit: int,
    launches: Iterable[str],
    progress: Progress,
    not_searched: list[str],
) -> list[Prediction]:
    """Schedules of little memory, and the fastest that keeps the limit, for each way to launch."""
    if search.scheduler is not None and search.memory_limit is None:
        return []
    if len(graph.tasks) > MOST_TASKS_FRONT:
        not_searched.append(
            f"schedules between the fastest and the smallest: the step has {len(graph.tasks)} tasks, more than "
            f"{MOST_TASKS_FRONT} (`pararev-hw schedule --scheduler pareto` searches them)"
        )
        return []
    predictions = []
    for launch in launches:
        if (over := search.over()) is not None:
            not_searched.append(over.left_out("schedules between the fastest and the smallest"))
            break
        progress(f"latency against memory of {graph.model} on {device.name}")
        costed = cost(graph, device, launch)
        if search.scheduler is None:
            predictions += _predictions(_pareto(costed, search, not_searched))
        if search.memory_limit is not None:
            predictions += _predictions(_within(costed, search, limit))
    return predictions


def _pareto(costed: CostedGraph, search: Search, not_searched: list[str], points: int = POINTS) -> list[Plan]:
    budget = search.budget
    options: dict[str, float] = {} if budget is None else {"seconds": max(budget.left_s, 1e-3)}
    try:
        plan = pipeline.plan_costed(costed, "pareto", lanes=search.lanes, options={"points": points, **options})
    except Infeasible:
        return []
    if budget is not None and budget.left_s <= 0:
        not_searched.append(budget.left_out("further schedules between the fastest and the smallest"))
    return [replace(plan, schedule=point) for point in plan.schedule.front]


def _within(costed: CostedGraph, search: Search, limit: int) -> list[Plan]:
    return _planned(costed, search, (search.scheduler or "memory-list",), limit)


def _planned(costed: CostedGraph, search: Search, names: Iterable[str], limit: int | None = None) -> list[Plan]:
    """What those of the schedulers make that find something that fits."""
    plans = []
    for name in names:
        with contextlib.suppress(Infeasible):
            plans.append(pipeline.plan_costed(costed, name, lanes=search.lanes, memory_limit=limit))
    return plans


def _predictions(plans: Iterable[Plan]) -> list[Prediction]:
    """Of those that fit."""
    predictions = []
    for plan in plans:
        with contextlib.suppress(Infeasible):
            predictions.append(pipeline.predict(plan))
    return predictions


@dataclass(frozen=True, slots=True)
class _Variant:
    """A rewritten step and, in words, the rewrites."""

    graph: BlockGraph
    choices: tuple[str, ...]
    names: tuple[str, ...]


def _variants(
    step: Traced | BlockGraph, device: Hardware, search: Search, progress: Progress
) -> tuple[list[_Variant], list[str]]:
    """Rewritten steps worth scheduling, and what was left out."""
    kinds = select.parsed(search.choices)
    if kinds == () or search.orders is not None:
        return [], []
    if isinstance(step, BlockGraph):
        return [], ["rewrites: a graph from a file holds no program to rewrite"]
    ops = len(step.graph.ops)
    if kinds is None and ops > MOST_OPS_REWRITES:
        return [], [
            f"rewrites: the step has {ops} operations, more than {MOST_OPS_REWRITES} (name those you want: "
            "--choices split,store)"
        ]
    if (over := search.over()) is not None:
        return [], [over.left_out("rewrites")]
    progress(f"rewriting {step.graph.model}")
    variants, left_out = [], []
    for graph, names in _rewritten(drafted(step), kinds):
        variants.append(_variant(graph, names))
        if (over := search.over()) is not None:
            left_out.append(over.left_out("further rewrites"))
            break
    return variants, left_out


def _rewritten(step: Draft, kinds: Sequence[Kind] | None) -> Iterator[tuple[BlockGraph, list[str]]]:
    """Different rewritten steps: by all opportunities of these kinds, or (None) by those that may pay."""
    visited = {frozenset[str]()}
    for draft, names in _candidates(step) if kinds is None else [_everywhere(step, tuple(kinds))]:
        if frozenset(names) not in visited:
            visited.add(frozenset(names))
            yield draft.graph, names


def _candidates(step: Draft) -> Iterator[tuple[Draft, list[str]]]:
    """Rewrites that are exact and may pay: everywhere at once, and storing in part, the last blocks first."""
    free: tuple[Kind, ...] = ("share", "split")
    shared, common = _everywhere(step, ("share",))
    for kinds in (("split",), ("fuse", "split")):
        rewritten, names = _everywhere(shared, kinds)
        yield rewritten, [*common, *names]
    storable = [o.name for o in find(step, ["store"])]
    for share in STORED_SHARES if storable else ():
        stored = storable[: max(1, round(share * len(storable)))]
        rest, names = _everywhere(changed(step, stored), free)
        yield rest, [*stored, *names]


def _everywhere(step: Draft, kinds: tuple[Kind, ...]) -> tuple[Draft, list[str]]:
    assert set(kinds) <= set(REWRITES)
    rewritten, opportunities = all_changed(step, kinds)
    return rewritten, [o.name for o in opportunities]


def _variant(graph: BlockGraph, names: Sequence[str], tasks: tuple[str, ...] = ()) -> _Variant:
    sentences = [select.sentence(names)] if names else []
    graph = replace(graph, assumptions=(*graph.assumptions, *sentences))
    return _Variant(graph, (*tasks, *select.words_of(names)), tuple(names))


def _of_variant(
    variant: _Variant,
    device: Hardware,
    search: Search,
    limit: int,
    launch: str,
    progress: Progress,
    not_searched: list[str],
) -> list[Prediction]:
    """Schedules of a rewritten step, launched as the fastest schedule of the step as traced is."""
    progress(f"scheduling {variant.graph.model} with {', '.join(variant.choices)}")
    costed = cost(variant.graph, device, launch)
    plans = _planned(costed, search, ("sequential", search.scheduler or "heft"))
    if search.scheduler is None and len(variant.graph.tasks) <= MOST_TASKS_FRONT:
        plans += _pareto(costed, search, not_searched, POINTS_REWRITTEN)
    if search.memory_limit is not None:
        plans += _within(costed, search, limit)
    return [replace(p, choices=variant.choices) for p in _predictions(plans)]


def _finer(
    step: Traced | BlockGraph,
    base: Study,
    device: Hardware,
    candidates: Sequence[Prediction],
    limit: int,
    search: Search,
    progress: Progress,
    not_searched: list[str],
) -> Iterator[_Variant]:
    """The step in finer tasks, as traced and rewritten, where the user left their size open: while looking is quick,
    or while parallel lanes gain little in what was tried until then."""
    lanes = device.lanes if search.lanes is None else search.lanes
    fixed = search.scheduler is not None or search.orders is not None
    if isinstance(step, BlockGraph) or step.coarse is None or lanes < 2 or fixed:
        return
    for level in FINER_LEVELS[FINER_LEVELS.index(step.graph.granularity) + 1 :]:
        gain = _lanes_gain(candidates, limit)
        if level == "op" and (base.op_parallelism is None or base.op_parallelism < FINER_PAYS * gain):
            return
        if (over := search.over()) is not None:
            not_searched.append(over.left_out(f"tasks by {level}"))
            return
        tape = regrouped(step.coarse, level)
        tasks = len(tape.lines) if level == "op" else len({place(line.home) for line in tape.lines})
        if tasks > (MOST_TASKS_FINER if gain < LITTLE_GAIN else MOST_TASKS_ONE_WAY):
            not_searched.append(
                f"tasks by {level}, of which there are about {tasks} (--granularity {level} takes them)"
            )
            return
        progress(f"tasks by {level} of {step.graph.model}")
        one_way = gain >= LITTLE_GAIN and tasks > MOST_TASKS_QUICK
        yield from _in_tasks(step, tape, search, not_searched, one_way)


def _in_tasks(step: Traced, tape: Tape, search: Search, not_searched: list[str], one_way: bool) -> Iterator[_Variant]:
    """The step in the tasks of a tape, as traced and rewritten; `one_way`: with the first rewrites alone."""
    draft, words = Draft(step, tape), (f"tasks by {tape.granularity}",)
    yield _variant(graphs.attach(draft.graph, step.graph.spikes), (), words)
    kinds = select.parsed(search.choices)
    if kinds == () or (kinds is None and len(step.graph.ops) > MOST_OPS_REWRITES):
        return
    if one_way and kinds is None:
        not_searched.append(f"further rewrites of {words[0]} (--granularity {tape.granularity} tries them)")
    for graph, names in islice(_rewritten(draft, kinds), 1 if one_way else None):
        yield _variant(graph, names, words)
        if (over := search.over()) is not None:
            not_searched.append(over.left_out(f"further rewrites of {words[0]}"))
            return


def _lanes_gain(candidates: Sequence[Prediction], limit: int) -> float:
    """What parallel lanes give in the fastest way within the limit, or what they could give at most where that is
    less than would be little: what is shared, not the size of the tasks, sets it."""
    best = _fastest([p for p in candidates if p.peak_bytes <= limit] or candidates).schedule
    most = best.sequential_s / best.lower_bound_s if best.lower_bound_s > 0 else math.inf
    full = best.bound_by in SHARED and most < LITTLE_GAIN
    return math.inf if full else best.speedup


def _of_finer(
    variant: _Variant,
    device: Hardware,
    search: Search,
    limit: int,
    launch: str,
    candidates: Sequence[Prediction],
    not_searched: list[str],
) -> list[Prediction]:
    """Schedules of a step in finer tasks, none where a quick one for each answer beats no answer that is there."""
    costed = cost(variant.graph, device, launch)
    few = len(variant.graph.tasks) <= MOST_TASKS_FINER_FRONT
    with without_pairs():
        plans = _within(costed, search, limit)
        plans += _planned(costed, search, ("heft", "memory-min") if few else ("heft",))
        if not _better(_predictions(plans), candidates, limit):
            return []
        if few:
            plans += _pareto(costed, search, not_searched, POINTS_REWRITTEN)
    bounded = (replace(p, schedule=with_bound(p.schedule, lower_bound(p.costs))) for p in plans)
    return [replace(p, choices=variant.choices) for p in _predictions(bounded)]


def _better(predictions: Sequence[Prediction], candidates: Sequence[Prediction], limit: int) -> bool:
    """Whether one of them is clearly faster, faster within the limit, or smaller than all that was tried."""

    def answers(some: Sequence[Prediction]) -> tuple[float, float, float]:
        within = min((p.latency_s for p in some if p.peak_bytes <= limit), default=math.inf)
        return within, min(p.latency_s for p in some), min(p.peak_bytes for p in some)

    if not predictions:
        return False
    return any(new * FINER_BETTER < old for new, old in zip(answers(predictions), answers(candidates), strict=True))


def _decided(
    base: Study,
    hardware: Hardware,
    candidates: Sequence[Prediction],
    limit: int,
    search: Search,
    variants: Sequence[_Variant],
    not_searched: tuple[str, ...],
) -> Study:
    """The study with its front, its recommendations, and the recommended one among the predictions."""
    limited = search.memory_limit is not None
    recommendations = recommended(candidates, limit)
    if limited and not any(r.name == "within_memory" for r in recommendations):
        least = min(p.peak_bytes for p in candidates)
        raise Infeasible(
            f"{base.graph.model}, batch {base.graph.batch}, does not fit a memory limit of {units.size(limit)} on "
            f"{base.device.name}: the least that any schedule reached is {units.size(least)}: lower the batch or raise "
            "the limit"
        )
    prediction_by_name = {r.name: r.prediction for r in recommendations}
    # a scheduler that the user named is to be seen, not replaced
    chosen = base.chosen if search.scheduler is not None and not limited else prediction_by_name["within_memory"]
    if chosen.latency_s >= base.sequential.latency_s * (1 - TIE) and base.sequential.peak_bytes <= limit:
        chosen = base.sequential
    if search.scheduler is not None and search.choices != "none" and not limited:
        chosen = prediction_by_name["fastest"]
    predictions = [*base.predictions]
    for p in (*prediction_by_name.values(), chosen):
        if not any(p is q for q in predictions):
            predictions.append(p)
    graph_of = {v.choices: v.graph for v in variants}
    graph = graph_of.get(chosen.choices, base.graph)
    best = next(k for k, p in enumerate(predictions) if p is chosen)
    path = base.critical_path
    if chosen.choices:
        path = _critical_path(graph, hardware, chosen.launch or "eager", search.lanes)
    used = {p.choices for p in predictions if p.choices}
    return replace(
        base,
        predictions=tuple(predictions),
        best=best,
        critical_path=path,
        recommendations=recommendations,
        front=front(candidates),
        memory_limit_bytes=limit,
        limit_given=limited,
        variants={choices: g for choices, g in graph_of.items() if choices in used},
        rewrites={v.choices: v.names for v in variants if v.choices in used},
        not_searched=not_searched,
    )


def _critical_path(graph: BlockGraph, hardware: Hardware, launch: str, lanes: int | None) -> CriticalPath:
    """By the time of each task on the device."""
    problem = cost(graph, hardware, launch).problem(lanes)
    return graphs.critical_path(graph, [c.best_s for c in problem.tasks])


def recommended(candidates: Sequence[Prediction], limit: int) -> tuple[Recommendation, ...]:
    """The fastest, the fastest within `limit` bytes (where one keeps it), the one of least memory. Of those that are as
    fast the one of least memory is taken, of those the one that was tried first."""
    fitting = [p for p in candidates if p.peak_bytes <= limit]
    least = min(p.peak_bytes for p in candidates)
    chosen = [
        Recommendation("fastest", _fastest(candidates)),
        *([Recommendation("within_memory", _fastest(fitting))] if fitting else []),
        Recommendation("least_memory", _fastest([p for p in candidates if p.peak_bytes == least])),
    ]
    return tuple(chosen)


def _fastest(predictions: Sequence[Prediction]) -> Prediction:
    least_s = min(p.latency_s for p in predictions)
    return min((p for p in predictions if p.latency_s <= least_s * (1 + TIE)), key=lambda p: p.peak_bytes)


def front(candidates: Iterable[Prediction]) -> tuple[Prediction, ...]:
    """Those that none of the others beats in one of latency and memory without losing in the other, least memory
    first."""
    points: list[Prediction] = []
    for p in sorted(candidates, key=lambda p: (p.peak_bytes, p.latency_s)):
        if not points or p.latency_s < points[-1].latency_s * (1 - TIE):
            points.append(p)
    return tuple(points)
