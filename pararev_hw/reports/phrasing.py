"""What a study says in words: how a prediction was run, where its figures come from, and the answer in one sentence."""

from __future__ import annotations

from dataclasses import dataclass

from pararev_hw.graph.process_memory import largest_peak_bytes, process_memory
from pararev_hw.reports import units
from pararev_hw.reports.chip import chip_lines
from pararev_hw.reports.energy_model import energy_model_lines
from pararev_hw.reports.first_lines import first_lines
from pararev_hw.reports.provenance import standing
from pararev_hw.types import Device, Prediction, Study

SAME = 0.005  # relative: what differs by less is called the same
_MORE = 1.05  # times the limit of the tasks at least, or finer ones are not worth a word
_LITTLE = 1.25  # times: where parallel lanes could give no more, the answer says where more may be hidden

_DEVICE = {"gpu": "GPU", "cpu": "CPU"}
_LANE = {"gpu": "stream", "neuromorphic": "core"}


def lane_noun(device: Device) -> str:
    """What a lane is called on this device."""
    return _LANE.get(device.kind, "lane")


def lanes_used(prediction: Prediction) -> int:
    """How many lanes run at least one task."""
    return len({p.lane for p in prediction.schedule.placements})


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
    if study.base.launch == "eager":
        return (
            "in eager PyTorch, on one stream"
            if study.device.kind == "gpu"
            else "in eager PyTorch, one task after another"
        )
    return f"one task after another {launch(study.base, study.device)}".rstrip()


def way(prediction: Prediction, device: Device) -> str:
    """How a prediction was run: "with 2 streams as a CUDA graph"."""
    return f"with {lanes(prediction, device)} {launch(prediction, device)}".rstrip()


def parallel_limit(study: Study) -> float | None:
    """The most that parallel lanes can give: total time over the critical path's. None: not known."""
    path = study.critical_path
    if path.weight == "time_s":
        total = study.chosen.schedule.sequential_s
    else:
        total = float(sum(t.flops + t.vector_flops for t in study.chosen_graph.tasks))
    return max(1.0, total / path.length) if path.length > 0 and total > 0 else None


def device_limit(study: Study) -> tuple[float, str] | None:
    """The most that parallel lanes can give on this device and what sets it, where that is less than what the critical
    path allows: shared compute, work over lanes, ..."""
    schedule, limit = study.chosen.schedule, parallel_limit(study)
    if schedule.lower_bound_s <= 0 or limit is None:
        return None
    here = max(1.0, schedule.sequential_s / schedule.lower_bound_s)
    return (here, schedule.bound_by) if here < limit * (1 - 2 * SAME) else None


def ratio(before: float, after: float) -> float | None:
    """before / after, None where that has no value."""
    return before / after if after > 0 and before > 0 else None


def _gain(study: Study, prediction: Prediction) -> str:
    """ "1.59x"."""
    return units.times(ratio(study.base.latency_s, prediction.latency_s) or 1.0)


def _parallel(study: Study) -> str:
    """How much of the gain of the recommended schedule comes from parallel lanes, and how much it could be at most."""
    limit, noun = parallel_limit(study), lane_noun(study.device)
    level = study.chosen_graph.granularity
    tasks = f"tasks by {level}"
    finer = _finer(study, limit)
    if limit is not None and limit < 1 + SAME:
        if _lanes_gain(study) >= 1 + SAME:  # the fastest way is that of another, rewritten graph
            return f"{_no_gain(study)}; with {tasks}, as traced, every task waits for the one before it{finer}."
        return f"With {tasks}, every task waits for the one before it, so parallel {noun}s gain nothing{finer}."
    if study.device.kind == "cpu" and all(p.schedule.lanes == 1 for p in study.predictions):
        most = "" if limit is None else f"; parallel lanes can give at most {units.times(limit)} ({tasks})"
        return f"One lane was used, one thread of this CPU: --lanes 2 schedules on two{most}."
    traced = " as traced" if _rewritten_only_when_fastest(study) else ""
    most = "" if limit is None else units.times(limit)
    bound = "" if limit is None else f"the limit of parallel {noun}s is {most} for the network{traced} ({tasks}{finer})"
    here = device_limit(study)
    if here is not None:
        bound += f" and {units.times(here[0])} on this {_DEVICE.get(study.device.kind, 'device')}"
    gain = study.chosen.schedule.speedup
    bound += _assumed_contention(study, limit)
    if lanes_used(study.chosen) < 2 or gain < 1 + SAME:
        return _no_gain(study) + (f"; {bound}." if bound else ".")
    return _share_of_lanes(study, gain) + (f"; {bound}." if bound else ".")


def _rewritten_only_when_fastest(study: Study) -> bool:
    fastest = study.recommended("fastest")
    return fastest is not None and study.is_rewritten(fastest) and not study.is_rewritten(study.chosen)


