"""Synaptic operations are exact: equal to a count by hand, and to the popular estimate but for the borders."""

from __future__ import annotations

import itertools
import subprocess
import sys

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from pararev_hw import models
from pararev_hw.errors import BadInput
from pararev_hw.graph import assumed, attach, spiking_layers, totals
from pararev_hw.tracing import measure_spikes, trace_step
from pararev_hw.tracing.spikes import conv_sops


def counted_by_hand(x: torch.Tensor, layer: nn.Conv2d) -> int:
    """Every output, every tap of its window, every non-zero input under it."""
    n, _, height, width = x.shape
    out = layer(x)
    per_group_in, per_group_out = layer.in_channels // layer.groups, layer.out_channels // layer.groups
    count = 0
    for b, o, i, j in itertools.product(range(n), range(out.shape[1]), range(out.shape[2]), range(out.shape[3])):
        group = o // per_group_out
        for c, u, v in itertools.product(range(per_group_in), *map(range, layer.kernel_size)):
            y = i * layer.stride[0] - layer.padding[0] + u * layer.dilation[0]
            z = j * layer.stride[1] - layer.padding[1] + v * layer.dilation[1]
            if 0 <= y < height and 0 <= z < width and x[b, group * per_group_in + c, y, z] != 0:
                count += 1
    return count


@settings(max_examples=40, deadline=None)
@given(
    stride=st.integers(1, 3),
    padding=st.integers(0, 2),
    dilation=st.integers(1, 2),
    kernel=st.sampled_from([(1, 1), (3, 3), (2, 3)]),
    groups=st.sampled_from([1, 2, 4]),
    multiplier=st.integers(1, 2),
    rate=st.sampled_from([0.0, 0.2, 1.0]),
    seed=st.integers(0, 99),
)
def test_synaptic_operations_of_a_convolution_equal_a_count_by_hand(
    stride: int,
    padding: int,
    dilation: int,
    kernel: tuple[int, int],
    groups: int,
    multiplier: int,
    rate: float,
    seed: int,
) -> None:
    torch.manual_seed(seed)
    layer = nn.Conv2d(4, 4 * multiplier, kernel, stride, padding, dilation, groups)  # groups = 4: depthwise
    x = (torch.rand(2, 4, 5, 6) < rate).float()
    counted = conv_sops(
        x, layer.weight, None, layer.stride, layer.padding, layer.dilation, False, (0, 0), layer.groups
    )  # fmt: skip
    assert counted == counted_by_hand(x, layer)


def test_a_transposed_convolution_counts_what_each_input_reaches() -> None:
    layer = nn.ConvTranspose2d(2, 3, 3, stride=2, padding=1)
    x = torch.zeros(1, 2, 4, 4)
    x[0, 0, 1, 1] = 1  # an inner input reaches its whole 3 x 3 kernel in each of 3 channels
    x[0, 1, 0, 0] = 1  # a corner loses a row and a column of it
    sops = conv_sops(x, layer.weight, None, (2, 2), (1, 1), (1, 1), True, (0, 0), 1)
    assert sops == 3 * 9 + 3 * 4


