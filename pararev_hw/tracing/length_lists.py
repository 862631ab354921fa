"""Functions of torch's that write lists of lengths where the numbers of a tensor lie, which a fake tensor has not, here
as the operations that they are made of."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator, Sequence

import torch

from pararev_hw.torch_private import numbers_in, scoped_library


@contextlib.contextmanager
def lengths_by_operations() -> Iterator[None]:
    """Within it, `pad_packed_sequence` is the operations of aten/src/ATen/native/PackedSequence.cpp alone, and the loss
    of CTC takes its lengths as tensors."""
    with scoped_library("aten", "IMPL") as library, warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="(?s).*[Oo]verriding a previously registered kernel.*")
        library.impl("ctc_loss.IntList", _ctc_loss, "CompositeImplicitAutograd")
        library.impl("_pad_packed_sequence", _padded, "CompositeImplicitAutograd")
        yield


def _padded(
    data: torch.Tensor, batch_sizes: torch.Tensor, batch_first: bool, padding_value: float, total_length: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """`data`, the samples of every time step one after the other, as `[T, B, ...]`, and the length of each sample."""
    sizes = numbers_in(batch_sizes)
    steps, rest = max(total_length, len(sizes)), data.shape[1:]
    out = data.new_full((steps, sizes[0], *rest), padding_value)
    first = offset = 0
    for last in range(1, len(sizes) + 1):
        size = sizes[first]
        if last == len(sizes) or sizes[last] != size:
            rows = size * (last - first)
            block = data.narrow(0, offset, rows).view(last - first, size, *rest)
            out.narrow(0, first, last - first).narrow(1, 0, size).copy_(block)
            first, offset = last, offset + rows
    lengths = torch.tensor([sum(size > k for size in sizes) for k in range(sizes[0])])
    return (out.transpose(0, 1) if batch_first else out), lengths


def _ctc_loss(
    log_probs: torch.Tensor,
    targets: torch.Tensor,
    input_lengths: Sequence[int],
    target_lengths: Sequence[int],
    blank: int = 0,
    reduction: int = 1,
    zero_infinity: bool = False,
) -> torch.Tensor:
    lengths = torch.tensor(input_lengths), torch.tensor(target_lengths)
    out: torch.Tensor = torch.ops.aten.ctc_loss.Tensor(log_probs, targets, *lengths, blank, reduction, zero_infinity)
    return out
