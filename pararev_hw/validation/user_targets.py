"""The user's own networks as validation cases: real steps beside predictions, and where the error comes from."""

from __future__ import annotations

import contextlib
import gc
import statistics
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import nn
from torch.profiler import ProfilerActivity, profile

from pararev_hw import execution, pipeline
from pararev_hw.costmodels import cost
from pararev_hw.costmodels.allocator.workspace import eager_peak_bytes, rule_of
from pararev_hw.costmodels.measured_ops import host_seconds
from pararev_hw.errors import BadInput, Infeasible, PararevError, first_line
from pararev_hw.execution.job import Batch, Job, copied_step, on_batches
from pararev_hw.execution.replay_timing import LONG_STEP_S
from pararev_hw.measurement import (
    MIN_STEPS,
    WARM_UP_STEPS,
    collector_at_rest,
    computing_threads,
    measure_step,
    step_clock,
)
from pararev_hw.measurement.environment import available_bytes, environment
from pararev_hw.measurement.pace import PACE, PaceLog, pace_s
from pararev_hw.progress import Progress, Steps, silent
from pararev_hw.reports import units
from pararev_hw.torch_private import buffers_of
from pararev_hw.trace_options import TraceOptions
from pararev_hw.tracing.model_state import state_preserved
from pararev_hw.types import (
    BlockGraph,
    Hardware,
    MeasuredDevice,
    OpError,
    Profile,
    StepCost,
    Validation,
    ValidationCase,
)
from pararev_hw.types.device import Device
from pararev_hw.types.graph import THE_NETWORK
from pararev_hw.validation.memory import peak_bytes
from pararev_hw.validation.predicting import as_it_was, flops_of
from pararev_hw.validation.stepping import RealStep, check_finite
from pararev_hw.validation.validation import Finished, summary

Measure = Callable[[BlockGraph, Hardware, float, Callable[[], None]], Hardware]
"""What times a graph's ops on the device, in about so many seconds; the last runs in turns with what it runs."""
_MOST_S, _LEAST_S = 8.0, 0.5  # of measuring one network's steps
_SLOWER, _FEWEST = 1.15, 3  # how much more slowly than its own speed a machine runs as usual; steps that tell a median
_WORST = 5
_MODULE_DEPTH = 2  # of the paths by which ops are summed


def validate_targets(
    targets: Sequence[str],
    hardware: Hardware,
    options: TraceOptions,
    *,
    measure: Measure | None = None,
    minutes: float | None = None,
    progress: Progress = silent,
    finished: Finished = lambda _: None,
) -> Validation:
    """Predictions for the targets on this machine's CPU beside their real steps; `measure` times their ops first.

    A network that raises gives a case that failed, one that memory does not hold is left out, and no case starts after
    `minutes`. Interrupted, what is done so far is the result. Raises BadInput for a device that is no CPU, and where no
    target can be run: Infeasible where memory is what every one of them lacks.
    """
    if hardware.kind != "cpu":
        raise BadInput(
            f"{hardware.name} is of kind {hardware.kind}: targets are validated on this machine's CPU: --device cpu"
        )
    if minutes is not None and not 0 < minutes < float("inf"):
        raise BadInput(f"minutes is {minutes:g}: it must be positive and finite")
    deadline = None if minutes is None else time.monotonic() + 60 * minutes
    cases: list[ValidationCase] = []
    refused: list[str] = []
    refusals: set[type[PararevError]] = set()
    waiting = list(targets)
    interrupted = False
    base = hardware.base if isinstance(hardware, MeasuredDevice) else hardware
    where = environment("cpu", 1)
    subject = base if isinstance(base, Profile) else MeasuredDevice(base, where, {}, {})

    def so_far(interrupted: bool) -> Validation:
        reason = "interrupted" if interrupted else "the time was over"
        rest = [f"{target}: {reason} before it was done" for target in waiting]
        return summary(subject, "targets", cases, [*refused, *rest], environment=where, interrupted=interrupted)

    steps = Steps(progress, len(waiting))
    try:
        while waiting and (deadline is None or time.monotonic() < deadline):
            steps.begin(waiting[0])
            limit_s = _limit_s(deadline, len(waiting))
            try:
                cases.append(_case(waiting[0], hardware, options, measure, limit_s))
            except PararevError as error:  # nothing was run: it cannot be traced, or the memory does not hold it
                refused.append(f"{waiting.pop(0)}: {error}")
                refusals.add(Infeasible if isinstance(error, Infeasible) else BadInput)
                continue
            waiting.pop(0)
            finished(so_far(interrupted=True))
    except KeyboardInterrupt:
        interrupted = True
    if refused and not (cases or waiting or interrupted):
        raise (Infeasible if refusals == {Infeasible} else BadInput)("; ".join(refused))
    return so_far(interrupted)


