"""Steps of published networks (timm, torchvision) as the publishers ran them, traced by CUDA's rules.

Tracing needs timm 0.6.7 and torchvision beside this package, in an environment of its own (see
docs/validation-published.md); reading a trace does not. A trace is kept in a folder as a compact file, so that a fit or
a validation reads it again in milliseconds.
"""

from __future__ import annotations

import contextlib
import functools
import gzip
import importlib
import json
import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.sparse import csr_array
from torch import nn

from pararev_hw.costmodels.gpu.host import host_roles, host_seconds
from pararev_hw.costmodels.gpu.kernel_time import Floats, KernelTimes
from pararev_hw.costmodels.gpu.kernels import Kernel, kernels
from pararev_hw.costmodels.gpu.model import card_of, values_of
from pararev_hw.devices.gpu_law import HOST_ROLES
from pararev_hw.errors import BadFile, MissingDependency
from pararev_hw.trace_options import TrainingStep
from pararev_hw.tracing import DispatchRules, StepDescription, trace_step
from pararev_hw.training.step import Loop, MakeOptimizer
from pararev_hw.types import BlockGraph, Device, OpType, Storage


@dataclass(frozen=True)
class Workload:
    """A traced step as a GPU sees it: distinct kernels, which of them each op launches, each op's role for the host."""

    name: str
    kernels: tuple[Kernel, ...]
    launches: csr_array  # [ops, kernels]
    roles: tuple[str, ...]
    parameters: int
    storages: tuple[Storage, ...]
    flops: float

    @property
    def counts(self) -> Floats:
        return np.asarray(self.launches.sum(axis=0)).reshape(-1)


def workload(name: str, types: Sequence[OpType], op_types: Sequence[int], roles: Sequence[str], parameters: int,
             storages: Sequence[Storage]) -> Workload:  # fmt: skip
    index: dict[Kernel, int] = {}
    of_type = [[index.setdefault(k, len(index)) for k in kernels(t)] for t in types]
    rows = [(op, k) for op, t in enumerate(op_types) for k in of_type[t]]
    ops, indices = (np.array(column, np.int64) for column in zip(*rows, strict=True))
    shape = (len(op_types), len(index))
    launches = csr_array((np.ones(len(ops)), (ops, indices)), shape=shape)
    flops = sum(types[t].true_flops for t in op_types)
    return Workload(name, tuple(index), launches, tuple(roles), parameters, tuple(storages), float(flops))


def eager_seconds(work: Workload, device: Device) -> float:
    """The step on one stream: an op runs when the host has issued it and the op before is done.

    step = max over ops k of (host time until k is issued + device time from k on)
    """
    value = values_of(device)
    seconds = KernelTimes(work.kernels, card_of(device)).seconds(value) + value["launch_overhead_s"]
    busy: Floats = work.launches @ seconds
    factors = {role: value.get(f"host_factor.{role}", 1.0) for role in HOST_ROLES}
    issued = np.cumsum(host_seconds(work.roles, value["host_overhead_s"], factors))
    ended = np.cumsum(busy)
    waits = np.where(busy > 0, issued - (ended - busy), 0.0)
    return float(ended[-1] + max(waits.max(), 0.0))


def workload_of(graph: BlockGraph) -> Workload:
    return workload(
        graph.model, graph.op_types, [op.type for op in graph.ops], host_roles(graph), graph.parameters, graph.storages
    )


def saved(graph: BlockGraph) -> dict[str, Any]:
    """A graph without its edges, modules and tasks: what a workload is made of."""
    return {
        "model": graph.model,
        "mode": graph.mode,
        "parameters": graph.parameters,
        "types": [
            [t.name, t.kind, t.dtype, t.input_shapes, t.output_shapes, t.attributes, t.flops, t.vector_flops,
             t.read_bytes, t.write_bytes]
            for t in graph.op_types
        ],
        "ops": [op.type for op in graph.ops],
        "roles": host_roles(graph),
        "storages": [(s.bytes, s.role, s.born, s.freed) for s in graph.storages],
    }  # fmt: skip


def restored(data: dict[str, Any]) -> Workload:
    types = [
        OpType(name, kind, dtype, _shapes(ins), _shapes(outs), tuple((k, tuple(v)) for k, v in attrs), *numbers)
        for name, kind, dtype, ins, outs, attrs, *numbers in data["types"]
    ]
    storages = [Storage(*s) for s in data["storages"]]
    return workload(data["model"], types, data["ops"], data["roles"], data["parameters"], storages)


def _shapes(shapes: Sequence[Sequence[int]]) -> tuple[tuple[int, ...], ...]:
    return tuple(tuple(s) for s in shapes)


