"""What may be said about a step that is traced."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pararev_hw import limits
from pararev_hw.documents import shown
from pararev_hw.errors import BadInput, unknown_name
from pararev_hw.keywords import exact_fields, whole_number
from pararev_hw.sizes import FLOAT_BYTES
from pararev_hw.types import Hardware

if TYPE_CHECKING:
    import torch
    from torch import nn

    MakeOptimizer = Callable[[Sequence[nn.Parameter]], torch.optim.Optimizer]

Loss = Callable[[Any], "torch.Tensor"]
TrainingStep = Callable[["nn.Module", "tuple[torch.Tensor, ...]", "torch.optim.Optimizer"], Any]
Mode = Literal["train", "infer"]
Layout = Literal["B", "TB", "BT"]
ZeroGrad = Literal["none", "zero"]
LAYOUTS: tuple[Layout, ...] = ("B", "TB", "BT")


@exact_fields
@dataclass(frozen=True, slots=True, kw_only=True)
class TraceOptions:
    """What a step that is traced is like. Everything has a default; `ph.trace` takes the same names as keywords.

    Args:
        batch: Samples per step (of one micro-batch, with `accumulate`). None: that of the inputs, else 32.
        timesteps: Time steps T. None: that of the network.
        mode: "train" (forward, backward, update) or "infer".
        dtype: "float32", "bfloat16" and "float16" (autocast), or "float64".
        layout: The leading axes of the inputs: "TB" (time, batch), "BT" or "B" (no time axis). None: as the network
            and the sizes tell; the graph's `assumptions` say what told.
        input_shape: The shape of one sample, without batch and time.
        num_classes: Classes of a zoo network.
        width: Scales the channels of a zoo network.
        form: Of a ParaRevSNN: "unfused", "fused" or "merged".
        seed: Of the weights.
        granularity: What a task is: "op", "module" or "block"; "auto" goes finer where blocks are few.
        blocks: Patterns of module paths that are blocks, such as "encoder.layers.*".
        optimizer: A name, such as "adamw", or a function from parameters to an optimizer. None: SGD with momentum.
        accumulate: Micro-batches before the optimizer's step.
        zero_grad: "none" lets gradients go between steps, "zero" keeps their memory.
        channels_last: Images and their weights lie in memory as [B, H, W, C].
        spikes: Where firing rates come from: "auto", "digits", "none", a rate such as 0.15, or a `.npy` file.
        device: What the step is traced for, which decides the default optimizer's implementation.
        loss: Of a module: from its output to the loss.
        step: Of a module: the whole training step, `step(model, inputs, optimizer)`.
        name: Of a module, in tables and reports. None: the name of its class.

    Raises:
        BadInput: A value cannot be, or a name is wrong: the message names the nearest right one.

    Example:
        >>> import pararev_hw as ph
        >>> ph.TraceOptions(timesteps=4).mode
        'train'
        >>> ph.TraceOptions(timestep=4)
        Traceback (most recent call last):
        pararev_hw.errors.UnknownName: no option of ph.TraceOptions is called 'timestep': did you mean timesteps?
    """

    batch: int | None = None
    timesteps: int | None = None
    mode: Mode = "train"
    dtype: str = "float32"
    layout: Layout | None = None
    input_shape: tuple[int, ...] | None = None
    num_classes: int | None = None
    width: float | None = None
    form: str | None = None
    seed: int = 0
    granularity: str = "auto"
    blocks: Sequence[str] = ()
    optimizer: str | MakeOptimizer | None = None
    accumulate: int = 1
    zero_grad: ZeroGrad = "none"
    channels_last: bool = False
    spikes: str | float = "auto"
    device: str | Path | Hardware | None = None
    loss: Loss | None = None
    step: TrainingStep | None = None
    name: str | None = None

    def __post_init__(self) -> None:
        for name in ("batch", "timesteps", "num_classes", "accumulate"):
            value = getattr(self, name)
            if value is not None and value > limits.INPUT_ELEMENTS:
                number = f"{value:.3g}" if value < limits.NUMBER * 10 else shown(value)  # of any length
                raise BadInput(f"{name} is {number}: more than any device holds")
            if value is not None:
                whole_number(name, value, least=1)
        whole_number("seed", self.seed, least=0)
        if self.mode not in ("train", "infer"):
            raise unknown_name("mode", self.mode, ("train", "infer"))
        if self.dtype not in FLOAT_BYTES:
            raise unknown_name("dtype", self.dtype, tuple(FLOAT_BYTES))
        if self.zero_grad not in ("none", "zero"):
            raise unknown_name("way to zero gradients", self.zero_grad, ("none", "zero"))
        if self.layout is not None and self.layout not in LAYOUTS:
            raise unknown_name("layout", self.layout, LAYOUTS)
        if self.width is not None and not 0 < self.width <= limits.WIDTH:
            raise BadInput(f"width is {self.width:g}: it must be above 0, and at most {limits.WIDTH:g}")
        if self.input_shape == ():
            raise BadInput("input shape is (): sizes must be at least 1, as in 3,32,32")
        for size in self.input_shape or ():
            whole_number("a size of input_shape", size, least=1)

    @property
    def spike_source(self) -> str:
        """`spikes` as the command line writes it."""
        return self.spikes if isinstance(self.spikes, str) else repr(float(self.spikes))


DEFAULTS = TraceOptions()
