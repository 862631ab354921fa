"""The main job, end to end: target -> graph -> costs -> schedules -> predictions -> study."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pararev_hw import graph as graphs
from pararev_hw.costmodels import roofline
from pararev_hw.costmodels.allocator import workspace
from pararev_hw.costmodels.buffers import buffers
from pararev_hw.costmodels.calibrated import op_times
from pararev_hw.devices import bare_device as bare_device
from pararev_hw.devices import load_hardware
from pararev_hw.devices.instruction_sets import instruction_set_here
from pararev_hw.errors import BadFile, BadInput, Infeasible, MissingDependency, PararevError
from pararev_hw.graph.order import lane_orders as lane_orders
from pararev_hw.prediction import predict as predict_schedule
from pararev_hw.reports import units
from pararev_hw.schedulers import run as run_scheduler
from pararev_hw.schedulers import uses_memory
from pararev_hw.schedulers.document import bare_schedule_document, energy_document
from pararev_hw.schedulers.evaluate import evaluate_orders
from pararev_hw.task_graph_files import MAX_LANES
from pararev_hw.types import (
    BlockGraph,
    Comparison,
    Device,
    Hardware,
    Prediction,
    Profile,
    Schedule,
    SchedulingProblem,
    Study,
)

if TYPE_CHECKING:
    from pararev_hw.tracing import Traced

ASSUMED_RATE = 0.2  # firing rate where nothing was measured; stated in every report
TIE = 1e-9  # latencies this close, relative, are the same: sums of the same times differ by less
Progress = Callable[[str], None]


def _silent(_: str) -> None:
    return


@dataclass(frozen=True, slots=True)
class Plan:
    """A schedule together with what it was made for."""

    graph: BlockGraph
    device: Device
    costs: SchedulingProblem
    schedule: Schedule
    op_seconds: tuple[float, ...]
    launch: str

    def _repr_html_(self) -> str:
        return self.schedule._repr_html_()


def build_graph(
    target: str,
    *,
    batch: int | None = None,
    timesteps: int | None = None,
    mode: Literal["train", "infer"] = "train",
    dtype: str = "float32",
    input_shape: tuple[int, ...] | None = None,
    num_classes: int | None = None,
    width: float | None = None,
    form: str | None = None,
    seed: int = 0,
    granularity: str = "block",
    blocks: Sequence[str] = (),
    optimizer: str | None = None,
    accumulate: int = 1,
    zero_grad: Literal["none", "zero"] = "none",
    channels_last: bool = False,
    device: Hardware | None = None,
    spikes: str = "auto",
    rewrite: Callable[[Traced], Traced] | None = None,
    progress: Progress = _silent,
) -> BlockGraph:
    """Trace what `target` names: a zoo network, `file.py:factory` or `package.module:factory`.

    `optimizer` None is SGD with momentum as PyTorch runs it on `device`: one kernel for all parameters on a GPU (and
    where no device is named), one per parameter elsewhere. `accumulate` micro-batches, each of `batch` samples, go
    before its step; `zero_grad` "zero" keeps the gradients' memory from one step to the next, "none" lets it go.
    For a GPU (and where no device is named) the step takes the ops that CUDA takes, on whatever machine it is traced;
    `channels_last` lays images and their weights out as `[B, H, W, C]`.
    `spikes` says where firing rates come from: "auto" (the target's own inputs, else the digits, else an assumed
    rate), "digits", "none", a rate such as "0.15", or a `.npy` file of inputs `[B, ...]`.
    `rework` changes the traced step before its graph is given back: `pararev_hw.rewrites.select.take` does.
    """
    from pararev_hw.importers.targets import Options, resolve
    from pararev_hw.tracing import DispatchRules, optimizer_named, trace_step

    options = Options(batch, timesteps, num_classes, width, form, input_shape, seed)
    make_optimizer = optimizer_named(optimizer or _default_optimizer(device))
    _check_spikes(spikes)
    progress(f"building {target}")
    found = resolve(target, options)
    progress(f"tracing {found.name}")
    own = found.step is not None and mode == "train"
    traced = trace_step(
        found.network,
        (*found.inputs, *found.targets) if own else found.inputs,
        name=found.name,
        mode=mode,
        batch=found.batch,
        timesteps=found.timesteps,
        dtype=dtype,
        granularity=granularity,
        blocks=blocks,
        optimizer=make_optimizer,
        accumulate=accumulate,
        zero_grad=zero_grad,
        step=found.step if own else None,
        assumptions=found.assumptions,
        rules=DispatchRules(
            cuda=device is None or device.kind == "gpu",
            channels_last=channels_last,
            flash_attention=_has_bfloat16(device),
        ),
    )
    graph = with_spikes(traced.graph, found, spikes, progress)
    return graph if rewrite is None else rewrite(replace(traced, graph=graph)).graph


def _default_optimizer(device: Hardware | None) -> str:
    return "sgd-foreach" if device is None or device.kind == "gpu" else "sgd"


def _has_bfloat16(hardware: Hardware | None) -> bool:
    """Whether a GPU is of compute capability 8.0 or more, which brought bfloat16 and what flash attention needs."""
    device = hardware.device if isinstance(hardware, Profile) else hardware
    return device is None or "matrix_flops_per_s.bfloat16" in device.parameters


def _check_spikes(spikes: str) -> None:
    """Refuse, before any work is done, what says nothing about spikes."""
    if spikes in ("auto", "digits", "none") or spikes.endswith(".npy"):
        return
    try:
        rate = float(spikes)
    except ValueError:
        raise BadInput(f"spikes is {spikes!r}: give auto, digits, none, a rate such as 0.15, or a .npy file") from None
    if not 0 <= rate <= 1:
        raise BadInput(f"a firing rate is {rate:g}: it must be between 0 and 1")


def with_spikes(graph: BlockGraph, target: Any, spikes: str, progress: Progress = _silent) -> BlockGraph:
    """The graph with measured or assumed spike activity, where the network has spiking neurons."""
    if spikes == "none" or not graphs.spiking_layers(graph):
        return graphs.attach(graph, None)
    try:
        rate = float(spikes)
    except ValueError:
        return _with_measured(graph, target, spikes, progress)
    return graphs.attach(graph, graphs.assumed(graph, rate))


def _with_measured(graph: BlockGraph, target: Any, spikes: str, progress: Progress) -> BlockGraph:
    from pararev_hw.tracing import measure_spikes

    if spikes == "auto" and target.real_inputs:
        inputs, source = target.inputs, "the target's own inputs"
    else:
        found = _npy(Path(spikes), target) if spikes.endswith(".npy") else _digits(graph, target, spikes)
        if isinstance(found, str):
            assumed = graphs.assumed(graph, ASSUMED_RATE)
            return graphs.attach(replace(graph, assumptions=(*graph.assumptions, found)), assumed)
        inputs, source = found
    progress(f"counting spikes of {graph.model}")
    samples = int(inputs[0].shape[1] if target.event else inputs[0].shape[0])
    try:
        network = target.realise()
        kind = "the network's own" if network is target.network else "random"
        said = f"{source}, {samples} samples, {kind} weights"
        measured = measure_spikes(network, inputs, source=said, mode=graph.mode, samples=samples)
    except PararevError:
        raise
    except Exception as error:
        # tracing needs no memory for the data, counting does; and a user's network may raise anything
        first = (str(error).strip().splitlines() or [""])[0][:200]
        raise BadInput(
            f"{graph.model}: its spikes cannot be counted ({type(error).__name__}: {first}): "
            f"assume a rate, as in --spikes {ASSUMED_RATE:g}, or --spikes none"
        ) from error
    return graphs.attach(graph, measured)


_SPIKE_MACS = 60e9  # of the forward pass that counts spikes: a few seconds of one core


def _samples(graph: BlockGraph) -> int:
    forward = sum(t.macs for t in graph.tasks if t.phase == "forward") / graph.batch
    return max(1, min(16, int(_SPIKE_MACS / max(forward, 1.0))))


def _digits(graph: BlockGraph, target: Any, spikes: str) -> Any:
    """Digits as inputs, or, where that cannot be and nobody insists, the sentence that says what is assumed."""
    from pararev_hw.training.data import digits

    shape = tuple(target.inputs[0].shape[1:])
    fits = not target.event and len(target.inputs) == 1 and len(shape) == 3 and shape[1] == shape[2] and shape[1] >= 8
    try:
        if fits:
            data = digits(size=shape[1], channels=shape[0])
            count = _samples(graph) if target.any_batch else target.batch
            if count <= len(data.test_x):
                return (data.test_x[:count],), data.source
            reason = f"{target.name} runs with its batch of {count} alone, and there are {len(data.test_x)} digits"
        else:
            reason = f"an input of shape {shape} is no image that the digits could fill"
    except MissingDependency as error:
        reason = str(error)
    if spikes == "digits":
        raise BadInput(f"spikes cannot be counted on the digits: {reason}")
    return f"firing rate {ASSUMED_RATE:g} assumed: {reason}"


def _npy(path: Path, target: Any) -> Any:
    import numpy as np
    import torch

    try:
        array = np.load(path, allow_pickle=False, mmap_mode="r")
    except OSError as error:
        raise BadFile(f"{path}: cannot be read: {error.strerror or error}") from error
    except (ValueError, EOFError) as error:
        raise BadFile(f"{path}: is no .npy file of numbers") from error
    if array.dtype.kind not in "biuf":
        raise BadFile(f"{path}: holds {array.dtype} values: inputs are real numbers")
    expected = tuple(target.inputs[0].shape)
    free = 1 if target.event else 0
    if array.ndim != len(expected) or any(
        a != e for d, (a, e) in enumerate(zip(array.shape, expected, strict=True)) if d != free
    ):
        raise BadInput(f"{path}: has shape {array.shape}: {target.name} takes {expected}, any batch")
    values = np.array(array, dtype=np.float32)
    if not np.isfinite(values).all():
        raise BadFile(f"{path}: holds values that are not finite")
    return (torch.from_numpy(values),), path.name


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
    if (device.lanes if lanes is None else lanes) > MAX_LANES:
        raise BadInput(f"{device.lanes if lanes is None else lanes} lanes: at most {MAX_LANES}")
    if memory_limit is not None and memory_limit < 0:
        raise BadInput(f"a memory limit of {memory_limit} bytes: it must not be negative")
    costs = _costs(graph, device, lanes, how)
    room = min((m for m in (costs.memory_limit_bytes, memory_limit) if m is not None), default=None)
    costs = replace(costs, memory_limit_bytes=None)
    # buffers take time to find: only where the limit may matter, or where memory is what is asked for
    if uses_memory(scheduler) or (room is not None and sum(s.bytes for s in graph.storages) > room):
        costs = replace(costs, memory_limit_bytes=room, buffers=buffers(graph))
    seconds = (
        op_times.op_seconds(graph, device, how)
        if isinstance(device, Profile)
        else roofline.op_seconds(graph, device, how)
    )
    if orders is not None:
        # who decided these orders decided on their memory: whether it is there is for `predict` to say
        costs = replace(costs, memory_limit_bytes=None)
        return Plan(graph, bare_device(device), costs, evaluate_orders(costs, orders, scheduler), seconds, how)
    try:
        made = run_scheduler(costs, scheduler, **(options or {}))
    except Infeasible:
        # buffers live for whole tasks, storages for parts of them: one task at a time may fit all the same
        costs = replace(costs, memory_limit_bytes=None)
        plan = Plan(graph, bare_device(device), costs, evaluate_orders(costs, None, scheduler), seconds, how)
        if room is None or predict(plan).peak_bytes > room:
            raise
        return plan
    return Plan(graph, bare_device(device), costs, made, seconds, how)


def costs_of(graph: BlockGraph, device: Hardware, lanes: int | None, launch: str) -> SchedulingProblem:
    """The graph as a scheduling problem, whatever memory it takes."""
    return replace(_costs(graph, device, lanes, launch), memory_limit_bytes=None)


def _costs(graph: BlockGraph, device: Hardware, lanes: int | None, launch: str) -> SchedulingProblem:
    """The fitted model where the device was calibrated, the roofline of its figures where it was not."""
    if isinstance(device, Profile):
        return op_times.costs(graph, device, lanes=lanes, launch=launch)
    return roofline.costs(graph, device, lanes=lanes, launch=launch)


def predict(made: Plan) -> Prediction:
    """What the plan costs when it is played. Raises Infeasible where the device's memory does not hold it."""
    found = predict_schedule(made.graph, made.device, made.costs, made.schedule, made.op_seconds, launch=made.launch)
    limit = made.costs.memory_limit_bytes
    have = min(made.device.get("memory_bytes", float("inf")), float("inf") if limit is None else limit)
    if found.peak_bytes > have:
        raise Infeasible(_does_not_fit(made, found, have))
    scheduled = replace(found.schedule, peak_bytes=found.peak_bytes)
    return replace(found, schedule=scheduled, eager_peak_bytes=_eager_peak_bytes(made))