def _lanes_gain(study: Study) -> float:
    """What parallel lanes give in the fastest way."""
    fastest = study.recommended("fastest")
    return 1.0 if fastest is None or lanes_used(fastest) < 2 else fastest.schedule.speedup


def _finer(study: Study, limit: float | None) -> str:
    """Where tasks leave little to parallel lanes: what operations as tasks would allow, where that is more."""
    if study.chosen_graph.granularity == "op" or limit is None or limit > _LITTLE:
        return ""
    if study.op_parallelism is None:
        return "; --granularity op looks inside them"
    if study.op_parallelism < limit * _MORE:
        return ""
    return f"; single operations as tasks would allow up to {units.times(study.op_parallelism)}: --granularity op"


def _no_gain(study: Study) -> str:
    """Where it is the memory limit that leaves no room for a second lane, what the fastest way gains."""
    noun, fastest, gain = lane_noun(study.device), study.recommended("fastest"), _lanes_gain(study)
    if fastest is None or gain < 1 + SAME or study.memory_limit_bytes is None:
        return f"Parallel {noun}s gain nothing in the recommended schedule"
    rewritten = " once the step is rewritten" if study.is_rewritten(fastest) else ""
    return (
        f"Within {units.size(study.memory_limit_bytes)} parallel {noun}s gain nothing; in the fastest way, with "
        f"{units.size(fastest.peak_bytes)}, they give {units.times(gain)}{rewritten}"
    )


def _share_of_lanes(study: Study, gain: float) -> str:
    """The recommended gain as a product: parallel lanes, and what else was changed."""
    noun, total = lane_noun(study.device), ratio(study.base.latency_s, study.chosen.latency_s) or 1.0
    rest = total / gain
    finer = study.chosen_graph.granularity != study.graph.granularity
    changes = [
        *(["the CUDA graph"] if study.chosen.launch == "graph" != study.base.launch else []),
        *(["the finer tasks"] if finer else []),
        *(["the rewrites"] if study.is_rewritten(study.chosen) else []),
    ]
    if abs(rest - 1) < SAME:
        return f"The recommended {units.times(total)} comes from parallel {noun}s"
    if not changes:
        return f"Parallel {noun}s give {units.times(gain)} in the recommended schedule, {units.times(total)} in all"
    others = ", ".join(changes[:-1]) + " and " * (len(changes) > 1) + changes[-1]
    if rest > 1:
        sentence = f"parallel {noun}s give {units.times(gain)} and {others} {units.times(rest)}"
        return f"Of the recommended {units.times(total)}, {sentence}"
    purpose = ", which save memory," if study.is_rewritten(study.chosen) or finer else ""
    verb = "costs" if others == "the CUDA graph" else "cost"
    return (
        f"Parallel {noun}s make the recommended step {units.times(gain)} faster; {others}{purpose} {verb} "
        f"{units.percent(1 - rest)} of that, which leaves {units.times(total)}"
    )


def _assumed_contention(study: Study, limit: float | None) -> str:
    """The range of the gain on a GPU whose streams nobody has timed together."""
    sharing = study.device.parameters.get("matrix_elements_per_unit")
    if study.device.kind != "gpu" or sharing is None or sharing.provenance != "assumed" or limit is None:
        return ""
    most = min(limit, float(max(study.device.lanes, study.chosen.schedule.lanes)))
    return f"; how kernels share this GPU is assumed: {units.times(1.0)} if none overlap, {units.times(most)} if all do"


def _opening(study: Study) -> str:
    graph, before = study.graph, study.base
    step = "one training step" if graph.mode == "train" else "one inference"
    steps = "" if graph.timesteps is None else f", T = {graph.timesteps}"
    steps += "" if graph.arithmetic == "float32" else f", {graph.arithmetic}"
    return (
        f"On {study.device.title} ({standing(study.chosen, study.device)}), {step} of {graph.model} "
        f"(batch {graph.batch}{steps}) takes {units.seconds(before.latency_s)}{uncertainty(before)} and "
        f"{units.size(before.peak_bytes)} of live tensors {sequential_way(study)}{_torch_shows(study)}."
    )


def _torch_shows(study: Study) -> str:
    """ " (torch.cuda.max_memory_allocated(): 849 MiB)"."""
    tool = {"gpu": "torch.cuda.max_memory_allocated()", "cpu": "torch's profiler"}.get(study.device.kind)
    counted = study.base.eager_peak_bytes
    return "" if tool is None or counted is None else f" ({tool}: {units.size(counted)})"


