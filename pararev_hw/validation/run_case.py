"""One trial after another: predicted, run for real, and whatever goes wrong with one leaves the others alone."""

from __future__ import annotations

import gc
from collections.abc import Callable
from dataclasses import dataclass

import torch

from pararev_hw import models, pipeline
from pararev_hw.errors import Infeasible, first_line
from pararev_hw.importers.targets import resolve
from pararev_hw.measurement import computing_threads, measure_step, step_clock
from pararev_hw.measurement.energy import Counter, energy_j
from pararev_hw.measurement.environment import available_bytes
from pararev_hw.measurement.pace import PaceLog
from pararev_hw.reports import units
from pararev_hw.trace_options import TraceOptions
from pararev_hw.types import BlockGraph, Profile, StepCost, ValidationCase
from pararev_hw.validation.memory import cuda_bytes_before, peak_bytes
from pararev_hw.validation.predicting import as_it_was, baselines, flops_of, optimizer_of, predicted, traced
from pararev_hw.validation.stepping import check_finite, real_step, replayed
from pararev_hw.validation.suite import HeldOut, Trial

_MIN_STEPS = 11


@dataclass(frozen=True, slots=True)
class MeasuredTrial:
    """Median time, peak memory and energy of a trial's step; the time of every step; what a fixed piece of Python took
    before each, which tells how fast the machine was; and the memory that each has mapped in, None on a GPU."""

    cost: StepCost
    seconds: tuple[float, ...] = ()
    paces_s: tuple[float, ...] = ()
    faulted_bytes: int | None = None


Run = Callable[[Trial, BlockGraph], MeasuredTrial]


def case(trial: Trial, held_out: HeldOut, profile: Profile, run: Run) -> ValidationCase:
    """The trial predicted and measured by `run`; a network that raises, gives NaN or outgrows the memory gives a case
    that failed. Raises Infeasible where the prediction says that the memory does not hold it: then it is not tried.
    """
    graph = traced(trial, profile.kind)
    ahead = predicted(graph, profile, trial.launch)
    _check_room(ahead.peak_bytes, profile)
    measured: MeasuredTrial | None = None
    failed: str | None = None
    try:
        measured = run(trial, graph)
    except Exception as error:
        # whatever a network raises while it really runs is this case's result, and no other's
        failed = _reason(error)
    at, slowness = (profile, None) if measured is None else as_it_was(profile, measured.paces_s, measured.faulted_bytes)
    expected = pipeline.plan(graph, at, "sequential", launch=trial.launch).expected_error
    return ValidationCase(
        name=trial.name,
        network=trial.network,
        held_out=held_out,
        mode=trial.mode,
        launch=trial.launch,
        dtype=trial.dtype,
        batch=trial.batch,
        timesteps=trial.timesteps or 1,
        width=trial.width,
        flops=flops_of(graph),
        predicted=ahead if at is profile else predicted(graph, at, trial.launch),
        measured=None if measured is None else measured.cost,
        baselines=baselines(graph, profile, trial.launch),
        samples_s=() if measured is None else measured.seconds,
        failed=failed,
        expected_error=None if expected is None else expected.latency,
        slowness=slowness,
        mapped_in_bytes=None if measured is None else measured.faulted_bytes,
    )


def runner(profile: Profile, device: str, limit_s: float, counter: Counter | None, seed: int = 0) -> Run:
    """What really runs a trial on that torch device, for about `limit_s` seconds each."""

    def run(trial: Trial, graph: BlockGraph) -> MeasuredTrial:
        with computing_threads(profile.environment.threads):
            try:
                return measure_trial(trial, device, limit_s, counter, profile.environment.threads, seed)
            finally:
                gc.collect()
                if device == "cuda":
                    torch.cuda.empty_cache()

    return run


def measure_trial(
    trial: Trial, device: str, limit_s: float, counter: Counter | None, threads: int, seed: int
) -> MeasuredTrial:
    """The trial's step, run for about `limit_s`. Raises what it raises."""
    before = cuda_bytes_before() if device == "cuda" else 0
    options = TraceOptions(batch=trial.batch, timesteps=trial.timesteps, width=trial.width, seed=seed)
    target = resolve(trial.network, options)
    step = real_step(
        target.realise(),
        target.inputs,
        mode=trial.mode,
        dtype=trial.dtype,
        optimizer=optimizer_of("gpu" if device == "cuda" else "cpu"),
        device=device,
        samples=trial.batch,
        classes=models.spec(trial.network).classes if trial.classes is None else trial.classes,
    )
    check_finite(step.run(), 1)  # at once: what has diverged need not be timed
    step.run()  # the optimizer's state and the libraries' plans exist from here on
    peak = peak_bytes(step, device, before)
    timed = replayed(step) if trial.launch == "graph" else step
    clock = PaceLog(step_clock(device, threads)) if device == "cpu" else step_clock(device, threads)
    timing = measure_step(timed.run, clock, limit_s=limit_s, min_steps=_MIN_STEPS)
    joules = None if counter is None else energy_j(timed.run, timing.median_s, counter)
    check_finite(timed.run(), len(timing.seconds) + 3)
    paces_s = tuple(clock.paces_s) if isinstance(clock, PaceLog) else ()
    faulted_bytes = timing.faulted_bytes if device == "cpu" else None
    return MeasuredTrial(StepCost(timing.median_s, peak, joules), timing.seconds, paces_s, faulted_bytes)


def _check_room(peak: int, profile: Profile) -> None:
    """A CPU's process that asks for more than there is gets killed, and takes the other cases with it."""
    have = available_bytes() if profile.kind == "cpu" else None
    if have is not None and peak > have:
        raise Infeasible(f"it needs {units.size(peak)} of memory, {units.size(have)} are free")


def _reason(error: Exception) -> str:
    first = first_line(error, 200)
    return f"{type(error).__name__}: {first}" if first else type(error).__name__
