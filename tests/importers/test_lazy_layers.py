"""Lazy layers get their shapes from the first batch, and nothing else of the network changes."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from pararev_hw.errors import BadInput
from pararev_hw.importers.lazy_layers import give_shapes


class Lazies(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.LazyConv2d(4, 3), nn.LazyBatchNorm2d()
        self.head, self.seen = nn.LazyLinear(5), 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.seen += 1
        return self.head(self.norm(self.conv(x)).flatten(1))


@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_lazy_layers_get_their_shapes_from_the_inputs(device: str) -> None:
    network = Lazies().train()
    give_shapes(network, (torch.ones(2, 3, 8, 8, device=device),), "net")
    shapes = {n: tuple(p.shape) for n, p in network.named_parameters()}
    assert shapes == {
        "conv.weight": (4, 3, 3, 3), "conv.bias": (4,), "norm.weight": (4,), "norm.bias": (4,),
        "head.weight": (5, 4 * 6 * 6), "head.bias": (5,),
    }  # fmt: skip
    assert network.seen == 0 and network.training and not network.norm.num_batches_tracked
    with pytest.raises(BadInput, match="RuntimeError when run once to give its lazy layers shapes"):
        give_shapes(Lazies(), (torch.ones(2, 3, device=device),), "net")


def test_a_lazy_layer_that_forward_leaves_out_is_named() -> None:
    network = Lazies()
    network.other = nn.LazyLinear(3)
    with pytest.raises(BadInput, match=r"net: other.weight has no shape yet, and forward does not run its layer"):
        give_shapes(network, (torch.ones(2, 3, 8, 8),), "net")
