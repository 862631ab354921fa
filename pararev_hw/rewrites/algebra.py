"""Which tensors of a recomputation are tensors of the forward pass, up to rounding.

Value numbering with a little algebra, enough to see through a reversible network's way back: (a + b) − b is a, a part
of a concatenation is what was put there, and a batch norm in training gives the same whether or not it also keeps
running statistics. What cannot be shown to be equal is taken to differ.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

from pararev_hw.rewrites.values import written_in_place
from pararev_hw.tracing.recorder import Info, OpSignature
from pararev_hw.tracing.tape import Tape, TapeOp
from pararev_hw.types.op_names import base_name

_BATCH_NORMS = frozenset({"native_batch_norm", "cudnn_batch_norm"})


class Algebra:
    """Numbers the values of the forward and recompute lines of a tape: equal numbers, equal values."""

    def __init__(self, tape: Tape) -> None:
        self.tape = tape
        self.written = written_in_place(tape)
        self._of: dict[int, int] = {}  # slot -> number
        self._numbers: dict[Hashable, int] = {}
        self._sums: dict[int, tuple[int, int]] = {}
        self._joined: dict[int, tuple[int, tuple[tuple[int, int], ...]]] = {}  # dimension, (number, size) of each part
        self._version: dict[int, int] = {}
        self._signatures: dict[int, Hashable] = {}
        for k, line in enumerate(tape.lines):
            if line.home.phase in ("forward", "recompute"):
                self._take(k, line)
            for at in tape.entries[line.entry].writes:
                s = line.inputs[at].storage
                self._version[s] = self._version.get(s, 0) + 1

    def of(self, info: Info) -> int | None:
        """The number of a tensor's value; None for one that the backward made."""
        return self._of.get(info.slot)

    def _read(self, info: Info) -> int:
        number = self._of.get(info.slot)
        if number is None:
            number = self._of[info.slot] = self._number(("slot", info.slot))
        if info.storage in self.written and self._version.get(info.storage, 0):
            return self._number(("version", number, info.slot, self._version[info.storage]))
        return number

    def _number(self, key: Hashable) -> int:
        return self._numbers.setdefault(key, len(self._numbers))

    def _take(self, k: int, line: TapeOp) -> None:
        entry = self.tape.entries[line.entry]
        base = base_name(entry.op_type.name)
        inputs = [self._read(i) for i in line.inputs]
        positional = entry.call.args
        if base in _BATCH_NORMS and positional[5]:
            # input, weight, bias; running statistics come next, and are no part of what it gives
            tensors = sum(a is not None for a in positional[:3])
            key: Hashable = (base, repr(positional[7:]), entry.op_type.input_shapes[0], tuple(inputs[:tensors]))
        elif entry.writes:
            return
        else:
            key = (self._signature(line.entry, entry), line.rng, tuple(inputs))
        known_values = [
            self._known_output(entry, base, line, inputs, n, o) if o is not None else None
            for n, o in enumerate(line.outputs)
        ]
        for n, (o, number) in enumerate(zip(line.outputs, known_values, strict=True)):
            if o is not None and not isinstance(entry.outputs[n], int):
                self._of[o.slot] = self._number((key, n)) if number is None else number
        first = line.outputs[0] if line.outputs else None
        if first is None or first.slot not in self._of:
            return
        if base == "add" and len(inputs) == 2 and _plain(entry) and known_values[0] is None:
            self._sums.setdefault(self._of[first.slot], (inputs[0], inputs[1]))
        if base == "cat":
            dim = _dim(entry.call.args, 1, len(entry.op_type.output_shapes[0]))
            sizes = [shape[dim] for shape in entry.op_type.input_shapes]
            self._joined.setdefault(self._of[first.slot], (dim, tuple(zip(inputs, sizes, strict=True))))

    def _signature(self, at: int, entry: OpSignature) -> Hashable:
        if at not in self._signatures:
            call = entry.call
            self._signatures[at] = (
                str(call.function), repr(call.args), repr(sorted(call.kwargs.items())), entry.op_type.input_shapes,
                entry.op_type.dtype,
            )  # fmt: skip
        return self._signatures[at]

    def _known_output(
        self, entry: OpSignature, base: str, line: TapeOp, inputs: Sequence[int], n: int, out: Info
    ) -> int | None:
        """The number of output n where algebra gives it."""
        metas = self.tape.metas
        if entry.view and metas[out.meta][0] == metas[line.inputs[0].meta][0] and base in _SAME:
            return inputs[0]
        if base == "sub" and len(inputs) == 2 and _plain(entry):
            a, b = self._sums.get(inputs[0], (-1, -1))
            return a if b == inputs[1] else b if a == inputs[1] else None
        if entry.view and base in ("split", "split_with_sizes", "slice", "narrow") and inputs[0] in self._joined:
            start = (out.lo - line.inputs[0].lo) // metas[out.meta][2].itemsize
            return self._part(self._joined[inputs[0]], metas[line.inputs[0].meta], metas[out.meta][0], start)
        return None

    def _part(
        self, joined: tuple[int, tuple[tuple[int, int], ...]], whole: tuple[Any, ...], shape: Sequence[int], start: int
    ) -> int | None:
        """The part of a concatenation that a view of `shape` which begins `start` elements further on looks at."""
        dim, parts = joined
        at = 0
        for number, size in parts:
            if at * whole[1][dim] == start and shape[dim] == size and _same_but(shape, whole[0], dim):
                return number
            at += size
        return None


_SAME = frozenset({"detach", "alias", "view", "_unsafe_view", "reshape", "expand"})


def _same_but(a: Sequence[int], b: Sequence[int], dim: int) -> bool:
    return all(x == y for d, (x, y) in enumerate(zip(a, b, strict=True)) if d != dim)


def _plain(entry: OpSignature) -> bool:
    """An add or sub of two tensors of one shape, unscaled."""
    kwargs: Mapping[str, Any] = entry.call.kwargs
    return kwargs.get("alpha", 1) == 1 and len(set(entry.op_type.input_shapes)) == 1


def _dim(args: Sequence[Any], position: int, dims: int) -> int:
    dim = args[position] if len(args) > position else 0
    return int(dim) % dims