def _limit_s(deadline: float | None, waiting: int) -> float:
    if deadline is None:
        return _MOST_S
    return max(_LEAST_S, min(_MOST_S, (deadline - time.monotonic()) / (4 * waiting)))


def _case(
    target: str, hardware: Hardware, options: TraceOptions, measure: Measure | None, limit_s: float
) -> ValidationCase:
    job = execution.prepare(target, options)
    graph = job.graph
    _check_room(graph, hardware)
    at = hardware
    steps = _RealSteps(job)
    if measure is not None:
        at = measure(graph, hardware, limit_s, steps.take_one)
    slowness: float | None = None
    mapped_in_bytes: int | None = None
    if isinstance(at, Profile):
        steps.take(limit_s, at.host[PACE].value if PACE in at.host else None)
        mapped_in_bytes = steps.faulted_bytes
        at, slowness = as_it_was(at, steps.paces_s, mapped_in_bytes)
    prediction = pipeline.predict(pipeline.plan(graph, at, "sequential", lanes=1))
    peak = prediction.peak_bytes if prediction.eager_peak_bytes is None else prediction.eager_peak_bytes
    quick = None if isinstance(hardware, Device) and at is hardware else _quick_look_s(graph, hardware)
    case = ValidationCase(
        name=f"{target} {options.mode}, batch {graph.batch}, {graph.arithmetic}",
        network=graph.model,
        held_out="network",
        mode=options.mode,
        launch="eager",
        dtype=graph.arithmetic,
        batch=graph.batch,
        timesteps=graph.timesteps or 1,
        width=1.0 if options.width is None else options.width,
        flops=flops_of(graph),
        predicted=StepCost(prediction.latency_s, peak),
        measured=None,
        baselines={} if quick is None else {"roofline": quick},
        failed="it was not run",
        expected_error=None if prediction.expected_error is None else prediction.expected_error.latency,
        slowness=slowness,
        mapped_in_bytes=mapped_in_bytes,
    )
    try:
        measured, calls_s = steps.measured(limit_s)
    except Infeasible:
        raise
    except Exception as error:
        # whatever a network raises while it really runs is this case's result, and no other's
        return replace(case, failed=first_line(error, 200) or type(error).__name__)
    predicted_s = np.array(cost(graph, at).op_seconds)
    beside_s = host_seconds(graph, at.host) if isinstance(at, MeasuredDevice) else np.zeros(len(predicted_s))
    parts = breakdown(graph, (predicted_s - beside_s).tolist(), calls_s, measured.latency_s, float(beside_s.sum()))
    return replace(
        case,
        measured=measured,
        samples_s=tuple(steps.seconds),
        failed=None,
        by_kind=parts.by_kind,
        worst_ops=parts.worst_ops,
        by_module=parts.by_module,
    )


def _quick_look_s(graph: BlockGraph, hardware: Hardware) -> float:
    device = hardware if isinstance(hardware, Device) else hardware.device
    return pipeline.predict(pipeline.plan(graph, device, "sequential", lanes=1)).latency_s


def _check_room(graph: BlockGraph, hardware: Hardware) -> None:
    need, have = eager_peak_bytes(graph, "cpu", rule_of(hardware)), available_bytes()
    if have is not None and need > have:
        raise Infeasible(f"{graph.model} needs {units.size(need)} of memory, {units.size(have)} are free")


