"""What convolutions are seen to allocate on this machine, beside what the rule of its instruction set says.

The rules (`convolution_kernels`) are those of x86 processors that somebody could watch. A few small convolutions tell
in about two seconds whether they hold on the machine at hand; where they do not, the device keeps the rule that comes
nearest and the ratio of what was seen to it, and predictions for that device use them, here and elsewhere.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from pararev_hw.costmodels.allocator.convolution import convolution_bytes
from pararev_hw.devices.instruction_sets import InstructionSet, instruction_set_of
from pararev_hw.measurement.allocations import allocated_bytes
from pararev_hw.measurement.steps import computing_threads
from pararev_hw.types import Device, DeviceParameter, OpType

# input, weights, stride, padding, groups, transposed: the shapes that networks are made of
_PROBES: tuple[tuple[tuple[int, ...], tuple[int, ...], int, int, int, bool], ...] = (
    ((4, 32, 16, 16), (32, 32, 3, 3), 1, 1, 1, False),
    ((4, 3, 16, 16), (32, 3, 5, 5), 1, 2, 1, False),
    ((4, 32, 16, 16), (64, 32, 3, 3), 2, 1, 1, False),
    ((4, 32, 16, 16), (64, 32, 1, 1), 2, 0, 1, False),
    ((16, 32, 8, 8), (64, 32, 1, 1), 1, 0, 1, False),
    ((4, 32, 16, 16), (32, 1, 3, 3), 1, 1, 32, False),
    ((4, 32, 8, 8), (32, 16, 2, 2), 2, 0, 1, True),
)
_AGREES = 0.06  # what differs by less is the same: scratch of some ten KiB, which larger convolutions hardly notice
_RULES = (InstructionSet.SSE41, InstructionSet.AVX, InstructionSet.AVX2, InstructionSet.AVX512_CORE)  # that differ


@dataclass(frozen=True, slots=True)
class Observed:
    """What the convolutions of one datatype were seen to follow, and how much they allocate over what that rule says,
    by kind of op."""

    rule: InstructionSet
    ratios: Mapping[str, float]


def with_observed_allocations(device: Device) -> Device:
    """The device, which is this machine's CPU, with what convolutions were seen to allocate where the rule of its
    instruction set does not say it, and a note that says which it is."""
    isa = instruction_set_of(device)
    seen_by = device.parameters["instruction_set"].source if "instruction_set" in device.parameters else device.title
    source = f"{len(_PROBES)} small convolutions, profiled; {seen_by}"
    values: dict[str, float] = {}
    differ = []
    for dtype, observations in observed(isa).items():
        ratios = {kind: ratio for kind, ratio in observations.ratios.items() if abs(ratio - 1) > _AGREES}
        values |= {f"{kind}_workspace_ratio.{dtype}": ratio for kind, ratio in ratios.items()}
        if observations.rule != isa:
            values[f"allocation_rule.{dtype}"] = float(observations.rule)
        if observations.rule != isa or ratios:
            times = "".join(f", {kind} times {ratio:.3g}" for kind, ratio in sorted(ratios.items()))
            differ.append(f"{dtype} is nearest to {observations.rule.name.lower()}{times}")
    deviations = "; ".join(differ) or "small ones were seen to follow it"
    note = f"Memory inside convolutions by the rule of {isa.name.lower()}: {deviations}."
    parameters = dict(device.parameters) | {n: DeviceParameter(v, source, "measured") for n, v in values.items()}
    return replace(device, parameters=dict(sorted(parameters.items())), notes=(*device.notes, note))


def observed(isa: InstructionSet) -> Mapping[str, Observed]:
    """By datatype, the rule that this machine's convolutions follow: that of `isa` where it holds, else the nearest."""
    with computing_threads(1):
        return {dtype: _nearest(isa, [(op, _workspace_bytes(run)) for op, run in _probes(dtype)]) for dtype in _DTYPES}


_DTYPES = ("float32", "bfloat16")


def _workspace_bytes(run: Callable[[], object]) -> int:
    run()  # what is kept for the next time is no part of it
    most, left = allocated_bytes(run)
    return most - left


def _nearest(isa: InstructionSet, observations: Sequence[tuple[OpType, int]]) -> Observed:
    total = sum(size for _, size in observations)

    def misfit(rule: InstructionSet) -> float:
        return sum(abs(convolution_bytes(op, rule) - size) for op, size in observations) / max(total, 1)

    rule = isa if misfit(isa) <= _AGREES else min((isa, *_RULES), key=misfit)
    ratios = {}
    for kind in ("conv", "conv_backward"):
        predicted_bytes = sum(convolution_bytes(op, rule) for op, _ in observations if op.kind == kind)
        if predicted_bytes > 0:
            ratios[kind] = sum(size for op, size in observations if op.kind == kind) / predicted_bytes
    return Observed(rule, ratios)


def _probes(dtype: str) -> Iterator[tuple[OpType, Callable[[], object]]]:
    import torch  # heavy, and only a measurement needs it

    aten: Any = torch.ops.aten
    for x_shape, w_shape, stride, padding, groups, transposed in _PROBES:
        x, w = (torch.ones(shape, dtype=getattr(torch, dtype)) for shape in (x_shape, w_shape))
        how = ([stride] * 2, [padding] * 2, [1, 1], transposed, [0, 0], groups)
        y = aten.convolution(x, w, None, *how)
        y_shape = tuple(y.shape)
        attributes = (
            ("dilation", (1, 1)),
            ("groups", (groups,)),
            ("output_mask", (1, 1, 0)),
            ("padding", (padding, padding)),
            ("stride", (stride, stride)),
            ("transposed", (int(transposed),)),
        )
        forward, backward = (
            OpType(f"aten.{name}.default", kind, dtype, inputs, outputs, attributes, 0, None, 0, 0)
            for name, kind, inputs, outputs in (
                ("convolution", "conv", (x_shape, w_shape), (y_shape,)),
                ("convolution_backward", "conv_backward", (y_shape, x_shape, w_shape), (x_shape, w_shape)),
            )
        )
        yield forward, partial(aten.convolution, x, w, None, *how)
        yield backward, partial(aten.convolution_backward, y, x, w, None, *how, [True, True, False])
