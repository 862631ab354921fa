"""An snnTorch network as a target: `pararev-hw report examples/recipes/snntorch_net.py:make_net --device h200 -o out/`.

Membranes are handed from step to step, as in snnTorch's tutorials.
"""

import snntorch as snn
import torch
from snntorch import surrogate
from torch import Tensor, nn


class Net(nn.Module):
    def __init__(self, timesteps: int, num_classes: int) -> None:
        super().__init__()
        self.timesteps = timesteps
        grad = surrogate.fast_sigmoid()
        self.conv1 = nn.Conv2d(1, 12, 5)
        self.lif1 = snn.Leaky(beta=0.9, spike_grad=grad)
        self.conv2 = nn.Conv2d(12, 64, 5)
        self.lif2 = snn.Leaky(beta=0.9, spike_grad=grad)
        self.fc = nn.Linear(64 * 4 * 4, num_classes)
        self.lif3 = snn.Leaky(beta=0.9, spike_grad=grad)
        self.pool = nn.MaxPool2d(2)

    def forward(self, images: Tensor) -> Tensor:
        mem1, mem2, mem3 = (lif.init_leaky() for lif in (self.lif1, self.lif2, self.lif3))
        spikes = []
        for _ in range(self.timesteps):
            s, mem1 = self.lif1(self.pool(self.conv1(images)), mem1)
            s, mem2 = self.lif2(self.pool(self.conv2(s)), mem2)
            s, mem3 = self.lif3(self.fc(s.flatten(1)), mem3)
            spikes.append(s)
        return torch.stack(spikes).sum(0)


def make_net(batch: int = 32, timesteps: int = 8, num_classes: int = 10) -> tuple[nn.Module, Tensor]:
    return Net(timesteps, num_classes), torch.rand(batch, 1, 28, 28)
