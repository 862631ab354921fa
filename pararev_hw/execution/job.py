"""A network made ready to train by its trace: built for real, traced, with batches to feed it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import nn

from pararev_hw import models
from pararev_hw.defaults import default_optimizer
from pararev_hw.errors import INTERRUPTS, BadInput, PararevError, StepFailed, first_line
from pararev_hw.execution.network_copy import copied_network
from pararev_hw.execution.state import fresh_optimizer_state, network_state
from pararev_hw.importers.free_memory import within_free_memory
from pararev_hw.importers.targets import Target, resolve
from pararev_hw.target_graph import with_axes
from pararev_hw.trace_options import TraceOptions
from pararev_hw.tracing import Traced, optimizer_named, trace_step, uncopied_state
from pararev_hw.training.step import EagerStep, Loop, eager_step, tensors_in
from pararev_hw.types import BlockGraph

Batch = dict[str, torch.Tensor]  # by the names of a program's externals: "input:0", "target:0"


@dataclass(frozen=True, slots=True)
class Job:
    """A step to run: the traced one, the network that it starts from, and what a plain loop would do instead."""

    target: Target
    traced: Traced
    model: nn.Module
    mode: Literal["train", "infer"]
    dtype: str
    optimizer: str
    device: str  # of torch: "cpu", "cuda"
    seed: int

    @property
    def graph(self) -> BlockGraph:
        return self.traced.graph


def prepare(target: str, options: TraceOptions, device: str = "cpu") -> Job:
    """Build the network that `target` names, with real weights on the torch device, and trace its step there."""
    return prepare_target(resolve(target, options), options, device)


def prepare_target(target: Target, options: TraceOptions, device: str = "cpu") -> Job:
    """The same for a network that is there already: of the options, those that say how its step goes."""
    mode, dtype = options.mode, options.dtype
    optimizer = options.optimizer or default_optimizer(device)
    assert isinstance(optimizer, str)  # a job makes its optimizer again and again, by its name
    brings_step = target.step is not None and mode == "train"
    model = _realised(target, dtype, device)
    traced = trace_step(
        _to_trace(model, target),
        (*target.inputs, *target.targets) if brings_step else target.inputs,
        loop=Loop(optimizer_named(optimizer), step=target.step if brings_step else None) if mode == "train" else None,
        description=target.described(),
        dtype=dtype,
        granularity=options.granularity,
        blocks=options.blocks,
    )
    graph, target = with_axes(traced, target)
    traced = replace(traced, graph=graph)
    if model.training != (mode == "train"):  # else parts that the factory froze by eval() stay so
        model.train(mode == "train")
    return Job(target, traced, model, mode, dtype, optimizer, device, options.seed)


def _to_trace(model: nn.Module, target: Target) -> nn.Module:
    """The network, or its copy where tracing changes what cannot be put back: a generator goes on, and the fake tensors
    of a scripted module do not come out again."""
    scripted = any(isinstance(m, torch.jit.ScriptModule) for m in model.modules())
    changes = scripted or (target.remade is not None and uncopied_state(model) is not None)
    return copied_network(model, target.name, target.remade) if changes else model


def _realised(target: Target, dtype: str, device: str) -> nn.Module:
    try:
        with within_free_memory(target.name):
            model = target.realise()
        model = model.to(device)
    except (PararevError, *INTERRUPTS):
        raise
    except BaseException as error:
        # a user's factory may raise anything
        reason = f"{type(error).__name__}: {first_line(error)}"
        raise BadInput(f"{target.name} cannot be built on {device}: {reason}") from error
    return model.double() if dtype == "float64" else model


def start(job: Job) -> tuple[nn.Module, Batch]:
    """A copy of the network and all that its step starts from, by name, with the first batch in tensors of its own."""
    model = copied_network(job.model, job.graph.model, job.target.remade)
    state = network_state(model)
    if job.mode == "train":
        state |= fresh_optimizer_state(model, optimizer_named(job.optimizer))
    return model, state | next(batches(job))


def batches(job: Job) -> Iterator[Batch]:
    """New batches for ever, the same for the same seed: images uniform in [0, 1), labels and tokens drawn evenly.

    A target that brings real inputs is fed those, its samples in another order each time, where it takes any batch.
    """
    generator = torch.Generator().manual_seed(job.seed)
    names = sorted(job.traced.program.externals.values())
    shapes = [*job.target.inputs, *(job.target.targets if job.target.step is not None and job.mode == "train" else ())]
    classes = _classes(job)
    while True:
        batch: Batch = {}
        for k, x in enumerate(shapes):
            if f"input:{k}" in names:
                batch[f"input:{k}"] = _drawn(x, job, k, classes, generator).to(job.device)
        if "target:0" in names:
            batch["target:0"] = torch.randint(0, classes, (_samples(job),), generator=generator).to(job.device)
        yield batch


def _drawn(x: torch.Tensor, job: Job, k: int, classes: int, generator: torch.Generator) -> torch.Tensor:
    real = job.target.real_inputs and k < len(job.target.inputs)
    dtype = torch.float64 if job.dtype == "float64" and x.is_floating_point() else x.dtype
    if real:
        order = torch.randperm(x.shape[0], generator=generator) if x.dim() else None
        return (x if order is None else x[order]).to(dtype).contiguous()
    if x.is_floating_point():
        return torch.rand(x.shape, generator=generator, dtype=dtype)
    return torch.randint(0, classes, tuple(x.shape), generator=generator, dtype=dtype)


def _output_shape(job: Job) -> tuple[int, ...]:
    """The shape of the network's first output."""
    slot = job.traced.program.results.get("output:0")
    for k, instruction in enumerate(job.traced.program.instructions):
        if slot is not None and slot in instruction.outputs:
            return job.graph.op_types[job.graph.ops[k].type].output_shapes[instruction.outputs.index(slot)]
    return ()


