"""What a lowering may ask about the node that it turns into a torch function, and what it gives."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import torch
from torch import Tensor

Run = Callable[..., Any]
Operand = Tensor | float  # of an elementwise operator: a constant of one element is a plain number


class Site(Protocol):
    """A node where it stands. Inputs are numbered from 0; an absent one is not `given`."""

    @property
    def opset(self) -> int: ...
    @property
    def outputs(self) -> int: ...
    def attribute(self, name: str, default: Any = None) -> Any: ...
    def has_input(self, i: int) -> bool: ...
    def is_constant(self, i: int) -> bool: ...
    def constant(self, i: int) -> Tensor: ...
    def source(self, i: int) -> str | None:
        """The name of input i, None where it is absent."""

    def is_weight(self, i: int) -> bool: ...
    def derived(self, i: int, role: str, change: Callable[[Tensor], Tensor]) -> str:
        """The name of a weight that stands for weight i, in the layout that torch takes: changed once, at import."""

    def take(self, *sources: str | None) -> None:
        """The run-time arguments, in place of the node's inputs."""

    def state(self, i: int) -> None:
        """Input i is no weight to train: a running statistic."""

    def shape(self, i: int) -> tuple[int, ...]: ...
    def dtype(self, i: int) -> torch.dtype: ...


Lower = Callable[[Site], Run]
