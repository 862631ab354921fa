"""Networks whose shapes and constants depend on the values of their inputs, traced as they run on those."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from pararev_hw.errors import TraceError
from pararev_hw.tracing import StepDescription, trace_step
from tests.helpers.real_step import eager, replayed, steady

REAL = StepDescription(real_inputs=True)
LENGTHS = torch.tensor([5, 3, 7, 2])
rnn = nn.utils.rnn


class Net(nn.Module):
    """Words and lengths, through `body`."""

    def __init__(self, body: Callable[[Net, torch.Tensor, torch.Tensor], torch.Tensor]) -> None:
        super().__init__()
        self.embedding, self.out, self.body = nn.Embedding(20, 6), nn.Linear(6, 8), body
        self.rnn = nn.GRU(6, 3, num_layers=2, bidirectional=True, batch_first=True)

    def forward(self, words: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        return self.body(self, words, lengths).square().mean()


def unique(net: Net, words: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
    values, inverse, counts = torch.unique(words, return_inverse=True, return_counts=True)
    return net.out(net.embedding(values) * counts[:, None])[inverse]


def unique_rows(net: Net, words: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
    return net.out(net.embedding(torch.unique(words[:, :2] // 10, dim=0)))


def consecutive(net: Net, words: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
    return net.out(net.embedding(torch.unique_consecutive(words.flatten().sort()[0])))


def selected(net: Net, words: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
    return torch.masked_select(net.out(net.embedding(words)), (words > 4).unsqueeze(-1))


def counted(net: Net, words: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
    return net.out(net.embedding.weight) * torch.bincount(words.flatten(), minlength=20)[:, None]


def repeated(net: Net, words: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
    return torch.repeat_interleave(net.out(net.embedding(words).mean(1)), lengths, dim=0)


def packed(net: Net, words: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
    inside = rnn.pack_padded_sequence(net.embedding(words), lengths, batch_first=True, enforce_sorted=False)
    padded, sizes = rnn.pad_packed_sequence(net.rnn(inside)[0], batch_first=True, padding_value=0.5, total_length=9)
    return net.out(padded) / sizes[:, None, None]


def ctc(net: Net, words: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
    scores = net.out(net.embedding(words)).log_softmax(-1).transpose(0, 1)
    return F.ctc_loss(scores, words[:, :2] % 7 + 1, lengths, torch.tensor([2, 1, 2, 1]))


def ctc_of_lists(net: Net, words: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
    scores = net.out(net.embedding(words)).log_softmax(-1).transpose(0, 1)
    return F.ctc_loss(scores, words[:, :2] % 7 + 1, tuple(lengths.tolist()), (2, 1, 2, 1), zero_infinity=True)


def split(net: Net, words: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
    return torch.stack([net.out(net.embedding(w)).mean(0) for w in words.flatten()[:17].split(lengths.tolist())])


def by_numpy(net: Net, words: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
    weights = np.bincount(words.numpy().ravel(), minlength=20).astype(np.float32)
    longest = np.asarray(lengths).max()
    return net.out(net.embedding(words[:, : int(longest)])).sum() * torch.from_numpy(weights)


def compared(net: Net, words: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
    x = net.out(net.embedding(words))
    return x if torch.equal(words, words.sort()[0]) or torch.allclose(x, x + 1) else x[:, ::2]


BODIES = (
    unique, unique_rows, consecutive, selected, counted, repeated, packed, ctc, ctc_of_lists, split, by_numpy, compared,
)  # fmt: skip


def words() -> torch.Tensor:
    return torch.randint(20, (4, 7), generator=torch.Generator().manual_seed(3))


@pytest.mark.parametrize("body", BODIES)
def test_what_depends_on_values_is_traced_as_on_the_real_inputs(body: Any) -> None:
    step = steady(Net(body), words(), LENGTHS)
    traced = trace_step(step.model, step.inputs, description=REAL)
    assert [a for a in traced.graph.assumptions if "values of its inputs" in a]
    plain, again = eager(step), replayed(step, traced.program)
    assert plain.keys() == again.keys()
    for name, value in plain.items():
        torch.testing.assert_close(again[name], value, msg=lambda m, n=name: f"{n}: {m}")


@pytest.mark.parametrize("body", BODIES)
def test_shapes_alone_do_not_tell_and_the_line_says_so(body: Any) -> None:
    with pytest.raises(TraceError, match=r"\(test_value_shapes.py:\d+\).*the inputs must be real"):
        trace_step(Net(body), (words(), LENGTHS))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_work_is_that_of_the_words_that_differ(dtype: str) -> None:
    traced = trace_step(Net(unique), (words(), LENGTHS), description=REAL, dtype=dtype)
    rows = len(set(words().flatten().tolist()))
    forward = sum(t.flops for t in traced.graph.tasks if t.phase == "forward" and t.block == "out")
    assert rows < words().numel() and forward == 2 * rows * 6 * 8


def test_numbers_that_are_drawn_may_be_asked_for_where_they_are_drawn() -> None:
    def drawn(net: Net, words: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        return net.out(net.embedding(words[:, : 1 + int(torch.rand(2, 3).numpy().shape[1])]))

    traced = trace_step(Net(drawn), (words(), LENGTHS), description=REAL)
    assert sum(t.flops for t in traced.graph.tasks if t.phase == "forward" and t.block == "out") == 2 * 4 * 4 * 6 * 8


def test_methods_of_tensors_are_as_they_were_after_a_trace() -> None:
    before = torch.Tensor.numpy, torch.Tensor.tolist
    trace_step(Net(by_numpy), (words(), LENGTHS), description=REAL)
    assert (torch.Tensor.numpy, torch.Tensor.tolist) == before and "numpy" not in vars(torch.Tensor)
    assert words().numpy().tolist() == words().tolist()
