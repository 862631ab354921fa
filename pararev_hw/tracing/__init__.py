"""Trace a network's step: the real one, run once on fake tensors, into a block-dependency graph and a program."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import nn

from pararev_hw.errors import BadInput, unknown_name
from pararev_hw.progress import Progress, silent
from pararev_hw.tracing.blocks import BlockFinder
from pararev_hw.tracing.build import GRANULARITIES, Built, build, followed, program_of
from pararev_hw.tracing.cuda_dispatch import CPU_RULES
from pararev_hw.tracing.cuda_dispatch import DispatchRules as DispatchRules
from pararev_hw.tracing.how_far import StepWatch
from pararev_hw.tracing.model_state import uncopied_state as uncopied_state
from pararev_hw.tracing.spikes import holds_spikes as holds_spikes
from pararev_hw.tracing.spikes import measure_spikes as measure_spikes
from pararev_hw.tracing.step import Recorded, record
from pararev_hw.tracing.tape import Tape, regrouped, tape_of
from pararev_hw.tracing.time_axis import batch_leads as batch_leads
from pararev_hw.tracing.time_axis import layout_of_step as layout_of_step
from pararev_hw.tracing.time_axis import leading_axes
from pararev_hw.tracing.time_axis import output_keeps as output_keeps
from pararev_hw.tracing.time_axis import walked_axes as walked_axes
from pararev_hw.training.collection import no_collection, take_for_old
from pararev_hw.training.step import Loop
from pararev_hw.training.step import optimizer_named as optimizer_named
from pararev_hw.types import NO_GRADIENT, VALUES_ASKED, BlockGraph, InMemory, ModuleInfo, Program

# "auto" goes on to these where the step has at most so many tasks so far
FINER = {"block": 1 << 62, "module": 64, "op": 16}
ROWS_DIFFER = "no row of a table is looked up twice in a step: sparse gradients have as many rows as they can have"
RESETS = (
    "the state that a micro-batch leaves is put back before the next, as functional.reset_net in a training loop does"
)
FINER_PAYS = 1.1  # times the parallelism at least, or the tasks stay as large as they are


@dataclass(frozen=True, slots=True)
class Traced:
    """A traced step: the graph, the same ops as a program that runs, and the tape that both were built from. Op k is
    instruction k and line k. `coarse` is the tape in blocks, where the size of the tasks was left open."""

    graph: BlockGraph
    tape: Tape
    coarse: Tape | None = None

    @property
    def program(self) -> Program:
        """Made when it is first asked for."""
        program = self.graph.program
        assert program is not None, "a copy of the graph from another process"
        return program

    def with_program(self, program: Program) -> Traced:
        """The step with this program in place of its own."""
        return replace(self, graph=replace(self.graph, replayable=InMemory(program)))


@dataclass(frozen=True, slots=True)
class StepDescription:
    """What a traced step is called, and the axes of its inputs. `batch` (of one micro-batch) and `timesteps` are read
    from the first input's axes where `batch` is None; `assumptions` are sentences for reports. `real_inputs`: the
    inputs are no mere shapes, and decide which way the network goes where it asks for their values. `progress` hears
    how far the tracing of many operations is; a step that needs more than `free_bytes` is refused."""

    name: str | None = None  # None: that of the network's class
    batch: int | None = None
    timesteps: int | None = None
    assumptions: Sequence[str] = ()
    real_inputs: bool = False
    progress: Progress = silent
    free_bytes: int | None = None


PLAIN_LOOP = Loop()
UNNAMED = StepDescription()


def trace_step(
    model: nn.Module,
    inputs: torch.Tensor | Sequence[torch.Tensor],
    *,
    loop: Loop | None = PLAIN_LOOP,
    description: StepDescription = UNNAMED,
    dtype: str = "float32",
    granularity: str = "block",
    blocks: Sequence[str] = (),
    rules: DispatchRules = CPU_RULES,
) -> Traced:
    """Trace one training step of `model` as `loop` runs it, or one inference where `loop` is None.

    `inputs`: tensors of which only shape and dtype count; they may be on device "meta". `dtype` "bfloat16" and
    "float16" trace under autocast, "float64" with weights and inputs in double. `blocks` are patterns of module paths
    ("encoder.layers.*") that name the blocks by hand; `granularity` is "op", "module", "block" or "auto" (block,
    and finer where blocks are few and hide what may run in parallel). Where the loop accumulates, `inputs` are those
    of one micro-batch, and the graph's batch is that of all. `rules` say whether the ops are those of a CPU or of a
    GPU, and whether images lie channels last.

    Raises TraceError where the step cannot be traced, and says which module and line; Infeasible where memory does not
    hold it.
    """
    tensors = (inputs,) if isinstance(inputs, torch.Tensor) else tuple(inputs)
    if granularity not in ("auto", *GRANULARITIES):
        raise unknown_name("granularity", granularity, ("auto", *GRANULARITIES))
    title = description.name or type(model).__name__
    finder = BlockFinder(model, blocks)
    with no_collection():
        watch = StepWatch(
            title,
            passes=0 if loop is None else loop.accumulate,
            # TorchScript's classes have a `forward` that only their objects tell
            modules=sum(getattr(type(m), "forward", None) is not nn.Module.forward for m in model.modules()),
            timesteps=description.timesteps,
            progress=description.progress,
            free_bytes=description.free_bytes,
        )
        real = description.real_inputs
        recorded = record(model, tensors, loop=loop, dtype=dtype, rules=rules, real_inputs=real, watch=watch)
        watch.building(len(recorded.recorder.records))
        neurons = frozenset(n for n, m in model.named_modules() if _is_neuron(m))
        coarse = tape_of(recorded.recorder, recorded.results, recorded.gradients, finder, neurons)
        levels = tuple(FINER) if granularity == "auto" else (granularity,)
        tape, built = _grouped(coarse, levels)
        take_for_old()
    batch, timesteps = description.batch, description.timesteps
    if batch is None:
        batch, timesteps = leading_axes(tape, _shape(tensors), timesteps)
    graph = BlockGraph(
        model=title,
        mode="infer" if loop is None else "train",
        batch=batch if loop is None else loop.accumulate * batch,
        timesteps=timesteps,
        dtype=dtype,
        granularity=tape.granularity,
        input_shapes=tuple(tuple(x.shape) for x in tensors),
        parameters=recorded.parameters,
        op_types=built.op_types,
        ops=built.ops,
        storages=built.storages,
        tasks=built.tasks,
        edges=built.edges,
        memory=built.memory,
        assumptions=(*description.assumptions, *_assumptions(recorded)),
        replayable=InMemory(make=partial(program_of, tape)),
        modules=_modules(model, recorded),
    )
    return Traced(graph, tape, coarse if granularity == "auto" else None)


def _assumptions(recorded: Recorded) -> Iterator[str]:
    recorder, absent = recorded.recorder, recorded.without_gradient
    if absent:
        names = ", ".join(absent[:3]) + (f" and {len(absent) - 3} more" if len(absent) > 3 else "")
        yield (
            f"{len(absent)} of {recorded.trainable} parameter tensors {NO_GRADIENT}: {names} (nothing differentiable "
            "leads from the loss to them, as where spikes have no surrogate gradient or a layer is not used)"
        )
    if recorded.resets:
        yield RESETS
    if recorder.merged_rows:
        yield ROWS_DIFFER
    if recorder.answered_at:
        yield f"{VALUES_ASKED[0]}{recorder.answered_at}: traced as it runs on those given"
    if recorder.optimizer_asked:
        yield f"{VALUES_ASKED[1]}, such as the size of a parameter: 1 is taken"


def _modules(model: nn.Module, recorded: Recorded) -> tuple[ModuleInfo, ...]:
    """Every module with its class and shapes; a parameter that two share is the first one's."""
    counted: set[int] = set()
    modules = []
    for path, module in model.named_modules():
        first = [p for p in module.parameters(recurse=False) if id(p) not in counted]
        counted.update(map(id, first))
        shapes = recorded.recorder.input_shapes.get(path), recorded.recorder.output_shapes.get(path)
        modules.append(ModuleInfo(path, type(module).__name__, sum(p.numel() for p in first), *shapes))
    return tuple(modules)


