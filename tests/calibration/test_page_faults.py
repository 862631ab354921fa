"""Memory that is mapped in anew: which blocks an allocator never keeps, and what of an op's time that explains."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

import pararev_hw as ph
from pararev_hw.calibration import host_overheads
from pararev_hw.costmodels.allocator.workspace import USUAL_RULE
from pararev_hw.costmodels.calibrated.page_faults import BLOCK, block_bytes_of, mapped_bytes, usually_kept_bytes


@pytest.mark.parametrize("never_kept", [128 << 10, 32 << 20])
def test_the_smallest_block_that_is_never_kept_is_seen_in_its_faults(
    never_kept: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def measure(run: Callable[[], torch.Tensor], *_: Any, **options: Any) -> Any:
        size = run().numel()
        return SimpleNamespace(faulted_bytes=size if size >= never_kept else 0)

    monkeypatch.setattr(host_overheads, "measure", measure)
    assert host_overheads.mapped_block_bytes().value == never_kept


def test_blocks_that_are_never_kept_are_mapped_in_by_every_step() -> None:
    """Two ops, each with a result of 256 KiB: both where 128 KiB are too many, none where 32 MiB are."""
    graph = ph.trace(nn.Sequential(nn.Tanh(), nn.Sigmoid()), torch.empty(64, 1024), mode="infer", spikes="none")
    assert mapped_bytes(graph, usually_kept_bytes(128 << 10), USUAL_RULE, 128 << 10).tolist() == [256 << 10] * 2
    block = block_bytes_of({})
    assert block == 32 << 20 and mapped_bytes(graph, usually_kept_bytes(block), USUAL_RULE, block).sum() == 0
    assert BLOCK.endswith("_bytes")
