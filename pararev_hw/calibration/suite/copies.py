"""Copies, casts, concatenation, constants written to memory, rows looked up."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch

from pararev_hw.calibration.cases import CHANNELS_LAST, Case, Operand
from pararev_hw.calibration.suite.entry import FEW, Draw, SuiteEntry, X, Y, entry
from pararev_hw.types import Hole


def _cast(source: str, target: str) -> SuiteEntry:
    def make(draw: Draw) -> Case:
        operand = Operand(draw.elements(), source, "spikes" if source == "bool" else "normal")
        return Case("aten._to_copy.default", (operand,), (X,), (("dtype", getattr(torch, target)),))

    return SuiteEntry(f"aten._to_copy.default {source} to {target}", make)


def _stack(dtype: str) -> SuiteEntry:
    def make(draw: Draw) -> Case:
        shape, steps = draw.image(1 << 20), draw.integer((2, 4, 4, 8, 10))
        return Case("aten.stack.default", (Operand(shape, dtype),) * steps, ([Hole(k) for k in range(steps)],))

    return entry(dtype, "aten.stack.default", make)


def _cat(dtype: str) -> SuiteEntry:
    def make(draw: Draw) -> Case:
        shape = draw.image(1 << 21)
        steps = draw.integer((1, 1, 4, 10))
        part = (steps, *shape) if steps > 1 and steps * math.prod(shape) <= 1 << 22 else shape
        return Case("aten.cat.default", (Operand(part, dtype),) * 2, ([X, Y], -3))

    return entry(dtype, "aten.cat.default", make)


def _clone(draw: Draw) -> Case:
    shape = draw.image(1 << 22)
    return Case("aten.clone.default", (Operand(shape, order=CHANNELS_LAST if draw.flag() else None),), (X,))


def _contiguous(draw: Draw) -> Case:
    operand = Operand(draw.image(1 << 22), order=CHANNELS_LAST)
    return Case("aten.clone.default", (operand,), (X,), (("memory_format", torch.contiguous_format),))


def _copy(draw: Draw) -> Case:
    shape = draw.elements()
    return Case("aten.copy_.default", (Operand(shape), Operand(shape)), (X, Y))


def _fill(function: str, *rest: object) -> SuiteEntry:
    return entry("float32", function, lambda draw: Case(function, (Operand(draw.elements()),), (X, *rest)))


def _index_select(draw: Draw) -> Case:
    rows, width, count = draw.log(8, 4096), draw.log(4, 512), draw.log(8, 4096)
    return Case(
        "aten.index_select.default",
        (Operand((rows, width)), Operand((count,), "int64", "small", below=rows)),
        (X, 0, Y),
    )


def _embedding(draw: Draw) -> Case:
    rows, width, count = draw.log(8, 4096), draw.log(4, 512), draw.log(8, 4096)
    return Case(
        "aten.embedding.default", (Operand((rows, width)), Operand((count,), "int64", "small", below=rows)), (X, Y)
    )


def entries(dtypes: tuple[str, ...]) -> Iterator[SuiteEntry]:
    """Casts between the datatypes and from spikes; stacks and concatenations; what only float32 needs."""
    for dtype in dtypes:
        yield _cast("bool", dtype)
        yield from (_stack(dtype), _cat(dtype))
        if dtype != "float32":
            yield from (_cast("float32", dtype), _cast(dtype, "float32"))
    for name, make in (("clone", _clone), ("clone contiguous", _contiguous), ("copy_", _copy)):
        yield entry("float32", f"aten.{name}", make)
    yield entry("float32", "aten.index_select", _index_select, FEW)
    yield entry("float32", "aten.embedding", _embedding, FEW)
    yield from (_fill("aten.fill_.Scalar", 1.0), _fill("aten.zero_.default"), _fill("aten.zeros_like.default"))
    yield from (_fill("aten.ones_like.default"), _fill("aten.bernoulli_.float", 0.5))
    yield _fill("aten.native_dropout.default", 0.5, True)