def _grouped(coarse: Tape, levels: Sequence[str]) -> tuple[Tape, Built]:
    """The step in tasks of the first of `levels`; a later one where tasks are few and it allows more in parallel."""
    order = followed(coarse)  # what must follow what is the same whatever the tasks

    def at(level: str) -> tuple[Tape, Built]:
        tape = regrouped(coarse, level)
        return tape, build(tape, order)

    tape, built = at(levels[0])
    for level in levels[1:]:
        if len(built.tasks) > FINER[level]:
            break
        finer_tape, finer = at(level)
        if _parallelism(finer) > FINER_PAYS * _parallelism(built):
            tape, built = finer_tape, finer
    return tape, built


def _parallelism(built: Built) -> float:
    """Work over the longest chain of work; bytes moved count too, so that light operations are not free."""
    work = [float(t.flops + t.vector_flops + t.read_bytes + t.write_bytes) for t in built.tasks]
    longest = list(work)
    for edge in sorted(built.edges, key=lambda e: e.dst):
        longest[edge.dst] = max(longest[edge.dst], longest[edge.src] + work[edge.dst])
    return sum(work) / max(longest) if work and max(longest) > 0 else 1.0


def _shape(tensors: Sequence[torch.Tensor]) -> tuple[int, ...]:
    if not tensors or tensors[0].dim() == 0:
        raise BadInput("the network needs at least one input with a batch dimension")
    return tuple(tensors[0].shape)


def _is_neuron(module: nn.Module) -> bool:
    """A module that says of itself that it is a spiking neuron; others are recognised by the spikes that they make."""
    return bool(getattr(module, "is_spiking_neuron", False))