@dataclass(frozen=True, slots=True)
class RecommendedWay:
    """An answer in words: "Least memory", the way that gives it, and its peak, with digits enough to tell it from the
    limit that it exceeds."""

    name: str
    short_name: str  # in a picture
    prediction: Prediction
    peak: str


def recommended_ways(study: Study) -> tuple[RecommendedWay, ...]:
    """The recommendations as they are told: one that differs from another by less than anyone cares is told by it."""
    ways, limit = [], study.memory_limit_bytes
    prediction_by_name = {r.name: r.prediction for r in study.recommendations}
    for name, others in (("fastest", ("within_memory",)), ("least_memory", ("within_memory", "fastest"))):
        if name in prediction_by_name:
            rivals = (prediction_by_name[other] for other in others if other in prediction_by_name)
            prediction_by_name[name] = next(
                (p for p in rivals if _as_small_and_fast(p, prediction_by_name[name])), prediction_by_name[name]
            )
    significant = 3 if limit is None else units.digits_apart(limit, [p.peak_bytes for p in prediction_by_name.values()])
    within = "" if limit is None else f"Fastest within {units.size(limit, significant)}"
    names = {
        "fastest": ("Fastest", "fastest"),
        "within_memory": (
            within + ("" if study.limit_given else ", the memory of that step"), "fastest within the limit"
        ),
        "least_memory": ("Least memory", "least memory"),
    }  # fmt: skip
    for name, p in prediction_by_name.items():
        ways.append(RecommendedWay(*names[name], p, units.size(p.peak_bytes, significant)))
    return tuple(ways)


def memory_digits(study: Study) -> int:
    """The significant digits with which every schedule above the memory limit reads as more than it."""
    limit = study.memory_limit_bytes
    return 3 if limit is None else units.digits_apart(limit, [p.peak_bytes for p in study.predictions])


def _as_small_and_fast(p: Prediction, other: Prediction) -> bool:
    return p.peak_bytes <= other.peak_bytes * (1 + SAME) and p.latency_s <= other.latency_s * (1 + SAME)


def recommended_how(study: Study, p: Prediction) -> str:
    """How a recommended schedule is run: "heft with 2 streams as a CUDA graph, 8 pairs fused"."""
    return "the sequential step itself" if p is study.sequential else how(p, study.device)


def how(prediction: Prediction, device: Device) -> str:
    """ "heft with 2 streams as a CUDA graph, 8 pairs fused"."""
    return ", ".join((f"{prediction.scheduler} {way(prediction, device)}", *prediction.choices))


def _recommendation_lines(study: Study) -> list[str]:
    """A line for each way that is recommended, with the questions that it answers."""
    together: dict[int, list[RecommendedWay]] = {}
    for w in recommended_ways(study):
        together.setdefault(id(w.prediction), []).append(w)
    lines = []
    for first, *others in together.values():
        p = first.prediction
        heading = ", and ".join((first.name, *(o.name[:1].lower() + o.name[1:] for o in others)))
        costs = [f"{units.seconds(p.latency_s)} ({_gain(study, p)})", first.peak]
        energy = p.energy_j.get("total")
        costs += [units.joules(energy)] if energy else []
        lines.append(f"{heading}: {', '.join(costs)}: {recommended_how(study, p)}.")
    return lines


def step_words(study: Study, p: Prediction) -> str:
    """Which step it was made for: "traced", "rewritten by module"."""
    level = study.graph_of(p).granularity
    finer = [] if level == study.graph.granularity else [f"by {level}"]
    return " ".join([*(["rewritten"] if study.is_rewritten(p) else []), *finer]) or "traced"


def answer_lines(study: Study) -> tuple[str, ...]:
    """The report in a few sentences: the step as PyTorch runs it, what is recommended, what parallel lanes can give."""
    before, after = study.base, study.chosen
    warnings = (*first_lines(study.graph), *device_warnings(study))
    by_model = () if study.energy_model is None else energy_model_lines(study.energy_model)
    if study.chip is not None:
        learning = study.graph.mode == "train"
        first = study.chosen.assumptions[:1] if learning else ()
        from_chip = chip_lines(study.chip, after.energy_j.get("total"), study.graph.model, study.device.title)
        return (*warnings, *(f"Assumed: {line}." for line in first), *from_chip, *by_model)
    if study.recommendations:
        lines = (_opening(study), *_recommendation_lines(study), *board_power(study), _parallel(study))
        return (*warnings, *lines, *by_model)
    count = len(study.predictions) - 1
    gain = ratio(before.latency_s, after.latency_s)
    if study.best == 0 or gain is None or gain < 1 + SAME:
        verdict = (
            "No other schedule was tried."
            if count == 0
            else f"None of the {count} other schedules tried is faster."
            if count > 1
            else "The other schedule tried is not faster."
        )
    else:
        verdict = (
            f"Recommended: {units.seconds(after.latency_s)} ({_gain(study, after)}), {units.size(after.peak_bytes)}, "
            f"{units.joules(after.energy_j.get('total'))}: {after.scheduler} {way(after, study.device)}."
        )
    return (*warnings, _opening(study), verdict, *board_power(study), _parallel(study), *by_model)


