"""From what a user names to its graph: the target built, traced, its spikes counted or assumed."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pararev_hw import graph as graphs
from pararev_hw import limits
from pararev_hw.defaults import ASSUMED_RATE, default_optimizer
from pararev_hw.devices import bare_device
from pararev_hw.documents import read_bytes
from pararev_hw.errors import INTERRUPTS, BadFile, BadInput, MissingDependency, PararevError, first_line
from pararev_hw.importers.layout import Axes, Declared, given_axes, unsettled
from pararev_hw.importers.targets import Target, resolve
from pararev_hw.progress import Progress, silent
from pararev_hw.trace_options import DEFAULTS, TraceOptions, TrainingStep
from pararev_hw.tracing import (
    DispatchRules,
    Traced,
    batch_leads,
    holds_spikes,
    layout_of_step,
    measure_spikes,
    optimizer_named,
    output_keeps,
    trace_step,
    uncopied_state,
    walked_axes,
)
from pararev_hw.training.data import digits
from pararev_hw.training.step import Loop, MakeOptimizer
from pararev_hw.types import BlockGraph, Hardware


def build_graph(
    target: str,
    options: TraceOptions = DEFAULTS,
    *,
    device: Hardware | None = None,
    rewrite: Callable[[Traced], Traced] | None = None,
    progress: Progress = silent,
) -> BlockGraph:
    """Trace what `target` names: a zoo network, `file.py:factory` or `package.module:factory`.

    For a GPU (and where no device is named) the step takes the ops that CUDA takes, on whatever machine it is traced,
    and SGD runs one kernel for all parameters; elsewhere one per parameter. `device` goes before the one of `options`.
    `rewrite` changes the traced step before its graph is given back: `pararev_hw.rewrites.select.take` does.
    """
    assert not callable(options.optimizer)
    optimizer = optimizer_for(device, options.optimizer)
    _check_spikes(options.spike_source)
    progress(f"building {target}")
    network = resolve(target, options)
    return graph_of(network, optimizer, options, device=device, rewrite=rewrite, progress=progress)


def optimizer_for(device: Hardware | None, optimizer: str | None) -> MakeOptimizer:
    """The optimizer of that name, or the default one of the device. Raises UnknownName."""
    return optimizer_named(optimizer or default_optimizer("gpu" if device is None else device.kind))


def graph_of(
    target: Target,
    optimizer: MakeOptimizer,
    options: TraceOptions = DEFAULTS,
    *,
    device: Hardware | None = None,
    rewrite: Callable[[Traced], Traced] | None = None,
    progress: Progress = silent,
) -> BlockGraph:
    """The graph of a network that is there already: of the options, those that say how its step goes."""
    _check_spikes(options.spike_source)
    progress(f"tracing {target.name}")
    traced = _traced(target, optimizer, options, device, progress)
    graph, target = with_axes(traced, target)
    graph = with_spikes(graph, target, options.spike_source, progress)
    return graph if rewrite is None else rewrite(replace(traced, graph=graph)).graph


def _traced(
    target: Target, optimizer: MakeOptimizer, options: TraceOptions, device: Hardware | None, progress: Progress
) -> Traced:
    has_step = target.step is not None and options.mode == "train"
    return trace_step(
        target.network,
        (*target.inputs, *target.targets) if has_step else target.inputs,
        loop=_loop(optimizer, options, target.step if has_step else None),
        description=target.described(progress),
        dtype=options.dtype,
        granularity=options.granularity,
        blocks=options.blocks,
        rules=DispatchRules(
            cuda=device is None or device.kind == "gpu",
            channels_last=options.channels_last,
            flash_attention=_has_bfloat16(device),
        ),
    )


def _loop(optimizer: MakeOptimizer, options: TraceOptions, step: TrainingStep | None) -> Loop | None:
    """How the training step goes; None for inference."""
    if options.mode == "train":
        return Loop(optimizer, options.accumulate, options.zero_grad, step, options.loss)
    if (options.accumulate, options.zero_grad) != (1, "none"):
        raise BadInput("inference has no gradients: leave accumulate and zero_grad out")
    return None


def with_axes(traced: Traced, target: Target) -> tuple[BlockGraph, Target]:
    """The graph's batch and time steps, where the traced step is what tells them; else the sentence that asks."""
    graph = traced.graph
    if target.axes_settled:
        return graph, target
    shape = tuple(target.inputs[0].shape)
    layout = _layout_of_step(traced, target)
    if layout is None:
        has_time = bool(graphs.spiking_layers(graph)) or not target.inputs[0].is_floating_point()
        rows = Axes("B", target.batch, target.timesteps, "the rows of its output")
        plain = rows.sentence if len(shape) == 2 and has_time else None
        line = unsettled(shape) if _is_open(traced, target) else plain
        return (graph if line is None else replace(graph, assumptions=(*graph.assumptions, line))), target
    axes = given_axes(shape, layout[0], Declared(), layout[1])
    target = replace(target, batch=axes.batch, timesteps=axes.timesteps, event=axes.layout == "TB", axes=axes)
    batch = graph.batch // shape[0] * axes.batch if graph.batch % shape[0] == 0 else axes.batch
    assumptions = (*graph.assumptions, axes.sentence)
    return replace(graph, batch=batch, timesteps=axes.timesteps, assumptions=assumptions), target


