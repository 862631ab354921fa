"""Each op of a traced step timed in place: the step is replayed on this CPU with a timestamp after every op.

In place an op finds its inputs where the op before left them: in a cache or not, in fresh memory or in memory that was
used before. Values are drawn as a new network's would be. The step is replayed in the order in which PyTorch runs it,
with and without timestamps, and in the order of its tasks, another that its dependencies allow. Whatever it is to be
compared with may run in turns with the replays: then a machine whose speed drifts is as slow for one as for the other.

Time is the time during which this thread held the core: a neighbour that takes the core away is not counted. What a
neighbour does to shared caches is, so an op's part of the step is a low quantile of its samples. The whole step is the
median, as a measured step is.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import torch

from pararev_hw.costmodels.traffic import Floats
from pararev_hw.errors import BadInput, Infeasible
from pararev_hw.execution.bound_step import BoundStep, bind
from pararev_hw.measurement import MIN_STEPS, collector_at_rest, computing_threads, settle_allocator
from pararev_hw.measurement.clock import mapped_in_bytes
from pararev_hw.measurement.environment import available_bytes
from pararev_hw.measurement.pace import pace_s
from pararev_hw.progress import Progress, silent
from pararev_hw.reports import units
from pararev_hw.types import BlockGraph, Program, ReplayedStep

LEAST_REPLAYS, MOST_REPLAYS = MIN_STEPS, 40
_OTHER_ORDER_REPLAYS = 3
QUANTILE = 0.25  # of the samples of an op: disturbances only add
_MEMORY_SHARE = 0.9  # of what is free
_DRAW_SEED = 0
_NOTABLE_BYTES = 1 << 20  # mapped in by a step, below which its ops' times hold next to nothing of it
LONG_STEP_S = 0.03  # what a step finds in the caches of its like makes no difference to a longer one


@dataclass(frozen=True, slots=True)
class ReplayTimes:
    """Seconds of one core, per op and of the whole step.

    `op_s[k]` is op k in PyTorch's order, `other_order_s[k]` in the order of the tasks, both without the clock's own
    time. `whole` is the step without timestamps. `spread[k]` is half the interquartile range of op k over its time.
    """

    op_s: Floats
    other_order_s: Floats
    whole: ReplayedStep
    spread: Floats


def replay_times(
    graph: BlockGraph,
    seconds: float = 10.0,
    progress: Progress = silent,
    in_turns: Callable[[], None] = lambda: None,
    after_step: Callable[[], None] = lambda: None,
) -> ReplayTimes:
    """Replay the step for about `seconds`, in PyTorch's order at least as often as a real step is timed; before each
    time `in_turns` runs, and after each replay in PyTorch's order `after_step`.

    As in a loop, a step that is timed follows its like.

    Raises BadInput for a graph that has no program (one from a file), or one that was traced for another device, and
    Infeasible where the free memory does not hold it.
    """
    program = _program(graph)
    _check_room(graph)
    state = drawn_state(program)
    in_order = _one_task(graph)
    tasks = tuple(range(len(graph.tasks)))
    with computing_threads(1), collector_at_rest():
        progress(f"replaying {graph.model} to time its {len(graph.ops)} operations")
        settle_allocator()
        stamps = _Stamps(len(graph.ops))
        plain = bind(in_order, program, state, ((0,),))
        stamped = bind(in_order, program, state, ((0,),), stamp=stamps)
        other_stamps = _Stamps(len(graph.ops))
        other = bind(graph, program, state, (tasks,), stamp=other_stamps)
        deadline = time.perf_counter() + seconds
        _replay(plain)  # the first step fills the allocator and the libraries' plans
        wholes: list[float] = []
        paces: list[float] = []
        rows: list[Floats] = []
        other_rows: list[Floats] = []
        while len(wholes) < LEAST_REPLAYS or (time.perf_counter() < deadline and len(wholes) < MOST_REPLAYS):
            in_turns()
            paces.append(pace_s())
            if not wholes or wholes[-1] < LONG_STEP_S:
                _replay(plain)
            wholes.append(_whole_s(plain))
            after_step()
            rows.append(stamps.of(stamped))
            after_step()
            if len(other_rows) < _OTHER_ORDER_REPLAYS:
                other_rows.append(other_stamps.of(other))
    samples = np.array(rows)
    other_s = np.quantile(np.array(other_rows), QUANTILE, axis=0)
    spread = float(_spread(np.array(wholes)))
    step = ReplayedStep(float(np.median(wholes)), len(wholes), spread, float(np.median(paces)))
    return ReplayTimes(np.quantile(samples, QUANTILE, axis=0), other_s, step, _spread(samples))


class OpTimes(NamedTuple):
    """Seconds of each op in place, [replays, ops], of a fixed piece of Python around each replay, [replays], by how
    much an op takes longer beside timestamps, and how much memory is mapped in while it runs, [ops]: both are still in
    the first."""

    seconds: Floats
    paces_s: Floats
    longer_s: float
    faulted_bytes: Floats


def op_times(graph: BlockGraph, replays: int) -> OpTimes:
    """Each op's time in place. Raises as `replay_times` does."""
    program = _program(graph)
    _check_room(graph)
    rows: list[Floats] = []
    with computing_threads(1), collector_at_rest():
        settle_allocator()
        stamps = _Stamps(len(graph.ops))
        state = drawn_state(program)
        step = bind(_one_task(graph), program, state, ((0,),), stamp=stamps)
        plain = bind(_one_task(graph), program, state, ((0,),))
        _replay(step)
        paces = [pace_s()]
        beside_plain: list[float] = []
        for k in range(replays):
            rows.append(stamps.of(step))
            paces.append(pace_s())
            if k % 2:
                beside_plain.append(float(rows[-1].sum()) - _ops_s(plain))
        faulted_bytes = _faulted_bytes(graph, program, state, plain)
    around = np.array(paces)
    longer_s = float(np.median(beside_plain)) / len(graph.ops) if beside_plain else 0.0
    return OpTimes(np.array(rows), (around[1:] + around[:-1]) / 2, longer_s, faulted_bytes)


