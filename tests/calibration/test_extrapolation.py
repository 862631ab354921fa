"""Ops of shapes and kinds that a short calibration never measured stay within what it measured, or cost a roofline."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn

import pararev_hw as ph
from pararev_hw.costmodels.calibrated.features import family
from pararev_hw.costmodels.calibrated.fit import fits
from pararev_hw.costmodels.calibrated.op_times import usable_fits
from pararev_hw.costmodels.cost import cost
from pararev_hw.devices.parameters import needed_parameters
from pararev_hw.types import BlockGraph, Device, DeviceParameter, Environment, OpSample, Profile

_CACHES = (1 << 20, 32 << 20)
_FIXED_S, _FLOP_S, _BYTE_S = 20e-6, 1e-10, 1e-9


def _steps(net: nn.Module, x: torch.Tensor, dtype: str = "float32") -> BlockGraph:
    return ph.trace(net, x, spikes="none", dtype=dtype)


@pytest.fixture(scope="module")
def profile() -> Profile:
    """Plain convolutions, batch norm, ReLU and a linear layer at six sizes, each op at the same rates."""
    samples: dict[object, OpSample] = {}
    for width in (8, 16, 24, 32, 48, 64):
        net = nn.Sequential(
            nn.Conv2d(width, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU(), nn.AdaptiveAvgPool2d(1),
            nn.Flatten(), nn.Linear(width, 10),
        )  # fmt: skip
        graph = _steps(net, torch.rand(8, width, 32, 32))
        for t in graph.op_types:
            seconds = _FIXED_S + _FLOP_S * t.true_flops + _BYTE_S * (t.read_bytes + t.write_bytes)
            samples[t] = OpSample(t, False, False, False, (seconds,))
    parameters = {
        n: DeviceParameter(1e9 if "_per_s" in n else 1e-6, "a test", "measured") for n in needed_parameters("cpu")
    }
    device = Device("cpu", "cpu", "a test's CPU", 1, parameters)
    where = Environment("a test", "a test's CPU", "oneDNN, AVX2", "2", 1, {})
    measured = tuple(samples.values())
    return Profile(device, where, {}, fits(measured, _CACHES, 0.0), {}, {}, measured, (), (), (), (), 0)


class _Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(48, 4, batch_first=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.attention(x, x, x)[0]
        return y


class _Last(nn.Module):
    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.layer(x)[0]
        return y


def _images(channels: int) -> torch.Tensor:
    return torch.rand(4, channels, 40, 40)


NETWORKS: dict[str, Callable[[], tuple[nn.Module, torch.Tensor]]] = {
    "groups": lambda: (nn.Conv2d(48, 96, 3, groups=3), _images(48)),
    "depthwise": lambda: (nn.Conv2d(128, 128, 7, groups=128), _images(128)),
    "dilated": lambda: (nn.Conv2d(24, 24, 3, dilation=5), _images(24)),
    "transposed": lambda: (nn.ConvTranspose2d(24, 12, 4, 2), _images(24)),
    "1-d": lambda: (nn.Conv1d(16, 32, 9), torch.rand(4, 16, 3000)),
    "3-d": lambda: (nn.Conv3d(4, 8, 3), torch.rand(2, 4, 12, 24, 24)),
    "group norm": lambda: (nn.Sequential(nn.GroupNorm(4, 32), nn.Conv2d(32, 8, 1)), _images(32)),
    "instance norm": lambda: (nn.Sequential(nn.InstanceNorm2d(32, affine=True), nn.SiLU()), _images(32)),
    "layer norm": lambda: (nn.Sequential(nn.LayerNorm(400), nn.GELU()), torch.rand(64, 400)),
    "attention": lambda: (_Attention(), torch.rand(4, 60, 48)),
    "recurrent": lambda: (_Last(nn.LSTM(20, 40)), torch.rand(8, 6, 20)),
    "embedding": lambda: (nn.Sequential(nn.Embedding(900, 32), nn.Linear(32, 8)), torch.randint(0, 900, (8, 50))),
    "channels last": lambda: (nn.Conv2d(24, 24, 3).to(memory_format=torch.channels_last), _images(24)),
}


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("name", NETWORKS)
def test_no_op_is_predicted_beyond_what_was_measured_of_its_kind(name: str, dtype: str, profile: Profile) -> None:
    """Every op was measured at 20 us, 1e-10 s a flop and 1e-9 s a byte; half as much is allowed for.

    An op of a kind that was not measured costs exactly what the roofline of the device says.
    """
    graph = _steps(*NETWORKS[name](), dtype)
    seconds = cost(graph, profile).op_seconds
    roofline = cost(graph, profile.device).op_seconds
    measured = {(family(s.op), s.op.dtype) for s in profile.samples}
    fitted = usable_fits(profile)
    assert any((family(t), t.dtype) in measured for t in graph.op_types) or dtype == "bfloat16"
    for k, op in enumerate(graph.ops):
        t = graph.op_types[op.type]
        flops, moved = t.true_flops, t.read_bytes + t.write_bytes
        if (family(t), t.dtype) in measured:
            most = 100e-6 + 4 * (_FLOP_S * flops + _BYTE_S * moved)
            large = family(t) in ("conv", "conv_backward")  # of other kinds only ops were measured that end at once
            least = _FLOP_S * flops / 1.6 if large else 0.0
            assert least <= seconds[k] <= most * (1 if large else 10), t.name
        elif not any(f == family(t) for f, _ in fitted):
            assert seconds[k] == pytest.approx(roofline[k]), t.name
