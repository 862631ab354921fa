"""Random numbers of a step whose ops run in any order, on any lane.

Every random op of a traced step has a token; two ops with one token draw the same numbers (a recomputation that puts
the generator's state back). Torch has one generator per device, so random ops of different lanes take turns.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from typing import Any

import torch


def seed_of(step_seed: int, token: int) -> int:
    """The seed of the draws of one token in one step: far apart for neighbouring steps and tokens."""
    return (step_seed * 0x9E3779B97F4A7C15 + (token + 1) * 0xBF58476D1CE4E5B9) % (1 << 63)  # SplitMix64's multipliers


class Draws:
    """Calls random ops with the draws that are theirs.

    With a step seed each token's draws are those of `generator.manual_seed(seed_of(step_seed, token))`, whatever runs
    before: every schedule draws the same. Without one, ops draw from torch's own stream in the order in which they run:
    on one lane in program order these are the draws of the plain training loop.
    """

    def __init__(self, devices: Iterable[torch.device], repeated: Iterable[int] = ()) -> None:
        self._generators = [torch.default_generator]
        self._generators += [torch.cuda.default_generators[d.index or 0] for d in devices if d.type == "cuda"]
        self._lock = threading.Lock()
        self._repeated = frozenset(repeated)  # tokens of several ops
        self._seed: int | None = None
        self._states: dict[int, list[torch.Tensor]] = {}

    @property
    def again(self) -> bool:
        """Whether some numbers are drawn twice."""
        return bool(self._repeated)

    def begin(self, step_seed: int | None) -> None:
        """A new step."""
        self._seed = step_seed
        self._states.clear()

    def __call__(self, token: int, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        with self._lock:
            if self._seed is not None:
                for g in self._generators:
                    g.manual_seed(seed_of(self._seed, token))
                return function(*args, **kwargs)
            if token not in self._repeated:
                return function(*args, **kwargs)
            now = [g.get_state() for g in self._generators]
            if token not in self._states:
                self._states[token] = now
                return function(*args, **kwargs)
            try:
                self._restore(self._states[token])
                return function(*args, **kwargs)
            finally:
                self._restore(now)

    def _restore(self, states: list[torch.Tensor]) -> None:
        for g, state in zip(self._generators, states, strict=True):
            g.set_state(state)
