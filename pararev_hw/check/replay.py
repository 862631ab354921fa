"""Runs a traced step again, op by op, in any order that its dependencies allow: the proof that they are right.

Independent of the tracer: it knows the program, the order it is given, and nothing of where either came from.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from pararev_hw.errors import IllegalSchedule
from pararev_hw.types import Hole, Op, Program


def replay(
    program: Program,
    values: Mapping[str, Any],
    order: Iterable[int] | None = None,
    *,
    seed_rng: Callable[[int], None] | None = None,
) -> dict[str, Any]:
    """Run the program's instructions in `order` (default: as traced) and give its results by name.

    `values` are the tensors that exist before the step, by the names in `program.externals`; those that the step
    updates in place (parameters, optimizer state, running statistics) are updated. `seed_rng(token)` is called before
    every random instruction, so that equal tokens draw equal numbers.

    No tensor may require gradients (pass a parameter's `.data`): the backward is among the instructions. Leave
    gradients enabled all the same, as in the step: a few kernels, oneDNN's LSTM for one, ask whether they are.
    """
    slots: dict[int, Any] = dict(program.constants)
    for slot, name in program.externals.items():
        if name not in values:
            raise IllegalSchedule(f"the replay needs a tensor for {name!r}")
        slots[slot] = values[name]
    for k in range(len(program.instructions)) if order is None else order:
        instruction = program.instructions[k]
        call = program.calls[instruction.call]
        missing = [s for s in instruction.inputs if s not in slots]
        if missing:
            raise IllegalSchedule(f"op {k} ({call.function}) runs before the tensor in slot {missing[0]} exists")
        tensors = [slots[s] for s in instruction.inputs]
        if instruction.rng >= 0 and seed_rng is not None:
            seed_rng(instruction.rng)
        out = call.function(*filled(call.args, tensors), **{n: filled(v, tensors) for n, v in call.kwargs.items()})
        results = out if isinstance(out, list | tuple) else (out,)
        slots.update((s, value) for s, value in zip(instruction.outputs, results, strict=True) if s is not None)
    return {name: slots[slot] for name, slot in program.results.items()}


def filled(template: Any, tensors: Sequence[Any]) -> Any:
    """The template with its holes filled."""
    if isinstance(template, Hole):
        return tensors[template.index]
    if isinstance(template, tuple):
        return tuple(filled(t, tensors) for t in template)
    return [filled(t, tensors) for t in template] if isinstance(template, list) else template


def random_order(ops: Sequence[Op], seed: int) -> tuple[int, ...]:
    """A random topological order of the ops."""
    draw = random.Random(seed)
    missing = [len(op.after) for op in ops]
    followers: list[list[int]] = [[] for _ in ops]
    for k, op in enumerate(ops):
        for a in op.after:
            followers[a].append(k)
    ready = [k for k, count in enumerate(missing) if count == 0]
    order: list[int] = []
    while ready:
        at = draw.randrange(len(ready))
        ready[at], ready[-1] = ready[-1], ready[at]
        k = ready.pop()
        order.append(k)
        for f in followers[k]:
            missing[f] -= 1
            if missing[f] == 0:
                ready.append(f)
    if len(order) < len(ops):
        raise IllegalSchedule(f"{len(ops) - len(order)} of {len(ops)} ops wait for each other in a cycle")
    return tuple(order)
