"""The main job, end to end: target -> graph -> costs -> schedules -> predictions -> study."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pararev_hw import graph as graphs
from pararev_hw import limits
from pararev_hw.costmodels import CostedGraph, cost, launches
from pararev_hw.costmodels.allocator import workspace
from pararev_hw.costmodels.allocator.observed import with_observed_allocations
from pararev_hw.costmodels.expected_error import expected_error
from pararev_hw.costmodels.once import once
from pararev_hw.devices import bare_device as bare_device
from pararev_hw.devices import load_hardware, read_profile
from pararev_hw.errors import BadFile, BadInput, Infeasible
from pararev_hw.graph.order import lane_orders as lane_orders
from pararev_hw.graph.order import wait_pairs as wait_pairs
from pararev_hw.importers.free_memory import check_free_memory
from pararev_hw.prediction import StepStorages, step_storages
from pararev_hw.prediction import predict as predict_schedule
from pararev_hw.progress import Progress, Steps, silent
from pararev_hw.reports import units
from pararev_hw.schedulers import run as run_scheduler
from pararev_hw.schedulers import uses_memory
from pararev_hw.schedulers.document import bare_schedule_document, energy_document
from pararev_hw.schedulers.evaluate import evaluate_orders
from pararev_hw.sizes import counted
from pararev_hw.types import (
    BlockGraph,
    ChipRun,
    Device,
    ExpectedError,
    Hardware,
    Layer,
    ModelEnergy,
    Prediction,
    Profile,
    Recommendation,
    Schedule,
    SchedulingProblem,
    Study,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes

TIE = 1e-9  # latencies this close, relative, are the same: sums of the same times differ by less


@dataclass(frozen=True, slots=True, repr=False)
class Plan:
    """A schedule together with what it was made for."""

    graph: BlockGraph
    device: Device
    costs: SchedulingProblem
    schedule: Schedule
    op_seconds: tuple[float, ...]
    launch: str
    expected_error: ExpectedError | None = None
    chip: ChipRun | None = None  # of a neuromorphic chip: which layers are on which cores
    energy_model: ModelEnergy | None = None  # of the literature, where one was asked for

    def __repr__(self) -> str:
        return f"<Plan for {self.graph.model}, {self.launch}: {self.schedule!r}>"

    def _repr_html_(self) -> str:
        return self.schedule._repr_html_()

    def predict(self) -> Prediction:
        """What the plan costs when it is played.

        Returns:
            Latency, memory over time and energy, with what was assumed and what is not modelled.

        Raises:
            Infeasible: The device's memory does not hold it.

        Example:
            >>> import pararev_hw as ph
            >>> graph = ph.trace("pararevsnn21", width=0.1, batch=1)
            >>> 0 < ph.schedule(graph, "h200").predict().latency_s < 1
            True
        """
        return predict(self)

    def plot_timeline(self, ax: Axes | None = None) -> Axes:
        """Draw which task runs on which lane and when: see `Schedule.plot_timeline`."""
        return self.schedule.plot_timeline(ax)


def plan(
    graph: BlockGraph,
    device: Hardware,
    scheduler: str = "heft",
    *,
    lanes: int | None = None,
    launch: str | None = None,
    orders: Sequence[Sequence[int]] | None = None,
    memory_limit: int | None = None,
    options: Mapping[str, Any] | None = None,
) -> Plan:
    """A schedule of the graph on the device. `launch`: "eager" or "graph" on a GPU, None for eager.

    `memory_limit` in bytes, where it is less than the device has; `options` are the scheduler's own (`seconds=10`).
    Schedulers see the step's storages as buffers of its tasks (`costmodels.buffers`), which is never less than what is
    alive: a schedule that keeps the limit there keeps it. Raises Infeasible where none is found.

    `orders`: task indices per lane, decided elsewhere (see `lane_orders`), that are played instead of the scheduler's
    own, under its name.
    """
    how = "eager" if launch is None else launch
    requested_lanes = device.lanes if lanes is None and device.kind != "neuromorphic" else lanes or 1
    if requested_lanes > limits.LANES:
        raise BadInput(f"{requested_lanes} lanes: at most {limits.LANES}")
    if memory_limit is not None and memory_limit < 0:
        raise BadInput(f"a memory limit of {memory_limit} bytes: it must not be negative")
    return plan_costed(
        cost(graph, device, how, lanes),
        scheduler,
        lanes=lanes,
        orders=orders,
        memory_limit=memory_limit,
        options=options,
    )


def plan_costed(
    costed: CostedGraph,
    scheduler: str,
    *,
    lanes: int | None = None,
    orders: Sequence[Sequence[int]] | None = None,
    waits: Sequence[tuple[int, int]] = (),
    memory_limit: int | None = None,
    options: Mapping[str, Any] | None = None,
) -> Plan:
    """As `plan`, of a graph whose costs are there already; `waits` go with `orders`, as in `evaluate_orders`."""
    graph = costed.graph
    has_bytes, problem = costed.problem(lanes).memory_limit_bytes, costed.problem(lanes, limited=False)
    room = min((m for m in (has_bytes, memory_limit) if m is not None), default=None)
    # buffers take time to find: only where the limit may matter, or where memory is what is asked for
    if uses_memory(scheduler) or (room is not None and sum(s.bytes for s in graph.storages) > room):
        problem = costed.holding_problem(lanes, room)
    if orders is not None:
        # who decided these orders decided on their memory: whether it is there is for `predict` to say
        if problem.memory_limit_bytes is not None:
            problem = problem.limited_to(None)
        return _plan(costed, problem, evaluate_orders(problem, orders, scheduler, waits=waits))
    try:
        return _plan(costed, problem, run_scheduler(problem, scheduler, **(options or {})))
    except Infeasible:
        # buffers live for whole tasks, storages for parts of them: one task at a time may fit all the same
        problem = problem.limited_to(None)
        sequential = _plan(costed, problem, evaluate_orders(problem, None, scheduler))
        too_late = sequential.schedule.makespan_s > ((options or {}).get("latency_bound") or math.inf)
        if room is None or too_late or predict(sequential).peak_bytes > room:
            raise
        return sequential


def _plan(costed: CostedGraph, problem: SchedulingProblem, schedule: Schedule) -> Plan:
    error = expected_error(costed.graph, costed.hardware, costed.op_seconds)
    chip = None if costed.run is None else costed.run.summary
    return Plan(costed.graph, costed.device, problem, schedule, costed.op_seconds, costed.launch, error, chip)


def predict(plan: Plan) -> Prediction:
    """What the plan costs when it is played. Raises Infeasible where the device's memory does not hold it."""
    prediction = predict_schedule(
        plan.graph,
        plan.device,
        plan.costs,
        plan.schedule,
        plan.op_seconds,
        launch=plan.launch,
        storages_of=_storages_of,
    )
    limit = plan.costs.memory_limit_bytes
    have = min(plan.device.get("memory_bytes", float("inf")), float("inf") if limit is None else limit)
    if prediction.peak_bytes > have:
        raise Infeasible(_does_not_fit(plan, prediction, have))
    scheduled = replace(prediction.schedule, peak_bytes=prediction.peak_bytes)
    return replace(
        prediction, schedule=scheduled, eager_peak_bytes=_eager_peak_bytes(plan), expected_error=plan.expected_error
    )


