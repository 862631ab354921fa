"""A schedule run for real, and what was measured beside what was predicted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from pararev_hw import pipeline, schedulers
from pararev_hw.costmodels.calibrated.intra_op_threads import intra_op_seconds
from pararev_hw.errors import BadInput, Infeasible
from pararev_hw.execution.contention import shared_costs, sharing_of_calls, threaded_seconds
from pararev_hw.execution.harness import Rounds, Spread, interleave
from pararev_hw.execution.job import Job, batches
from pararev_hw.execution.overlap import side_by_side
from pararev_hw.execution.profiled import profiled_overlap
from pararev_hw.execution.runners import LaneRunner, LoopRunner, Runner, difference, peak_bytes
from pararev_hw.graph.order import lane_orders
from pararev_hw.measurement.environment import available_bytes, cores
from pararev_hw.progress import Progress, silent
from pararev_hw.reports import units
from pararev_hw.schedulers.evaluate import evaluate_orders
from pararev_hw.tracing import Traced
from pararev_hw.types import Hardware, Prediction, Schedule, SchedulingProblem
from pararev_hw.types.base import html_table, milliseconds

SEQUENTIAL, PARALLEL, THREADS, LOOP = "sequential", "parallel", "threads", "loop"


@dataclass(frozen=True, slots=True)
class Choice:
    """Which way to run the step is the fastest on a CPU: one lane, several of one thread each, or one lane with as many
    threads inside every operation. Names are those of the runners."""

    predicted: str
    measured: str
    right: bool  # the predicted one was the fastest, or so close that the rounds do not tell them apart
    predicted_s: Mapping[str, float]
    slower: Mapping[str, Spread]  # seconds of each over seconds of the predicted one, round by round

    @property
    def threads_over_lanes(self) -> float:
        """Predicted seconds with threads inside operations over predicted seconds on lanes."""
        return self.predicted_s[THREADS] / self.predicted_s[PARALLEL]


@dataclass(frozen=True, slots=True, repr=False)
class Execution:
    """A schedule that ran for real. Seconds per step, bytes at the peak."""

    job: Job
    hardware: Hardware
    sequential: Prediction
    parallel: Prediction
    threads_s: float | None  # predicted, all threads inside operations; None where that is no choice
    rounds: Rounds
    peak_bytes: Mapping[str, int]  # measured, by runner
    difference: float  # largest, between parameters and buffers of the sequential and the parallel run
    loop_difference: float
    profiled_overlap: float | None = None  # from the profiler's trace, where one was asked for

    def __repr__(self) -> str:
        measured = milliseconds(self.rounds.latency(PARALLEL).median)
        return (
            f"<Execution of {self.job.graph.model} by {self.parallel.scheduler} on {self.hardware.name}: "
            f"{measured}, predicted {milliseconds(self.parallel.latency_s)}>"
        )

    def _repr_html_(self) -> str:
        predicted = {SEQUENTIAL: self.sequential.latency_s, PARALLEL: self.parallel.latency_s, THREADS: self.threads_s}
        rows = []
        for name in self.rounds.runs:
            latency, expected_s = self.rounds.latency(name), predicted.get(name)
            text = f"{milliseconds(latency.median)} ({milliseconds(latency.low)} to {milliseconds(latency.high)})"
            rows.append((name, text if expected_s is None else f"{text}, predicted {milliseconds(expected_s)}"))
        title = f"{self.job.graph.model} by {self.parallel.scheduler} on {self.hardware.name}, measured"
        return html_table(title, *rows)

    @property
    def choice(self) -> Choice | None:
        """What was chosen beforehand, and what would have been right."""
        if self.threads_s is None or THREADS not in self.rounds.runs:
            return None
        predicted_s = {
            SEQUENTIAL: self.sequential.latency_s,
            PARALLEL: self.parallel.latency_s,
            THREADS: self.threads_s,
        }
        best = min(predicted_s, key=predicted_s.__getitem__)
        slower = {name: self.rounds.ratio(name, best) for name in predicted_s}
        fastest = min(predicted_s, key=lambda name: slower[name].median)
        return Choice(best, fastest, slower[fastest].high >= 1.0, predicted_s, slower)


def execute(
    job: Job,
    hardware: Hardware,
    scheduler: str = "heft",
    *,
    reworked: Traced | None = None,
    lanes: int = 2,
    orders: Sequence[Sequence[int]] | None = None,
    launch: Literal["eager", "graph"] | None = None,
    steps: int = 10,
    warm_up: int = 2,
    trace: Path | None = None,
    progress: Progress = silent,
) -> Execution:
    """Run the job's step for `steps` training steps: on one lane, on the scheduler's lanes, with as many threads inside
    operations as there are lanes, and as PyTorch's own loop, in turns, on one network each.

    `reworked` is the step that the lanes run, where choices were taken: the others run the step as it was traced.
    `orders` are task indices per lane that were decided elsewhere, for the scheduler's own (see `pipeline.plan`).
    `launch` is how a GPU is given its work (None: eagerly), on all lanes alike. With `trace`, one more step of the
    lanes runs under torch's profiler, whose trace goes into that file.

    Raises Infeasible where the memory does not hold it, StepFailed where the network raises.
    """
    if steps < 1:
        raise BadInput(f"steps is {steps}: at least 1 is needed")
    if hardware.kind != {"cuda": "gpu"}.get(job.device, job.device):
        raise BadInput(
            f"{hardware.name} is of kind {hardware.kind}, the step runs on {job.device}: name a device like it"
        )
    how: Literal["eager", "graph"] = launch or "eager"
    if job.device == "cpu" and how == "graph":
        raise BadInput("launch 'graph' needs a GPU: leave it out")
    work = job if reworked is None else replace(job, traced=reworked)
    progress(f"scheduling {job.graph.model}")
    one = pipeline.plan(job.graph, hardware, "sequential", lanes=1, launch=how)
    many = pipeline.plan(work.graph, hardware, scheduler, lanes=lanes, launch=how, orders=orders)
    sequential, parallel = pipeline.predict(one), pipeline.predict(many)
    _check_room(job, sequential, parallel)
    threads_s = None
    if lanes > 1 and job.device == "cpu":
        sharing = sharing_of_calls(job, one.op_seconds, lanes, next(batches(job)), progress)
        wide = intra_op_seconds(job.graph, many.device, lanes, one.op_seconds)
        threads_s = threaded_seconds(job, one.op_seconds, wide, sharing)
        if reworked is not None:
            sharing = sharing_of_calls(work, many.op_seconds, lanes, next(batches(job)), progress)
        many = _replanned(many, shared_costs(work, many.costs, many.op_seconds, sharing, lanes), orders)
        parallel = pipeline.predict(many)
    played = {SEQUENTIAL: lane_orders(job.graph, one.schedule), PARALLEL: lane_orders(work.graph, many.schedule)}
    jobs = {SEQUENTIAL: job, PARALLEL: work}
    with ExitStack() as stack:
        runners: dict[str, Runner] = {
            name: stack.enter_context(LaneRunner(jobs[name], orders, launch=how)) for name, orders in played.items()
        }
        if threads_s is not None:
            runners[THREADS] = stack.enter_context(LaneRunner(job, played[SEQUENTIAL], intra_op=lanes))
        runners[LOOP] = stack.enter_context(LoopRunner(job))
        rounds = interleave(runners, batches(job), steps, warm_up=warm_up, progress=progress)
        apart = difference(runners[SEQUENTIAL], runners[PARALLEL])
        loop_apart = difference(runners[SEQUENTIAL], runners[LOOP])
        overlap = None
        if trace is not None:
            batch = next(batches(job))
            on_gpu = job.device == "cuda"
            overlap = profiled_overlap(lambda: runners[PARALLEL].step(batch), trace, on_gpu=on_gpu)
    progress("counting live bytes")
    batch = next(batches(job))
    peaks = {name: peak_bytes(jobs[name], orders, batch) for name, orders in played.items()}
    return Execution(work, hardware, sequential, parallel, threads_s, rounds, peaks, apart, loop_apart, overlap)


def _replanned(plan: pipeline.Plan, costs: SchedulingProblem, orders: Sequence[Sequence[int]] | None) -> pipeline.Plan:
    """The same scheduler's answer, or the same orders, with costs that are known better."""
    name = plan.schedule.scheduler
    again = schedulers.run(costs, name) if orders is None else evaluate_orders(costs, orders, name)
    return replace(plan, costs=costs, schedule=again)


