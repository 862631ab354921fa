"""Which axis of an input is the batch and which is time: [T, B, ...], [B, T, ...] or [B, ...].

A network walks through time: it takes one slice after the other of its leading axes, and a slice of a batch has no
reason to be taken alone. Where no loop is seen (the whole of time in one product), the output tells: its first axis is
the batch where time has been averaged away. Of two axes alone the second may hold features: what a walk along them says
of time is for the caller to judge.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pararev_hw.tracing.recorder import OpSignature
from pararev_hw.tracing.tape import Tape


def leading_axes(tape: Tape, shape: Sequence[int], timesteps: int | None = None) -> tuple[int, int | None]:
    """Batch and time steps of an input of `shape`, of which `timesteps` may be given."""
    first, second = int(shape[0]), int(shape[1]) if len(shape) > 2 else None
    if timesteps is not None and timesteps == first != second and second is not None:
        return second, timesteps
    layout = layout_of_step(tape, shape) if second is not None else None
    if layout is None or second is None:
        return first, timesteps
    return (second, first) if layout[0] == "TB" else (first, second)


def layout_of_step(tape: Tape, shape: Sequence[int]) -> tuple[str, str] | None:
    """ "TB" or "BT" and what tells so, None where the step does not show a time axis."""
    if len(shape) < 2:
        return None
    first, second = int(shape[0]), int(shape[1])
    outputs = _output_shapes(tape)
    walked = walked_axes(tape, first, second)
    batch_leads = bool(outputs) and first != second and all(o[:1] == (first,) and second not in o[1:2] for o in outputs)
    if walked == {1}:
        return "BT", "its loop over the second axis"
    if walked == {0} and not batch_leads:
        return "TB", "its loop over the first axis"
    if outputs and first != second and all(o[:1] == (second,) for o in outputs):
        return "TB", "the batch of its output"
    return None


def batch_leads(tape: Tape, shape: Sequence[int]) -> bool:
    """Whether the step shows that the first axis of an input is the batch: a convolution takes the input as it is, or
    the outputs keep the size of that axis and lose the second one."""
    first, second = int(shape[0]), int(shape[1]) if len(shape) > 1 else None
    outputs = _output_shapes(tape)
    if first != second and outputs and all(o[:1] == (first,) and o[1:2] != (second,) for o in outputs):
        return True
    signatures = (tape.entries[line.entry] for line in tape.lines if line.home.phase == "forward")
    return any(
        s.op_type.name.startswith("aten.convolution.") and tuple(s.op_type.input_shapes[0]) == tuple(shape)
        for s in signatures
    )


def output_keeps(tape: Tape, first: int) -> bool:
    """Whether what the step gives has as many rows as the input, or several for each: [B, classes], [B * heads, ...]. A
    number alone, such as a loss, tells nothing."""
    return all(not o or o[0] % first == 0 for o in _output_shapes(tape))


def walked_axes(tape: Tape, first: int, second: int) -> set[int]:
    """Of the two leading axes those that the forward pass goes through slice by slice, to the last one."""
    indexed_axes: dict[int, set[int]] = {0: set(), 1: set()}
    for line in tape.lines:
        if line.home.phase != "forward":
            continue
        taken = _taken(tape.entries[line.entry])
        if taken is not None and tuple(taken.shape[:2]) == (first, second) and taken.axis in indexed_axes:
            indexed_axes[taken.axis].update(taken.indices)
    sizes = (first, second)
    return {axis for axis, indices in indexed_axes.items() if sizes[axis] > 1 and len(indices) == sizes[axis]}


@dataclass(frozen=True, slots=True)
class _Taken:
    """Slices of width one that an operation takes of a tensor of `shape` along an axis."""

    shape: tuple[int, ...]
    axis: int
    indices: range


def _taken(signature: OpSignature) -> _Taken | None:
    name, args = signature.op_type.name, signature.call.args
    if not name.startswith(("aten.select.", "aten.unbind.", "aten.slice.")):
        return None
    shape = tuple(signature.op_type.input_shapes[0])
    axis = int(args[1]) if len(args) > 1 else 0
    axis += len(shape) if axis < 0 else 0
    if axis >= len(shape):
        return None
    if name.startswith("aten.unbind."):
        return _Taken(shape, axis, range(shape[axis]))
    start = int(args[2]) if len(args) > 2 and args[2] is not None else 0
    start %= max(1, shape[axis])
    if name.startswith("aten.slice."):
        end = int(args[3]) if len(args) > 3 and args[3] is not None else shape[axis]
        end = min(end + shape[axis] if end < 0 else end, shape[axis])
        if end - start != 1:
            return None
    return _Taken(shape, axis, range(start, start + 1))


def _output_shapes(tape: Tape) -> list[tuple[int, ...]]:
    slots = {slot for name, slot in tape.results.items() if name.startswith("output:")}
    shapes: list[tuple[int, ...]] = []
    for line in reversed(tape.lines):
        for out in line.outputs:
            if out is not None and out.slot in slots:
                slots.discard(out.slot)
                shapes.append(tuple(tape.metas[out.meta][0]))
        if not slots:
            break
    return shapes
