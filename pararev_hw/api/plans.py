"""Schedules of graphs and of bare task graphs, what they cost, and running them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypedDict, Unpack

from pararev_hw import pipeline
from pararev_hw.api.machines import hardware_of
from pararev_hw.costmodels import energy_models
from pararev_hw.documents import shown
from pararev_hw.errors import BadInput, unknown_name
from pararev_hw.keywords import exact, positive, whole_number
from pararev_hw.pipeline import Plan
from pararev_hw.progress import Progress, silent
from pararev_hw.schedulers import run
from pararev_hw.sizes import parsed_bytes
from pararev_hw.task_graph_files import read_problem
from pararev_hw.types import BlockGraph, Hardware, Prediction, Schedule, SchedulingProblem

if TYPE_CHECKING:
    from torch import nn

    from pararev_hw.execution import Execution, Job, ParallelStep

Launch = Literal["eager", "graph"]
LAUNCHES: tuple[Launch, ...] = ("eager", "graph")


class SchedulerOptions(TypedDict, total=False):
    """What a scheduler may be told; None: its own default."""

    seconds: float | None
    seed: int | None
    iterations: int | None
    workers: int | None
    latency_bound: float | None
    points: int | None


@exact
def schedule(
    graph: BlockGraph,
    device: str | Path | Hardware,
    scheduler: str = "heft",
    *,
    lanes: int | None = None,
    launch: Launch | None = None,
    memory_limit: int | str | None = None,
    energy_model: str = "device",
    **options: Unpack[SchedulerOptions],
) -> Plan:
    """A schedule of a graph on a device, kept with what it was made for.

    Args:
        graph: What `ph.trace` or `ph.load_graph` gave.
        device: A name, a file, a `Device` or a `Profile`.
        scheduler: See `ph.schedulers()`.
        lanes: Streams, cores or threads to use. None: all that the device has.
        launch: On a GPU: "eager", or "graph" for a CUDA graph. None: eager.
        memory_limit: What may be alive at once, where less than the device has: bytes, or a text such as "800MiB".
        seconds: Time to search, of "local-search" and "exact".
        seed: Of "local-search" and "exact".
        iterations: Of "local-search".
        workers: Searches that "exact" runs side by side.
        latency_bound: Seconds that "memory-min" may take.
        points: Memory limits that "pareto" tries.
        energy_model: "device", or a model of the literature whose energy the plan has beside the device's: "papers",
            "lemaire2022" or "compute-in-memory".

    Returns:
        The plan: `plan.schedule`, `plan.predict()`, `plan.plot_timeline()`, `plan.energy_model`.

    Raises:
        BadInput: A name or value is wrong, or the scheduler has no such option.
        Infeasible: It does not fit the memory: the message says what is needed.

    Example:
        >>> import pararev_hw as ph
        >>> graph = ph.trace("pararevsnn21", width=0.1, batch=1, timesteps=1)
        >>> plan = ph.schedule(graph, "edge8", scheduler="exact", seconds=10, workers=1)
        >>> plan.schedule.makespan_s <= ph.schedule(graph, "edge8", "heft").schedule.makespan_s
        True
    """
    check_lanes(lanes, launch)
    energy_models.check_name(energy_model)
    plan = pipeline.plan(
        graph,
        hardware_of(device, lanes=lanes),
        scheduler,
        lanes=lanes,
        launch=launch,
        memory_limit=bytes_of(memory_limit),
        options=_set_options(options),
    )
    if energy_model == energy_models.DEVICE:
        return plan
    return replace(plan, energy_model=energy_models.model_energy(graph, energy_model))


@exact
def schedule_problem(
    problem: SchedulingProblem,
    scheduler: str = "heft",
    **options: Unpack[SchedulerOptions],
) -> Schedule:
    """A schedule of a bare task graph.

    Args:
        problem: What `ph.load_problem` gave, or tasks and edges of your own.
        scheduler: See `ph.schedulers()`; the options are those of `ph.schedule`.

    Returns:
        Who runs where and when, with a lower bound.

    Raises:
        BadInput: A name or value is wrong, or the scheduler has no such option.
        Infeasible: It does not fit the problem's memory limit.

    Example:
        >>> import pararev_hw as ph
        >>> problem = ph.load_problem("examples/task_graph.json", lanes=2)
        >>> ph.schedule_problem(problem, "exact").optimal
        True
    """
    return run(problem, scheduler, **_set_options(options))


@exact
def load_problem(
    path: str | Path,
    *,
    lanes: int | None = None,
    format: Literal["json", "stg", "jsp"] | None = None,
    memory_limit: int | str | None = None,
) -> SchedulingProblem:
    """The bare task graph in a `.json`, `.stg` or `.jsp` file.

    Args:
        path: The file.
        lanes: How many tasks can run at once; of a `.jsp` file it is the number of machines.
        format: "json", "stg" or "jsp", where the file's name does not tell.
        memory_limit: What may be alive at once: bytes, or a text such as "800MiB".

    Returns:
        The problem, for `ph.schedule_problem`.

    Raises:
        BadInput: There is no such file, it holds no task graph, or `lanes` is missing.

    Example:
        >>> import pararev_hw as ph
        >>> ph.load_problem("examples/task_graph.json", lanes=2).lanes
        2
    """
    return read_problem(path, format=format, lanes=lanes, memory_limit_bytes=bytes_of(memory_limit))


@exact
def predict(plan: Plan) -> Prediction:
    """What a plan costs when it is played: the same as `plan.predict()`.

    Args:
        plan: What `ph.schedule` gave.

    Returns:
        Latency, memory over time and energy, with what was assumed and what is not modelled.

    Raises:
        Infeasible: The device's memory does not hold it.

    Example:
        >>> import pararev_hw as ph
        >>> plan = ph.schedule(ph.trace("pararevsnn21", width=0.1, batch=1), "h200")
        >>> ph.predict(plan).latency_s == plan.predict().latency_s
        True
    """
    return pipeline.predict(plan)


@exact
def execute(plan: Plan, *, steps: int = 10, progress: Progress = silent) -> Execution:
    """Run a plan for real on this machine, beside the sequential step and PyTorch's own loop.

    A graph that was traced for another kind of device is traced again for this one, and scheduled the same way.

    Args:
        plan: What `ph.schedule` gave for a graph that `ph.trace` made in this process, on a device of kind "cpu" or
            "gpu".
        steps: Steps that are measured, after two to warm up.
        progress: Called with a line for each thing that takes time.

    Returns:
        What was predicted and what was measured.

    Raises:
        BadInput: The plan is for a device that this machine is not, or its graph was read from a file.
        Infeasible: This machine's memory does not hold the step.

    Example:
        >>> import pararev_hw as ph
        >>> plan = ph.schedule(ph.trace("pararevsnn21", width=0.1, batch=1), "edge8")
        >>> ph.execute(plan)
        Traceback (most recent call last):
        pararev_hw.errors.BadInput: edge8 is a device of kind accelerator: a step runs on this machine's cpu or gpu
    """
    from pararev_hw import execution

    whole_number("steps", steps, least=1)
    launch = next((how for how in LAUNCHES if how == plan.launch), None)
    job = _job(plan, progress)
    same = [t.id for t in job.graph.tasks] == [t.id for t in plan.graph.tasks]
    return execution.execute(
        job,
        plan.device,
        plan.schedule.scheduler,
        lanes=plan.schedule.lanes,
        orders=pipeline.lane_orders(plan.graph, plan.schedule) if same else None,
        launch=launch,
        steps=steps,
        progress=progress,
    )


@exact
def parallel(net: nn.Module, plan: Plan, *, launch: Launch = "eager") -> ParallelStep:
    """The forward and backward pass of a network on the lanes of a plan, as a context.

    Args:
        net: The network that was traced, on a CPU (lanes are threads) or a GPU (streams). It is trained in place.
        plan: What `ph.schedule` gave for a graph that this process traced.
        launch: On a GPU "graph" captures the step once and replays it.

    Returns:
        A callable: `step(*inputs, target)` gives the loss and leaves the gradients in `p.grad`, as `loss.backward()`
        does. The optimizer is yours.

    Raises:
        BadInput: The graph holds no program (it came from a file), or is of another network.

    Example:
        >>> import pararev_hw as ph
        >>> import torch
        >>> net = torch.nn.Linear(4, 3)
        >>> x, y = torch.rand(2, 4), torch.tensor([0, 2])
        >>> plan = ph.schedule(ph.trace(net, x, device="cpu"), "edge8", lanes=2)
        >>> with ph.parallel(net, plan) as step:
        ...     loss = step(x, y)
        >>> net.weight.grad.shape
        torch.Size([3, 4])
    """
    from torch import nn

    from pararev_hw.execution import parallel as on_lanes

    if not isinstance(net, nn.Module):
        raise BadInput(f"net is {shown(net)}: it must be the nn.Module that was traced")
    check_lanes(None, launch)
    return on_lanes(net, plan, launch=launch)


def _job(plan: Plan, progress: Progress) -> Job:
    """The network that the plan's graph was traced from, ready to run."""
    from pararev_hw import execution
    from pararev_hw.api.steps import Origin, module_target
    from pararev_hw.importers.targets import resolve
    from pararev_hw.training.io_forms import input_form

    if plan.device.kind not in ("cpu", "gpu"):
        raise BadInput(
            f"{plan.device.name} is a device of kind {plan.device.kind}: a step runs on this machine's cpu or gpu"
        )
    device = "cuda" if plan.device.kind == "gpu" else "cpu"
    execution.check_device(device)
    origin = plan.graph.origin.value
    if not isinstance(origin, Origin):
        raise BadInput(f"{plan.graph.model}: this graph was read from a file: trace its network again to run it")
    o = origin.options
    if callable(o.optimizer) or o.loss is not None or o.step is not None:
        raise BadInput(f"{plan.graph.model}: an optimizer, loss or step of your own cannot be run again: name one")
    if isinstance(origin.model, str):
        target = resolve(origin.model, o)
    else:
        form = None if origin.inputs is None else input_form(origin.inputs)
        target = module_target(origin.model, form, o)
    progress(f"building {target.name}")
    return execution.prepare_target(target, o, device)