def _layout_of_step(traced: Traced, target: Target) -> tuple[str, str] | None:
    """The layout that the traced step tells, and how. Of [B, features] it tells none: a walk along the features of a
    batch is one through time only where there are spikes."""
    features = target.inputs[0]
    layout = layout_of_step(traced.tape, features.shape)
    if layout is None or features.ndim != 2 or not features.is_floating_point():
        return layout
    return layout if layout[0] == "BT" and graphs.spiking_layers(traced.graph) else None


def _is_open(traced: Traced, target: Target) -> bool:
    """Whether neither the network nor its traced step tells which axis of the input is the batch."""
    shape = tuple(target.inputs[0].shape)
    batch_tells = batch_leads(traced.tape, shape)
    if len(shape) == 2 and target.inputs[0].is_floating_point():  # [B, features], unless the step says otherwise
        is_walked = 0 in walked_axes(traced.tape, *shape)
        return (is_walked and not batch_tells) or not output_keeps(traced.tape, shape[0])
    if len(shape) == 2:
        return not batch_tells
    if len(shape) > 2 and target.timesteps == shape[0]:
        return True
    has_room = len(shape) in (3, 5)  # [B, C, H, W] has none for an axis of time
    return has_room and (bool(graphs.spiking_layers(traced.graph)) or not batch_tells)


def _has_bfloat16(hardware: Hardware | None) -> bool:
    """Whether a GPU is of compute capability 8.0 or more, which brought bfloat16 and what flash attention needs."""
    return hardware is None or "matrix_flops_per_s.bfloat16" in bare_device(hardware).parameters


def _check_spikes(spikes: str) -> None:
    """Refuse, before any work is done, what says nothing about spikes."""
    if spikes in ("auto", "digits", "none") or spikes.endswith(".npy"):
        return
    try:
        rate = float(spikes)
    except ValueError:
        raise BadInput(f"spikes is {spikes!r}: give auto, digits, none, a rate such as 0.15, or a .npy file") from None
    if not 0 <= rate <= 1:
        raise BadInput(f"a firing rate is {rate:g}: it must be between 0 and 1")


def with_spikes(graph: BlockGraph, target: Any, spikes: str, progress: Progress = silent) -> BlockGraph:
    """The graph with measured or assumed spike activity, where the network has spiking neurons."""
    if spikes == "none":
        return graphs.attach(graph, None)
    try:
        rate = float(spikes)
    except ValueError:
        return _with_measured(graph, target, spikes, progress)
    return graphs.attach(graph, graphs.assumed(graph, rate))