def _storages_of(graph: BlockGraph, op_seconds: Sequence[float] | None) -> StepStorages:
    return once(step_storages, (graph, op_seconds))


def _eager_peak_bytes(plan: Plan) -> int | None:
    """What PyTorch's allocator will count where the plan is what PyTorch runs by itself."""
    kind = plan.device.kind
    if plan.schedule.scheduler != "sequential" or plan.launch != "eager" or kind not in ("cpu", "gpu"):
        return None
    return workspace.eager_peak_bytes(plan.graph, kind, workspace.rule_of(plan.device))


def _does_not_fit(plan: Plan, prediction: Prediction, have: float) -> str:
    total = prediction.memory.total
    peak = max(range(len(total)), key=lambda k: (total[k], -k))
    at = prediction.memory.times_s[peak]
    running = sorted(p.task for p in prediction.schedule.placements if p.start_s <= at <= p.end_s)
    largest = sorted(((b[peak], role) for role, b in prediction.memory.bytes.items()), reverse=True)[:2]
    parts = " and ".join(f"{units.size(count)} {role}" for count, role in largest)
    return (
        f"{plan.graph.model}, batch {plan.graph.batch}, does not fit {plan.device.name}: {prediction.scheduler} needs "
        f"{units.size(prediction.peak_bytes)} at its peak (while {', '.join(running[:2]) or 'nothing'} runs; {parts}), "
        f"there are {units.size(have)}: lower the batch, the width or the number of time steps"
    )


