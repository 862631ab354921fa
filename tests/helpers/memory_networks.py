"""Networks as people write them elsewhere, small: what the memory predictions are held against.

Every maker gives the network and the shape of one sample; all take float images or sequences and give `[B, 10]`, unless
said otherwise. Nothing of the toolkit is used here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint


class BasicBlock(nn.Module):
    """The residual block of torchvision's ResNet-18."""

    def __init__(self, inner: int, outer: int, stride: int = 1) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inner, outer, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outer)
        self.relu = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(outer, outer, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outer)
        self.downsample = None
        if stride != 1 or inner != outer:
            self.downsample = nn.Sequential(nn.Conv2d(inner, outer, 1, stride, bias=False), nn.BatchNorm2d(outer))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        identity = x if self.downsample is None else self.downsample(x)
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        out += identity
        return self.relu(out)


class Bottleneck(nn.Module):
    """The residual block of torchvision's ResNet-50."""

    def __init__(self, inner: int, width: int, stride: int = 1) -> None:
        super().__init__()
        outer = 4 * width
        self.conv1, self.bn1 = nn.Conv2d(inner, width, 1, bias=False), nn.BatchNorm2d(width)
        self.conv2, self.bn2 = nn.Conv2d(width, width, 3, stride, 1, bias=False), nn.BatchNorm2d(width)
        self.conv3, self.bn3 = nn.Conv2d(width, outer, 1, bias=False), nn.BatchNorm2d(outer)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = nn.Sequential(nn.Conv2d(inner, outer, 1, stride, bias=False), nn.BatchNorm2d(outer))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.relu(self.bn2(self.conv2(out)))
        out = self.bn3(self.conv3(out))
        out += self.downsample(x)
        return self.relu(out)


class ResNet(nn.Module):
    """torchvision's ResNet: 7x7 stem, max pooling, four stages. `recompute`: stages are checkpointed."""

    def __init__(self, layers: tuple[int, ...], width: int, recompute: str = "") -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, width, 7, 2, 3, bias=False)
        self.bn1, self.relu, self.maxpool = nn.BatchNorm2d(width), nn.ReLU(inplace=True), nn.MaxPool2d(3, 2, 1)
        stages, inner = [], width
        for k, n in enumerate(layers):
            outer = width * 2**k
            stages.append(
                nn.Sequential(
                    *(BasicBlock(inner if j == 0 else outer, outer, 2 if k and j == 0 else 1) for j in range(n))
                )
            )
            inner = outer
        self.stages = nn.ModuleList(stages)
        self.avgpool, self.fc = nn.AdaptiveAvgPool2d(1), nn.Linear(inner, 10)
        self.recompute = recompute

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        for stage in self.stages:
            x = checkpoint(stage, x, use_reentrant=self.recompute == "reentrant") if self.recompute else stage(x)
        return self.fc(torch.flatten(self.avgpool(x), 1))


