"""Matrix products."""

from __future__ import annotations

from collections.abc import Iterator

from pararev_hw.calibration.cases import Case, Operand
from pararev_hw.calibration.suite.entry import Draw, SuiteEntry, X, Y, Z, entry


def _mm(dtype: str, transposed: str) -> SuiteEntry:
    def make(draw: Draw) -> Case:
        m, k, n = _product(draw)
        orders = tuple((1, 0) if t == "t" else None for t in transposed)
        return Case(
            "aten.mm.default",
            (Operand((m, k), dtype, order=orders[0]), Operand((k, n), dtype, order=orders[1])),
            (X, Y),
        )

    return entry(dtype, f"aten.mm.default {transposed}", make)


def _product(draw: Draw) -> tuple[int, int, int]:
    while True:
        m, k, n = draw.log(1, 2048), draw.log(8, 2048), draw.log(8, 2048)
        if 1e4 <= 2 * m * k * n <= 2e9:
            return m, k, n


def _addmm(dtype: str) -> SuiteEntry:
    def make(draw: Draw) -> Case:
        m, k, n = _product(draw)
        operands = (Operand((n,), dtype), Operand((m, k), dtype), Operand((k, n), dtype, order=(1, 0)))
        return Case("aten.addmm.default", operands, (X, Y, Z))

    return entry(dtype, "aten.addmm.default", make)


def _bmm(dtype: str) -> SuiteEntry:
    def make(draw: Draw) -> Case:
        b, m, k, n = draw.log(1, 64), draw.log(8, 128), draw.log(8, 128), draw.log(8, 128)
        return Case("aten.bmm.default", (Operand((b, m, k), dtype), Operand((b, k, n), dtype)), (X, Y))

    return entry(dtype, "aten.bmm.default", make)


def entries(dtypes: tuple[str, ...]) -> Iterator[SuiteEntry]:
    """Products of matrices as linear layers and attention use them."""
    for dtype in dtypes:
        yield from (_mm(dtype, t) for t in ("nn", "nt", "tn"))
        yield from (_addmm(dtype), _bmm(dtype))
