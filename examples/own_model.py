"""A network of your own as a target: `pararev-hw report examples/own_model.py:make_net --device edge8 -o out/`.

The network is plain PyTorch: two branches that read the same spikes, a join, a classifier, and a Python loop over T.
Nothing in it knows of this toolkit.
"""

import torch
from torch import Tensor, nn


class Spike(torch.autograd.Function):
    """1 where the membrane reaches the threshold; its gradient is that of a steep sigmoid."""

    @staticmethod
    def forward(ctx, membrane: Tensor) -> Tensor:
        ctx.save_for_backward(membrane)
        return (membrane >= 0).to(membrane.dtype)

    @staticmethod
    def backward(ctx, gradient: Tensor) -> Tensor:
        (membrane,) = ctx.saved_tensors
        s = torch.sigmoid(4 * membrane)
        return gradient * 4 * s * (1 - s)


class IF(nn.Module):
    """Integrate and fire over the first dimension, `[T, B, ...]` to spikes of the same shape."""

    def forward(self, x: Tensor) -> Tensor:
        v, spikes = torch.zeros_like(x[0]), []
        for current in x:
            v = v + current
            spike = Spike.apply(v - 1.0)
            v = v * (1 - spike)
            spikes.append(spike)
        return torch.stack(spikes)


class Branch(nn.Module):
    """Convolution and norm, T folded into the batch."""

    def __init__(self, channels: int, kernel: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, kernel, padding=kernel // 2, bias=False)
        self.norm = nn.BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.conv(x.flatten(0, 1))).unflatten(0, x.shape[:2])


class TwoBranches(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.fine, self.coarse = Branch(channels, 3), Branch(channels, 5)
        self.neuron = IF()

    def forward(self, x: Tensor) -> Tensor:
        return self.neuron(self.fine(x) + self.coarse(x))


class Net(nn.Module):
    """`[B, 1, H, W]` to `[B, classes]`: the image is shown at every one of T time steps."""

    def __init__(self, classes: int, timesteps: int) -> None:
        super().__init__()
        self.timesteps = timesteps
        self.stem = nn.Sequential(nn.Conv2d(1, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16))
        self.neuron = IF()
        self.blocks = nn.Sequential(TwoBranches(16), TwoBranches(16))
        self.classifier = nn.Linear(16, classes)

    def forward(self, x: Tensor) -> Tensor:
        shown = self.stem(x).expand(self.timesteps, -1, -1, -1, -1)
        out = self.blocks(self.neuron(shown))
        return self.classifier(out.mean((0, 3, 4)))


def make_net(batch: int = 32, timesteps: int = 4, num_classes: int = 10) -> tuple[nn.Module, Tensor]:
    """The network and a batch for it. The options are those of the command line that this factory takes."""
    return Net(num_classes, timesteps), torch.rand(batch, 1, 16, 16)
