"""How many elements of a tensor are not 0, and whether all have one value, beside plain comparisons."""

from __future__ import annotations

import pytest
import torch

from pararev_hw.tracing.spike_levels import active_places, true_places

RANDOM = torch.Generator().manual_seed(0)
SHAPES = ((1, 5), (3, 4, 6, 6), (300, 7), (700, 2, 3), (2, 0), (0, 3))
VALUES = {
    "spikes": (1.0,),
    "scaled": (0.3,),
    "large": (1e30,),
    "few": (0.5, 1.0),
    "quarters": (0.25, 0.5, 0.75, 1.0),
    "sums": (1.0, 2.0, 3.0),
    "signs": (-1.0, 1.0),
    "negative zeros": (-0.0, 1.0),
    "tiny beside one": (1e-30, 1.0),
    "almost one": (1.0, 1 + 2**-23),
    "silence": (0.0,),
}


@pytest.mark.parametrize("density", [0.05, 0.5, 1.0])
@pytest.mark.parametrize("values", VALUES.values(), ids=VALUES)
def test_places_are_counted_as_comparisons_count_them(values: tuple[float, ...], density: float) -> None:
    for shape in SHAPES:
        chosen = torch.tensor(values)[torch.randint(len(values), shape, generator=RANDOM)]
        x = chosen * (torch.rand(shape, generator=RANDOM) <= density)
        for tensor in (x, x.double(), x.transpose(0, 1).contiguous().transpose(0, 1)):
            places, level = active_places(tensor)
            assert torch.equal(places, (tensor != 0).sum(dim=0).double())
            present = set(tensor[tensor != 0].tolist())
            assert level is None or present <= {level}
            assert torch.equal(true_places(tensor > 0).long(), (tensor > 0).sum(dim=0))
    assert active_places(torch.ones(3, 2) * torch.tensor([[1.0], [0.0], [1.0]]))[1] == 1.0


@pytest.mark.parametrize(("rows", "spike"), [(1024, 1.0), (256, 2.0)])
def test_a_channel_that_is_constant_is_no_sum_of_spikes(rows: int, spike: float) -> None:
    """512 spikes of 1 have the sum of 1024 halves, and the sum of their bits."""
    x = (torch.rand(rows, 8) < 0.3).float() * spike
    assert active_places(x)[1] == spike
    x[:, 3] = 0.5
    places, level = active_places(x)
    assert level is None
    assert places[3] == rows
