"""What reading a network from a file gives, and what every reader needs."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from torch import Tensor, nn


@dataclass(frozen=True, slots=True, eq=False)
class Imported:
    """A network from a file, with the shapes it was imported for: `inputs` are on device "meta"."""

    network: nn.Module
    inputs: tuple[Tensor, ...]
    batch: int
    timesteps: int | None
    event: bool  # inputs are [T, B, ...]
    assumptions: tuple[str, ...]


def next_float(value: float) -> float:
    """The least single-precision number above `value`: h > θ, as files say it, is h ≥ next_float(θ), as we fire."""
    return float(np.nextafter(np.float32(value), np.float32(np.inf)))