class Spiking(nn.Module):
    """Analog image -> convolution -> IF -> convolution -> IF -> linear, over T = 3 equal frames."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(2, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1, stride=2)
        self.one, self.two = models.IF(v_threshold=0.1), models.IF(v_threshold=0.1)
        self.fc = nn.Linear(4 * 3 * 3, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        t = 3
        x = self.first(x.repeat(t, 1, 1, 1)).unflatten(0, (t, -1))
        x = self.second(self.one(x).flatten(0, 1)).unflatten(0, (t, -1))
        return self.fc(self.two(x).flatten(0, 1).flatten(1)).unflatten(0, (t, -1)).mean(0)


def test_layers_of_a_network_are_counted_each_and_analog_input_is_told_apart() -> None:
    torch.manual_seed(0)
    model = Spiking()
    x = torch.randn(4, 2, 6, 6)
    spikes = measure_spikes(model, x, source="noise")
    assert spikes is not None
    layers = {layer.module: layer for layer in spikes.layers}
    assert [n for n, layer in layers.items() if layer.spiking] == ["second", "fc"]
    with torch.no_grad():
        s = model.one(model.first(x.repeat(3, 1, 1, 1)).unflatten(0, (3, -1))).flatten(0, 1)
        s2 = model.two(model.second(s).unflatten(0, (3, -1))).flatten(0, 1).flatten(1)
    assert layers["second"].sops == counted_by_hand(s, model.second) / 4
    assert layers["second"].density == pytest.approx(float(s.mean()))
    assert layers["second"].channel_density == pytest.approx(s.mean((0, 2, 3)).tolist())
    assert layers["fc"].sops == float(s2.sum()) * 5 / 4
    assert layers["fc"].sops == pytest.approx(layers["fc"].density * layers["fc"].dense_macs)  # no border


def test_rate_times_macs_exceeds_the_exact_count_by_the_border_alone() -> None:
    torch.manual_seed(0)
    layer = nn.Conv2d(8, 8, 3, padding=1)
    x = (torch.rand(64, 8, 16, 16) < 0.3).float()
    sops = conv_sops(x, layer.weight, None, (1, 1), (1, 1), (1, 1), False, (0, 0), 1)
    popular = float(x.mean()) * 64 * 8 * 8 * 9 * 16 * 16
    inside = ((3 * 16 - 2) / (3 * 16)) ** 2  # of a row's 3 x 16 taps 2 lie outside, and so of a column's
    assert sops / popular == pytest.approx(inside, rel=5e-3)


def test_tasks_get_the_operations_of_their_layers_once_in_forward_and_once_in_recompute() -> None:
    torch.manual_seed(0)
    model = models.create("revsresnet21", width=0.0625, num_classes=10, timesteps=2)
    spikes = measure_spikes(model, torch.randn(2, 3, 16, 16), source="noise")
    assert spikes is not None
    graph = attach(trace_step(model, torch.empty(8, 3, 16, 16)).graph, spikes)
    per_sample = sum(layer.sops for layer in spikes.layers if layer.spiking)
    by_phase = {p: sum(t.sops or 0 for t in graph.tasks if t.phase == p) for p in ("forward", "recompute", "backward")}
    assert by_phase["forward"] == pytest.approx(8 * per_sample, abs=len(graph.tasks))
    reversible = sum(s.sops for s in spikes.layers if s.spiking and s.module.startswith("stages"))
    assert by_phase["recompute"] == pytest.approx(8 * reversible, abs=len(graph.tasks))
    assert by_phase["backward"] == 0
    assert totals(graph)["sops"] == sum(by_phase.values())


def test_the_layers_that_an_assumed_rate_covers_are_those_that_measurement_finds_spiking() -> None:
    torch.manual_seed(0)
    for name in ("pararevsnn37", "msresnet18"):
        model = models.create(name, width=0.0625, num_classes=10, timesteps=2)
        graph = trace_step(model, torch.empty(2, 3, 16, 16)).graph
        measured = measure_spikes(model, torch.randn(2, 3, 16, 16), source="noise")
        assert measured is not None
        assert set(spiking_layers(graph)) == {layer.module for layer in measured.layers if layer.spiking}
        found = assumed(graph, 0.25)
        assert found is not None
        dense = sum(layer.dense_macs for layer in measured.layers if layer.spiking)
        assert sum(layer.sops for layer in found.layers) == pytest.approx(0.25 * dense)
        assert not found.measured


def test_measuring_leaves_the_network_as_it_was() -> None:
    model = models.create("revsresnet21", width=0.0625, timesteps=1).eval()
    before = {n: t.clone() for n, t in model.state_dict().items()}
    measure_spikes(model, torch.randn(2, 3, 16, 16), source="noise")
    assert not model.training
    assert all(torch.equal(model.state_dict()[n], t) for n, t in before.items())


def test_a_network_without_spikes_has_none_and_a_rate_outside_0_to_1_is_refused() -> None:
    plain = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 36, 10))
    assert measure_spikes(plain, torch.randn(2, 3, 8, 8), source="noise") is None
    graph = trace_step(plain, torch.empty(2, 3, 8, 8)).graph
    assert assumed(graph, 0.2) is None
    with pytest.raises(BadInput, match="between 0 and 1"):
        assumed(graph, 1.5)


_COMPILED = """
import torch
from torch import nn
import pararev_hw as ph

class Network(nn.Module):
    def __init__(self, wrap):
        super().__init__()
        self.first, self.neuron = nn.Conv2d(2, 4, 3), ph.models.LIF()
        self.second = wrap(nn.Conv2d(4, 4, 3))

    def forward(self, x):
        return self.second(self.neuron(self.first(x).unsqueeze(0)).squeeze(0)).sum((2, 3))

layers = []
for wrap in (torch.compile, lambda m: m):
    torch.manual_seed(0)
    graph = ph.trace(Network(wrap), 9 * torch.rand(2, 2, 8, 8, generator=torch.Generator().manual_seed(1)))
    layers.append([(s.density, s.sops, s.dense_macs) for s in graph.spikes.layers])
assert layers[0] == layers[1] and layers[0][1][1] > 0, layers
"""


def test_a_compiled_layer_is_counted_as_it_was_written_without_a_warning() -> None:
    subprocess.run([sys.executable, "-W", "error::UserWarning", "-c", _COMPILED], check=True, timeout=120)