def predicted_overlap(schedule: Schedule) -> float:
    """Share of the makespan during which at least two lanes are busy."""
    lanes = [[(p.start_s, p.end_s) for p in schedule.placements if p.lane == k] for k in range(schedule.lanes)]
    return side_by_side(lanes)[1] / schedule.makespan_s if schedule.makespan_s > 0 else 0.0


def _check_room(job: Job, *predictions: Prediction) -> None:
    """A process that asks for more memory than there is gets killed: refuse beforehand."""
    need, have = max(p.peak_bytes for p in predictions), available_bytes() if job.device == "cpu" else None
    if have is not None and need > have:
        raise Infeasible(
            f"the step needs {units.size(need)} of memory at its peak, {units.size(have)} are free on this machine: "
            "lower the batch, the width or the number of time steps"
        )


def document(execution: Execution) -> dict[str, Any]:
    """What `execute --json` prints."""
    graph, schedule = execution.job.graph, execution.parallel.schedule
    choice = execution.choice
    return {
        "schema_version": schedule.schema_version,
        "model": graph.model,
        "mode": graph.mode,
        "batch": graph.batch,
        "timesteps": graph.timesteps,
        "dtype": graph.arithmetic,
        "optimizer": execution.job.optimizer if graph.mode == "train" else None,
        "device": execution.hardware.name,
        "standing": execution.parallel.provenance,
        "runs_on": execution.job.device,
        "cores": cores(),
        "scheduler": schedule.scheduler,
        "lanes": schedule.lanes,
        "launch": execution.parallel.launch,
        "tasks": len(graph.tasks),
        "ops": len(graph.ops),
        "steps": len(execution.rounds.runs[PARALLEL]),
        "predicted": {
            "sequential_s": execution.sequential.latency_s,
            "parallel_s": execution.parallel.latency_s,
            "threads_s": execution.threads_s,
            "speedup": execution.sequential.latency_s / execution.parallel.latency_s
            if execution.parallel.latency_s > 0
            else 1.0,
            "overlap": predicted_overlap(schedule),
            "expected_error": None if (error := execution.parallel.expected_error) is None else error.latency,
            "peak_bytes": {SEQUENTIAL: execution.sequential.peak_bytes, PARALLEL: execution.parallel.peak_bytes},
        },
        "measured": {
            **{f"{name}_s": _spread(execution.rounds.latency(name)) for name in execution.rounds.runs},
            "samples_s": {name: [r.latency_s for r in runs] for name, runs in execution.rounds.runs.items()},
            "speedup": _spread(execution.rounds.ratio(SEQUENTIAL, PARALLEL)),
            "speedup_over_threads": None if choice is None else _spread(execution.rounds.ratio(THREADS, PARALLEL)),
            "speedup_over_loop": _spread(execution.rounds.ratio(LOOP, PARALLEL)),
            "sequential_over_loop": _spread(execution.rounds.ratio(LOOP, SEQUENTIAL)),
            "overlap": None if (overlap := execution.rounds.overlap(PARALLEL)) is None else _spread(overlap),
            "profiled_overlap": execution.profiled_overlap,
            "peak_bytes": dict(execution.peak_bytes),
        },
        "choice": None if choice is None else _choice_document(choice, execution.rounds),
        "difference": execution.difference,
        "difference_from_loop": execution.loop_difference,
        "losses": [x if x == x and abs(x) != float("inf") else None for x in execution.rounds.losses],
        "assumptions": list(execution.parallel.assumptions),
        "not_modelled": list(execution.parallel.not_modelled),
    }


def _choice_document(choice: Choice, rounds: Rounds) -> dict[str, Any]:
    return {
        "predicted": choice.predicted,
        "measured": choice.measured,
        "right": choice.right,
        "predicted_ratio": choice.threads_over_lanes,
        "measured_ratio": _spread(rounds.ratio(THREADS, PARALLEL)),
        "alternatives": {
            name: {
                "predicted_s": predicted_s,
                "measured_s": rounds.latency(name).median,
                "slower_than_predicted_best": _spread(choice.slower[name]),
            }
            for name, predicted_s in choice.predicted_s.items()
        },
    }


def _spread(s: Spread) -> dict[str, float]:
    return {"median": s.median, "low": s.low, "high": s.high}
