"""A Norse network as a target: `pararev-hw report examples/recipes/norse_net.py:make_net --device h200 -o out/`."""

import norse.torch as norse
import torch
from torch import Tensor, nn


class Net(nn.Module):
    def __init__(self, timesteps: int, num_classes: int) -> None:
        super().__init__()
        self.timesteps = timesteps
        self.features = norse.SequentialState(
            nn.Conv2d(1, 16, 5),
            norse.LIFCell(),
            nn.MaxPool2d(2),
            nn.Conv2d(16, 32, 5),
            norse.LIFCell(),
            nn.MaxPool2d(2),
            nn.Flatten(),
        )
        self.classifier = nn.Linear(32 * 4 * 4, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        state, logits = None, []
        for _ in range(self.timesteps):
            out, state = self.features(images, state)
            logits.append(self.classifier(out))
        return torch.stack(logits).mean(0)


def make_net(batch: int = 32, timesteps: int = 8, num_classes: int = 10) -> tuple[nn.Module, Tensor]:
    return Net(timesteps, num_classes), torch.rand(batch, 1, 28, 28)