class _RealSteps:
    """A job's real steps on one thread, as they are taken; `seconds` of each."""

    def __init__(self, job: Job) -> None:
        self._job = job
        self._step: RealStep | None = None
        self._raises = False
        self.seconds: list[float] = []
        self.paces_s: list[float] = []
        self.faulted_bytes: int | None = None  # mapped in by each step that `take` timed

    def take_one(self) -> None:
        """Times one more step, in turns with what else is measured; right after another one, as in a loop. A step that
        raises is not taken again: `measured` tells of it."""
        if self._raises:
            return
        with self._any_failure():
            run = self._warm().run
            if self.seconds and self.seconds[-1] < LONG_STEP_S:
                run()
            _, busy_s = step_clock("cpu")(run, 1)
            self.seconds.append(busy_s)

    def take(self, limit_s: float, own_pace_s: float | None) -> None:
        """Times steps for about `limit_s`, and for as long again where the machine runs notably more slowly than at
        `own_pace_s`: it may come back to its own speed, at which a prediction says most."""
        with self._any_failure(), computing_threads(1):
            clock = PaceLog(step_clock("cpu"))
            run = self._warm().run
            timing = measure_step(run, clock, limit_s=limit_s)
            self.seconds, self.faulted_bytes = [*timing.seconds], timing.faulted_bytes
            self.paces_s = clock.paces_s
            if own_pace_s is not None and statistics.median(self.paces_s) > _SLOWER * own_pace_s:
                self._take_at(_SLOWER * own_pace_s, run, limit_s)

    def _take_at(self, pace_limit_s: float, run: Callable[[], object], limit_s: float) -> None:
        """Times more steps until enough ran within that pace, and keeps those at the best paces if that is better."""
        until = time.perf_counter() + limit_s
        steps: list[tuple[float, float]] = []
        before = pace_s()
        with collector_at_rest():
            while time.perf_counter() < until and sum(p <= pace_limit_s for p, _ in steps) < MIN_STEPS:
                _, busy_s = step_clock("cpu")(run, 1)
                after = pace_s()
                steps.append(((before + after) / 2, busy_s))
                before = after
        best = sorted(steps)[:MIN_STEPS]
        if len(best) >= _FEWEST and statistics.median(p for p, _ in best) < statistics.median(self.paces_s):
            self.paces_s, self.seconds = [p for p, _ in best], [s for _, s in best]

    @contextlib.contextmanager
    def _any_failure(self) -> Iterator[None]:
        try:
            yield
        except Infeasible:
            raise
        except Exception:
            # a network may raise anything
            self._raises = True

    def measured(self, limit_s: float) -> tuple[StepCost, Mapping[str, Sequence[float]]]:
        """Median time and peak memory, and seconds of each call in one profiled step. Times steps for about `limit_s`
        unless enough were taken in turns."""
        with computing_threads(1):
            step = self._warm()
            peak = peak_bytes(step, "cpu")
            if len(self.seconds) < MIN_STEPS:
                timing = measure_step(step.run, step_clock("cpu"), limit_s=limit_s)
                self.seconds = [*timing.seconds]
            calls_s = _profiled(step, {t.name for t in self._job.graph.op_types})
        gc.collect()
        return StepCost(statistics.median(self.seconds), peak), calls_s

    def _warm(self) -> RealStep:
        if self._step is None:
            step = _real_step(self._job, next(execution.batches(self._job)))
            check_finite(step.run(), 1)
            for _ in range(WARM_UP_STEPS - 1):
                step.run()
            self._step = step
        return self._step


def _real_step(job: Job, batch: Batch) -> RealStep:
    step = copied_step(job)
    model, loop = step.model, on_batches(job, step)
    before = _attributes(model)
    with state_preserved(model, values=False):
        loop(batch)
        stateful = _attributes(model) != before  # only then a step must not begin where the last one ended

    def run() -> torch.Tensor:
        with state_preserved(model, values=False) if stateful else contextlib.nullcontext():
            return loop(batch)

    def forget() -> None:
        for p in model.parameters():
            p.grad = None

    def persistent() -> list[torch.Tensor]:
        return [*model.parameters(), *model.buffers(), *step.optimizer_state(), *batch.values()]

    return RealStep(run, forget, persistent)


def _attributes(model: nn.Module) -> list[tuple[str, int, int]]:
    """What each attribute and buffer of the modules is, and how much a container of them holds."""
    return [
        (name, id(value), len(value) if isinstance(value, list | dict | set) else 0)
        for module in model.modules()
        for name, value in (*module.__dict__.items(), *buffers_of(module).items())
    ]


