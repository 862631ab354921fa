"""Sequences of residual units that can be run backwards: training keeps their output and no other activation.

Every sequence here is one recurrence, a leapfrog. With steps k = 0, 1, ..., K − 1, each a set of units S_k:

    z[k+1] = z[k−1] + Σ_{u ∈ S_k} u(z[k])             the inverse: z[k−1] = z[k+1] − Σ_{u ∈ S_k} u(z[k])

from the two streams (z[−1], z[0]) to (z[K−1], z[K]). The couplings differ in the sets alone:

    RevNet    y1 = x1 + F(x2); y2 = x2 + G(y1)                   {F_1}, {G_1}, {F_2}, ..., {G_n}           K = 2n
              z[−1] = x1, z[0] = x2
    ParaRev   y1 = x2 + F(x1); y2 = x1 + G(y1)                   {F_1}, {G_1, F_2}, ..., {G_n}             K = n + 1
              z[−1] = x2, z[0] = x1
    merged    z[k+1] = z[k−1] + M_k(z[k])                        {F_1}, {M_1}, ..., {M_{n−1}}, {G_n}       K = n + 1

The units of one set read the same input and, in backward, the same cotangent: nothing makes one wait for the other, in
forward, in the recomputation or in the gradient. Nothing here writes in place, for that would.

Gomez et al., "The Reversible Residual Network", 2017 (arXiv 1707.04585); Zhang and Zhang, "Memory-Efficient Reversible
Spiking Neural Networks", 2023 (arXiv 2312.07922); Xu et al., "ParaRevSNN", 2025 (arXiv 2508.01223).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn

from pararev_hw.errors import BadInput
from pararev_hw.torch_private import AnyBatchNorm, AnyDropout

Coupling = Literal["revnet", "pararev"]
Steps = tuple[tuple[nn.Module, ...], ...]


class Pair(nn.Module):
    """The residual functions of one reversible block. The sequence calls `f` and `g`, never the pair."""

    f: nn.Module
    g: nn.Module

    def __init__(self, f: nn.Module, g: nn.Module) -> None:
        super().__init__()
        self.f, self.g = f, g


class Reversible(nn.Module, ABC):
    """A leapfrog over two streams: X, split in two along `dim`, to Y of the same shape.

    `reversible` False computes the same equations under plain autograd, which keeps every unit's activations.
    `preserve_rng` replays the random number generators in the recomputation: by default (None) for the units that
    hold an active dropout. Batch statistics enter the running averages once, in forward. A unit must give the shape it
    gets. Raises BadInput for a split dimension of odd size and for a unit that changes the shape.
    """

    def __init__(self, *, dim: int = -3, reversible: bool = True, preserve_rng: bool | None = None) -> None:
        super().__init__()
        self.dim, self.reversible, self.preserve_rng = dim, reversible, preserve_rng

    @property
    @abstractmethod
    def steps(self) -> Steps:
        """The units of every step."""

    first_is_older = True  # whether the first half of X is z[−1] or z[0]

    def forward(self, x: Tensor) -> Tensor:
        """Y from X, both `[..., 2c, H, W]` (split along `dim`)."""
        params = tuple(self.parameters())
        if not self.reversible or not torch.is_grad_enabled() or not _any_needs_grad((x, *params)):
            return _run(self, x, None)
        y: Tensor = _Leapfrog.apply(self, x, *params)  # type: ignore[no-untyped-call]
        return y

    @torch.no_grad()
    def reconstruct(self, y: Tensor) -> Tensor:
        """X from Y. Units that draw random numbers draw fresh ones, so with an active dropout it is not the inverse."""
        before, after = y.chunk(2, self.dim)
        with recomputing(self):
            for units in reversed(self.steps):
                older = after
                for unit in units:
                    older = older - unit(before)
                before, after = older, before
        return torch.cat(self._ordered(before, after), self.dim)

    def _halves(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(z[−1], z[0]) of X."""
        if not -x.dim() <= self.dim < x.dim() or x.shape[self.dim] % 2 or x.shape[self.dim] == 0:
            raise BadInput(
                f"a reversible sequence cannot halve an input of shape {tuple(x.shape)} along dimension {self.dim}: "
                f"that size must be even and not 0"
            )
        a, b = x.chunk(2, self.dim)
        return (a, b) if self.first_is_older else (b, a)

    def _ordered(self, older: Tensor, newer: Tensor) -> tuple[Tensor, Tensor]:
        """The halves of X in its own order."""
        return (older, newer) if self.first_is_older else (newer, older)

    def extra_repr(self) -> str:
        return f"dim={self.dim}, reversible={self.reversible}"


