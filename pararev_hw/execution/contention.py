"""How operations of a step fare beside each other, and with several threads inside: measured on the operations alone.

The calls that take most of a step run on tensors of the step's own: alone, on all lanes at once, and with as many
threads inside as there are lanes. What slows n copies of an operation down by c when they run at once asks, in the
fluid model of `pararev_hw.simulate`, for a share c/n of what the lanes have in common:

    U = max(1, sum of demands) = max(1, n x c/n) = c

Calls that were not measured keep the demand, and the gain from threads, that the cost model gives them.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from pararev_hw.execution.job import Batch, Job
from pararev_hw.execution.runners import LaneRunner
from pararev_hw.measurement import computing_threads
from pararev_hw.progress import Progress, Steps, silent
from pararev_hw.tracing import Traced
from pararev_hw.types import SchedulingProblem, TaskCost

_COVERED = 0.95  # of the predicted time: the rest is many small calls
_MOST_CALLS = 24
_ROUNDS = 5
_SAMPLE_S = 0.01  # a sample repeats a short call until it takes that long


@dataclass(frozen=True, slots=True)
class Sharing:
    """Of one call: how much slower it is where every lane runs one, and its time with threads inside over alone."""

    together: float
    threads: float


def sharing_of_calls(
    job: Job, seconds: Sequence[float], lanes: int, batch: Batch, progress: Progress = silent
) -> dict[int, Sharing]:
    """Sharing by call of the program, for the calls that take most of the step by the op times `seconds`.

    Runs the step once, on a copy of the network, to have tensors to measure with.
    """
    chosen = _largest(job.traced, seconds)
    progress("running the step once to have tensors")
    arguments = _arguments(job, chosen, batch)
    sharing: dict[int, Sharing] = {}
    steps = Steps(progress, len(arguments))
    for call, inputs in arguments.items():
        steps.begin("measuring how lanes share this machine")
        sharing[call] = _measured(job.traced.program.calls[call].function, inputs, lanes)
    return sharing


def _largest(traced: Traced, seconds: Sequence[float]) -> dict[int, int]:
    """Call -> one op that makes it, for the calls that take most time; those that update parameters are left alone."""
    total: dict[int, float] = {}
    example: dict[int, int] = {}
    for k, (op, instruction) in enumerate(zip(traced.graph.ops, traced.program.instructions, strict=True)):
        if op.phase != "update" and instruction.rng < 0 and traced.graph.op_types[op.type].kind != "view":
            total[instruction.call] = total.get(instruction.call, 0.0) + seconds[k]
            example.setdefault(instruction.call, k)
    chosen: dict[int, int] = {}
    covered = 0.0
    for call in sorted(total, key=lambda c: (-total[c], c)):
        if covered >= _COVERED * sum(total.values()) or len(chosen) == _MOST_CALLS:
            break
        chosen[call] = example[call]
        covered += total[call]
    return chosen


def _arguments(job: Job, chosen: Mapping[int, int], batch: Batch) -> dict[int, tuple[Any, Any]]:
    """What the chosen ops are called with in one step."""
    program = job.traced.program
    arguments: dict[int, tuple[Any, Any]] = {}

    def catching(call: int, function: Callable[..., Any]) -> Callable[..., Any]:
        def run(*args: Any, **kwargs: Any) -> Any:
            arguments[call] = (_copied(args), _copied(kwargs))
            return function(*args, **kwargs)

        return run

    calls = list(program.calls)
    instructions = list(program.instructions)
    for call, k in chosen.items():
        instructions[k] = replace(instructions[k], call=len(calls))
        calls.append(replace(calls[call], function=catching(call, calls[call].function)))
    caught = replace(program, calls=tuple(calls), instructions=tuple(instructions))
    one = replace(job, traced=job.traced.with_program(caught))
    with LaneRunner(one, (tuple(range(len(job.graph.tasks))),)) as runner:
        runner.step(batch)
    return arguments


def copied_tensor(tensor: torch.Tensor) -> torch.Tensor:
    """A copy with the same strides in memory of its own, also of one whose elements overlap (an expanded one)."""
    tensor = tensor.detach()
    if tensor.layout is not torch.strided or not tensor.numel():
        return tensor.clone()
    span = 1 + sum((n - 1) * s for n, s in zip(tensor.shape, tensor.stride(), strict=True))
    block = tensor.as_strided((span,), (1,), tensor.storage_offset()).clone()
    return block.as_strided(tensor.shape, tensor.stride())


def _copied(value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        return copied_tensor(value)
    if isinstance(value, dict):
        return {k: _copied(v) for k, v in value.items()}
    return type(value)(map(_copied, value)) if isinstance(value, list | tuple) else value


def _measured(function: Callable[..., Any], inputs: tuple[Any, Any], lanes: int) -> Sharing:
    """Fastest of a few samples each, in turns: what disturbs the machine only ever slows it."""
    copies = [inputs, *(_copied(inputs) for _ in range(lanes - 1))]
    with computing_threads(1):
        count = _calls_per_sample(function, inputs)
    with computing_threads(lanes):  # on a busy machine threads wait for each other far longer than they compute
        count_threads = _calls_per_sample(function, inputs)
    alone: list[float] = []
    together: list[float] = []
    threads: list[float] = []
    for _ in range(_ROUNDS):
        with computing_threads(1):
            alone.append(_repeat(function, copies[0], count))
        together.append(_at_once(function, copies, count))
        with computing_threads(lanes):
            threads.append(_repeat(function, copies[0], count_threads))
    return Sharing(max(1.0, min(together) / min(alone)), min(threads) / min(alone))


def _calls_per_sample(function: Callable[..., Any], inputs: tuple[Any, Any]) -> int:
    once = min(_repeat(function, inputs, 1) for _ in range(2))
    return max(1, int(_SAMPLE_S / max(once, 1e-6)))


def _repeat(function: Callable[..., Any], inputs: tuple[Any, Any], count: int) -> float:
    args, kwargs = inputs
    begun = time.perf_counter()
    for _ in range(count):
        function(*args, **kwargs)
    return (time.perf_counter() - begun) / count


def _at_once(function: Callable[..., Any], copies: Sequence[tuple[Any, Any]], count: int) -> float:
    """Mean seconds of one call while every lane makes `count` of them at the same time."""
    ready = threading.Barrier(len(copies))
    took = [0.0] * len(copies)

    def lane(k: int) -> None:
        torch.set_num_threads(1)
        ready.wait()
        took[k] = _repeat(function, copies[k], count)

    threads = [threading.Thread(target=lane, args=(k,)) for k in range(len(copies))]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    return sum(took) / len(took)


def shared_costs(
    job: Job, costs: SchedulingProblem, seconds: Sequence[float], sharing: Mapping[int, Sharing], lanes: int
) -> SchedulingProblem:
    """The problem with demands as measured: a task's is the mean over its ops, weighted by their seconds."""
    instructions = job.traced.program.instructions
    tasks: list[TaskCost] = []
    for task, cost in zip(job.graph.tasks, costs.tasks, strict=True):
        total = sum(seconds[k] for k in task.ops)
        ops = [(seconds[k], sharing.get(instructions[k].call)) for k in task.ops]
        if total > 0:
            demand = sum(s * (cost.bandwidth_demand if m is None else m.together / lanes) for s, m in ops) / total
            cost = replace(cost, compute_demand=0.0, bandwidth_demand=min(1.0, demand))
        tasks.append(cost)
    note = f"how {lanes} lanes slow each other down: measured on {len(sharing)} of the step's own operations"
    return replace(costs, tasks=tuple(tasks), assumptions=(*costs.assumptions, note))


def threaded_seconds(
    job: Job, seconds: Sequence[float], wide: Sequence[float], sharing: Mapping[int, Sharing]
) -> float:
    """Seconds of the step on one lane with threads inside every operation: measured gains, else `wide`."""
    instructions = job.traced.program.instructions
    total = 0.0
    for k, (narrow, modelled) in enumerate(zip(seconds, wide, strict=True)):
        shared = sharing.get(instructions[k].call)
        total += modelled if shared is None else narrow * shared.threads
    return total
