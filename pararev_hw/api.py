"""The same things as the command line, in Python: `import pararev_hw as ph`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pararev_hw import pipeline, reports, target_graph
from pararev_hw.pipeline import Plan
from pararev_hw.types import (
    BlockGraph,
    Comparison,
    Hardware,
    MeasuredDevice,
    Prediction,
    Schedule,
    SchedulingProblem,
    Study,
)

if TYPE_CHECKING:
    import torch
    from torch import nn

    from pararev_hw.execution import ParallelStep


def trace(model: nn.Module | str, inputs: Any = None, **options: Any) -> BlockGraph:
    """The block-dependency graph of one step.

    `model` is a network with its `inputs` (of which shapes and dtypes count; options are those of
    `pararev_hw.tracing.trace_step`), or the name of a target (options are those of
    `pararev_hw.target_graph.build_graph`, its `device` by name too). A network's spikes are counted on its inputs
    unless `spikes` says otherwise: "none", or a rate such as "0.15".
    """
    if isinstance(model, str):
        device = options.pop("device", None)
        return target_graph.build_graph(
            model, device=load_device(device) if isinstance(device, str) else device, **options
        )
    from pararev_hw.errors import BadInput
    from pararev_hw.importers.targets import Target
    from pararev_hw.tracing import trace_step
    from pararev_hw.training.io_forms import input_form, taking_tensors

    if inputs is None:
        raise BadInput("a network is traced with inputs: ph.trace(model, inputs)")
    form, spikes, step = input_form(inputs), options.pop("spikes", "auto"), options.pop("step", None)
    if step is None:
        with taking_tensors(model, form):
            graph = trace_step(model, form.tensors, **options).graph
    else:  # the user's own step is given the inputs as they came

        def given_step(network: nn.Module, batch: tuple[torch.Tensor, ...], optimizer: torch.optim.Optimizer) -> Any:
            return step(network, form.filled(batch), optimizer)

        graph = trace_step(model, form.tensors, step=given_step, **options).graph
    real = all(t.device.type != "meta" for t in form.tensors)
    target = Target(graph.model, model, form.tensors, real, graph.batch, graph.timesteps, False, lambda: model)
    with taking_tensors(model, form):
        return target_graph.with_spikes(graph, target, spikes)


def load_device(name: str | Path, *, cache: Path | None = None) -> Hardware:
    """A device by name or file, or a profile by its file.

    "cpu" measures this machine, or reads what an earlier call left in `cache`.
    """
    return pipeline.find_device(str(name), cache=cache)


def measure(
    graph: BlockGraph, device: Hardware | str = "cpu", *, cache: Path | None = None, seconds: float = 10.0
) -> MeasuredDevice:
    """This machine's CPU with the times of the graph's own operations, replayed here for about `seconds`.

    The graph must have been traced in this process. `cache` is a folder that keeps the times, for the next call too.

    Example:
        device = ph.measure(graph)
        ph.predict(ph.schedule(graph, device, "sequential")).latency_s
    """
    from pararev_hw.execution.measured_device import measured_device

    base = load_device(device, cache=cache) if isinstance(device, str) else device
    return measured_device(graph, base, folder=cache, seconds=seconds)


def schedule(
    graph: BlockGraph | SchedulingProblem, device: Hardware | None = None, scheduler: str = "heft", **options: Any
) -> Plan | Schedule:
    """A schedule of a graph on a device, kept with what it was made for; of bare `Costs`, the schedule alone.

    Options: `lanes`, and on a GPU `launch` ("eager" or "graph").
    """
    if isinstance(graph, SchedulingProblem):
        from pararev_hw.schedulers import run

        return run(graph, scheduler, **options)
    if device is None:
        from pararev_hw.errors import BadInput

        raise BadInput("a graph is scheduled on a device: ph.schedule(graph, ph.load_device('h200'))")
    return pipeline.plan(graph, device, scheduler, **options)


def predict(plan: Plan) -> Prediction:
    """Latency, memory over time and energy of a schedule. Raises Infeasible where the device cannot hold it."""
    return pipeline.predict(plan)


def parallel(net: nn.Module, plan: Plan, **options: Any) -> ParallelStep:
    """The training step of a network on the lanes of a plan: `with ph.parallel(net, plan) as step: loss = step(x, y)`.

    `step(*inputs, target)` gives the loss and leaves the gradients in `p.grad`, as `loss.backward()` does; the
    optimizer is yours. `launch="graph"` replays the step as one CUDA graph on a GPU.
    """
    from pararev_hw.execution import parallel as on_lanes

    return on_lanes(net, plan, **options)


@dataclass(frozen=True, slots=True)
class Report:
    """A study and the files that show it. In a notebook it shows the page itself."""

    study: Study
    files: tuple[Path, ...]

    def _repr_html_(self) -> str:
        page = reports.report_html(self.study)
        return f'<iframe srcdoc="{escape(page, quote=True)}" style="width:100%;height:48rem;border:0"></iframe>'


def report(target: BlockGraph | str, device: Hardware | str, folder: str | Path, **options: Any) -> Report:
    """Write the report of a graph, or of a target by name, into `folder`; options are those of `pipeline.study`."""
    hardware = load_device(device) if isinstance(device, str) else device
    graph = target_graph.build_graph(target, device=hardware) if isinstance(target, str) else target
    study = pipeline.study(graph, hardware, **options)
    return Report(study, reports.write_report(study, Path(folder)))


def compare(targets: Sequence[str], device: Hardware | str, **options: Any) -> Comparison:
    """Several targets on one device; options are those of `pipeline.compare`."""
    return pipeline.compare(targets, load_device(device) if isinstance(device, str) else device, **options)