class ReversibleSequence(Reversible):
    """n pairs of units under one coupling (see the top of this file): `blocks[i].f`, `blocks[i].g`."""

    def __init__(
        self,
        pairs: Iterable[tuple[nn.Module, nn.Module]],
        *,
        coupling: Coupling,
        dim: int = -3,
        reversible: bool = True,
        preserve_rng: bool | None = None,
    ) -> None:
        super().__init__(dim=dim, reversible=reversible, preserve_rng=preserve_rng)
        if coupling not in ("revnet", "pararev"):
            raise BadInput(f"the coupling is {coupling!r}: it must be 'revnet' or 'pararev'")
        self.coupling = coupling
        self.first_is_older = coupling == "revnet"
        self.blocks = nn.ModuleList(Pair(f, g) for f, g in pairs)
        if not self.blocks:
            raise BadInput("a reversible sequence has no pairs: it needs at least one")

    @property
    def steps(self) -> Steps:
        units = [u for pair in cast(Iterable[Pair], self.blocks) for u in (pair.f, pair.g)]
        if self.coupling == "revnet":
            return tuple((u,) for u in units)
        return ((units[0],), *zip(units[1:-1:2], units[2::2], strict=True), (units[-1],))

    def extra_repr(self) -> str:
        return f"coupling={self.coupling!r}, {super().extra_repr()}"


class MergedSequence(Reversible):
    """The ParaRev recurrence with one unit per step: `first`, `merged[i]` for i = 1..n−1, `last`."""

    def __init__(
        self,
        first: nn.Module,
        merged: Iterable[nn.Module],
        last: nn.Module,
        *,
        dim: int = -3,
        reversible: bool = True,
        preserve_rng: bool | None = None,
    ) -> None:
        super().__init__(dim=dim, reversible=reversible, preserve_rng=preserve_rng)
        self.first_is_older = False
        self.first, self.merged, self.last = first, nn.ModuleList(merged), last

    @property
    def steps(self) -> Steps:
        return tuple((u,) for u in (self.first, *self.merged, self.last))


@dataclass(frozen=True, slots=True)
class _Rng:
    """The state of the generators that a unit on `device` may draw from."""

    cpu: Tensor
    device: torch.device
    cuda: Tensor | None

    @staticmethod
    def now(device: torch.device) -> _Rng:
        cuda = torch.cuda.get_rng_state(device) if device.type == "cuda" else None
        return _Rng(torch.get_rng_state(), device, cuda)

    @contextmanager
    def replayed(self) -> Iterator[None]:
        with torch.random.fork_rng([self.device] if self.cuda is not None else []):
            torch.set_rng_state(self.cpu)
            if self.cuda is not None:
                torch.cuda.set_rng_state(self.cuda, self.device)
            yield


@dataclass(frozen=True, slots=True)
class _Autocast:
    """How autocast stood in forward.

    Entered without its cache: a weight's cast made without a graph must not serve where one is needed. Torch 2.13 sees
    to that by itself.
    """

    device_type: str
    enabled: bool
    dtype: torch.dtype | None

    @staticmethod
    def now(device_type: str) -> _Autocast:
        if not torch.amp.is_autocast_available(device_type):
            return _Autocast(device_type, False, None)
        enabled = torch.is_autocast_enabled(device_type)
        return _Autocast(device_type, enabled, torch.get_autocast_dtype(device_type))

    def entered(self) -> AbstractContextManager[None]:
        if self.dtype is None:
            return nullcontext()
        context: AbstractContextManager[None] = torch.autocast(
            self.device_type, dtype=self.dtype, enabled=self.enabled, cache_enabled=False
        )
        return context


def _run(seq: Reversible, x: Tensor, rng: list[_Rng | None] | None) -> Tensor:
    """Y from X. Appends to `rng`, per unit, the generators' state before it runs (None where it draws nothing)."""
    older, newer = seq._halves(x)
    for units in seq.steps:
        total = older
        for unit in units:
            if rng is not None:
                rng.append(_Rng.now(x.device) if _draws(unit, seq.preserve_rng) else None)
            out = unit(newer)
            if out.shape != newer.shape:
                raise BadInput(f"a reversible unit made {tuple(out.shape)} of {tuple(newer.shape)}: shapes must agree")
            total = total + out
        older, newer = newer, total
    return torch.cat((older, newer), seq.dim)