def _eager_peak_bytes(made: Plan) -> int | None:
    """What PyTorch's allocator will count where the plan is what PyTorch runs by itself."""
    kind = made.device.kind
    if made.schedule.scheduler != "sequential" or made.launch != "eager" or kind not in ("cpu", "gpu"):
        return None
    return workspace.eager_peak_bytes(made.graph, kind, instruction_set_here())


def _does_not_fit(made: Plan, found: Prediction, have: float) -> str:
    total = found.memory.total
    peak = max(range(len(total)), key=lambda k: (total[k], -k))
    at = found.memory.times_s[peak]
    running = sorted(p.task for p in found.schedule.placements if p.start_s <= at <= p.end_s)
    largest = sorted(((b[peak], role) for role, b in found.memory.bytes.items()), reverse=True)[:2]
    parts = " and ".join(f"{units.size(count)} {role}" for count, role in largest)
    return (
        f"{made.graph.model}, batch {made.graph.batch}, does not fit {made.device.name}: {found.scheduler} needs "
        f"{units.size(found.peak_bytes)} at its peak (while {', '.join(running[:2]) or 'nothing'} runs; {parts}), "
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
    progress: Progress = _silent,
) -> Study:
    """One network on one device: the sequential step and the schedules that may beat it, the best one chosen.

    On a GPU schedules are tried under both ways to launch, unless `launch` names one. Ties go to the schedule that
    was tried first: sequential before parallel, eager before a CUDA graph. `orders` are played
    under the name of `scheduler`, as in `plan`.
    """
    both = ("eager", "graph") if device.kind == "gpu" else ("eager",)
    launches = both if launch is None else (launch,)
    names = ("sequential", "asap", "heft") if scheduler is None else ("sequential", scheduler)
    predictions: list[Prediction] = []
    refused: Infeasible | None = None
    for how in launches:
        for name in dict.fromkeys(names):
            progress(f"scheduling {graph.model} on {device.name}: {name}")
            try:
                given = orders if name == scheduler else None
                predictions.append(predict(plan(graph, device, name, lanes=lanes, launch=how, orders=given)))
            except Infeasible as error:
                refused = refused or error
    if not predictions or predictions[0].scheduler != "sequential":
        assert refused is not None
        raise refused
    least = min(p.latency_s for p in predictions)
    best = next(k for k, p in enumerate(predictions) if p.latency_s <= least * (1 + TIE))
    costs = _costs(graph, device, lanes, predictions[best].launch or "eager")
    path = graphs.critical_path(graph, [c.best_s for c in costs.tasks])
    return Study(graph, bare_device(device), tuple(predictions), best, path)