def study(
    graph: BlockGraph,
    device: Hardware,
    *,
    scheduler: str | None = None,
    lanes: int | None = None,
    launch: str | None = None,
    orders: Sequence[Sequence[int]] | None = None,
    waits: Sequence[tuple[int, int]] = (),
    progress: Progress = silent,
) -> Study:
    """One network on one device: the sequential step and the schedules that may beat it, the best one chosen.

    On a GPU schedules are tried under both ways to launch, unless `launch` names one. Ties go to the schedule that
    was tried first: sequential before parallel, eager before a CUDA graph. `orders` are played
    under the name of `scheduler`, as in `plan`, with the `waits` that keep their memory.
    """
    if device.kind == "neuromorphic":
        return _chip_study(graph, device, scheduler, lanes, launch, progress)
    _check_memory(graph, progress)
    predictions, costed = _tried(graph, device, scheduler, lanes, launch, orders, waits, progress)
    best = _best(predictions)
    of_best = costed[predictions[best].launch or "eager"]
    path = graphs.critical_path(graph, [c.best_s for c in of_best.problem(lanes).tasks])
    rows = layer_rows(graph, next(iter(costed.values())))
    by_op = graphs.op_parallelism(graph, of_best.op_seconds)
    return Study(graph, bare_device(device), predictions, best, path, layers=rows, op_parallelism=by_op)


def chosen(
    graph: BlockGraph,
    device: Hardware,
    scheduler: str,
    orders: Sequence[Sequence[int]],
    waits: Sequence[tuple[int, int]],
) -> Prediction:
    """What `study` chooses of the sequential step and these orders, without what it tells beside it. The device is no
    neuromorphic chip."""
    predictions, _ = _tried(graph, device, scheduler, None, None, orders, waits, silent)
    return predictions[_best(predictions)]


def _best(predictions: Sequence[Prediction]) -> int:
    """The first of those that are as fast as the fastest."""
    least = min(p.latency_s for p in predictions)
    return next(k for k, p in enumerate(predictions) if p.latency_s <= least * (1 + TIE))


def _tried(
    graph: BlockGraph,
    device: Hardware,
    scheduler: str | None,
    lanes: int | None,
    launch: str | None,
    orders: Sequence[Sequence[int]] | None,
    waits: Sequence[tuple[int, int]],
    progress: Progress,
) -> tuple[tuple[Prediction, ...], Mapping[str, CostedGraph]]:
    """What the schedules of a study give, the sequential one first, and what the graph costs under each launch. Raises
    Infeasible where not even the sequential one fits."""
    ways = launches(graph, device) if launch is None else (launch,)
    names = ("sequential", "asap", "heft") if scheduler is None else ("sequential", scheduler)
    predictions: list[Prediction] = []
    refused: Infeasible | None = None
    costed = {how: cost(graph, device, how) for how in ways}
    schedulers = tuple(dict.fromkeys(names))
    steps = Steps(progress, len(ways) * len(schedulers))
    for how in ways:
        for name in schedulers:
            steps.begin(f"scheduling {graph.model} on {device.name}: {name}")
            try:
                initial_orders = orders if name == scheduler else None
                planned = plan_costed(costed[how], name, lanes=lanes, orders=initial_orders, waits=waits)
                predictions.append(predict(planned))
            except Infeasible as error:
                refused = refused or error
    if not predictions or predictions[0].scheduler != "sequential":
        assert refused is not None
        raise refused
    return tuple(predictions), costed


def _check_memory(graph: BlockGraph, progress: Progress) -> None:
    """Tell what memory a study of many tasks needs. Raises Infeasible where there is not so much."""
    count = len(graph.tasks)
    if count >= limits.MANY_TASKS:
        clause = f"{graph.model}: a study of {count:,} tasks needs"
        advice = "coarser tasks (--granularity block) need less"
        check_free_memory(limits.STUDY_BYTES * count, clause, advice, progress)