def _faulted_bytes(graph: BlockGraph, program: Program, state: Mapping[str, torch.Tensor], plain: BoundStep) -> Floats:
    """Memory mapped in while each op of a replay runs; none where `plain` has next to none mapped in."""
    by_op = np.zeros(len(graph.ops))
    before_bytes = mapped_in_bytes()
    _replay(plain)
    if mapped_in_bytes() - before_bytes < _NOTABLE_BYTES:
        return by_op
    after_op: list[tuple[int, int]] = []
    counting = bind(
        _one_task(graph), program, state, ((0,),), stamp=lambda op: after_op.append((op, mapped_in_bytes()))
    )
    _replay(counting)
    after_op.clear()
    last_bytes = mapped_in_bytes()
    _replay(counting)
    for op, now_bytes in after_op:
        by_op[op] = now_bytes - last_bytes
        last_bytes = now_bytes
    return by_op


def _spread(samples: Floats) -> Floats:
    """Half the interquartile range of the samples (rows) over their median."""
    low, mid, high = np.quantile(samples, (0.25, 0.5, 0.75), axis=0)
    spread: Floats = np.divide(high - low, 2 * mid, out=np.zeros_like(mid), where=mid > 0)
    return spread


def _program(graph: BlockGraph) -> Program:
    if graph.program is None or len(graph.program.instructions) != len(graph.ops):
        raise BadInput(
            f"{graph.model}: a graph that was read from a file cannot be run: name the network itself to measure it"
        )
    return graph.program


def _one_task(graph: BlockGraph) -> BlockGraph:
    """The graph with all its ops, in PyTorch's order, in one task."""
    return replace(graph, tasks=(replace(graph.tasks[0], ops=tuple(range(len(graph.ops)))),), edges=())


def _check_room(graph: BlockGraph) -> None:
    need, have = 2 * sum(s.bytes for s in graph.storages if s.born < 0) + graph.memory.peak_bytes, available_bytes()
    if have is not None and need > _MEMORY_SHARE * have:
        raise Infeasible(
            f"{graph.model}: measuring its step needs {units.size(need)} of memory, {units.size(have)} are free: lower "
            "the batch, the width or the number of time steps, or leave --measure out"
        )


