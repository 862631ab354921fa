"""Published times of kernels and networks on GPUs, as samples that a fit can use: one block per card and table.

The tables stand in a folder of their own (`--data`): see its README for sources, licences and pitfalls. A table that is
missing is named and left out.
"""

from __future__ import annotations

import hashlib
import math
import random
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.sparse import csr_array
from torch import nn

from pararev_hw.costmodels.gpu.kernel_time import Tiles
from pararev_hw.costmodels.gpu.kernels import Kernel, kernels, softmax_class
from pararev_hw.types import BlockGraph, OpType
from pararev_hw.validation.published import TORCHVISION_CARDS, family, rows_of
from pararev_hw.validation.published_networks import Workload, cached, timm_step, torchvision_step, traced_on_gpu

Values = Mapping[str, float]
Combined = tuple[np.ndarray, csr_array]


def unrolled_lif(timesteps: int, elements: int, mode: str) -> BlockGraph:
    """SpikingJelly's multi-step LIF neuron in torch, unrolled over time: v += (x[t] - v) / tau, a spike where v passes
    the threshold (arctan surrogate), a hard reset; its training step is forward and backward, nothing else."""

    class Spike(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: Any) -> Any:
            ctx.save_for_backward(x)
            return (x >= 0).to(x)

        @staticmethod
        def backward(ctx: Any, gradient: Any) -> Any:
            (x,) = ctx.saved_tensors
            return gradient / (1 + (np.pi * x).pow_(2))

    class Lif(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.unused = nn.Parameter(torch.ones(1))  # a step needs an optimizer, and that a parameter

        def forward(self, x: Any) -> Any:
            v: Any = 0.0
            spikes = []
            for t in range(x.shape[0]):
                v = v + (x[t] - v) / 2.0
                spike = Spike.apply(v - 1.0)
                v = (1.0 - spike) * v
                spikes.append(spike.unsqueeze(0))
            return torch.cat(spikes, 0)

    def step(model: Any, inputs: Any, _: Any) -> Any:
        out = model(torch.empty_like(inputs[0]).requires_grad_())
        out.sum().backward()
        return out

    def sgd(parameters: Sequence[nn.Parameter]) -> torch.optim.Optimizer:
        return torch.optim.SGD(parameters, lr=0.1, foreach=False)

    x = torch.empty((timesteps, elements), device="meta")
    return traced_on_gpu(Lif(), x, f"lif-{timesteps}", mode, sgd, step)


@dataclass
class Block:
    """Measurements on one card, of samples that are sums over kernels.

    `combine(seconds, value)` gives the predicted seconds of each sample and their derivatives by those of each kernel.
    `extra` names the parameters that `combine` uses beyond the kernels' own. `tags` are what a sample is called,
    `groups` what it is counted under.
    """

    name: str
    card: str
    kernels: tuple[Kernel, ...]
    measured: np.ndarray
    held_out: np.ndarray
    combine: Callable[[np.ndarray, Values], Combined]
    weight: float
    tags: tuple[str, ...]
    groups: tuple[str, ...]
    extra: tuple[str, ...] = ()
    launch: str = "launch_overhead_s"
    workloads: tuple[Workload, ...] = field(default=())
    tiles: Tiles = ()  # that products could take, of a library that is not today's


def chosen_by_hash(text: str, share: float = 0.3) -> bool:
    """The same choice in every run, for a row or a family."""
    return int(hashlib.md5(text.encode()).hexdigest(), 16) % 1000 < 1000 * share


def _strides_free(name: str, kind: str, dtype: str, inputs: Sequence[tuple[int, ...]], out: tuple[int, ...],
                  attributes: Sequence[tuple[str, tuple[int, ...]]], moved: int) -> OpType:  # fmt: skip
    return OpType(name, kind, dtype, tuple(inputs), (out,), tuple(sorted(attributes)), 1, 0, moved, 0)


def _one_each(seconds: np.ndarray, _: Values) -> Combined:
    n = len(seconds)
    return seconds, csr_array((np.ones(n), (np.arange(n), np.arange(n))), shape=(n, n))


_LONGEST_CALL_S = 0.05  # longer ones are of matrices of gigabytes, and heat boards without fans
_BEFORE = "dispatch.before"
_COOL_S, _WARM_S = 1e-3, 0.1  # a call so short keeps its clocks; a card's rates are those of runs so long


def _above(floor: str, throttling: str = "", *speeds: str) -> Callable[[np.ndarray, Values], Combined]:
    """A call on an idle stream takes as long as the host needs to dispatch it, if that is longer than the share of it
    that goes by before the launch, and the kernel.

    `throttling`: the power of its seconds with which a call of much arithmetic slows down, as power and heat lower the
    clocks; `speeds`: how fast the board measured is, over others of the same card, and an algorithm taken without a
    search, over the fastest.
    """

    def combine(seconds: np.ndarray, value: Values) -> Combined:
        n, low = len(seconds), value[floor]
        power = value[throttling] if throttling else 0.0
        speed = math.prod(value[name] for name in speeds)
        slower = ((1 + seconds / _COOL_S) / (1 + _WARM_S / _COOL_S)) ** power / speed
        slope = slower * (1 + power * seconds / (_COOL_S + seconds))
        ended = seconds * slower + low * value[_BEFORE]
        whole = (ended**4 + low**4) ** 0.25
        return whole, csr_array(((ended / whole) ** 3 * slope, (np.arange(n), np.arange(n))), shape=(n, n))

    return combine


_POWER_LIMITED = ("p4", "t4")  # boards without power for their peak
_DEEPBENCH = {"V100": "v100-sxm2", "T4": "t4", "P100": "p100", "1080Ti": "gtx1080ti"}
_OF_CUDA_8 = ("p100", "gtx1080ti")  # DeepBench's sheets of 2017
_MAXWELL_TILES = ((128, 128), (64, 128), (128, 64), (32, 128), (128, 32), (64, 64))  # of kernels named maxwell_sgemm
_LEAST_TILE = 32
_NEUSIGHT = {
    "Tesla P100-PCIE-16GB": "p100", "Tesla V100-PCIE-32GB": "v100", "Tesla T4": "t4",
    "NVIDIA A100-PCIE-40GB": "a100", "Tesla P4": "p4",
}  # fmt: skip


def deepbench_convolutions(data: Path) -> list[Block]:
    samples: dict[tuple[str, str], list[tuple[Kernel, float, str, bool]]] = {}
    for row in rows_of(data / "deepbench-conv.csv"):
        whole = {name: int(float(value)) for name, value in row.items() if re.fullmatch(r"-?[\d.]+", value or "")}
        card, dtype = _card(row["file"], _DEEPBENCH), "float32" if row["precision"] == "Float" else "float16"
        if card is None or (dtype == "float16" and card in ("p100", "gtx1080ti")):
            continue  # without tensor cores "pseudo FP16" is a mode of its own
        n, c, h, w, k = (whole[name] for name in "NCHWK")
        s, r = whole["S_filter_w"], whole["R_filter_h"]
        pads, strides = (whole["pad_h"], whole["pad_w"]), (whole["stride_h"], whole["stride_w"])
        p, q = (h + 2 * pads[0] - r) // strides[0] + 1, (w + 2 * pads[1] - s) // strides[1] + 1
        x, y, weight = (n, c, h, w), (n, k, p, q), (k, c, r, s)
        attributes = (("stride", strides), ("padding", pads), ("groups", (1,)), ("dilation", (1, 1)))
        forward = _strides_free("aten.convolution.default", "conv", dtype, (x, weight), y, attributes, 1)
        backward = _strides_free(
            "aten.convolution_backward.default", "conv_backward", dtype, (y, x, weight), x,
            (*attributes, ("output_mask", (1, 1, 0))), 1,
        )  # fmt: skip
        work = (*kernels(forward), *kernels(backward))
        held = chosen_by_hash(f"{x}{weight}{strides}")
        for kernel, column in zip(work, ("fwd_ms", "bwd_in_ms", "bwd_par_ms"), strict=True):
            if row[column] and float(row[column]) > 0:
                samples.setdefault((card, dtype), []).append((kernel, float(row[column]) / 1e3, kernel.kind, held))
    return [_block(f"DeepBench convolutions {dtype}", card, s, 0.8) for (card, dtype), s in samples.items()]


def deepbench_products(data: Path) -> list[Block]:
    samples: dict[tuple[str, str], list[tuple[Kernel, float, str, bool]]] = {}
    for row in rows_of(data / "deepbench-gemm.csv"):
        card, dtype = _card(row["file"], _DEEPBENCH), "float32" if row["precision"] == "Float" else "float16"
        if "Int8" in row["precision"] or card is None or (dtype == "float16" and card in ("p100", "gtx1080ti")):
            continue
        m, n, k = (int(float(row[name])) for name in "MNK")
        seconds = float(row["ms"] or 0) / 1e3
        if seconds > 0:
            kernel = product(1, m, n, k, dtype)
            held = chosen_by_hash(f"{m} {n} {k} {row['ta']}{row['tb']}")
            samples.setdefault((card, dtype), []).append((kernel, seconds, "product", held))
    blocks = [_block(f"DeepBench products {dtype}", card, s, 0.8) for (card, dtype), s in samples.items()]
    return [_of_cublas_8(b) if b.card in _OF_CUDA_8 else b for b in blocks]


def _of_cublas_8(b: Block) -> Block:
    """Products that cuBLAS of 2017 did: with all of its tiles, and at a speed of its own where the result is narrower
    than any of them."""
    narrow = np.array([min(k.m, k.n) < _LEAST_TILE for k in b.kernels])

    def combine(seconds: np.ndarray, value: Values) -> Combined:
        speed = np.where(narrow, value["cublas_8.narrow"], 1.0)
        whole, slope = _one_each(seconds / speed, value)
        return whole, slope.multiply(1 / speed[:, None])

    return replace(b, combine=combine, extra=("cublas_8.narrow",), tiles=_MAXWELL_TILES)


def product(batch: int, m: int, n: int, k: int, dtype: str) -> Kernel:
    """A matrix product of column-major or row-major operands: what its kernel is."""
    item = 4 if dtype == "float32" else 2
    left, right = ((batch, m, k), (batch, k, n)) if batch > 1 else ((m, k), (k, n))
    moved = item * batch * (m * k + k * n + m * n)
    return kernels(_strides_free("aten.mm.default", "gemm", dtype, (left, right), (m, n), (), moved))[0]


def neusight(data: Path, per_op: int) -> list[Block]:
    """Samples of single ops in float32, at most `per_op` of each op and card."""
    blocks: list[Block] = []
    vector = _sampled(data / "neusight-vector-fp32.csv.gz", lambda r: (r["gpu"], r["op"]), per_op)
    for (gpu, op), rows in vector.items():
        if op == "pow":
            continue  # bound by arithmetic that the law does not hold
        kind = "layer_norm" if op == "ln" else "elementwise"
        reads = 1 if op.endswith("u") or op in ("relu", "gelu", "tanh", "softmax", "ln") else 2
        samples = [
            (
                Kernel(
                    softmax_class(int(r["H"]), 4) if op == "softmax" else kind,
                    4 * int(r["B"]) * int(r["H"]) * (reads + 1),
                ),
                float(r["ms"]) / 1e3,
                op,
                _row_held(r),
            )
            for r in rows
        ]
        blocks.append(_block(f"NeuSight {op}", _NEUSIGHT[gpu], samples, 0.35, (f"call_s.{_NEUSIGHT[gpu]}.{op}",)))
    products = _sampled(data / "neusight-gemm-fp32.csv.gz", lambda r: (r["gpu"], r["op"]), 3 * per_op)
    for (gpu, op), rows in products.items():
        samples = []
        for r in rows:
            batch, m, k, n = (int(r[name]) for name in "BMNK")  # torch.bmm of [B, M, N] and [B, N, K], Linear(N, K)
            rows_m = m if op == "bmm" else m * batch
            kernel = product(batch if op == "bmm" else 1, rows_m, n, k, "float32")
            if float(r["ms"]) / 1e3 < _LONGEST_CALL_S:
                samples.append((kernel, float(r["ms"]) / 1e3, op, _row_held(r)))
        blocks.append(_block(f"NeuSight {op}", _NEUSIGHT[gpu], samples, 0.6, _single_call(_NEUSIGHT[gpu], op)))
    for gpu, rows in _sampled(data / "neusight-conv3x3-fp32.csv.gz", lambda r: r["gpu"], 3 * per_op).items():
        samples = []
        for r in rows:
            b, c, o, size, stride, pad, k = (int(r[n]) for n in ("B", "ic", "oc", "in_hw", "stride", "pad", "k"))
            out = (size + 2 * pad - k) // stride + 1
            attributes = (("stride", (stride, stride)), ("groups", (1,)))
            t = _strides_free(
                "aten.convolution.default", "conv", "float32", ((b, c, size, size), (o, c, k, k)), (b, o, out, out),
                attributes, 1,
            )  # fmt: skip
            samples.append((kernels(t)[0], float(r["ms"]) / 1e3, "conv", _row_held(r)))
        blocks.append(_block("NeuSight conv", _NEUSIGHT[gpu], samples, 0.5, _single_call(_NEUSIGHT[gpu], "conv")))
    return blocks


def _single_call(card: str, op: str) -> tuple[str, ...]:
    """Names of a single call's floor, of its throttling where the board's power binds ("" elsewhere: rates of V100,
    P100 and A100 do not fall with a call's length), and of its speeds: the board's is told apart where others measured
    one too."""
    speeds = [f"board.{card}"] if card in _DEEPBENCH.values() else []
    if op == "conv":
        speeds.append("searched.no")
    return f"call_s.{card}.{op}", f"throttling.{card}" if card in _POWER_LIMITED else "", *speeds


def _sampled(path: Path, key: Callable[[dict[str, str]], object], most: int) -> dict[object, list[dict[str, str]]]:
    groups: dict[object, list[dict[str, str]]] = {}
    for row in rows_of(path):
        groups.setdefault(key(row), []).append(row)
    draw = random.Random(3)
    return {k: draw.sample(rows, most) if len(rows) > most else rows for k, rows in sorted(groups.items(), key=str)}


def _row_held(row: Mapping[str, str]) -> bool:
    return chosen_by_hash(repr(sorted(row.items())))


def _card(file: str, cards: Mapping[str, str]) -> str | None:
    return cards.get(file.rpartition("_")[2].removesuffix(".xlsx"))


def _block(
    name: str, card: str, samples: Sequence[tuple[Kernel, float, str, bool]], weight: float, call: Sequence[str] = ()
) -> Block:
    work, seconds, groups, held = zip(*samples, strict=True)
    return Block(
        name=f"{name}, {card}",
        card=card,
        kernels=tuple(work),
        measured=np.array(seconds),
        held_out=np.array(held),
        combine=_above(*call) if call else _one_each,
        weight=weight * 12 / math.sqrt(len(seconds)),
        tags=tuple(groups),
        groups=tuple(groups),
        extra=tuple(name for name in (*call, _BEFORE if call else "") if name),
        launch="launch_overhead_s",
    )


def timm_steps(data: Path, traces: Path, layout: str, names: Sequence[str] | None = None) -> list[Block]:
    """Training steps of timm's networks on an RTX 3090. `names` None: those that are traced already."""
    path = data / f"timm-train-amp-{layout}-rtx3090.csv"
    rows = {row["model"]: row for row in rows_of(path)}
    folder = traces / f"timm-{layout}"
    if names is None:
        names = sorted(n.name.removesuffix(".json.gz") for n in folder.glob("*.json.gz"))
    steps = []
    for name in names:
        row = rows[name]
        batch, size = int(row["train_batch_size"]), int(row["train_img_size"])

        def trace(name: str = name, batch: int = batch, size: int = size):
            return timm_step(name, batch, size, channels_last=layout == "nhwc")

        steps.append(cached(folder, name, trace))
    if not steps:
        return []
    scarce = math.sqrt(100 / max(100, len(steps)))  # as much weight in all, however many are traced
    return [
        Block(
            name=f"timm training steps, {layout}, rtx3090",
            card="rtx3090",
            kernels=_distinct(steps),
            measured=np.array([float(rows[n]["train_step_time"]) / 1e3 for n in names]),
            held_out=np.array([chosen_by_hash(family(n), 0.2) for n in names]),
            combine=_eager(steps, "host.rtx3090", {}),
            weight=(12.0 if layout == "nchw" else 8.0) * scarce,
            tags=tuple(names),
            groups=tuple(family(n) for n in names),
            extra=("host.rtx3090", *HOST_EXTRA),
            workloads=tuple(steps),
        )
    ]


HOST_EXTRA = tuple(f"host_factor.{role}" for role in ("backward", "accumulation", "update", "view"))


def torchvision_steps(data: Path, traces: Path) -> list[Block]:
    """Steps at batch 12, training (without an optimizer) and inference, float and half."""
    groups: dict[tuple[str, str, str], list[dict[str, str]]] = {}
    for row in rows_of(data / "torchvision-batch12.csv"):
        if row["gpu"] in TORCHVISION_CARDS:
            dtype = "half" if row["dtype"] == "half" else "float"
            groups.setdefault((row["gpu"], dtype, row["mode"]), []).append(row)
    blocks = []
    for (gpu, dtype, mode), rows in groups.items():
        card, host = TORCHVISION_CARDS[gpu]
        host = host.removeprefix("published-")
        steps = [
            cached(
                traces / "torchvision",
                f"{row['net']}-{dtype}-{mode}",
                lambda row=row, dtype=dtype, mode=mode: torchvision_step(row["net"], dtype, mode),
            )
            for row in rows
        ]
        item = 2 if dtype == "half" else 4
        copied = item * 12 * 3 * 224 * 224
        factor = {"inference": f"host_inference.{host}"}
        names = [row["net"] for row in rows]
        blocks.append(
            Block(
                name=f"torchvision {mode} {dtype}, {card} on host {host}",
                card=card,
                kernels=_distinct(steps),
                measured=np.array([float(row["median_ms"]) / 1e3 for row in rows]),
                held_out=np.array([chosen_by_hash(family(n)) for n in names]),
                combine=_eager(steps, f"host.{host}", factor, copied, f"copy.{host}"),
                weight=3.0,
                tags=tuple(names),
                groups=tuple(family(n) for n in names),
                extra=(f"host.{host}", f"copy.{host}", f"host_inference.{host}", *HOST_EXTRA),
                workloads=tuple(steps),
            )
        )
    return blocks


def spikingjelly_neurons(data: Path, traces: Path) -> list[Block]:
    """The unrolled multi-step LIF neuron in torch on an RTX 2080 Ti, forward alone and with backward."""
    rows = [r for r in rows_of(data / "spikingjelly-neuron-times.csv") if r["backend"] == "torch"]
    workloads, names = [], []
    for row in rows:
        mode, steps, size = "train" if "bwd" in row["pass"] else "infer", int(row["T"]), int(row["numel_per_step"])
        names.append(f"T {steps}, {mode}")

        def trace(steps: int = steps, size: int = size, mode: str = mode) -> BlockGraph:
            return unrolled_lif(steps, size, mode)

        workloads.append(cached(traces / "spikingjelly", f"lif-{steps}-{mode}", trace))
    return [
        Block(
            name="SpikingJelly's unrolled neuron, rtx2080ti",
            card="rtx2080ti",
            kernels=_distinct(workloads),
            measured=np.array([float(r["ms"]) / 1e3 for r in rows]),
            held_out=np.array([int(r["T"]) in (32, 128) for r in rows]),
            combine=_eager(workloads, "host.spikingjelly", {}),
            weight=6.0,
            tags=tuple(names),
            groups=tuple(f"T {r['T']}" for r in rows),
            extra=("host.spikingjelly", *HOST_EXTRA),
            workloads=tuple(workloads),
        )
    ]


def _distinct(workloads: Sequence[Workload]) -> tuple[Kernel, ...]:
    return tuple(dict.fromkeys(kernel for w in workloads for kernel in w.kernels))


def _eager(
    workloads: Sequence[Workload], host: str, factors: Mapping[str, str], copied_bytes: int = 0, copy_rate: str = ""
) -> Callable[[np.ndarray, Values], Combined]:
    """An eager step on one stream: the device runs an op when the host has issued it and the one before is done.

    step = max over ops k of (host time until k is issued + device time from k on)
    """
    index = {kernel: k for k, kernel in enumerate(_distinct(workloads))}
    places = [np.array([index[kernel] for kernel in w.kernels], np.int64) for w in workloads]
    roles = [np.array([_ROLES.index(r) for r in w.roles]) for w in workloads]
    n_kernels = len(index)

    def combine(seconds: np.ndarray, value: Values) -> Combined:
        base = value[host]
        per_role = base * np.array(
            [value[factors[r]] if r in factors else value.get(f"host_factor.{r}", 1.0) for r in _ROLES]
        )
        whole, data, columns, rows = [], [], [], []
        for i, (w, at, role) in enumerate(zip(workloads, places, roles, strict=True)):
            device = w.launches @ seconds[at]
            issued = np.cumsum(per_role[role])
            if copied_bytes:
                issued = issued + copied_bytes / value[copy_rate]
            ended = np.cumsum(device)
            start = np.where(device > 0, issued - (ended - device), -np.inf)
            k = int(np.argmax(start))
            whole.append(ended[-1] + max(start[k], 0.0))
            counts = np.asarray(w.launches[k:].sum(axis=0)).reshape(-1) if start[k] > 0 and k else w.counts
            data.append(counts)
            columns.append(at)
            rows.append(np.full(len(at), i))
        jacobian = csr_array(
            (np.concatenate(data), (np.concatenate(rows), np.concatenate(columns))), shape=(len(workloads), n_kernels)
        )
        return np.array(whole), jacobian

    return combine


_ROLES = ("forward", "inference", "backward", "accumulation", "update", "view")