def _profiled(step: RealStep, names: set[str]) -> Mapping[str, Sequence[float]]:
    """Seconds of each outermost call of an op that the trace has, in one step, by op name in the order of the calls."""
    with collector_at_rest(), profile(activities=[ProfilerActivity.CPU], acc_events=True) as profiled:
        step.run()
    of_event = {"::".join(name.split(".")[:2]): name for name in sorted(names)}
    events = [
        (e.start_ns(), e.start_ns() + e.duration_ns(), of_event[e.name()])
        for e in profiled.profiler.kineto_results.events()
        if e.name() in of_event
    ]
    seconds: dict[str, list[float]] = defaultdict(list)
    end = 0
    for begin, over, name in sorted(events, key=lambda e: (e[0], -e[1])):
        if begin >= end:  # not inside another one
            seconds[name].append((over - begin) / 1e9)
            end = over
    return seconds


@dataclass(frozen=True, slots=True)
class Breakdown:
    """Predicted beside measured seconds by kind of op and by module, and the ops whose times differ most."""

    by_kind: tuple[OpError, ...]
    by_module: tuple[OpError, ...]
    worst_ops: tuple[OpError, ...]


def breakdown(
    graph: BlockGraph,
    predicted_s: Sequence[float],
    calls_s: Mapping[str, Sequence[float]],
    step_s: float,
    beside_s: float = 0.0,
) -> Breakdown:
    """Where the difference lies, of predicted seconds per op and seconds of measured calls by op name.

    `beside_s` are predicted seconds of Python and autograd beside the ops, where a prediction tells them from the ops:
    their measured side is what the calls leave of the step.

    Names stand for all overloads of an op. The profiler slows small ops: its times are scaled to the step's. The n-th
    call of a name is the n-th op of that name in the trace; where their numbers differ, the ops share what was measured
    as they share what was predicted.
    """
    predicted_s = [_resolved(seconds, step_s) for seconds in predicted_s]
    short = [".".join(graph.op_types[op.type].name.split(".")[:2]) for op in graph.ops]
    calls: dict[str, list[float]] = defaultdict(list)
    for name, seconds in calls_s.items():
        calls[".".join(name.split(".")[:2])] += seconds
    total = sum(sum(seconds) for seconds in calls.values())
    scale = min(1.0, step_s / total) if total > 0 else 1.0
    ops_of: dict[str, list[int]] = defaultdict(list)
    for k, name in enumerate(short):
        ops_of[name].append(k)
    measured_s = [0.0] * len(short)
    for name, ops in ops_of.items():
        whole, weight = scale * sum(calls[name]), sum(predicted_s[k] for k in ops)
        for n, k in enumerate(ops):
            if len(calls[name]) == len(ops):
                measured_s[k] = scale * calls[name][n]
            else:
                measured_s[k] = whole * predicted_s[k] / weight if weight > 0 else whole / len(ops)
    kinds = [graph.op_types[op.type].kind.replace("neuron", "elementwise") for op in graph.ops]
    modules = [".".join(op.module.split(".")[:_MODULE_DEPTH]) or THE_NETWORK for op in graph.ops]
    by_kind = _summed(kinds, predicted_s, measured_s)
    if beside_s > 0:
        rest = OpError("Python and autograd", beside_s, max(0.0, _resolved(step_s - sum(measured_s), step_s)))
        by_kind = tuple(sorted((*by_kind, rest), key=_size))
    by_op = _summed(short, predicted_s, measured_s)
    worst = sorted(by_op, key=lambda e: (-abs(e.predicted_s - e.measured_s), e.name))[:_WORST]
    return Breakdown(by_kind, _summed(modules, predicted_s, measured_s), tuple(worst))


def _resolved(seconds: float, step_s: float) -> float:
    """A difference of two times in a step, 0 where it is their rounding."""
    return seconds if abs(seconds) > 1e-9 * step_s else 0.0


def _summed(names: Sequence[str], predicted_s: Sequence[float], measured_s: Sequence[float]) -> tuple[OpError, ...]:
    """Sums by name, the largest first."""
    sums: dict[str, list[float]] = {}
    for name, p, m in zip(names, predicted_s, measured_s, strict=True):
        pair = sums.setdefault(name, [0.0, 0.0])
        pair[0] += p
        pair[1] += m
    return tuple(sorted((OpError(name, p, m) for name, (p, m) in sums.items()), key=_size))


def _size(e: OpError) -> float:
    """Sorts the largest first."""
    return -max(e.predicted_s, e.measured_s)