def board_power(study: Study) -> tuple[str, ...]:
    """What a GPU's board draws in the recommended step: "Its board draws 212 W (+/- 15 %): 3.1 J per step, ..."."""
    p = study.chosen
    total = p.energy_j.get("total")
    if study.device.kind != "gpu" or total is None or p.power_w is None:
        return ()
    error = p.expected_error
    watts = "" if error is None or error.power is None else f" (+/- {100 * error.power:.0f} %)"
    joules = "" if error is None or error.energy is None else f" (+/- {100 * error.energy:.0f} %)"
    return (
        f"The board draws {p.power_w:.0f} W{watts} in that step: {units.joules(total)} per step, "
        f"{units.joules(total / study.graph.batch)} per sample{joules}.",
    )


def uncertainty(prediction: Prediction) -> str:
    """ " (+/- 7 %)": half of the 90 % interval of the time; "" where nothing was ever measured."""
    error = prediction.expected_error
    if error is None or error.latency is None:
        return ""
    text = f"+/- {100 * error.latency:.0f} %"
    if error.unmeasured_share is not None and error.unmeasured_share >= 0.005:
        text += f"; {100 * error.unmeasured_share:.0f} % of the time in operations never measured"
    return f" ({text})"


def _too_little_measured(prediction: Prediction) -> tuple[str, ...]:
    """A sentence where too little was measured to trust the time."""
    error = prediction.expected_error
    if error is None or error.latency is None or not error.poor:
        return ()
    return (
        f"Too little was measured for this network: times may be off by {100 * error.latency:.0f} % "
        "(use --measure on this machine, or calibrate it longer).",
    )


def answer(study: Study) -> str:
    """`answer_lines` as one text."""
    return " ".join(answer_lines(study))


def device_warnings(study: Study) -> tuple[str, ...]:
    """What stands at the top where the device cannot do what is asked, or does it in a way to know of."""
    parameters = study.device.parameters.values()
    measured = study.device.kind == "cpu" or any(f.provenance == "measured" for f in parameters)
    return (*_does_not_fit(study), *(_too_little_measured(study.base) if measured else ()))


def _does_not_fit(study: Study) -> tuple[str, ...]:
    """A sentence where the eager step needs more memory than the GPU has."""
    peak, memory = study.base.eager_peak_bytes, study.device.parameters.get("memory_bytes")
    if study.device.kind != "gpu" or peak is None or memory is None or process_memory(peak).least_bytes <= memory.value:
        return ()
    need, have = units.size(process_memory(peak).least_bytes), units.size(int(memory.value))
    batch = _fitting_batch(study, peak, int(memory.value))
    largest = "not even one sample would" if batch < 1 else f"the largest batch that does is about {batch}"
    return (
        f"The step does not fit: it needs {need}, and {study.device.title} has {have}; {largest} "
        "(`pararev-hw capacity` finds it by tracing).",
    )


def _fitting_batch(study: Study, peak_bytes: int, memory_bytes: int) -> int:
    """The batch whose step needs so much: what does not persist from step to step grows in proportion to it."""
    memory = study.graph.memory
    persistent = memory.parameter_bytes + memory.buffer_bytes + memory.gradient_bytes + memory.optimizer_bytes
    per_sample = max(1.0, (peak_bytes - persistent) / study.graph.batch)
    return int((largest_peak_bytes(memory_bytes) - persistent) // per_sample)


def memory_note(study: Study) -> str:
    """Which of the peaks torch will show."""
    before = study.base
    counted = before.eager_peak_bytes
    tensors = (
        f"Peaks here count each tensor until its last use ({units.size(before.peak_bytes)} in the sequential step)"
    )
    kept_bytes = study.graph.memory.peak_bytes
    if study.device.kind in ("gpu", "cpu") and kept_bytes > before.peak_bytes * (1 + SAME):
        tensors += f"; Python holds some longer, up to {units.size(kept_bytes)} in eager PyTorch"
    if study.device.kind == "gpu":
        return (
            f"{tensors}; torch.cuda.max_memory_allocated() will show {units.size(counted)} for eager PyTorch, rounding "
            "and workspaces of libraries included."
            if counted is not None
            else f"{tensors}; torch.cuda.max_memory_allocated() adds rounding and workspaces of libraries."
        )
    if study.device.kind == "cpu" and counted is not None:
        return f"{tensors}; torch's profiler will show {units.size(counted)}, workspaces of libraries included."
    return f"{tensors}."
