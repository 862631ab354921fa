"""What a study says in words: how a prediction was run, where its figures come from, and the answer in one sentence."""

from __future__ import annotations

from pararev_hw.reports import units
from pararev_hw.types import Device, Prediction, Study

SAME = 0.005  # relative: what differs by less is called the same

_LANE = {"gpu": "stream", "neuromorphic": "core"}


def lane_noun(device: Device) -> str:
    """What a lane is called on this device."""
    return _LANE.get(device.kind, "lane")


def lanes_used(prediction: Prediction) -> int:
    """How many lanes run at least one task."""
    return len({p.lane for p in prediction.schedule.placements})


def standing(prediction: Prediction, device: Device) -> str:
    """Where a prediction's figures come from, in words."""
    if prediction.provenance == "measured":
        return "figures calibrated by measurement"
    kinds = {figure.provenance for figure in device.parameters.values()} | {prediction.provenance}
    names = [name for kind, name in (("published", "datasheet"), ("assumed", "assumed")) if kind in kinds]
    calibrated = "calibrated in part" if "measured" in kinds else "not calibrated"
    return f"{' and '.join(names)} figures, {calibrated}"


def lanes(prediction: Prediction, device: Device) -> str:
    """ "one stream", "4 lanes"."""
    used = max(1, lanes_used(prediction))
    noun = lane_noun(device)
    return f"one {noun}" if used == 1 else f"{used} {noun}s"


def launch(prediction: Prediction, device: Device) -> str:
    """How the work gets to the device: "launched op by op", "as a CUDA graph"; "" where there is no host."""
    if prediction.launch == "graph":
        return "as a CUDA graph" if device.kind == "gpu" else "replayed as one graph"
    return "launched op by op" if prediction.launch == "eager" else prediction.launch


def sequential_way(study: Study) -> str:
    """How the first prediction was run."""
    if study.sequential.launch == "eager":
        return "run as PyTorch does"
    return f"run one task after another {launch(study.sequential, study.device)}".rstrip()


def way(prediction: Prediction, device: Device) -> str:
    """How a prediction was run: "with 2 streams as a CUDA graph"."""
    return f"with {lanes(prediction, device)} {launch(prediction, device)}".rstrip()


def parallel_limit(study: Study) -> float | None:
    """The most that running tasks side by side can give: total time over the critical path's. None: not known."""
    path = study.critical_path
    if path.weight == "time_s":
        total = study.chosen.schedule.sequential_s
    else:
        total = float(sum(t.flops + t.vector_flops for t in study.graph.tasks))
    return max(1.0, total / path.length) if path.length > 0 and total > 0 else None


def device_limit(study: Study) -> tuple[float, str] | None:
    """The most that running tasks side by side can give on this device and what sets it, where that is less than what
    the critical path allows: shared compute, work over lanes, ..."""
    schedule, limit = study.chosen.schedule, parallel_limit(study)
    if schedule.lower_bound_s <= 0 or limit is None:
        return None
    here = max(1.0, schedule.sequential_s / schedule.lower_bound_s)
    return (here, schedule.bound_by) if here < limit * (1 - 2 * SAME) else None


def ratio(before: float, after: float) -> float | None:
    """before / after, None where that has no value."""
    return before / after if after > 0 and before > 0 else None


def _than(value: float, base: float, noun: str, shown: str) -> str:
    """ "8 % more memory (1.90 GiB)"."""
    if base <= 0:
        return f"{shown} of {noun}"
    change = value / base - 1
    if abs(change) < SAME:
        return f"the same {noun} ({shown})"
    return f"{units.percent(abs(change))} {'more' if change > 0 else 'less'} {noun} ({shown})"


def _costs(study: Study) -> str:
    """What the chosen schedule costs in memory and energy against the sequential one."""
    before, after = study.sequential, study.chosen
    said = _than(after.peak_bytes, before.peak_bytes, "memory", units.size(after.peak_bytes))
    energy, base = after.energy_j.get("total"), before.energy_j.get("total")
    if energy and base:
        said += " and " + _than(energy, base, "energy", units.joules(energy))
    return said


def _parallel(study: Study) -> str:
    """How much of the gain comes from running tasks side by side, and how much it could be at most."""
    limit = parallel_limit(study)
    bound = "" if limit is None else f"the critical path allows at most {units.times(limit)}"
    here = device_limit(study)
    if here is not None:
        bound += f" and this device {units.times(here[0])} ({here[1]})"
    gain = study.chosen.schedule.speedup
    if lanes_used(study.chosen) < 2 or gain < 1 + SAME:
        if limit is None or limit < 1 + SAME:
            return "nothing in it can run side by side: the critical path is the whole step"
        return f"running tasks side by side gains nothing here, where {bound}"
    return f"running tasks side by side gives {units.times(gain)} of this" + (f", where {bound}" if bound else "")


def answer(study: Study) -> str:
    """The report in one sentence: the time as PyTorch runs it, that of the recommended schedule, and at what cost."""
    graph, before, after = study.graph, study.sequential, study.chosen
    step = "one training step" if graph.mode == "train" else "one inference"
    steps = "" if graph.timesteps is None else f", T = {graph.timesteps}"
    opening = (
        f"On {study.device.title} ({standing(after, study.device)}), {step} of {graph.model} "
        f"(batch {graph.batch}{steps}) takes {units.seconds(before.latency_s)} {sequential_way(study)}"
    )
    speedup = ratio(before.latency_s, after.latency_s)
    if study.best == 0 or speedup is None or speedup < 1 + SAME:
        tried = len(study.predictions) - 1
        found = (
            "no other schedule was tried"
            if tried == 0
            else f"none of the {tried} other schedules tried is faster"
            if tried > 1
            else "the other schedule tried is not faster"
        )
        used = f"it needs {units.size(before.peak_bytes)} of memory"
        limit = parallel_limit(study)
        bound = (
            ""
            if limit is None
            else "; nothing in it can run side by side: the critical path is the whole step"
            if limit < 1 + SAME
            else f"; the critical path would allow at most {units.times(limit)}"
        )
        return f"{opening}, and {found}; {used}{bound}."
    return (
        f"{opening} and {units.seconds(after.latency_s)} {way(after, study.device)} ({units.times(speedup)}), "
        f"at {_costs(study)}; {_parallel(study)}."
    )