class Transformer(nn.Module):
    """A language model: embedding, causal attention by scaled_dot_product_attention, GELU. `[B, 32]` tokens in."""

    def __init__(self, width: int = 64, heads: int = 4, layers: int = 3, dropout: float = 0.1) -> None:
        super().__init__()
        self.token, self.place = nn.Embedding(128, width), nn.Parameter(torch.zeros(1, 32, width))
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(2 * layers))
        self.qkv = nn.ModuleList(nn.Linear(width, 3 * width) for _ in range(layers))
        self.out = nn.ModuleList(nn.Linear(width, width) for _ in range(layers))
        self.up = nn.ModuleList(nn.Linear(width, 4 * width) for _ in range(layers))
        self.down = nn.ModuleList(nn.Linear(4 * width, width) for _ in range(layers))
        self.head, self.heads, self.dropout = nn.Linear(width, 10), heads, nn.Dropout(dropout)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        x = self.token(tokens) + self.place
        for k, (qkv, out, up, down) in enumerate(zip(self.qkv, self.out, self.up, self.down, strict=True)):
            b, t, c = x.shape
            parts = qkv(self.norms[2 * k](x)).view(b, t, 3, self.heads, c // self.heads).permute(2, 0, 3, 1, 4)
            mixed = F.scaled_dot_product_attention(parts[0], parts[1], parts[2], is_causal=True)
            x = x + self.dropout(out(mixed.transpose(1, 2).reshape(b, t, c)))
            x = x + self.dropout(down(F.gelu(up(self.norms[2 * k + 1](x)))))
        return self.head(x.mean(1))


class Encoder(nn.Module):
    """torch's own TransformerEncoder over image patches (a small ViT)."""

    def __init__(self, width: int = 64) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, width, 4, 4)
        layer = nn.TransformerEncoderLayer(width, 4, 4 * width, 0.1, "gelu", batch_first=True, norm_first=True)
        self.encoder = nn.TransformerEncoder(layer, 3, enable_nested_tensor=False)
        self.head = nn.Linear(width, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.patches(x).flatten(2).transpose(1, 2)
        return self.head(self.encoder(x)[:, 0])


class Spike(torch.autograd.Function):
    """A step function with a triangular surrogate gradient."""

    @staticmethod
    def forward(ctx: Any, v: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(v)
        return (v > 0).to(v.dtype)

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> torch.Tensor:
        (v,) = ctx.saved_tensors
        return grad * (1 - v.abs()).clamp(min=0)


class StepwiseSNN(nn.Module):
    """A convolutional LIF network stepped through T in a Python loop, as snnTorch tutorials write it."""

    def __init__(self, timesteps: int = 6, width: int = 16) -> None:
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(3, width, 5, padding=2), nn.Conv2d(width, 2 * width, 5, padding=2)
        self.fc, self.timesteps, self.beta = nn.LazyLinear(10), timesteps, 0.9

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        v1 = v2 = v3 = None
        total = 0.0
        for _ in range(self.timesteps):
            u1 = F.max_pool2d(self.conv1(x), 2)
            v1 = u1 if v1 is None else self.beta * v1 + u1
            s1 = Spike.apply(v1 - 1.0)
            v1 = v1 - s1
            u2 = F.max_pool2d(self.conv2(s1), 2)
            v2 = u2 if v2 is None else self.beta * v2 + u2
            s2 = Spike.apply(v2 - 1.0)
            v2 = v2 - s2
            u3 = self.fc(s2.flatten(1))
            v3 = u3 if v3 is None else self.beta * v3 + u3
            s3 = Spike.apply(v3 - 1.0)
            v3 = v3 - s3
            total = total + s3
        return total / self.timesteps


def conv_bn(inner: int, outer: int, kernel: Any, **options: Any) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inner, outer, kernel, bias=False, **options), nn.BatchNorm2d(outer, eps=1e-3), nn.ReLU(inplace=True)
    )


