"""Scalars that an optimizer computes anew for every step, such as Adam's bias corrections.

A traced step holds them as they are in the optimizer's second step. Which scalars change, and into what, is seen on a
network of one weight, traced at the step in question: its update calls the same functions with the same scalars.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import nn

from pararev_hw.errors import BadInput
from pararev_hw.execution.program import scalars_of
from pararev_hw.tracing import Traced, optimizer_named, trace_step
from pararev_hw.training.step import Loop

_TRACED_AT = 2  # the tracer lets the optimizer take one step first
_Key = tuple[Any, Any]  # function, scalar in the traced step


class Scalars:
    """The scalars of a traced step's update that change: `calls` of the program, and their scalars `at` a step.

    Raises BadInput where one scalar of the trace stands for several that change differently.
    """

    def __init__(self, traced: Traced, optimizer: str) -> None:
        self._optimizer = optimizer
        self._scalars_at: dict[int, dict[_Key, Any]] = {}
        self._keys: list[_Key] = []
        self.calls: tuple[int, ...] = ()
        if traced.graph.mode == "infer" or not _counts_steps(optimizer):
            return
        changing = {k for k, v in self._series(_TRACED_AT + 1).items() if k[1] != v}
        program = traced.program
        calls: dict[int, None] = {}
        for k, op in enumerate(traced.graph.ops):
            call = program.instructions[k].call
            keys = [(program.calls[call].function, v) for v in scalars_of(program.calls[call])]
            if op.phase == "update" and any(_hashable(key) and key in changing for key in keys):
                calls[call] = None
        self.calls = tuple(calls)
        self._keys = [(program.calls[c].function, v) for c in calls for v in scalars_of(program.calls[c])]

    def at(self, step: int) -> list[Any]:
        """The scalars of `calls`, one after the other, in training step 1, 2, ..."""
        if not self.calls:
            return []
        series = self._series(step)
        return [series.get(key, key[1]) if _hashable(key) else key[1] for key in self._keys]

    def _series(self, step: int) -> dict[_Key, Any]:
        """Scalar of the traced step -> the same scalar in another step."""
        if step not in self._scalars_at:
            series: dict[_Key, Any] = {}
            for (function, old), (_, new) in zip(
                _update_scalars(self._optimizer, _TRACED_AT), _update_scalars(self._optimizer, step), strict=True
            ):
                if series.setdefault((function, old), new) != new:
                    raise BadInput(f"{self._optimizer}: {function} takes {old} twice, and the two change differently")
            self._scalars_at = {step: series}
        return self._scalars_at[step]


def _hashable(key: _Key) -> bool:
    return isinstance(key[1], int | float)


class _OneWeight(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.zeros(1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * self.w


def _counts_steps(optimizer: str) -> bool:
    weight = nn.Parameter(torch.zeros(1))
    weight.grad = torch.zeros(1)
    stepper = optimizer_named(optimizer)([weight])
    stepper.step()
    return "step" in stepper.state[weight]


def _update_scalars(optimizer: str, step: int) -> list[_Key]:
    """Function and scalar of everything that the update of one weight calls in its step number `step`."""
    traced = trace_step(_OneWeight(), torch.empty(1), loop=Loop(optimizer=partial(_before, optimizer, step)))
    return [
        (traced.program.calls[traced.program.instructions[k].call].function, value)
        for k, op in enumerate(traced.graph.ops)
        if op.phase == "update"
        for value in scalars_of(traced.program.calls[traced.program.instructions[k].call])
        if isinstance(value, int | float)
    ]


def _before(optimizer: str, step: int, parameters: Sequence[nn.Parameter]) -> torch.optim.Optimizer:
    """An optimizer that, once it took its first step, believes to have taken `step - 1`."""
    stepper = optimizer_named(optimizer)(parameters)
    first = stepper.step

    def pretend() -> None:
        first()
        stepper.step = first  # type: ignore[method-assign]
        for state in stepper.state.values():
            state["step"] = torch.tensor(float(step - 1))

    stepper.step = pretend  # type: ignore[method-assign, assignment]
    return stepper
