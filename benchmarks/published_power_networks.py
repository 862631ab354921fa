"""The networks whose board powers zeus published, as their authors write them: their training steps at any batch.

ShuffleNetV2 for CIFAR-100, BERT base (answers to questions, 384 tokens), DeepSpeech2 (two convolutions, five
bidirectional GRU layers of 800), NCF (NeuMF, MovieLens-1M); float32, Adam. The recurrent part of
DeepSpeech2 is not traced: on a GPU it is cuDNN's, whose kernels `recurrent_kernels` gives.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from pararev_hw.costmodels.gpu.kernels import Kernel
from pararev_hw.types import BlockGraph

_FRAMES = 1230  # of a spectrogram, 10 ms each: 12.3 s, the mean of LibriSpeech's sentences
LAYERS, HIDDEN = 5, 800  # of DeepSpeech2


class Split(nn.Module):
    """ShuffleNetV2's unit of stride 1: half of the channels pass, the other half take three convolutions."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.branch = _branch(channels // 2, channels // 2, 1)

    def forward(self, x: Any) -> Any:
        left, right = x.chunk(2, 1)
        return _shuffled(torch.cat((left, self.branch(right)), 1))


class Down(nn.Module):
    """The unit of stride 2, on all channels in both branches."""

    def __init__(self, inner: int, outer: int) -> None:
        super().__init__()
        self.branch = _branch(inner, outer // 2, 2)
        self.shortcut = nn.Sequential(
            nn.Conv2d(inner, inner, 3, 2, 1, groups=inner), nn.BatchNorm2d(inner),
            nn.Conv2d(inner, outer // 2, 1), nn.BatchNorm2d(outer // 2), nn.ReLU(),
        )  # fmt: skip

    def forward(self, x: Any) -> Any:
        return _shuffled(torch.cat((self.shortcut(x), self.branch(x)), 1))


def _branch(inner: int, outer: int, stride: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inner, inner, 1), nn.BatchNorm2d(inner), nn.ReLU(),
        nn.Conv2d(inner, inner, 3, stride, 1, groups=inner), nn.BatchNorm2d(inner),
        nn.Conv2d(inner, outer, 1), nn.BatchNorm2d(outer), nn.ReLU(),
    )  # fmt: skip


def _shuffled(x: Any) -> Any:
    b, c, h, w = x.shape
    return x.view(b, 2, c // 2, h, w).transpose(1, 2).contiguous().view(b, c, h, w)


def shufflenet() -> nn.Module:
    layers: list[nn.Module] = [nn.Sequential(nn.Conv2d(3, 24, 3, padding=1), nn.BatchNorm2d(24))]
    inner = 24
    for outer, repeats in ((116, 3), (232, 7), (464, 3)):
        layers += [Down(inner, outer), *(Split(outer) for _ in range(repeats))]
        inner = outer
    head = (nn.Conv2d(inner, 1024, 1), nn.BatchNorm2d(1024), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    return nn.Sequential(*layers, *head, nn.Linear(1024, 100))


class Attention(nn.Module):
    """BERT's self-attention as its first implementations write it: two batched products and a softmax."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query, self.key, self.value = (nn.Linear(width, width) for _ in range(3))
        self.dropout = nn.Dropout(0.1)

    def forward(self, x: Any) -> Any:
        b, t, width = x.shape
        q, k, v = (f(x).view(b, t, self.heads, -1).transpose(1, 2) for f in (self.query, self.key, self.value))
        scores = q @ k.transpose(-1, -2) / math.sqrt(width // self.heads)
        return (self.dropout(scores.softmax(-1)) @ v).transpose(1, 2).reshape(b, t, width)


class EncoderLayer(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.attention, self.out, self.norm1 = Attention(width, heads), nn.Linear(width, width), nn.LayerNorm(width)
        self.inner, self.outer, self.norm2 = (
            nn.Linear(width, 4 * width), nn.Linear(4 * width, width), nn.LayerNorm(width)
        )  # fmt: skip
        self.dropout = nn.Dropout(0.1)

    def forward(self, x: Any) -> Any:
        x = self.norm1(x + self.dropout(self.out(self.attention(x))))
        return self.norm2(x + self.dropout(self.outer(nn.functional.gelu(self.inner(x)))))


class Bert(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.words, self.places = nn.Embedding(30522, 768), nn.Embedding(512, 768)
        self.norm, self.layers = nn.LayerNorm(768), nn.Sequential(*(EncoderLayer(768, 12) for _ in range(12)))
        self.ends = nn.Linear(768, 2)

    def forward(self, tokens: Any) -> Any:
        x = self.norm(self.words(tokens) + self.places.weight[: tokens.shape[1]])
        return self.ends(self.layers(x))


class DeepSpeech(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.convolutions = nn.Sequential(
            nn.Conv2d(1, 32, (41, 11), (2, 2), (20, 5), bias=False), nn.BatchNorm2d(32), nn.Hardtanh(0, 20, True),
            nn.Conv2d(32, 32, (21, 11), (2, 1), (10, 5), bias=False), nn.BatchNorm2d(32), nn.Hardtanh(0, 20, True),
        )  # fmt: skip
        # each GRU layer's product with its inputs, of three gates in two directions; the states come apart
        self.layers = nn.ModuleList(nn.Linear(1312 if k == 0 else HIDDEN, 6 * HIDDEN) for k in range(LAYERS))
        self.norms = nn.ModuleList(nn.BatchNorm1d(HIDDEN) for _ in range(LAYERS - 1))
        self.letters = nn.Linear(HIDDEN, 29, bias=False)

    def forward(self, x: Any) -> Any:
        x = self.convolutions(x)
        b, c, f, t = x.shape
        x = x.view(b, c * f, t).permute(2, 0, 1).contiguous()
        for k, layer in enumerate(self.layers):
            if k:
                x = self.norms[k - 1](x.view(t * b, -1)).view(t, b, -1)
            x = layer(x)[..., : 2 * HIDDEN].reshape(t, b, 2, -1).sum(2)
        return self.letters(x)


def recurrent_kernels(batch: int) -> tuple[tuple[Kernel, int], ...]:
    """What the states of DeepSpeech2's GRU layers launch in a step, and how often: one time step after the other, the
    gates' products forward and backward and their elementwise part; and the weights' gradient of all time steps."""
    steps, gates, item = _FRAMES // 2, 3 * HIDDEN, 4
    each = 2 * LAYERS * steps  # two directions

    def product(m: int, n: int, k: int) -> Kernel:
        moved = item * (m * k + k * n + m * n)
        return Kernel("product", moved, flops=2 * m * n * k, m=m, n=n, k=k)

    cell = Kernel("elementwise", item * batch * 8 * HIDDEN)
    return (
        (product(batch, gates, HIDDEN), each), (product(batch, HIDDEN, gates), each), (cell, 2 * each),
        (product(gates, HIDDEN, steps * batch), 2 * LAYERS),
    )  # fmt: skip


class NeuMF(nn.Module):
    """He et al., 2017, as their code's own example runs it: 8 factors, layers of 64, 32, 16 and 8."""

    def __init__(self) -> None:
        super().__init__()
        people, films = 6040, 3706
        self.people, self.films = nn.Embedding(people, 8), nn.Embedding(films, 8)
        self.people_mlp, self.films_mlp = nn.Embedding(people, 32), nn.Embedding(films, 32)
        steps = ((64, 32), (32, 16), (16, 8))
        self.mlp = nn.Sequential(*(m for a, b in steps for m in (nn.Linear(a, b), nn.ReLU())))
        self.rating = nn.Linear(16, 1)

    def forward(self, who: Any) -> Any:
        person, film = who[:, 0], who[:, 1]
        deep = self.mlp(torch.cat((self.people_mlp(person), self.films_mlp(film)), -1))
        return self.rating(torch.cat((self.people(person) * self.films(film), deep), -1)).view(-1)


@dataclass(frozen=True, slots=True)
class PowerNetwork:
    """A network, what a batch of it is, and how many samples an epoch has."""

    make: Callable[[], nn.Module]
    sample: tuple[int, ...]
    integers: bool
    epoch: int


NETWORKS: Mapping[str, PowerNetwork] = {
    "shufflenetv2": PowerNetwork(shufflenet, (3, 32, 32), False, 50_000),
    "bert_base_uncased": PowerNetwork(Bert, (384,), True, 88_641),
    "deepspeech2": PowerNetwork(DeepSpeech, (1, 161, _FRAMES), False, 281_241),
    "ncf": PowerNetwork(NeuMF, (2,), True, 5 * 994_169),  # four items that a person did not see for each one seen
}


def power_step(name: str, batch: int) -> BlockGraph:
    """The training step of that network: forward, a mean as its loss, backward, Adam."""
    from pararev_hw.tracing import DispatchRules, StepDescription, trace_step
    from pararev_hw.training.step import Loop

    network = NETWORKS[name]
    dtype = torch.long if network.integers else torch.float32
    x = torch.empty((batch, *network.sample), device="meta", dtype=dtype)

    def step(model: Any, inputs: Any, optimizer: Any) -> Any:
        optimizer.zero_grad()
        loss = model(*inputs).mean()
        loss.backward()
        optimizer.step()
        return loss

    def adam(parameters: Any) -> torch.optim.Optimizer:
        return torch.optim.Adam(parameters, foreach=True)

    rules = DispatchRules(cuda=True)
    return trace_step(
        network.make(),
        x,
        loop=Loop(optimizer=adam, step=step),
        description=StepDescription(name=name),
        granularity="op",
        rules=rules,
    ).graph