class _Leapfrog(torch.autograd.Function):
    """`_run` that keeps Y alone, and in backward walks the recurrence back, one unit's graph at a time.

    With cotangents p = z̄[k+1] (complete) and q = the part of z̄[k] that came through z[k+2]'s identity term:

        z[k−1] = z[k+1] − Σ u(z[k]);   z̄[k] = q + Σ J_uᵀ p;   the part of z̄[k−1] so far: p
    """

    @staticmethod
    def forward(ctx: Any, seq: Reversible, x: Tensor, *params: Tensor) -> Tensor:
        ctx.seq, ctx.rng, ctx.training = seq, [], [m.training for m in seq.modules()]
        ctx.autocast = _Autocast.now(x.device.type)
        with ctx.autocast.entered():
            # detached: hooks on units that ask a tensor for its graph (torch's module tracker does) find none to miss
            y = _run(seq, x.detach(), ctx.rng)
        ctx.save_for_backward(y)
        return y

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        seq: Reversible = ctx.seq
        wants_x: bool = ctx.needs_input_grad[1]
        trained = [p for p, needed in zip(seq.parameters(), ctx.needs_input_grad[2:], strict=True) if needed]
        ids = {id(p) for p in trained}
        grads: dict[int, Tensor] = {}
        (y,) = ctx.saved_tensors
        z, newest = y.chunk(2, seq.dim)
        q, p = dy.chunk(2, seq.dim)
        rng = list(ctx.rng)
        with _as_in_forward(seq, ctx.training), ctx.autocast.entered():
            for k, units in reversed(tuple(enumerate(seq.steps))):
                older, dz = newest, q
                wants_z = k > 0 or wants_x
                for unit, state in reversed(tuple(zip(units, rng[-len(units) :], strict=True))):
                    weights = [w for w in dict.fromkeys(unit.parameters()) if id(w) in ids]
                    out, dz_unit, dw = _recompute(unit, z, p, weights, wants_z, state)
                    if k > 0:  # nobody reads z[−1]
                        older = older - out
                    if dz_unit is not None:
                        dz = dz + dz_unit
                    for w, g in zip(weights, dw, strict=True):
                        if g is not None:
                            grads[id(w)] = grads[id(w)] + g if id(w) in grads else g
                del rng[-len(units) :]
                newest, z, p, q = z, older, dz, p
        # here p is the cotangent of z[0] and q that of z[−1]
        dx = torch.cat(seq._ordered(q, p), seq.dim) if wants_x else None
        return None, dx, *(grads.get(id(w)) for w in seq.parameters())


def _recompute(
    unit: nn.Module, z: Tensor, cotangent: Tensor, weights: Sequence[Tensor], wants_z: bool, rng: _Rng | None
) -> tuple[Tensor, Tensor | None, Sequence[Tensor | None]]:
    """The unit's output at z, and the gradients of its input (None where not wanted) and of its weights."""
    z = z.detach().requires_grad_(wants_z)
    with torch.enable_grad(), _replay(rng):
        out: Tensor = unit(z.view_as(z))  # no leaf: the engine cannot call hooks on leaves, which some trackers set
    inputs = [z, *weights] if wants_z else [*weights]
    if not inputs or not out.requires_grad:
        return out.detach(), None, [None] * len(weights)
    gradients = torch.autograd.grad(out, inputs, cotangent.to(out.dtype), allow_unused=True)
    return out.detach(), gradients[0] if wants_z else None, gradients[1:] if wants_z else gradients


def _replay(rng: _Rng | None) -> AbstractContextManager[None]:
    return nullcontext() if rng is None else rng.replayed()


def recomputing(module: nn.Module) -> AbstractContextManager[None]:
    """While a module runs again for its gradient: batch norms leave their running statistics alone."""
    return _as_in_forward(module, [m.training for m in module.modules()])


@contextmanager
def _as_in_forward(seq: nn.Module, training: Sequence[bool]) -> Iterator[None]:
    """Modules train or not as they did in forward, and batch norms leave their running statistics alone."""
    modules = list(seq.modules())
    now = [m.training for m in modules]
    norms = [m for m in modules if isinstance(m, AnyBatchNorm) and m.track_running_stats]
    try:
        for m, mode in zip(modules, training, strict=True):
            m.training = mode
        for norm in norms:
            # in evaluation the statistics are read either way
            norm.track_running_stats = False
        yield
    finally:
        for m, mode in zip(modules, now, strict=True):
            m.training = mode
        for norm in norms:
            norm.track_running_stats = True


def _draws(unit: nn.Module, preserve_rng: bool | None) -> bool:
    if preserve_rng is not None:
        return preserve_rng
    return any(isinstance(m, _RANDOM) and m.training for m in unit.modules())


_RANDOM = (AnyDropout, nn.RReLU, nn.FractionalMaxPool2d, nn.FractionalMaxPool3d, nn.MultiheadAttention)


def _any_needs_grad(tensors: Iterable[Tensor]) -> bool:
    return any(t.requires_grad for t in tensors)
