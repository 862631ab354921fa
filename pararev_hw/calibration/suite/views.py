"""Views, and what only allocates: dispatch and nothing else."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from pararev_hw.calibration.cases import Case, Operand
from pararev_hw.calibration.suite.entry import FEW, Draw, SuiteEntry, X, entry


def _view(function: str, *rest: object) -> SuiteEntry:
    def make(draw: Draw) -> Case:
        return Case(function, (Operand((4, draw.log(1, 8), 8, 8, 8)),), (X, *rest))

    return entry("float32", function, make, FEW // 2)


def _on_matrix(function: str, *rest: object) -> SuiteEntry:
    def make(draw: Draw) -> Case:
        return Case(function, (Operand((draw.log(4, 64), 32)),), (X, *rest))

    return entry("float32", function, make, FEW // 2)


def _empty(_: Draw) -> Case:
    return Case("aten.empty.memory_format", (), ([0],), (("dtype", torch.uint8),))


def entries() -> Iterator[SuiteEntry]:
    """Views of a float32 tensor: their cost does not depend on what it holds."""
    yield from (_view("aten.view.default", [-1]), _view("aten.detach.default"), _view("aten.select.int", 0, 1))
    yield from (_view("aten.unbind.int", 0), _view("aten.split.Tensor", 4, 2), _view("aten.unsqueeze.default", 0))
    yield from (_view("aten.permute.default", [0, 1, 3, 4, 2]), _view("aten.transpose.int", 0, 1))
    yield from (_view("aten.slice.Tensor", 0, 0, 2), _view("aten.alias.default"))
    yield from (_view("aten._unsafe_view.default", [-1]), _on_matrix("aten.t.default"))
    yield _on_matrix("aten.expand.default", [4, -1, -1])
    yield entry("uint8", "aten.empty.memory_format", _empty, FEW // 2)
