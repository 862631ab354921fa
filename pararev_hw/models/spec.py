"""What a network of the zoo is, before it is built."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import torch

from pararev_hw.errors import BadInput, unknown_name
from pararev_hw.keywords import exact
from pararev_hw.models.neurons import IF, LIF, PLIF, Neuron
from pararev_hw.models.surrogates import ATan, Surrogate

# image     x [B, C, H, W], shown at all T steps          y [B]
# events    x [T, B, C, H, W]                             y [B]
# sequence  x [B, T, features]                            y [B]
# steps     x [B, T, features]                            y [B, T], -1 where a step tells nothing
# tokens    x [B, T], whole numbers                       y [B, T], the next ones
# video     x [B, T, C, H, W]                             no y: the next frames are in x
Layout = Literal["image", "events", "sequence", "steps", "tokens", "video"]


@dataclass(frozen=True, slots=True)
class NeuronSettings:
    """Which neuron a network is built of. `tau` is the starting point of a PLIF and means nothing to an IF."""

    kind: Literal["if", "lif", "plif"]
    surrogate: Surrogate
    tau: float = 2.0
    v_threshold: float = 1.0
    v_reset: float | None = 0.0
    detach_reset: bool = True

    def build(self) -> Neuron:
        """A new neuron."""
        common: dict[str, Any] = {
            "v_threshold": self.v_threshold,
            "v_reset": self.v_reset,
            "detach_reset": self.detach_reset,
            "surrogate": self.surrogate,
        }
        match self.kind:
            case "if":
                return IF(**common)
            case "lif":
                return LIF(self.tau, **common)
            case "plif":
                return PLIF(self.tau, **common)
        raise unknown_name("neuron", self.kind, ["if", "lif", "plif"])


@dataclass(frozen=True, slots=True)
class Spec:
    """A network of the zoo. `input_shape` is that of one sample at one time step; `layout` says how a batch lies.

    A network whose training is not forward, loss, backward, update has `training_step(inputs, optimizer) -> loss`,
    `inputs` being (x, y) in its layout; `method` says in a few words how it trains.
    """

    name: str
    family: str
    depth: int
    blocks: tuple[int, ...]  # per stage: reversible pairs, or basic blocks in MS-ResNet; () where there are no stages
    channels: tuple[int, ...]  # per stage: of one stream, or of the one stream of MS-ResNet
    timesteps: int
    input_shape: tuple[int, ...]
    layout: Layout
    classes: int
    neuron: NeuronSettings = NeuronSettings("if", ATan())
    assumptions: tuple[str, ...] = ()
    method: str = "BPTT"

    @property
    def event(self) -> bool:
        """Whether x is `[T, B, ...]`."""
        return self.layout == "events"


Shaped = tuple[tuple[int, ...], torch.dtype]


@exact
def batch_shapes(
    layout: Layout, batch: int, timesteps: int, sample: tuple[int, ...]
) -> tuple[tuple[Shaped, ...], tuple[Shaped, ...]]:
    """Shapes and dtypes of a batch: what goes into the network, and what its training step compares with."""
    each, per_step = ((batch,), torch.int64), ((batch, timesteps), torch.int64)
    match layout:
        case "image":
            return (((batch, *sample), torch.float32),), (each,)
        case "events":
            return (((timesteps, batch, *sample), torch.float32),), (each,)
        case "sequence":
            return (((batch, timesteps, *sample), torch.float32),), (each,)
        case "steps":
            return (((batch, timesteps, *sample), torch.float32),), (per_step,)
        case "tokens":
            return (per_step,), (per_step,)
        case "video":
            return (((batch, timesteps, *sample), torch.float32),), ()


def whole(option: str, value: Any) -> int:
    """The value, a whole number of at least 1. Raises BadInput."""
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise BadInput(f"{option} is {value!r}: it must be a whole number of at least 1")
    return value


def no_options(name: str, options: dict[str, Any]) -> None:
    """Refuse options for a network that has none of its own."""
    for key in options:
        raise BadInput(f"{name} has no option {key!r}")
