"""A network's step as a graph: traced, or read from a file."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict, Unpack

import torch

from pararev_hw import target_graph
from pararev_hw.api.machines import hardware_of
from pararev_hw.documents import shown
from pararev_hw.errors import BadInput
from pararev_hw.importers.targets import Target, target_of
from pararev_hw.keywords import exact
from pararev_hw.progress import Progress, silent
from pararev_hw.trace_options import Layout, Loss, Mode, TraceOptions, TrainingStep, ZeroGrad
from pararev_hw.tracing import Traced
from pararev_hw.training.io_forms import InputForm, input_form, taking_tensors
from pararev_hw.types import BlockGraph, Hardware, InMemory

if TYPE_CHECKING:  # what the functions tell of in their own words, and `exact` does not
    from torch import nn

    from pararev_hw.trace_options import MakeOptimizer

    Inputs = torch.Tensor | Sequence[Any] | Mapping[str, Any]

_OF_NAMED = ("num_classes", "width", "form")  # options of what is built by its name
_OF_MODULES = ("loss", "step", "name")  # options of a module that is there already


@dataclass(frozen=True, slots=True)
class Origin:
    """What a graph was traced from, to run it again: a network with its inputs, or the name of one."""

    model: nn.Module | str
    inputs: Inputs | None
    options: TraceOptions


class TraceKeywords(TypedDict, total=False):
    """The fields of `TraceOptions` as keywords; None: as the options say."""

    batch: int | None
    timesteps: int | None
    mode: Mode | None
    dtype: str | None
    layout: Layout | None
    input_shape: tuple[int, ...] | None
    num_classes: int | None
    width: float | None
    form: str | None
    seed: int | None
    granularity: str | None
    blocks: Sequence[str] | None
    optimizer: str | MakeOptimizer | None
    accumulate: int | None
    zero_grad: ZeroGrad | None
    channels_last: bool | None
    spikes: str | float | None
    device: str | Path | Hardware | None
    loss: Loss | None
    step: TrainingStep | None
    name: str | None


@exact
def trace(
    model: nn.Module | str | Path,
    inputs: Inputs | None = None,
    options: TraceOptions | None = None,
    *,
    progress: Progress = silent,
    **keywords: Unpack[TraceKeywords],
) -> BlockGraph:
    """The block-dependency graph of one step of a network.

    Args:
        model: Any `nn.Module`; or the name of a zoo network, `file.py:factory`, `package.module:factory`, an `.onnx` or
            a `.nir` file.
        inputs: Of a module: its input, or several in the form in which its forward takes them. Spikes are counted on
            them. On device "meta", or with `input_shape` in their place, only shapes count.
        options: What the step is like: see `TraceOptions`. The keywords are its fields, and go before it.
        progress: Called with a line for each thing that takes time.

    Returns:
        The graph: `graph.totals`, `graph.layers()`, `graph.memory`, `graph.save(path)`.

    Raises:
        BadInput: A name or value is wrong, or it is not clear which axis of the inputs is time.
        TraceError: The network raised, or asks for values while it is traced.

    Example:
        >>> import pararev_hw as ph
        >>> import torch
        >>> net = torch.nn.Sequential(torch.nn.Linear(8, 4), torch.nn.ReLU(), torch.nn.Linear(4, 2))
        >>> ph.trace(net, torch.rand(16, 8)).totals.macs  # 16 x 8 x 4 + 16 x 4 x 2, forward; then the gradients
        1408
        >>> ph.trace("pararevsnn21", width=0.1, batch=1, mode="infer").timesteps
        4
        >>> ph.trace("pararevsnn21", widht=0.1)
        Traceback (most recent call last):
        pararev_hw.errors.UnknownName: no option of ph.trace is called 'widht': did you mean width?
    """
    merged = replace(options or TraceOptions(), **{k: v for k, v in keywords.items() if v is not None})  # type: ignore[arg-type]
    return traced_step(model, inputs, merged, progress).graph


def traced_step(
    model: nn.Module | str | Path, inputs: Inputs | None, options: TraceOptions, progress: Progress
) -> Traced:
    """The graph with its program, so that the step can be rewritten. Raises as `trace` does."""
    steps: list[Traced] = []

    def capture(step: Traced) -> Traced:
        steps.append(step)
        return step

    if isinstance(model, str | Path):
        model = str(model)
        graph = _trace_named(model, inputs, options, capture, progress)
    elif isinstance(model, torch.nn.Module):
        graph = _trace_module(model, inputs, options, capture, progress)
    else:
        raise BadInput(f"cannot trace {_a(model)}: give an nn.Module, or the name of a network: see ph.models()")
    return replace(steps[0], graph=replace(graph, origin=InMemory(Origin(model, inputs, options))))


def _trace_named(
    target: str,
    inputs: Inputs | None,
    options: TraceOptions,
    capture: Callable[[Traced], Traced],
    progress: Progress,
) -> BlockGraph:
    if inputs is not None:
        raise BadInput(f"{target}: a network given by its name brings its own inputs: leave inputs out")
    for field in _OF_MODULES:
        if getattr(options, field) is not None:
            raise BadInput(f"{target}: {field} is for an nn.Module: leave it out, or give the module itself")
    if callable(options.optimizer):
        raise BadInput(f"{target}: name the optimizer, as in optimizer='adamw': a function is for an nn.Module")
    hardware = None if options.device is None else hardware_of(options.device, progress)
    return target_graph.build_graph(target, options, device=hardware, rewrite=capture, progress=progress)


def _trace_module(
    model: nn.Module,
    inputs: Inputs | None,
    options: TraceOptions,
    capture: Callable[[Traced], Traced],
    progress: Progress,
) -> BlockGraph:
    for field in _OF_NAMED:
        if getattr(options, field) is not None:
            raise BadInput(f"{field} is for a network that is built by its name: this one is there already")
    hardware = None if options.device is None else hardware_of(options.device, progress)
    optimizer = options.optimizer
    form = None if inputs is None else input_form(inputs)
    with contextlib.nullcontext() if form is None else taking_tensors(model, form):
        return target_graph.graph_of(
            module_target(model, form, options),
            optimizer if callable(optimizer) else target_graph.optimizer_for(hardware, optimizer),
            options,
            device=hardware,
            rewrite=capture,
            progress=progress,
        )


def module_target(model: nn.Module, form: InputForm | None, options: TraceOptions) -> Target:
    """The module as what is traced and run. Raises BadInput where its inputs are not clear."""
    name = options.name or type(model).__name__
    if form is None and options.input_shape is None:
        raise BadInput(
            f"{name}: what shape has an input? Give inputs, as in ph.trace(net, x), or input_shape=(3, 32, 32)"
        )
    if form is not None and options.input_shape is not None:
        raise BadInput(f"{name}: the inputs have a shape of their own: leave input_shape out")
    target = target_of(model, form, options, name=name, where=name)
    step = options.step
    if step is None:
        return target

    def given_step(network: nn.Module, batch: tuple[torch.Tensor, ...], optimizer: torch.optim.Optimizer) -> object:
        """The user's own step is given the inputs as they came."""
        return step(network, batch if form is None else form.filled(batch), optimizer)

    return replace(target, step=given_step)


def _a(value: object) -> str:
    return "nothing" if value is None else shown(value)
