"""cuDNN's recurrent layers in a step that is traced for a GPU: one op for all layers and time steps, one backward.

On a CPU the same modules run oneDNN's kernel or a loop of small ops. Here `lstm`, `gru` and the plain recurrent layers
become `_cudnn_rnn`, whatever machine the step is traced on; what it saves for backward (gates and states of every time
step) is cuDNN's own affair, and its size is an assumption. Packed sequences stay loops of small ops.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

# cuDNN's number of each kind of layer, and how many values of the hidden size it keeps for each time step.
_KINDS = {"rnn_relu": (0, 1), "rnn_tanh": (1, 1), "lstm": (2, 6), "gru": (3, 4)}
_VALUES_PER_STATE = dict(_KINDS.values())
_HALF = (torch.float16, torch.bfloat16)


def register(library: torch.library.Library) -> None:
    """Have recurrent layers on CPU tensors run as on a GPU, for as long as the library lives."""
    for name, (mode, _) in _KINDS.items():
        for key in ("AutogradCPU", "CPU"):
            library.impl(f"{name}.input", _rule(mode), key)
    # PyTorch has shapes of its own for it, with an empty reserve; torch 2.11 refuses to replace them unless told
    library.impl("_cudnn_rnn", _forward_shapes, "Meta", allow_override=True)
    library.impl("_cudnn_rnn_backward", _backward_shapes, "Meta")


def _rule(mode: int) -> Callable[..., tuple[torch.Tensor, ...]]:
    def rule(
        x: torch.Tensor,
        hx: torch.Tensor | Sequence[torch.Tensor],
        weights: Sequence[torch.Tensor],
        has_biases: bool,
        layers: int,
        dropout: float,
        train: bool,
        bidirectional: bool,
        batch_first: bool,
    ) -> tuple[torch.Tensor, ...]:
        states = [hx] if isinstance(hx, torch.Tensor) else list(hx)
        if torch.is_autocast_enabled("cpu"):
            x, *states = (_lowered(t) for t in (x, *states))
            weights = [_lowered(w) for w in weights]
        hidden = states[-1].shape[-1]
        projected = states[0].shape[-1] if states[0].shape[-1] != hidden else 0
        per_layer = (4 if has_biases else 2) + (projected > 0)
        cell = states[1] if len(states) > 1 else None
        out, h, c, *_ = torch.ops.aten._cudnn_rnn.default(
            x, list(weights), per_layer, None, states[0], cell, mode, hidden, projected, layers, batch_first,
            dropout, train, bidirectional, [], None,
        )  # fmt: skip
        return (out, h) if cell is None else (out, h, c)

    return rule


def _lowered(tensor: torch.Tensor) -> torch.Tensor:
    dtype = torch.get_autocast_dtype("cpu")
    return tensor.to(dtype) if tensor.dtype is torch.float32 and dtype in _HALF else tensor


def _forward_shapes(
    x: torch.Tensor, weights: Sequence[torch.Tensor], _: int, buffer: torch.Tensor | None, h: torch.Tensor,
    c: torch.Tensor | None, mode: int, hidden: int, projected: int, layers: int, batch_first: bool, dropout: float,
    train: bool, bidirectional: bool, *rest: Any,
) -> tuple[torch.Tensor, ...]:  # fmt: skip
    directions = 2 if bidirectional else 1
    out = x.new_empty((*x.shape[:2], (projected or hidden) * directions))
    reserve_bytes = x.shape[0] * x.shape[1] * layers * directions * hidden * _VALUES_PER_STATE[mode] * x.element_size()
    reserve = torch.empty(reserve_bytes if train else 0, dtype=torch.uint8, device=x.device)
    cell = x.new_empty(0) if c is None else torch.empty_like(c)
    flat = x.new_empty(sum(w.numel() for w in weights)) if buffer is None else torch.empty_like(buffer)
    return out, torch.empty_like(h), cell, reserve, flat


def _backward_shapes(
    x: torch.Tensor, weights: Sequence[torch.Tensor], _: int, buffer: torch.Tensor, h: torch.Tensor,
    c: torch.Tensor | None, *rest: Any,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, list[torch.Tensor]]:  # fmt: skip
    cell = x.new_empty(0) if c is None else torch.empty_like(c)
    return torch.empty_like(x), torch.empty_like(h), cell, [torch.empty_like(w) for w in weights]
