"""LSTM, GRU and RNN of ONNX as torch's own recurrent layers.

ONNX keeps the gates of all directions in one tensor [D, gates · H, I], LSTM in the order i o f c (torch: i f c o), GRU
in the order z r h (torch: r z h). Weights change their layout once, at import; weights that the file computes change
in every step. https://onnx.ai/onnx/operators/onnx__LSTM.html
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from pararev_hw.errors import BadInput
from pararev_hw.importers.onnx_site import Run, Site

_WEIGHTS = (("weight_ih_l0", 1), ("weight_hh_l0", 2), ("bias_ih_l0", 3), ("bias_hh_l0", 3))


def lstm(site: Site) -> Run:
    if site.has_input(7):
        raise BadInput("has peepholes: torch has no such LSTM")
    if site.attribute("input_forget", 0):
        raise BadInput("couples its input and forget gates: torch has no such LSTM")
    _only_activations(site, ("Sigmoid", "Tanh", "Tanh"))
    return _layer(site, torch.lstm, (0, 2, 3, 1), states=(5, 6))


def gru(site: Site) -> Run:
    _only_activations(site, ("Sigmoid", "Tanh"))
    resets_after = bool(site.attribute("linear_before_reset", 0))
    return _layer(site, torch.gru if resets_after else _gru_reset_before, (1, 0, 2), states=(5,))


def rnn(site: Site) -> Run:
    activations = [str(a) for a in _activations(site, ("Tanh",))]
    if len(set(activations)) != 1 or activations[0] not in ("tanh", "relu"):
        raise BadInput(f"has the activations {', '.join(activations)}: Tanh or Relu can be imported")
    return _layer(site, torch.rnn_tanh if activations[0] == "tanh" else torch.rnn_relu, (0,), states=(5,))


def _activations(site: Site, usual: Sequence[str]) -> list[str]:
    names = site.attribute("activations") or usual
    return [(a.decode() if isinstance(a, bytes) else str(a)).lower() for a in names]


def _only_activations(site: Site, usual: Sequence[str]) -> None:
    activations = _activations(site, usual)
    if activations != [u.lower() for u in usual] * (len(activations) // len(usual)):
        raise BadInput(f"has the activations {', '.join(activations)}: only {', '.join(usual)} can be imported")


def _layer(site: Site, function: Run, order: Sequence[int], states: Sequence[int]) -> Run:
    """One recurrent layer: Y [T, D, B, H], the last state [D, B, H], and the last cell state of an LSTM."""
    if site.attribute("clip") is not None:
        raise BadInput("clips its gates: torch has no such layer")
    batch_first = bool(site.attribute("layout", 0))
    time, batch = site.shape(0)[1 if batch_first else 0], site.shape(0)[0 if batch_first else 1]
    if site.has_input(4) and not (site.is_constant(4) and (site.constant(4) == time).all()):
        raise BadInput(f"takes sequences of different lengths: only whole ones, of {time} steps, can be imported")
    directions, _, hidden = site.shape(2)
    reverse = site.attribute("direction", "forward") == "reverse"
    biased = site.has_input(3)
    weights = _WEIGHTS if biased else _WEIGHTS[:2]
    changes = [
        (i, role + ("_reverse" if d else ""), partial(_torch_layout, d=d, half=role.startswith("bias_hh"), order=order))
        for d in range(directions)
        for role, i in weights
    ]
    ready = [site.is_weight(i) for i, _, _ in changes]
    sources = [
        site.derived(i, role, change) if weight else site.source(i)
        for (i, role, change), weight in zip(changes, ready, strict=True)
    ]
    site.take(site.source(0), *(site.source(s) for s in states), *sources)

    def run(training: bool, x: Tensor, *rest: Any) -> tuple[Tensor, ...]:
        begin, weights = rest[: len(states)], rest[len(states) :]
        flat = [w if weight else change(w) for w, (_, _, change), weight in zip(weights, changes, ready, strict=True)]
        at_start = [
            x.new_zeros((directions, batch, hidden)) if s is None else s.transpose(0, 1) if batch_first else s
            for s in begin
        ]
        x = x.transpose(0, 1) if batch_first else x
        x = x.flip(0) if reverse else x
        state: Any = tuple(at_start) if len(at_start) > 1 else at_start[0]
        y, *last = function(x, state, flat, biased, 1, 0.0, training, directions == 2, False)
        y = y.flip(0) if reverse else y
        y = y.unflatten(-1, (directions, hidden))  # [T, B, D, H]
        if batch_first:
            return y.transpose(0, 1), *(s.transpose(0, 1) for s in last)
        return y.transpose(1, 2), *last

    return run


def _torch_layout(weight: Tensor, d: int, half: bool, order: Sequence[int]) -> Tensor:
    """One direction's weight, its gates in torch's order; of the biases [D, 2 · gates · H] the first or second half."""
    part = weight[d]
    if part.dim() == 1:
        part = part.chunk(2)[1 if half else 0]
    gates = part.chunk(len(order))
    return torch.cat([gates[g] for g in order])


def _gru_reset_before(
    x: Tensor, state: Tensor, flat: Sequence[Tensor], biased: bool, *_: object
) -> tuple[Tensor, Tensor]:
    """A GRU that resets the state before its product with the weights, step by step: torch's own does it after."""
    each = 4 if biased else 2
    outs, last = [], []
    for d in range(len(flat) // each):
        w_in, w_state, *biases = flat[d * each : (d + 1) * each]
        b_in, b_state = biases if biased else (None, None)
        gates_in = torch.nn.functional.linear(x, w_in, b_in)
        h, steps = state[d], []
        size = h.shape[-1]
        for t in range(x.shape[0]) if d == 0 else reversed(range(x.shape[0])):
            of_state = torch.nn.functional.linear(
                h, w_state[: 2 * size], None if b_state is None else b_state[: 2 * size]
            )
            r, z = torch.sigmoid(gates_in[t, :, : 2 * size] + of_state).chunk(2, -1)
            reset = torch.nn.functional.linear(
                r * h, w_state[2 * size :], None if b_state is None else b_state[2 * size :]
            )
            n = torch.tanh(gates_in[t, :, 2 * size :] + reset)
            h = n + z * (h - n)
            steps.append(h)
        outs.append(torch.stack(steps if d == 0 else steps[::-1]))
        last.append(h)
    return torch.cat(outs, -1), torch.stack(last)