def compare(
    targets: Sequence[str],
    device: Hardware,
    *,
    lanes: int | None = None,
    launch: str | None = None,
    progress: Progress = _silent,
    **options: Any,
) -> Comparison:
    """Several networks on one device, in the order given; `options` are those of `build_graph`.

    Sequential and parallel are launched the same way, so that their ratio is the gain of running tasks side by side:
    `launch`, or on a GPU a CUDA graph, where no host hides what the chip could do.
    """
    how = ("graph" if device.kind == "gpu" else "eager") if launch is None else launch
    studies = tuple(
        study(
            build_graph(t, device=device, progress=progress, **options),
            device,
            lanes=lanes,
            launch=how,
            progress=progress,
        )
        for t in targets
    )
    return Comparison(bare_device(device), studies)


def find_device(name: str, *, cache: Path | None = None, progress: Progress = _silent) -> Hardware:
    """A device by name or file, or the profile in a file.

    "cpu" is this machine: measured in a few seconds, or read from the `cache` folder.
    """
    if name != "cpu":
        return load_hardware(name)
    from pararev_hw.measurement import cache_name, quick_cpu_device, read_cached, write_cached

    kept = None if cache is None else read_cached(cache / cache_name())
    if kept is not None:
        return kept
    progress("measuring this machine's CPU")
    device = quick_cpu_device()
    if cache is not None:
        try:
            write_cached(cache / cache_name(), device)
        except OSError:
            return device  # an unwritable cache costs the next run a measurement, nothing else
    return device


def schedule_document(made: Plan, prediction: Prediction | None) -> dict[str, Any]:
    """What `schedule --json` prints."""
    found = made.schedule if prediction is None else prediction.schedule
    document = {"model": made.graph.model, "launch": made.launch, **bare_schedule_document(found, made.costs)}
    if prediction is not None:
        document |= {"energy_j": energy_document(prediction.energy_j), "standing": prediction.provenance}
    document["assumptions"] = [*made.graph.assumptions, *document["assumptions"]]
    return document