class _Replay(NamedTuple):
    """When a replay began, when its last op ended, and when what it left was let go: seconds of this thread."""

    begun: float
    ended: float
    let_go: float


def _replay(step: BoundStep) -> _Replay:
    step.begin(step_seed=1)
    begun = time.thread_time()
    for run in step.run_task.values():
        run()
    ended = time.thread_time()
    step.begin()
    return _Replay(begun, ended, time.thread_time())


def _ops_s(step: BoundStep) -> float:
    """Seconds of this thread for the ops of one replay."""
    replay = _replay(step)
    return replay.ended - replay.begun


def _whole_s(step: BoundStep) -> float:
    """Seconds of this thread for one replay, and for letting go of what it left, as the next step of a loop does."""
    replay = _replay(step)
    return replay.let_go - replay.begun


class _Stamps:
    """Thread time at the end of each op of a replay."""

    def __init__(self, ops: int) -> None:
        self._ops = ops
        self._at: list[tuple[int, float]] = []
        begun = time.thread_time()
        for k in range(2000):
            self(k)
        self._own_s = (time.thread_time() - begun) / 2000
        self._at = []

    def __call__(self, op: int) -> None:
        self._at.append((op, time.thread_time()))

    def of(self, step: BoundStep) -> Floats:
        """Seconds of each op of one replay; an op that the step ran ahead (a view) takes none."""
        self._at.clear()
        last = _replay(step).begun
        seconds = np.zeros(self._ops)
        for op, at in self._at:
            seconds[op] = max(at - last - self._own_s, 0.0)
            last = at
        return seconds


def drawn_state(program: Program) -> dict[str, torch.Tensor]:
    """A tensor for each external by name, with values as a new network and its first batch would have them."""
    generator = torch.Generator().manual_seed(_DRAW_SEED)
    state: dict[str, torch.Tensor] = {}
    for slot, name in sorted(program.externals.items()):
        if name not in state:
            layout = program.layouts.get(slot)
            state[name] = torch.zeros(()) if layout is None else _drawn(name, *layout, generator)
    return state


def _drawn(
    name: str, shape: Sequence[int], stride: Sequence[int], dtype: str, generator: torch.Generator
) -> torch.Tensor:
    tensor = torch.empty_strided(tuple(shape), tuple(stride), dtype=getattr(torch, dtype))
    role, _, path = name.partition(":")
    if any(n > 1 and s == 0 for n, s in zip(shape, stride, strict=True)) or not tensor.numel():
        return tensor.zero_() if not tensor.numel() else torch.zeros(()).to(tensor.dtype).expand(tuple(shape))
    if not (tensor.is_floating_point() or tensor.is_complex()) or role in ("optimizer", "target", "gradient"):
        return tensor.zero_()
    if role == "input":
        return tensor.copy_(torch.rand(tuple(shape), generator=generator))
    if role == "buffer":
        return tensor.fill_(1.0 if path.endswith("var") else 0.0)
    if len(shape) < 2:  # scale of a normalisation, or a bias
        return tensor.fill_(1.0 if path.endswith("weight") else 0.0)
    bound = 1.0 / math.sqrt(max(1, math.prod(shape[1:])))
    return tensor.copy_((2.0 * torch.rand(tuple(shape), generator=generator) - 1.0) * bound)


def in_program_order(graph: BlockGraph) -> Callable[[], dict[str, float]]:
    """One replay in PyTorch's order: seconds of each phase, and of the whole. The first call has run once before."""
    program = _program(graph)
    stamps = _Stamps(len(graph.ops))
    state = drawn_state(program)
    plain = bind(_one_task(graph), program, state, ((0,),))
    stamped = bind(_one_task(graph), program, state, ((0,),), stamp=stamps)
    phases = np.array([op.phase for op in graph.ops])
    _replay(plain)

    def replay() -> dict[str, float]:
        whole = _whole_s(plain)
        seconds = stamps.of(stamped)
        seconds = seconds + (whole - seconds.sum()) / len(seconds)
        return {str(p): float(seconds[phases == p].sum()) for p in np.unique(phases)} | {"whole": whole}

    return replay
