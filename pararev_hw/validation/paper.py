"""Relative figures of the ParaRevSNN paper (arXiv 2508.01223) beside predictions that nothing was fitted to.

Its GPU and batch are unknown, so only ratios are compared: of times and of memory per image, between networks. The
published values are those of its tables; the networks are this package's, with the assumptions listed beside the rows.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch

from pararev_hw import models, pipeline
from pararev_hw.devices import bare_device
from pararev_hw.progress import Progress, silent
from pararev_hw.tracing import StepDescription, optimizer_named, trace_step
from pararev_hw.training.step import Loop
from pararev_hw.types import BlockGraph, Hardware, PaperCheck, PaperRow
from pararev_hw.validation.predicting import optimizer_of

PAPER = "ParaRevSNN, arXiv 2508.01223"
BATCH = 32  # of the RevSNN reference code; the paper does not give its own
EVENT_BATCH = 16  # likewise
LANES = 2  # G_i beside F_{i+1}

_PAIRS: Mapping[int, int] = {21: 1, 37: 2, 69: 4, 117: 7, 165: 10}  # depth -> pairs in each of four stages

# Hours of training on CIFAR-10 by depth: (RevSNN, ParaRevSNN); of MS-ResNet by depth.
_TRAINING_H: Mapping[int, tuple[float, float]] = {
    21: (3.63, 3.55),
    37: (6.45, 5.43),
    69: (10.77, 8.93),
    117: (17.88, 14.72),
    165: (26.08, 21.42),
}
_MS_TRAINING_H: Mapping[int, float] = {18: 3.56, 34: 4.40}
# Microseconds of inference per image and megabytes of memory per image: (MS-ResNet, RevSNN, ParaRevSNN).
_COMPARED: tuple[tuple[int, int], ...] = ((18, 21), (34, 37))  # depth of MS-ResNet beside that of the reversible ones
_INFERENCE_US: Mapping[int, tuple[float, float, float]] = {21: (12.19, 13.44, 12.81), 37: (17.81, 20.00, 17.50)}
_MEMORY_MB: Mapping[int, tuple[float, float, float]] = {21: (58.88, 32.41, 32.41), 37: (103.59, 38.13, 44.00)}
_DEEP_MEMORY_MB: tuple[float, float] = (109.63, 104.72)  # RevSNN, ParaRevSNN, 165 layers
# Hours of training of the 24-layer networks on event data: (data set, T) -> (RevSNN, ParaRevSNN).
_EVENT_TRAINING_H: Mapping[tuple[str, int], tuple[float, float]] = {
    ("CIFAR10-DVS", 10): (0.93, 0.83),
    ("CIFAR10-DVS", 16): (1.00, 0.88),
    ("Gesture", 10): (0.28, 0.27),
    ("Gesture", 16): (0.31, 0.27),
}

_TABLE = "table of static data sets"
_ABLATION = "ablation of depth"
_EVENTS = "table of neuromorphic data sets"

ASSUMPTIONS = (
    "the paper names no GPU: what is predicted is the device named above",
    f"batch {BATCH} on static images and {EVENT_BATCH} on event frames, as in RevSNN's code: the paper gives none",
    "T = 4 on CIFAR-10, stem of stride 1, 64/128/256/448 channels per stream, SGD with momentum, as in RevSNN's code",
    "21, 37, 69, 117, 165 layers are 1, 2, 4, 7, 10 pairs in each of four stages, for both networks",
    "a training step stands for training: loading of data, validation and logging are left out",
    "float32, convolutions in TF32 where the device has it; RevSNN's code trains on event data in mixed precision",
    f"ParaRevSNN in two forms: G_i beside F_(i+1) on {LANES} lanes, and merged into one wider block M on one lane",
    "on 2 lanes the schedule that HEFT finds, which also runs ahead elsewhere and spends memory on it",
    "memory per image is the peak over the batch, weights included, divided by the batch",
)
UNTRACED = (
    "training time reduced by up to 35.2 % (abstract): no table gives it; the largest reduction in them is 17.9 %",
    "inference time reduced by 18.15 % (abstract): no table gives it; the table at 37 layers gives 12.5 %",
)

Mode = Literal["train", "infer"]


@dataclass(frozen=True, slots=True)
class _Cost:
    latency_s: float
    peak_bytes: int


Forms = Mapping[str, Mapping[str, _Cost]]  # form of the network -> way to launch -> cost


def paper_check(device: Hardware, progress: Progress = silent) -> PaperCheck:
    """The paper's relative figures beside those predicted for the device, eager and, on a GPU, as a CUDA graph.

    Raises Infeasible where the device's memory holds one of the steps not at all.
    """
    predictor = _Predictor(device, progress)
    rows = tuple(_rows(predictor))
    return PaperCheck(PAPER, bare_device(device).title, rows, ASSUMPTIONS, UNTRACED)


def _rows(predict: _Predictor) -> Iterator[PaperRow]:
    for depth, (rev_h, para_h) in _TRAINING_H.items():
        para, rev = predict.para(depth, "train"), predict.rev(depth, "train")
        source = _TABLE if depth == 21 else _ABLATION
        yield from _times("training time", f"ParaRevSNN{depth} / RevSNN{depth}", source, para_h / rev_h, para, rev)
    for ms_depth, depth in _COMPARED:
        rev, ms = predict.rev(depth, "train"), predict.ms(ms_depth, "train")
        published = _TRAINING_H[depth][0] / _MS_TRAINING_H[ms_depth]
        yield from _times("training time", f"RevSNN{depth} / MS-ResNet{ms_depth}", _TABLE, published, rev, ms)
    for (data, steps), (rev_h, para_h) in _EVENT_TRAINING_H.items():
        para, rev = predict.events("pararevsnn24_dvs", steps), predict.events("revsresnet24_dvs", steps)
        ratio = f"ParaRevSNN24 / RevSNN24, {data}, T {steps}"
        yield from _times("training time", ratio, _EVENTS, para_h / rev_h, para, rev)
    for ms_depth, depth in _COMPARED:
        ms, rev, para = predict.ms(ms_depth, "infer"), predict.rev(depth, "infer"), predict.para(depth, "infer")
        ms_us, rev_us, para_us = _INFERENCE_US[depth]
        yield from _times("inference time", f"ParaRevSNN{depth} / RevSNN{depth}", _TABLE, para_us / rev_us, para, rev)
        yield from _times("inference time", f"RevSNN{depth} / MS-ResNet{ms_depth}", _TABLE, rev_us / ms_us, rev, ms)
    for ms_depth, depth in _COMPARED:
        ms, rev, para = predict.ms(ms_depth, "train"), predict.rev(depth, "train"), predict.para(depth, "train")
        ms_mb, rev_mb, para_mb = _MEMORY_MB[depth]
        yield from _peaks(f"RevSNN{depth} / MS-ResNet{ms_depth}", _TABLE, rev_mb / ms_mb, rev, ms)
        yield from _peaks(f"ParaRevSNN{depth} / MS-ResNet{ms_depth}", _TABLE, para_mb / ms_mb, para, ms)
        yield from _peaks(f"ParaRevSNN{depth} / RevSNN{depth}", _TABLE, para_mb / rev_mb, para, rev)
    rev, para = predict.rev(165, "train"), predict.para(165, "train")
    rev_mb, para_mb = _DEEP_MEMORY_MB
    yield from _peaks("ParaRevSNN165 / RevSNN165", _ABLATION, para_mb / rev_mb, para, rev)
    yield from _peaks("RevSNN165 / RevSNN37", _ABLATION, rev_mb / _MEMORY_MB[37][1], rev, predict.rev(37, "train"))


def _times(quantity: str, ratio: str, source: str, published: float, above: Forms, below: Forms) -> Iterator[PaperRow]:
    """A row per form of the network above; both sides are launched the same way."""
    base = below[""]
    for form, costs in above.items():
        predicted = {launch: cost.latency_s / base[launch].latency_s for launch, cost in costs.items()}
        yield PaperRow(quantity, ratio, form, source, published, predicted)


def _peaks(ratio: str, source: str, published: float, above: Forms, below: Forms) -> Iterator[PaperRow]:
    """Likewise of peak memory per image, which does not depend on who launches."""
    base = below[""]["eager"].peak_bytes
    for form, costs in above.items():
        yield PaperRow("memory per image", ratio, form, source, published, {"": costs["eager"].peak_bytes / base})


class _Predictor:
    """Predicted costs of the paper's networks on one device, each network traced once."""

    def __init__(self, device: Hardware, progress: Progress) -> None:
        self.device = device
        self.progress = progress
        self.launches = ("eager", "graph") if device.kind == "gpu" else ("eager",)
        self._cache: dict[tuple[Any, ...], Mapping[str, _Cost]] = {}

    def ms(self, depth: int, mode: Mode) -> Forms:
        return {"": self._cached_costs(f"msresnet{depth}", mode)}

    def rev(self, depth: int, mode: Mode) -> Forms:
        return {"": self._cached_costs("revsresnet21", mode, pairs=_PAIRS[depth])}

    def para(self, depth: int, mode: Mode) -> Forms:
        return self._both_forms("pararevsnn21", mode, pairs=_PAIRS[depth])

    def events(self, name: str, steps: int) -> Forms:
        if name.startswith("para"):
            return self._both_forms(name, "train", steps=steps)
        return {"": self._cached_costs(name, "train", steps=steps)}

    def _both_forms(self, name: str, mode: Mode, **shape: int) -> Forms:
        forms = {"merged": self._cached_costs(name, mode, form="merged", **shape)}
        if self.device.kind == "gpu" or self.device.lanes >= LANES:
            forms = {f"{LANES} lanes": self._cached_costs(name, mode, lanes=LANES, **shape)} | forms
        return forms

    def _cached_costs(self, name: str, mode: Mode, lanes: int = 1, **shape: Any) -> Mapping[str, _Cost]:
        key = (name, mode, lanes, *sorted(shape.items()))
        if key not in self._cache:
            self._cache[key] = self._costs(name, mode, lanes, **shape)
        return self._cache[key]

    def _costs(self, name: str, mode: Mode, lanes: int, **shape: Any) -> Mapping[str, _Cost]:
        graph = _traced(name, mode, self.device.kind, self.progress, **shape)
        scheduler = "sequential" if lanes == 1 else "heft"
        cost_by_launch = {}
        for launch in self.launches:
            prediction = pipeline.predict(pipeline.plan(graph, self.device, scheduler, lanes=lanes, launch=launch))
            cost_by_launch[launch] = _Cost(prediction.latency_s, prediction.peak_bytes)
        return cost_by_launch


def _traced(
    name: str,
    mode: Mode,
    kind: str,
    progress: Progress,
    *,
    pairs: int | None = None,
    steps: int | None = None,
    form: str = "unfused",
) -> BlockGraph:
    spec = models.spec(name)
    options: dict[str, Any] = {"num_classes": 10}
    options |= {} if pairs is None else {"blocks": (pairs,) * len(spec.blocks)}
    options |= {} if steps is None else {"timesteps": steps}
    options |= {} if form == "unfused" else {"form": form}
    depth = spec.depth if pairs is None else 5 + 4 * sum(options["blocks"])
    progress(f"predicting {spec.family} of {depth} layers, {mode}")
    with torch.device("meta"):
        network = models.create(name, **options)
        timesteps = steps or spec.timesteps
        batch = EVENT_BATCH if spec.event else BATCH
        x = torch.empty((timesteps, batch, *spec.input_shape) if spec.event else (batch, *spec.input_shape))
    optimizer = optimizer_named(optimizer_of(kind))
    return trace_step(
        network,
        x,
        loop=Loop(optimizer=optimizer) if mode == "train" else None,
        description=StepDescription(name=name, batch=batch, timesteps=timesteps),
    ).graph