def _chip_study(
    graph: BlockGraph,
    device: Hardware,
    scheduler: str | None,
    lanes: int | None,
    launch: str | None,
    progress: Progress,
) -> Study:
    """A network on a neuromorphic chip: its mapping decides who works when, so there is one way to run it."""
    progress(f"mapping {graph.model} to {device.name}")
    costed = cost(graph, device, launch or "eager", lanes)
    plan = plan_costed(costed, scheduler or "asap", lanes=lanes)
    prediction = predict(plan)
    path = graphs.critical_path(costed.graph, [c.best_s for c in plan.costs.tasks])
    recommended = tuple(Recommendation(name, prediction) for name in ("fastest", "within_memory", "least_memory"))
    return Study(
        graph,
        bare_device(device),
        (prediction,),
        0,
        path,
        recommendations=recommended,
        front=(prediction,),
        memory_limit_bytes=prediction.peak_bytes,
        variants={(): costed.graph},
        layers=layer_rows(graph, costed),
        chip=plan.chip,
    )


def layer_rows(graph: BlockGraph, costed: CostedGraph) -> tuple[Layer, ...]:
    """The layers of a traced step with what each takes on the device: each op alone on one lane, on a neuromorphic
    chip the neurons of the layer and what leads to them."""
    if costed.run is None:
        return graphs.layers(graph, costed.op_seconds, costed.op_joules)
    energy_j: dict[str, float] = {}
    for mapped in costed.run.summary.layers:
        joules = sum(mapped.energy_j.values()) * graph.batch
        for name in mapped.layers:  # a population that several layers lead to is shared out evenly
            module = name.partition(":")[0]
            energy_j[module] = energy_j.get(module, 0.0) + joules / len(mapped.layers)
    return tuple(replace(row, energy_j=energy_j.get(row.module)) for row in graphs.layers(graph))


def find_device(name: str, *, lanes: int = 1, cache: Path | None = None, progress: Progress = silent) -> Hardware:
    """A device by name or file, or the profile in a file.

    "cpu" is this machine with so many lanes, each a thread: measured in a few seconds, or read from the `cache` folder.
    Raises BadInput for more lanes than it has cores.
    """
    if name != "cpu":
        hardware = load_hardware(name)
        return applicable_profile(hardware) if isinstance(hardware, Profile) else hardware
    from pararev_hw.measurement import cache_name, quick_cpu_device, read_cached, write_cached
    from pararev_hw.measurement.environment import check_cores, cores

    check_cores(lanes, cores(), counted(lanes, "lane"))
    cached = None if cache is None else read_cached(cache / cache_name(lanes))
    if cached is not None:
        return cached
    progress("measuring this machine's CPU")
    device = with_observed_allocations(quick_cpu_device(lanes))
    if cache is not None:
        try:
            write_cached(cache / cache_name(lanes), device)
        except BadFile:
            return device  # an unwritable cache costs the next run a measurement, nothing else
    return device


def find_profile(path: str | Path) -> Profile:
    """The profile in that file. Raises BadFile."""
    return applicable_profile(read_profile(path))


def applicable_profile(profile: Profile) -> Profile:
    """The profile with fits that this release can apply: those of another are made anew from its samples."""
    from pararev_hw.costmodels.calibrated.fit import fitted_by_this_release  # loads scipy's optimizers

    return fitted_by_this_release(profile)


def error_document(error: ExpectedError | None) -> dict[str, float | None]:
    """Expected errors by what is predicted, as JSON-ready data."""
    return asdict(error or ExpectedError(None, None, None, None))


def schedule_document(plan: Plan, prediction: Prediction | None) -> dict[str, Any]:
    """What `schedule --json` prints."""
    schedule = plan.schedule if prediction is None else prediction.schedule
    document = {"model": plan.graph.model, "launch": plan.launch, **bare_schedule_document(schedule, plan.costs)}
    if prediction is not None:
        document |= {"energy_j": energy_document(prediction.energy_j), "standing": prediction.provenance}
        document["expected_error"] = error_document(prediction.expected_error)
    if plan.chip is not None:
        document["mapping"] = plan.chip.document()
    document["assumptions"] = [*plan.graph.assumptions, *document["assumptions"]]
    return document
