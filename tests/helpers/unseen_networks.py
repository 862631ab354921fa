"""Networks that the tracer has never seen: each strange in one way. Inputs `[4, 3, 8, 8]` unless said otherwise."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint


def conv(a: int, b: int, k: int = 3) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(a, b, k, padding=k // 2, bias=False), nn.BatchNorm2d(b), nn.ReLU())


class PlainParaRev(nn.Module):
    """The ParaRev equations in plain autograd: no custom function, nothing declared."""

    def __init__(self, n: int, coupling: str = "pararev") -> None:
        super().__init__()
        self.stem = conv(3, 8)
        self.f = nn.ModuleList(conv(4, 4) for _ in range(n))
        self.g = nn.ModuleList(conv(4, 4) for _ in range(n))
        self.fc = nn.Linear(8, 10)
        self.coupling = coupling

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        a, b = self.stem(x).chunk(2, 1)
        for f, g in zip(self.f, self.g, strict=True):
            if self.coupling == "pararev":
                y = b + f(a)
                a, b = y, a + g(y)
            else:
                y = a + f(b)
                a, b = y, b + g(y)
        return self.fc(torch.cat((a, b), 1).mean((2, 3)))


class Inception(nn.Module):
    """Four branches side by side."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = conv(3, 8)
        self.one, self.three, self.five = conv(8, 4, 1), conv(8, 4), conv(8, 4, 5)
        self.pool = nn.Sequential(nn.MaxPool2d(3, 1, 1), nn.Conv2d(8, 4, 1))
        self.fc = nn.Linear(16, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x)
        x = torch.cat([self.one(x), self.three(x), self.five(x), self.pool(x)], 1)
        return self.fc(x.mean((2, 3)))


class SharedTwice(nn.Module):
    """One module called twice, the second time on what came of the first."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.shared, self.between = conv(3, 8), conv(8, 8), conv(8, 8)
        self.fc = nn.Linear(8, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc(self.shared(self.between(self.shared(self.stem(x)))).mean((2, 3)))


class InPlace(nn.Module):
    """In-place arithmetic on whole tensors and on slices of them."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1)
        self.relu = nn.ReLU(inplace=True)
        self.fc = nn.Linear(8, 10)
        self.register_buffer("calls", torch.zeros(1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.relu(self.a(x))
        y = self.b(x).clone()
        y[:, :4].mul_(2.0)
        y[:, 4:] += x[:, 4:]
        y.clamp_(-3.0, 3.0).add_(x)
        self.calls += 1
        out = torch.empty_like(y)
        for k in range(out.shape[1]):
            out[:, k] = y[:, -1 - k] * (k + 1)
        return self.fc(out.mean((2, 3)))


class Views(nn.Module):
    """Transposes, strides, expands and splits; outputs that look at one memory."""

    def __init__(self) -> None:
        super().__init__()
        self.lift = nn.Linear(8, 12)
        self.fc = nn.Linear(12, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.lift(x.permute(0, 2, 1, 3))
        a, b, c = x.transpose(-1, -2).split(4, dim=-2)
        y = torch.cat((a * b.flip(-1), c[..., ::3].repeat_interleave(3, -1), b.expand_as(a).unsqueeze(0)[0]), -2)
        return self.fc(y.transpose(-1, -2).mean((1, 2)))


class Tuple(nn.Module):
    """Gives a tuple of tensors of different shapes."""

    def __init__(self) -> None:
        super().__init__()
        self.body = conv(3, 8)
        self.head, self.map = nn.Linear(8, 5), nn.Conv2d(8, 2, 1)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        x = self.body(x)
        return self.head(x.mean((2, 3))), self.map(x)


class Stepwise(nn.Module):
    """A stepwise spiking network: a Python loop over T, feedback from the second layer to the first."""

    def __init__(self, timesteps: int = 4, feedback: bool = True) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 6, 3, padding=1), nn.Conv2d(6, 6, 3, padding=1)
        self.back = nn.Conv2d(6, 6, 1) if feedback else None
        self.fc = nn.Linear(6, 10)
        self.timesteps = timesteps

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        v1 = v2 = s2 = torch.zeros(x.shape[0], 6, *x.shape[2:])
        total = torch.zeros(x.shape[0], 10)
        for _ in range(self.timesteps):
            u = self.first(x) if self.back is None else self.first(x) + self.back(s2)
            v1 = 0.5 * v1 + u
            s1 = torch.sigmoid(4 * (v1 - 1))
            v1 = v1 - s1.detach()
            v2 = 0.5 * v2 + self.second(s1)
            s2 = torch.sigmoid(4 * (v2 - 1))
            v2 = v2 - s2.detach()
            total = total + self.fc(s2.mean((2, 3)))
        return total / self.timesteps


class Functional(nn.Module):
    """No child modules at all: parameters and functions."""

    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.randn(8, 3, 3, 3) * 0.2)
        self.v = nn.Parameter(torch.randn(10, 8) * 0.2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.linear(F.gelu(F.conv2d(x, self.w, stride=2)).amax((2, 3)), self.v)


class Checkpointed(nn.Module):
    """Half of it runs again in the backward."""

    def __init__(self, reentrant: bool) -> None:
        super().__init__()
        self.stem, self.body = conv(3, 8), nn.Sequential(nn.Conv2d(8, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 8, 1))
        self.fc = nn.Linear(8, 10)
        self.reentrant = reentrant

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = checkpoint(self.body, self.stem(x), use_reentrant=self.reentrant)
        return self.fc(x.mean((2, 3)))


class Attention(nn.Module):
    """A transformer layer over pixels."""

    def __init__(self) -> None:
        super().__init__()
        self.lift = nn.Linear(3, 16)
        self.layers = nn.ModuleList(nn.TransformerEncoderLayer(16, 4, 32, 0.0, batch_first=True) for _ in range(2))
        self.fc = nn.Linear(16, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.lift(x.flatten(2).transpose(1, 2))
        for layer in self.layers:
            x = layer(x)
        return self.fc(x.mean(1))


class Tied(nn.Module):
    """Two layers of one weight, and a layer that is frozen."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3)
        self.stem.requires_grad_(False)
        self.a, self.b = nn.Linear(8, 8), nn.Linear(8, 8)
        self.b.weight = self.a.weight
        self.fc = nn.Linear(8, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc(self.b(torch.tanh(self.a(self.stem(x).mean((2, 3))))))


class HiddenState(nn.Module):
    """Keeps a tensor between calls, as SpikingJelly's nodes do."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Conv2d(3, 8, 3, padding=1)
        self.fc = nn.Linear(8, 10)
        self.v: torch.Tensor | float = 0.0
        self.memory: dict[str, torch.Tensor | float] = {"u": 0.0}

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.v = self.v + self.body(x)
        self.memory["u"] = self.v * 2
        return self.fc(self.memory["u"].mean((2, 3)))


STRANGERS = {
    "plain_pararev": lambda: PlainParaRev(3),
    "plain_revnet": lambda: PlainParaRev(3, "revnet"),
    "inception": Inception,
    "shared_twice": SharedTwice,
    "in_place": InPlace,
    "views": Views,
    "tuple": Tuple,
    "stepwise": Stepwise,
    "stepwise_no_feedback": lambda: Stepwise(feedback=False),
    "functional": Functional,
    "checkpointed": lambda: Checkpointed(False),
    "checkpointed_reentrant": lambda: Checkpointed(True),
    "attention": Attention,
    "tied": Tied,
}
