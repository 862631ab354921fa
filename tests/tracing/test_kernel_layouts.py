"""What ops give lies in memory as their kernels lay it out, for images of both layouts and gradients of the other."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from pararev_hw.tracing import trace_step
from pararev_hw.tracing.recorder import _result

LAST, FIRST = torch.channels_last, torch.contiguous_format
FUNCTIONS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    **{n: getattr(F, n) for n in "relu elu gelu silu mish softplus hardswish hardsigmoid hardtanh logsigmoid".split()},
    **{n: getattr(F, n) for n in "leaky_relu softshrink hardshrink celu relu6".split()},
    **{n: getattr(torch, n) for n in "sigmoid tanh logit erf".split()},
    "random slopes": lambda x: F.rrelu(x, training=True),
    "gated": lambda x: F.glu(x, 1).repeat(1, 2, 1, 1),
    "a smooth loss": lambda x: F.smooth_l1_loss(x, 2 * x, reduction="none"),
    "a loss of squares": lambda x: F.mse_loss(x, 2 * x, reduction="none"),
    "a loss of chances": lambda x: F.binary_cross_entropy(x.sigmoid(), x.sigmoid().detach(), reduction="none"),
    "a product with a logarithm": lambda x: torch.xlogy(x, 1 + x.square()),
    "softmax": lambda x: x.softmax(1),
    "log softmax": lambda x: F.log_softmax(x, 1),
    "batch norm": lambda x: F.batch_norm(x, None, None, training=True),
    "group norm": lambda x: F.group_norm(x, 2),
    "padded": lambda x: F.pad(x, (1, 1, 1, 1), mode="reflect")[:, :, 1:-1, 1:-1],
    "shuffled": lambda x: F.pixel_unshuffle(F.pixel_shuffle(x, 2), 2),
    "rolled": lambda x: x.roll(1, 2),
    "pooled": lambda x: F.max_pool2d(x, 3, 1, 1),
}


class OnImages(nn.Module):
    """A function of an image, and of what it gives a weighted sum: the gradient lies as the weights do."""

    weights: torch.Tensor

    def __init__(
        self,
        function: Callable[[torch.Tensor], torch.Tensor],
        image: torch.memory_format,
        gradient: torch.memory_format,
    ) -> None:
        super().__init__()
        self.function, self.image = function, image
        self.scale = nn.Parameter(torch.ones(1))
        self.register_buffer("weights", torch.randn(3, 8, 5, 5).contiguous(memory_format=gradient))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out = self.function(x.contiguous(memory_format=self.image) * self.scale) * self.weights
        logit = out.flatten(1).sum(1, keepdim=True)
        return torch.cat([logit, -logit], 1)


@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.parametrize(("image", "gradient"), [(FIRST, LAST), (LAST, FIRST), (LAST, LAST)])
def test_what_ops_give_lies_as_their_kernels_lay_it_out(
    name: str, image: torch.memory_format, gradient: torch.memory_format
) -> None:
    """Each op of the step is run on what those before it really gave."""
    traced = trace_step(OnImages(FUNCTIONS[name], image, gradient), torch.randn(3, 8, 5, 5))
    tape = traced.tape
    values = dict(traced.program.constants)
    for slot, (shape, stride, dtype) in traced.program.layouts.items():
        values[slot] = torch.empty_strided(shape, stride, dtype=getattr(torch, dtype)).zero_()
    for line in tape.lines:
        entry = tape.entries[line.entry]
        result = _result(entry.call, [values[i.slot] for i in line.inputs])
        outputs = result if isinstance(result, tuple | list) else [result]
        for output, info in zip(outputs, line.outputs, strict=False):
            if info is None:
                continue
            values[info.slot] = output
            shape, stride = tape.metas[info.meta][:2]
            assert tuple(output.shape) == tuple(shape)
            really = [(s, real, said) for s, real, said in zip(shape, output.stride(), stride, strict=True) if s > 1]
            assert all(real == said for _, real, said in really), f"{entry.op_type.name}: {really}"
