"""What is taken where a user names nothing, each stated in every report that rests on it."""

from __future__ import annotations

ASSUMED_RATE = 0.2  # firing rate where no spikes were counted


def default_optimizer(kind: str) -> str:
    """SGD as PyTorch runs it on a device of that kind: one kernel for all parameters on a GPU."""
    return "sgd-foreach" if kind in ("gpu", "cuda") else "sgd"