def check_lanes(lanes: int | None, launch: str | None) -> None:
    """Raise BadInput where there are no such lanes, or no such way to launch."""
    if lanes is not None:
        whole_number("lanes", lanes, least=1)
    if launch is not None and launch not in LAUNCHES:
        raise unknown_name("launch", launch, LAUNCHES)


def bytes_of(memory_limit: int | str | None) -> int | None:
    """A memory limit in bytes. Raises BadInput."""
    if isinstance(memory_limit, str):
        return parsed_bytes(memory_limit, "memory_limit")
    if memory_limit is not None:
        whole_number("memory_limit", memory_limit, least=0)
    return memory_limit


def _set_options(options: SchedulerOptions) -> dict[str, int | float]:
    """The scheduler's options that were given, by name. Raises BadInput."""
    for name, count, least in (
        ("seed", options.get("seed"), 0),
        ("iterations", options.get("iterations"), 0),
        ("workers", options.get("workers"), 1),
        ("points", options.get("points"), 1),
    ):
        if count is not None:
            whole_number(name, count, least=least)
    for name in ("seconds", "latency_bound"):
        amount = options.get(name)
        if isinstance(amount, int | float):
            positive(name, amount, " of seconds")
    return {name: value for name, value in options.items() if isinstance(value, int | float)}
