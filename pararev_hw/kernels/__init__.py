"""Triton kernels."""

from __future__ import annotations

from typing import NamedTuple

INTEGRATE, LEAK_INPUT, LEAK, LEARN_INPUT, LEARN = range(5)  # kinds of charging


class NeuronNumbers(NamedTuple):
    """A neuron's kind of charging, its constants, and the number and α of its surrogate."""

    charge: int
    tau: float
    threshold: float
    v_reset: float | None
    detach: bool
    surrogate: int
    alpha: float