class InceptionBlock(nn.Module):
    """Four branches side by side, joined by cat, as in GoogLeNet."""

    def __init__(self, inner: int, a: int, b: tuple[int, int], c: tuple[int, int], d: int) -> None:
        super().__init__()
        self.branch1 = conv_bn(inner, a, 1)
        self.branch2 = nn.Sequential(conv_bn(inner, b[0], 1), conv_bn(b[0], b[1], 3, padding=1))
        self.branch3 = nn.Sequential(conv_bn(inner, c[0], 1), conv_bn(c[0], c[1], 5, padding=2))
        self.branch4 = nn.Sequential(nn.MaxPool2d(3, 1, 1), conv_bn(inner, d, 1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.cat([self.branch1(x), self.branch2(x), self.branch3(x), self.branch4(x)], 1)


class GoogLeNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = conv_bn(3, 24, 3, padding=1)
        self.a = InceptionBlock(24, 8, (12, 16), (4, 8), 8)
        self.pool = nn.MaxPool2d(3, 2, 1)
        self.b = InceptionBlock(40, 16, (16, 32), (8, 16), 16)
        self.dropout, self.fc = nn.Dropout(0.2), nn.Linear(80, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.b(self.pool(self.a(self.stem(x))))
        return self.fc(self.dropout(x.mean((2, 3))))


class InvertedResidual(nn.Module):
    """The block of MobileNetV2: 1x1 up, 3x3 depthwise, 1x1 down."""

    def __init__(self, inner: int, outer: int, stride: int, grow: int = 4) -> None:
        super().__init__()
        wide = inner * grow
        self.body = nn.Sequential(
            nn.Conv2d(inner, wide, 1, bias=False), nn.BatchNorm2d(wide), nn.ReLU6(inplace=True),
            nn.Conv2d(wide, wide, 3, stride, 1, groups=wide, bias=False), nn.BatchNorm2d(wide), nn.ReLU6(inplace=True),
            nn.Conv2d(wide, outer, 1, bias=False), nn.BatchNorm2d(outer),
        )  # fmt: skip
        self.same = stride == 1 and inner == outer

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.body(x) if self.same else self.body(x)


class MobileNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(3, 16, 3, 2, 1, bias=False), nn.BatchNorm2d(16), nn.ReLU6(inplace=True),
            InvertedResidual(16, 16, 1), InvertedResidual(16, 24, 2), InvertedResidual(24, 24, 1),
            InvertedResidual(24, 32, 2), InvertedResidual(32, 32, 1), nn.Conv2d(32, 64, 1), nn.ReLU6(inplace=True),
        )  # fmt: skip
        self.classifier = nn.Sequential(nn.Dropout(0.2), nn.Linear(64, 10))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.classifier(F.adaptive_avg_pool2d(self.features(x), 1).flatten(1))


class UNet(nn.Module):
    """Down, up by transposed convolution, skips by cat. A map of 10 channels, averaged."""

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        self.down1, self.down2 = self._double(3, width), self._double(width, 2 * width)
        self.middle = self._double(2 * width, 4 * width)
        self.up2 = nn.ConvTranspose2d(4 * width, 2 * width, 2, 2)
        self.up1 = nn.ConvTranspose2d(2 * width, width, 2, 2)
        self.dec2, self.dec1 = self._double(4 * width, 2 * width), self._double(2 * width, width)
        self.head = nn.Conv2d(width, 10, 1)

    @staticmethod
    def _double(inner: int, outer: int) -> nn.Sequential:
        return nn.Sequential(conv_bn(inner, outer, 3, padding=1), conv_bn(outer, outer, 3, padding=1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        one = self.down1(x)
        two = self.down2(F.max_pool2d(one, 2))
        x = self.middle(F.max_pool2d(two, 2))
        x = self.dec2(torch.cat([self.up2(x), two], 1))
        x = self.dec1(torch.cat([self.up1(x), one], 1))
        return self.head(x).mean((2, 3))


class Autoencoder(nn.Module):
    """Strided convolutions down, transposed ones with kernel 4 up. Gives an image."""

    def __init__(self) -> None:
        super().__init__()
        self.down = nn.Sequential(
            nn.Conv2d(3, 16, 3, 2, 1), nn.LeakyReLU(0.2), nn.Conv2d(16, 32, 3, 2, 1), nn.LeakyReLU(0.2)
        )
        self.up = nn.Sequential(
            nn.ConvTranspose2d(32, 16, 4, 2, 1), nn.ReLU(), nn.ConvTranspose2d(16, 3, 3, 2, 1, output_padding=1)
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.sigmoid(self.up(self.down(x)))


class Recurrent(nn.Module):
    """An LSTM or GRU over a sequence `[B, 24, 20]`, then a linear layer on its last output."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.body = (nn.LSTM if kind == "lstm" else nn.GRU)(20, 48, num_layers=2, batch_first=True)
        self.fc = nn.Linear(48, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc(self.body(x)[0][:, -1])


class DenseNet(nn.Module):
    """Every layer reads what all layers before it made."""

    def __init__(self, growth: int = 8, layers: int = 5) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3, padding=1, bias=False)
        widths = [16 + growth * k for k in range(layers)]
        self.layers = nn.ModuleList(
            nn.Sequential(nn.BatchNorm2d(w), nn.ReLU(inplace=True), nn.Conv2d(w, growth, 3, padding=1, bias=False))
            for w in widths
        )
        self.fc = nn.Linear(16 + growth * layers, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        found = [self.stem(x)]
        for layer in self.layers:
            found.append(layer(torch.cat(found, 1)))
        return self.fc(torch.cat(found, 1).mean((2, 3)))


class VGG(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        inner = 3
        for outer in (16, 0, 32, 32, 0, 64, 64, 0):
            if outer == 0:
                layers.append(nn.MaxPool2d(2, 2))
            else:
                layers += [nn.Conv2d(inner, outer, 3, padding=1), nn.ReLU(inplace=True)]
                inner = outer
        self.features, self.pool = nn.Sequential(*layers), nn.AdaptiveAvgPool2d(3)
        self.classifier = nn.Sequential(
            nn.Linear(576, 256), nn.ReLU(True), nn.Dropout(), nn.Linear(256, 256), nn.ReLU(True), nn.Linear(256, 10)
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.classifier(self.pool(self.features(x)).flatten(1))


class ConvNeXtBlock(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(width, width, 7, padding=3, groups=width)
        self.norm, self.up, self.down = nn.LayerNorm(width), nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        self.scale = nn.Parameter(torch.full((width,), 1e-2))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.norm(self.depthwise(x).permute(0, 2, 3, 1))
        return x + (self.scale * self.down(F.gelu(self.up(y)))).permute(0, 3, 1, 2)


class ConvNeXt(nn.Module):
    """Depthwise 7x7, LayerNorm in channels-last, GroupNorm before the head."""

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, width, 4, 4)
        self.blocks = nn.Sequential(*(ConvNeXtBlock(width) for _ in range(3)))
        self.norm, self.fc = nn.GroupNorm(4, width), nn.Linear(width, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc(self.norm(self.blocks(self.stem(x))).mean((2, 3)))


class Speech(nn.Module):
    """One-dimensional convolutions, dilated, on `[B, 8, 400]`."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv1d(8, 24, 9, 2, 4)
        self.body = nn.ModuleList(nn.Conv1d(24, 24, 3, padding=2**k, dilation=2**k) for k in range(4))
        self.norms = nn.ModuleList(nn.BatchNorm1d(24) for _ in range(4))
        self.fc = nn.Linear(24, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.relu(self.stem(x))
        for conv, norm in zip(self.body, self.norms, strict=True):
            x = x + F.relu(norm(conv(x)))
        return self.fc(x.mean(-1))


class Video(nn.Module):
    """Three-dimensional convolutions on `[B, 3, 8, 16, 16]`."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv3d(3, 16, 3, padding=1), nn.BatchNorm3d(16), nn.ReLU(inplace=True), nn.MaxPool3d(2),
            nn.Conv3d(16, 32, 3, padding=1), nn.ReLU(inplace=True),
        )  # fmt: skip
        self.fc = nn.Linear(32, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc(self.body(x).mean((2, 3, 4)))


class Perceptron(nn.Module):
    """Wide linear layers: almost all memory is parameters, gradients and optimizer state."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(192, 512), nn.Tanh(), nn.Linear(512, 512), nn.Tanh(), nn.Linear(512, 10))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.body(x)


NETWORKS: Mapping[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "resnet18": (lambda: ResNet((2, 2, 2, 2), 16), (3, 64, 64)),
    "bottleneck": (lambda: nn.Sequential(conv_bn(3, 16, 3), Bottleneck(16, 8), Bottleneck(32, 16, 2), Pooled(64)),
                   (3, 32, 32)),
    "resnet_checkpointed": (lambda: ResNet((2, 2, 2, 2), 16, "plain"), (3, 64, 64)),
    "resnet_checkpointed_reentrant": (lambda: ResNet((2, 2, 2, 2), 16, "reentrant"), (3, 64, 64)),
    "transformer": (Transformer, (32,)),
    "vit": (Encoder, (3, 32, 32)),
    "stepwise_snn": (lambda: shaped(StepwiseSNN(), (3, 24, 24)), (3, 24, 24)),
    "googlenet": (GoogLeNet, (3, 32, 32)),
    "mobilenet": (MobileNet, (3, 48, 48)),
    "unet": (UNet, (3, 32, 32)),
    "autoencoder": (Autoencoder, (3, 32, 32)),
    "lstm": (lambda: Recurrent("lstm"), (24, 20)),
    "gru": (lambda: Recurrent("gru"), (24, 20)),
    "densenet": (DenseNet, (3, 24, 24)),
    "vgg": (VGG, (3, 32, 32)),
    "convnext": (ConvNeXt, (3, 48, 48)),
    "speech": (Speech, (8, 400)),
    "video": (Video, (3, 8, 16, 16)),
    "mlp": (Perceptron, (192,)),
}  # fmt: skip


class Pooled(nn.Module):
    """Global average pooling and a classifier."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.fc = nn.Linear(width, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc(x.mean((2, 3)))


def shaped(model: nn.Module, sample: tuple[int, ...]) -> nn.Module:
    """The network after one batch, which gives its lazy layers their shape."""
    with torch.no_grad():
        model(torch.zeros(1, *sample))
    return model


def batch_of(name: str, count: int) -> torch.Tensor:
    """A batch for that network."""
    sample = NETWORKS[name][1]
    if name == "transformer":
        return torch.randint(0, 128, (count, *sample))
    return torch.randn(count, *sample)
