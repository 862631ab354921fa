"""Learned video frame prediction (Yilmaz and Tekalp, 2020, arXiv 2008.06106): the next frame from the past.

    FCNN   x̂_{t+1} from the last K frames, stacked as channels, through residual blocks
    CRNN   h_t = tanh(W_x∗x_t + W_h∗h_{t−1})                       x̂_{t+1} = W_o∗h_t
    CLSTM  four gate convolutions on [x_t, h_{t−1}], c and h       x̂_{t+1} = W_o∗h_t

trained on the mean square error. The recurrent ones are trained by truncated backpropagation over chunks of K frames:
the gradient ends where a chunk begins, and the state is carried over (stateful) or starts from zero (stateless). One
chunk is one update.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as nnf

from pararev_hw.errors import BadInput
from pararev_hw.models.spec import Spec, no_options, whole

_WIDTH = "layer widths of CRNN and CLSTM are not in the sources: 64 channels, one layer, 3×3"
_FCNN = "the residual FCNN of the same group's earlier work stands in: 32 blocks of 256 channels on 8 frames"

SPECS = (
    Spec(
        "video_fcnn", "video", 67, (32,), (256,), 16, (1, 64, 64), "video", 1, assumptions=(_FCNN,), method="backprop"
    ),
    Spec(
        "video_crnn", "video", 2, (1,), (64,), 16, (1, 64, 64), "video", 1, assumptions=(_WIDTH,),
        method="TBPTT",
    ),
    Spec(
        "video_clstm", "video", 2, (1,), (64,), 16, (1, 64, 64), "video", 1, assumptions=(_WIDTH,),
        method="TBPTT",
    ),
)  # fmt: skip


def create(
    spec: Spec,
    *,
    num_classes: int,
    timesteps: int,
    width: float,
    in_channels: int | None = None,
    chunk: int = 8,
    stateful: bool = True,
    depth: int | None = None,
    **options: Any,
) -> nn.Module:
    """The network. `chunk` is K: frames per update of the recurrent ones, frames in the window of the FCNN; `stateful`
    carries the state from chunk to chunk. `num_classes` means nothing here.
    """
    no_options(spec.name, options)
    whole("chunk", chunk)
    frames = spec.input_shape[0] if in_channels is None else in_channels
    channels = max(1, round(spec.channels[0] * width))
    if spec.name == "video_fcnn":
        return FramePredictor(frames, channels, chunk, spec.blocks[0] if depth is None else whole("depth", depth))
    cell: nn.Module = ConvRNN(frames, channels) if spec.name == "video_crnn" else ConvLSTM(frames, channels)
    return RecurrentPredictor(cell, frames, channels, chunk, stateful)


def _conv(a: int, b: int) -> nn.Conv2d:
    return nn.Conv2d(a, b, 3, padding=1)


class ResidualBlock(nn.Module):
    """x + 0.1 conv(ReLU(conv(x)))."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1, self.conv2 = _conv(channels, channels), _conv(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.conv2(nnf.relu(self.conv1(x)))
        return x + out * 0.1


class FramePredictor(nn.Module):
    """Frames `[B, T, C, H, W]` in; frames K..T predicted, the last one beyond the input, `[B, T−K+1, C, H, W]`."""

    def __init__(self, frames: int, channels: int, window: int, depth: int) -> None:
        super().__init__()
        self.window = window
        self.head = _conv(frames * window, channels)
        self.blocks = nn.Sequential(*(ResidualBlock(channels) for _ in range(depth)))
        self.join, self.out = _conv(channels, channels), _conv(channels, frames)

    def forward(self, x: Tensor) -> Tensor:
        _check(x, self.window)
        steps = x.shape[1] - self.window + 1
        stacked = torch.cat([x[:, k : k + steps] for k in range(self.window)], 2).flatten(0, 1)
        head = self.head(stacked)
        out = torch.tanh(self.out(head + self.join(self.blocks(head))))
        return out.view(x.shape[0], steps, *out.shape[1:])

    def training_step(self, inputs: tuple[Tensor, ...], optimizer: torch.optim.Optimizer) -> Tensor:
        """One batch of videos."""
        (x,) = inputs
        optimizer.zero_grad(set_to_none=True)
        loss = nnf.mse_loss(self(x[:, :-1]), x[:, self.window :])
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        return loss.detach()


class ConvRNN(nn.Module):
    """h' = tanh(W_x∗x + W_h∗h). The state is h, `[B, C, H, W]`."""

    def __init__(self, frames: int, channels: int) -> None:
        super().__init__()
        self.x, self.h = _conv(frames, channels), nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.parts, self.channels = 1, channels

    def forward(self, x: Tensor, state: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return (torch.tanh(self.x(x) + self.h(state[0])),)


class ConvLSTM(nn.Module):
    """i, f, g, o from one convolution of [x, h]; c' = f c + i g, h' = o tanh(c'). The state is h and c."""

    def __init__(self, frames: int, channels: int) -> None:
        super().__init__()
        self.gates = _conv(frames + channels, 4 * channels)
        self.parts, self.channels = 2, channels

    def forward(self, x: Tensor, state: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        h, c = state
        i, f, g, o = self.gates(torch.cat((x, h), 1)).chunk(4, 1)
        c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
        return torch.sigmoid(o) * torch.tanh(c), c


class RecurrentPredictor(nn.Module):
    """Frames `[B, T, C, H, W]` in; after each frame the next one predicted, `[B, T, C, H, W]`."""

    def __init__(self, cell: nn.Module, frames: int, channels: int, chunk: int, stateful: bool) -> None:
        super().__init__()
        self.cell, self.out = cell, _conv(channels, frames)
        self.parts, self.channels = (2 if isinstance(cell, ConvLSTM) else 1), channels
        self.chunk, self.stateful = chunk, stateful

    def forward(self, x: Tensor) -> Tensor:
        return self.stream(x, None)[0]

    def stream(self, x: Tensor, state: tuple[Tensor, ...] | None) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Predictions, and the state after the last frame."""
        _check(x, 1)
        if state is None:
            zero = x.new_zeros(x.shape[0], self.channels, *x.shape[3:])
            state = (zero,) * self.parts
        h = []
        for frame in x.unbind(1):
            state = self.cell(frame, state)
            assert state is not None
            h.append(state[0])
        out = self.out(torch.stack(h, 1).flatten(0, 1))
        assert state is not None
        return out.view(*x.shape[:2], *out.shape[1:]), state

    def training_step(self, inputs: tuple[Tensor, ...], optimizer: torch.optim.Optimizer) -> Tensor:
        """One batch of videos, chunk by chunk, an update after each. The sum of the chunks' losses."""
        (x,) = inputs
        state: tuple[Tensor, ...] | None = None
        total = torch.zeros((), device=x.device)
        for begin in range(0, x.shape[1] - 1, self.chunk):
            end = min(begin + self.chunk, x.shape[1] - 1)
            optimizer.zero_grad(set_to_none=True)
            predicted, state = self.stream(x[:, begin:end], state if self.stateful else None)
            state = tuple(s.detach() for s in state)
            loss = nnf.mse_loss(predicted, x[:, begin + 1 : end + 1])
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            total = total + loss.detach()
        return total


def _check(x: Tensor, frames: int) -> None:
    if x.dim() != 5 or x.shape[1] < frames or 0 in x.shape:
        raise BadInput(
            f"the network's input has shape {tuple(x.shape)}: it must be [B, T, C, H, W] with T >= {frames} (a "
            "training step has one frame more, which is predicted)"
        )
