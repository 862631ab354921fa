"""Networks that are none of ours, as the campaign steps them: ResNet, MobileNet, ViT and U-Net as people write them.

Each factory takes a batch and a width, which scales the image's edge: its channels are its own.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import nn

from tests.helpers.memory_networks import ConvNeXt, Encoder, MobileNet, ResNet, UNet

CLASSES = 10  # of every network here
_FULL: Mapping[str, tuple[Callable[[], nn.Module], int]] = {
    "resnet18": (lambda: ResNet((2, 2, 2, 2), 64), 224),
    "mobilenet": (MobileNet, 224),
    "convnext": (ConvNeXt, 192),
    "vit": (Encoder, 32),  # its position embedding fixes the edge
    "unet": (UNet, 128),
}
NAMES = tuple(_FULL)


def target(name: str) -> str:
    """What `pararev_hw.importers.targets.resolve` is given for that network."""
    return f"{__file__}:{name}"


def _factory(name: str) -> Callable[..., tuple[nn.Module, torch.Tensor]]:
    network, edge = _FULL[name]

    def make(batch: int = 32, width: float = 1.0) -> tuple[nn.Module, torch.Tensor]:
        side = edge if name == "vit" else max(32, round(edge * width / 32) * 32)
        return network(), torch.rand(batch, 3, side, side)

    return make


globals().update({name: _factory(name) for name in NAMES})  # as targets name them