def _samples(job: Job) -> int:
    shape = _output_shape(job)
    return shape[0] if shape else job.graph.batch


def _classes(job: Job) -> int:
    shape = _output_shape(job)
    if len(shape) == 2:
        return shape[1]
    return models.spec(job.target.name).classes if job.target.name in models.names() else 2


def plain_loop(job: Job) -> tuple[nn.Module, Callable[[Batch], torch.Tensor]]:
    """A copy of the network and its step as PyTorch's own loop runs it; the step gives the loss (or the output).

    Raises StepFailed where the network raises.
    """
    step = copied_step(job)
    return step.model, on_batches(job, step)


def copied_step(job: Job) -> EagerStep:
    """The step of a copy of the network, with an optimizer of its own."""
    model = copied_network(job.model, job.graph.model, job.target.remade)
    loop = Loop(optimizer_named(job.optimizer), step=job.target.step) if job.mode == "train" else None
    return eager_step(model, loop, job.dtype, job.device)


def on_batches(job: Job, step: EagerStep) -> Callable[[Batch], torch.Tensor]:
    """The step as a function of a batch that gives the loss (or the output). Raises StepFailed where it raises."""

    def run(batch: Batch) -> torch.Tensor:
        names = (f"input:{k}" for k in range(len(batch)))
        output = step(tuple(batch[n] for n in names if n in batch), batch.get("target:0"))
        if job.mode == "infer":
            return tensors_in(output.out)[0]
        return output.loss.detach() if isinstance(output.loss, torch.Tensor) else torch.zeros(())

    return _guarded(run, job)


def _guarded(step: Callable[[Batch], torch.Tensor], job: Job) -> Callable[[Batch], torch.Tensor]:
    def run(batch: Batch) -> torch.Tensor:
        try:
            return step(batch)
        except INTERRUPTS:
            raise
        except BaseException as error:
            # a network may raise anything
            raise StepFailed(f"{job.graph.model}: {type(error).__name__} while it ran: {first_line(error)}") from error

    return run