def _with_measured(graph: BlockGraph, target: Any, spikes: str, progress: Progress) -> BlockGraph:
    if not graphs.may_spike(graph) and not (target.real_inputs and holds_spikes(target.inputs)):
        return graphs.attach(graph, None)
    if spikes == "auto" and target.real_inputs:
        inputs, source = target.inputs, "the target's own inputs"
    else:
        samples_or_reason = _npy(Path(spikes), target) if spikes.endswith(".npy") else _digits(graph, target, spikes)
        if isinstance(samples_or_reason, str):
            assumed = graphs.assumed(graph, ASSUMED_RATE)
            return graphs.attach(replace(graph, assumptions=(*graph.assumptions, samples_or_reason)), assumed)
        inputs, source = samples_or_reason
    progress(f"counting spikes of {graph.model}")
    samples = int(inputs[0].shape[1] if target.event else inputs[0].shape[0])
    try:
        network = _unrun(target)
        kind = "random" if target.network is not network and target.remade is None else "the network's own"
        description = f"{source}, {samples} samples, {kind} weights"
        measured = measure_spikes(network, inputs, source=description, mode=graph.mode, samples=samples, graph=graph)
    except (PararevError, *INTERRUPTS):
        raise
    except BaseException as error:
        # tracing needs no memory for the data, counting does; and a user's network may raise anything
        raise BadInput(
            f"{graph.model}: its spikes cannot be counted ({type(error).__name__}: {first_line(error)}): "
            f"assume a rate, as in --spikes {ASSUMED_RATE:g}, or --spikes none"
        ) from error
    return graphs.attach(graph, measured)


def _unrun(target: Target) -> Any:
    """The network as it was before it was traced: state that cannot be put back asks for a network made anew."""
    network = target.realise()
    state = uncopied_state(network)
    if state is None:
        return network
    if target.remade is None:
        raise BadInput(
            f"{target.name}: it holds {state}, whose state cannot be put back after a run: name the factory that makes "
            f"the network, as in net.py:make, assume a rate (--spikes {ASSUMED_RATE:g}) or give --spikes none"
        )
    return target.remade()


_SPIKE_MACS = 60e9  # of the forward pass that counts spikes: a few seconds of one core


def _samples(graph: BlockGraph) -> int:
    forward = sum(t.macs for t in graph.tasks if t.phase == "forward") / graph.batch
    return max(1, min(16, int(_SPIKE_MACS / max(forward, 1.0))))


def _digits(graph: BlockGraph, target: Any, spikes: str) -> Any:
    """Digits as inputs, or, where that cannot be and nobody insists, the sentence that says what is assumed."""
    shape = tuple(target.inputs[0].shape[1:])
    fits = not target.event and len(target.inputs) == 1 and len(shape) == 3 and shape[1] == shape[2] and shape[1] >= 8
    try:
        if fits:
            data = digits(size=shape[1], channels=shape[0])
            count = _samples(graph) if target.any_batch else target.batch
            if count <= len(data.test_x):
                return (data.test_x[:count],), data.source
            reason = f"{target.name} runs with its batch of {count} alone, and there are {len(data.test_x)} digits"
        else:
            reason = f"an input of shape {shape} cannot be fed from the digits data"
    except MissingDependency as error:
        reason = str(error)
    if spikes == "digits":
        raise BadInput(f"spikes cannot be counted on the digits: {reason}")
    return f"firing rate {ASSUMED_RATE:g} assumed: {reason}"


def _npy(path: Path, target: Any) -> Any:
    data = read_bytes(path, limits.INPUT_BYTES, "inputs are one array in a .npy file")
    try:
        array = np.load(io.BytesIO(data), allow_pickle=False)
    except Exception as error:  # of a header: NumPy evaluates it as Python, and raises what that raises
        raise BadFile(f"{path}: is no .npy file of numbers") from error
    if not isinstance(array, np.ndarray):
        raise BadFile(f"{path}: holds several arrays (.npz): save one, as in numpy.save")
    if array.dtype.kind not in "biuf":
        raise BadFile(f"{path}: holds {array.dtype} values: inputs are real numbers")
    expected = tuple(target.inputs[0].shape)
    free = 1 if target.event else 0
    if array.ndim != len(expected) or any(
        a != e for d, (a, e) in enumerate(zip(array.shape, expected, strict=True)) if d != free
    ):
        raise BadInput(f"{path}: has shape {array.shape}: {target.name} takes {expected}, any batch")
    with np.errstate(over="ignore"):  # what float32 cannot hold is infinite, and refused below
        values = np.array(array, dtype=np.float32)
    if not np.isfinite(values).all():
        raise BadFile(f"{path}: holds values that are not finite")
    return (torch.from_numpy(values),), path.name
