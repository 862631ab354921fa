"""What is said of a step before it runs: the profile's prediction, and two simpler ones on the same trace.

roofline   the figures of the profile's device, nothing fitted
flops      flops x one constant, the median of seconds / flops over the whole steps that the calibration measured
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence

from pararev_hw import pipeline, target_graph
from pararev_hw.costmodels.allocator.workspace import eager_peak_bytes, rule_of
from pararev_hw.costmodels.calibrated.pace_response import slowed
from pararev_hw.costmodels.calibrated.page_faults import mapping
from pararev_hw.defaults import default_optimizer
from pararev_hw.measurement.pace import PACE
from pararev_hw.trace_options import TraceOptions
from pararev_hw.types import BlockGraph, Hardware, Prediction, Profile, StepCost
from pararev_hw.validation.statistics import fitted_constant
from pararev_hw.validation.suite import Trial

ROOFLINE, FLOPS = "roofline", "flops x constant"


def optimizer_of(kind: str) -> str:
    """SGD with momentum; one kernel for all parameters on a GPU, as PyTorch does."""
    return default_optimizer(kind)


def traced(trial: Trial, kind: str) -> BlockGraph:
    """The step of a trial, traced."""
    return target_graph.build_graph(
        trial.network,
        TraceOptions(
            batch=trial.batch,
            timesteps=trial.timesteps,
            mode=trial.mode,
            dtype=trial.dtype,
            width=trial.width,
            optimizer=optimizer_of(kind),
            spikes="none",
        ),
    )


def predicted(graph: BlockGraph, profile: Profile, launch: str) -> StepCost:
    """Latency, memory and energy of the step as eager PyTorch runs it, or as a CUDA graph.

    Raises Infeasible where the device's memory does not hold it. The energy of a CPU is assumed, not fitted: None.
    """
    prediction = _sequential(graph, profile, launch)
    energy_j = prediction.energy_j.get("total") if profile.kind == "gpu" else None
    return StepCost(prediction.latency_s, peak_bytes(graph, profile), energy_j)


def as_it_was(profile: Profile, paces_s: Sequence[float], mapped_in_bytes: int | None) -> tuple[Profile, float | None]:
    """The profile as the machine was while real steps ran: at their pace, and with as much memory mapped in for each;
    and how many times as long a fixed piece of Python took then (None: not known)."""
    at = profile if mapped_in_bytes is None else mapping(profile, mapped_in_bytes)
    if not paces_s or PACE not in profile.host:
        return at, None
    slowness = statistics.median(paces_s) / profile.host[PACE].value
    return slowed(at, slowness), slowness


def peak_bytes(graph: BlockGraph, profile: Profile) -> int:
    """Peak memory of the step as eager PyTorch runs it on the profile's machine, what its libraries take included."""
    return eager_peak_bytes(graph, profile.kind, rule_of(profile))


def baselines(graph: BlockGraph, profile: Profile, launch: str) -> Mapping[str, float]:
    """Seconds by name of the simpler prediction; what cannot be said is left out."""
    seconds_by_name = {ROOFLINE: _sequential(graph, profile.device, launch).latency_s}
    constant = fitted_constant([(float(s.flops), _median(s.seconds)) for s in profile.steps if s.flops])
    return seconds_by_name if constant is None else seconds_by_name | {FLOPS: constant * flops_of(graph)}


def flops_of(graph: BlockGraph) -> int:
    return sum(t.flops for t in graph.tasks)


def _sequential(graph: BlockGraph, hardware: Hardware, launch: str) -> Prediction:
    return pipeline.predict(pipeline.plan(graph, hardware, "sequential", launch=launch))


def _median(values: tuple[float, ...]) -> float:
    return sorted(values)[len(values) // 2]
