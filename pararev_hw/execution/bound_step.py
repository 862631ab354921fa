"""A traced step made ready to run: its functions, bound to the tensors that exist before it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from pararev_hw.check.replay import filled
from pararev_hw.cuda_calls import CUDA, Stream
from pararev_hw.errors import BadInput, Infeasible, StepFailed, first_line
from pararev_hw.execution.lane_order import Slot, lane_slots
from pararev_hw.execution.program import scalars_of, task_name, write_source
from pararev_hw.execution.random_numbers import Draws
from pararev_hw.execution.state import bound
from pararev_hw.types import BlockGraph, Program

_FILE = "<traced step>"


@dataclass(frozen=True, slots=True)
class TaskRun:
    """When a task really ran, in seconds from the start of the step."""

    task: int  # index into BlockGraph.tasks
    lane: int
    start_s: float
    end_s: float


@dataclass(frozen=True, slots=True)
class StepRun:
    """One step that really ran."""

    latency_s: float
    tasks: tuple[TaskRun, ...]


@dataclass(frozen=True, slots=True)
class BoundStep:
    """The step's functions by task, bound to tensors: `run_task[i]()` runs the ops of task i.

    `begin` must be called before the tasks of each step run.
    """

    graph: BlockGraph
    program: Program
    slots: tuple[tuple[Slot, ...], ...]
    run_task: Mapping[int, Callable[[], None]]
    static: Mapping[int, torch.Tensor]
    _cells: tuple[list[Any], ...]
    _results: Mapping[str, tuple[int, int]]
    _op_of_line: Mapping[int, int]
    _draws: Draws
    _now: list[Any]

    def begin(self, step_seed: int | None = None, scalars_now: Sequence[Any] | None = None) -> None:
        """Let go of what the last step left. Draws of the coming one follow from the seed; None: torch's own stream."""
        for cells in self._cells:
            cells[:] = [None] * len(cells)
        self._draws.begin(step_seed)
        if scalars_now is not None:
            self._now[:] = scalars_now

    @property
    def draws_again(self) -> bool:
        """Whether two random ops draw the same numbers."""
        return self._draws.again

    @property
    def scalars_vary(self) -> bool:
        """Whether scalars change from step to step."""
        return bool(self._now)

    def results(self) -> dict[str, torch.Tensor]:
        """What the step left, by name: gradients, outputs, loss. Gone when the next one begins."""
        return {
            name: self.static[at] if lane < 0 else self._cells[lane][at] for name, (lane, at) in self._results.items()
        }

    def explained(self, error: BaseException) -> StepFailed | Infeasible:
        """The error in one line that names the op and its module; Infeasible where memory ran out."""
        line, trace = -1, error.__traceback__
        while trace is not None:
            if trace.tb_frame.f_code.co_filename == _FILE:
                line = trace.tb_lineno
            trace = trace.tb_next
        message = first_line(error)
        where = ""
        if line in self._op_of_line:
            k = self._op_of_line[line]
            function = self.graph.op_types[self.graph.ops[k].type].name
            where = f" in {function} of {self.graph.ops[k].module or 'the network itself'}"
        if isinstance(error, torch.OutOfMemoryError | MemoryError) or "can't allocate memory" in message:
            return Infeasible(
                f"{self.graph.model}: memory ran out{where}: {message}: lower the batch, the width or the lanes"
            )
        return StepFailed(f"{self.graph.model}: {type(error).__name__} while its step ran{where}: {message}")


def bind(
    graph: BlockGraph,
    program: Program,
    state: Mapping[str, torch.Tensor],
    orders: Sequence[Sequence[int]],
    *,
    varying: Sequence[int] = (),
    note: Callable[[torch.Tensor], None] | None = None,
    streams: Sequence[Stream] = (),
    lend: Callable[[torch.Tensor, Stream], None] = CUDA.lend,
    stamp: Callable[[int], None] | None = None,
) -> BoundStep:
    """The step of a graph and its program on these lane orders, bound to the tensors in `state` by name.

    `varying` are calls whose scalars are given anew for each step, in this order, as `scalars_of` lists them. `note` is
    shown every tensor that the step makes; `streams` are those of the lanes on a GPU, and `lend` shows a tensor to
    another lane's stream; `stamp` is called with the number of each op when it is over. Raises BadInput where the state
    lacks a tensor, IllegalSchedule where the orders are not legal.
    """
    slots = lane_slots(graph, orders)
    static = bound(program, state)
    graph = _with_views(graph, program, static)
    places: dict[int, range] = {}
    now: list[Any] = []
    for call in varying:
        scalars = scalars_of(program.calls[call])
        places[call] = range(len(now), len(now) + len(scalars))
        now += scalars
    source = write_source(
        graph,
        program,
        orders,
        frozenset(static),
        places,
        noting=note is not None,
        streams=bool(streams),
        stamping=stamp is not None,
    )
    cells = tuple([None] * n for n in source.cells)
    tokens = Counter(i.rng for i in program.instructions)
    draws = Draws({t.device for t in static.values()}, (t for t, count in tokens.items() if count > 1 and t >= 0))
    names: dict[str, Any] = {**source.names, "draw": draws, "now": now, "note": note, "lend": lend, "stamp": stamp}
    names |= {f"v{lane}": lane_cells for lane, lane_cells in enumerate(cells)}
    names |= {f"stream{lane}": stream for lane, stream in enumerate(streams)}
    names |= {f"s{slot}": tensor for slot, tensor in static.items()}
    exec(compile(source.text, _FILE, "exec"), names)
    run_task = {t: names[task_name(t)] for order in orders for t in order}
    return BoundStep(graph, program, slots, run_task, static, cells, source.results, source.op_of_line, draws, now)


def _with_views(graph: BlockGraph, program: Program, static: dict[int, torch.Tensor]) -> BlockGraph:
    """Views of what is there before the step are made once and stay: they get their place in `static`. Other ops of no
    task join the task that makes what they look at."""
    task_of = {k: n for n, t in enumerate(graph.tasks) for k in t.ops}
    maker: dict[int, int] = {}
    joined: dict[int, list[int]] = {}
    for k, instruction in enumerate(program.instructions):
        if k in task_of:
            maker.update((s, task_of[k]) for s in instruction.outputs if s is not None)
            continue
        made_in = [maker[s] for s in instruction.inputs if s not in static and s in maker]
        if len(made_in) < sum(s not in static for s in instruction.inputs):
            raise BadInput(f"op {k} of {graph.model} needs a tensor that no op made")
        if made_in:
            home = max(made_in)  # tasks are in topological order
            joined.setdefault(home, []).append(k)
            maker.update((s, home) for s in instruction.outputs if s is not None and s not in static)
            continue
        call = program.calls[instruction.call]
        tensors = [static[s] for s in instruction.inputs]
        out = call.function(*filled(call.args, tensors), **{n: filled(v, tensors) for n, v in call.kwargs.items()})
        outputs = out if isinstance(out, list | tuple) else (out,)
        static.update((s, t) for s, t in zip(instruction.outputs, outputs, strict=True) if s is not None)
    if not joined:
        return graph
    tasks = tuple(
        replace(t, ops=tuple(sorted((*t.ops, *joined[n])))) if n in joined else t for n, t in enumerate(graph.tasks)
    )
    return replace(graph, tasks=tasks)
