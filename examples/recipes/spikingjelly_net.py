"""A SpikingJelly network as a target: `pararev-hw report FILE:make_net --device h200 -o out/`.

Single-step modules, called once per time step, with the state put back before each batch.
"""

import torch
from spikingjelly.activation_based import functional, layer, neuron, surrogate
from torch import Tensor, nn


class Net(nn.Module):
    def __init__(self, timesteps: int, num_classes: int) -> None:
        super().__init__()
        self.timesteps = timesteps
        self.layers = nn.Sequential(
            layer.Conv2d(3, 32, 3, padding=1, bias=False),
            layer.BatchNorm2d(32),
            neuron.LIFNode(surrogate_function=surrogate.ATan(), detach_reset=True),
            layer.MaxPool2d(2),
            layer.Conv2d(32, 64, 3, padding=1, bias=False),
            layer.BatchNorm2d(64),
            neuron.LIFNode(surrogate_function=surrogate.ATan(), detach_reset=True),
            layer.AdaptiveAvgPool2d(1),
            layer.Flatten(),
            layer.Linear(64, num_classes),
        )

    def forward(self, images: Tensor) -> Tensor:
        functional.reset_net(self)
        return torch.stack([self.layers(images) for _ in range(self.timesteps)]).mean(0)


def make_net(batch: int = 32, timesteps: int = 4, num_classes: int = 10) -> tuple[nn.Module, Tensor]:
    return Net(timesteps, num_classes), torch.rand(batch, 3, 32, 32)
