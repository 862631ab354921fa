"""Each distinct op of a step timed alone on the device, kept in the store of times that `--measure` keeps for a CPU.

The step is run once, op by op; where an op's signature is new, it is run again and again on its own inputs. What an op
left is dropped after its last use, so that the step fits where PyTorch's own does.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from pararev_hw.check.replay import filled
from pararev_hw.costmodels.measured_ops import op_keys
from pararev_hw.execution.job import Job, start
from pararev_hw.measurement import Clock, measure
from pararev_hw.measurement.op_store import Measurements, add_to_store, machine_description, read_store, store_path
from pararev_hw.types import OpTime, Program


def device_store(folder: Path, device: str) -> tuple[Path, Mapping[str, str]]:
    """The file that holds the times of that device's ops, and the machine it is of."""
    machine = machine_description() | {"device": device}
    return store_path(folder, machine), machine


def measured(path: Path, machine: Mapping[str, str]) -> Measurements:
    """What the store holds."""
    return read_store(path, machine)[0]


def time_new_ops(
    job: Job, path: Path, machine: Mapping[str, str], clock: Clock, limit_s: float, until: Callable[[], bool]
) -> dict[str, Any]:
    """Time the ops of the job's step that the store has not, and give what the step's ops alone sum to, by kind.

    `missing` counts the ops whose time was not reached before `until`.
    """
    keys = op_keys(job.graph)
    before = measured(path, machine).ops
    timed = _timed(job, keys, before, clock, limit_s, until)
    counts = Counter(keys)
    new = {key: OpTime(seconds, counts[key], spread, 0.0) for key, (seconds, spread) in timed.items()}
    stored, trouble = add_to_store(path, machine, Measurements(ops=new))
    path.with_suffix(".lock").unlink(missing_ok=True)  # nobody else writes here
    by_kind: dict[str, float] = defaultdict(float)
    missing = 0
    for op, key in zip(job.graph.ops, keys, strict=True):
        if key in stored.ops:
            by_kind[job.graph.op_types[op.type].kind] += stored.ops[key].seconds
        else:
            missing += 1
    return {
        "ops": len(keys), "distinct": len(counts), "new": len(new), "missing": missing,
        "sum_s": sum(by_kind.values()), "sum_s_by_kind": dict(by_kind), "store": path.name, "trouble": trouble,
    }  # fmt: skip


def _timed(
    job: Job,
    keys: tuple[str, ...],
    stored: Mapping[str, OpTime],
    clock: Clock,
    limit_s: float,
    until: Callable[[], bool],
) -> dict[str, tuple[float, float]]:
    program = job.traced.program
    _, state = start(job)
    last = _last_uses(program)
    slots: dict[int, Any] = dict(program.constants)
    # a parameter's own gradient rules are no part of the program, whose ops hold the backward
    slots |= {slot: state[name].detach() for slot, name in program.externals.items()}
    times: dict[str, tuple[float, float]] = {}
    for k, instruction in enumerate(program.instructions):
        call = program.calls[instruction.call]
        tensors = [slots[s] for s in instruction.inputs]
        args, kwargs = filled(call.args, tensors), {n: filled(v, tensors) for n, v in call.kwargs.items()}
        if keys[k] not in stored and keys[k] not in times and not until():
            timing = measure(lambda c=call, a=args, w=kwargs: c.function(*a, **w), clock, limit_s=limit_s)
            ordered = sorted(timing.seconds)
            spread = (ordered[(3 * len(ordered)) // 4] - ordered[len(ordered) // 4]) / 2
            times[keys[k]] = timing.median_s, spread / max(timing.median_s, 1e-12)
        out = call.function(*args, **kwargs)
        results = out if isinstance(out, list | tuple) else (out,)
        slots.update((s, value) for s, value in zip(instruction.outputs, results, strict=True) if s is not None)
        del args, kwargs, tensors, out, results
        for slot in {*instruction.inputs, *(s for s in instruction.outputs if s is not None)}:
            if last.get(slot, k) == k:
                slots.pop(slot, None)
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return times


def _last_uses(program: Program) -> dict[int, int]:
    last: dict[int, int] = {}
    for k, instruction in enumerate(program.instructions):
        last.update(dict.fromkeys(instruction.inputs, k))
    return last