def cached(folder: Path, key: str, trace: Callable[[], BlockGraph]) -> Workload:
    """The workload of that key from `folder`, traced first where it is not there yet."""
    path = folder / f"{key}.json.gz"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        data = saved(trace())
        part = path.with_suffix(f".{os.getpid()}")
        with gzip.open(part, "wt", compresslevel=3) as file:
            json.dump(data, file, separators=(",", ":"))
        part.rename(path)
    try:
        with gzip.open(path, "rt") as file:
            return restored(json.load(file))
    except (OSError, EOFError, ValueError, KeyError, TypeError) as error:
        raise BadFile(f"{path}: no trace that this version wrote: delete it, and it is traced again") from error


def timm_step(name: str, batch: int, size: int, *, channels_last: bool) -> BlockGraph:
    """timm's own benchmark: float16 autocast, cross entropy, backward, SGD with Nesterov momentum, one tensor at a
    time; gradients stay from step to step."""

    def sgd(parameters: Sequence[torch.nn.Parameter]) -> torch.optim.Optimizer:
        return torch.optim.SGD(parameters, lr=0.1, momentum=0.9, nesterov=True, foreach=False)

    x = torch.empty((batch, 3, size, size), device="meta")
    with building_networks():
        timm = _package("timm", "timm==0.6.7 huggingface_hub safetensors")
        model = timm.create_model(name, pretrained=False)
        return traced_on_gpu(model, x, name, "train", sgd, _step(torch.float16, update=True), channels_last)


def torchvision_step(name: str, dtype: str, mode: str, batch: int = 12) -> BlockGraph:
    """The step of pytorch-gpu-benchmark: weights in `dtype` ("float" or "half"), no autocast; training has neither an
    optimizer's step nor its zeroing in the trace."""
    size = 299 if "inception" in name else 224
    half = dtype == "half"
    x = torch.empty((batch, 3, size, size), device="meta", dtype=torch.float16 if half else torch.float32)

    def sgd(parameters: Sequence[torch.nn.Parameter]) -> torch.optim.Optimizer:
        return torch.optim.SGD(parameters, lr=0.1, foreach=False)

    with building_networks():
        torchvision = _package("torchvision", "torchvision")
        model = getattr(torchvision.models, name)(weights=None)
        return traced_on_gpu(model.half() if half else model, x, name, mode, sgd, _step(None, update=False))


def traced_on_gpu(
    model: nn.Module,
    x: torch.Tensor,
    name: str,
    mode: str,
    optimizer: MakeOptimizer,
    step: TrainingStep,
    channels_last: bool = False,
) -> BlockGraph:
    """A step by CUDA's rules, each op a task; in training `step` takes it."""
    rules = DispatchRules(cuda=True, channels_last=channels_last)
    return trace_step(
        model,
        x,
        loop=Loop(optimizer=optimizer, step=step) if mode == "train" else None,
        description=StepDescription(name=name),
        granularity="op",
        rules=rules,
    ).graph


def _step(autocast: torch.dtype | None, update: bool) -> TrainingStep:
    def step(model: nn.Module, inputs: tuple[torch.Tensor, ...], optimizer: torch.optim.Optimizer) -> torch.Tensor:
        with torch.autocast("cpu", dtype=autocast) if autocast else contextlib.nullcontext():
            out = model(*inputs)
            out = out[0] if isinstance(out, tuple) else getattr(out, "logits", out)
            loss = torch.nn.functional.cross_entropy(out, torch.empty(out.shape[0], dtype=torch.long))
        loss.backward()
        if update:
            optimizer.step()
        return loss

    return step


def _package(name: str, wheels: str) -> Any:
    """A package that publishes networks. Raises MissingDependency with how to get it."""
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise MissingDependency(
            f"{name} is not installed: `pip install --no-deps {wheels}`, in an environment of its own with pararev-hw"
        ) from error


_INITIALISATIONS = (
    "kaiming_uniform_ kaiming_normal_ xavier_uniform_ xavier_normal_ normal_ uniform_ trunc_normal_ constant_ "
    "zeros_ ones_ orthogonal_"
).split()
_TORCHVISION_OPERATORS = (
    "nms qnms roi_align _roi_align_backward roi_pool _roi_pool_backward ps_roi_align _ps_roi_align_backward "
    "ps_roi_pool _ps_roi_pool_backward deform_conv2d _deform_conv2d_backward"
).split()


@contextlib.contextmanager
def building_networks() -> Iterator[None]:
    """Lets torchvision be imported with a torch that lacks its operators, and networks be built without drawing their
    weights, of which nothing is used, and without their warnings. Afterwards weights are drawn again."""
    _define_torchvision_operators()
    drawing = {name: getattr(torch.nn.init, name) for name in _INITIALISATIONS}
    try:
        for name in drawing:
            setattr(torch.nn.init, name, lambda tensor, *_, **__: tensor)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for name, function in drawing.items():
            setattr(torch.nn.init, name, function)


@functools.cache
def _define_torchvision_operators() -> Any:
    """What keeps them defined: torch forgets them with it."""
    library = torch.library.Library("torchvision", "DEF")
    for op in _TORCHVISION_OPERATORS:
        with contextlib.suppress(RuntimeError):  # torchvision brought them itself
            library.define(f"{op}(Tensor d) -> Tensor")
    return library
