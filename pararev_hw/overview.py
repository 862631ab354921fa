"""One network of every system of the literature, on one device and the same data: a training step and an inference.

The data are images of 3×32×32 in 10 classes. Networks of sequences read the same image pixel by pixel, 1024 steps of 3
features. Those that read no images (tokens, videos) keep their own data, and say so.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from pararev_hw import models
from pararev_hw.devices import bare_device
from pararev_hw.pipeline import study
from pararev_hw.progress import Progress, silent
from pararev_hw.target_graph import build_graph
from pararev_hw.trace_options import TraceOptions
from pararev_hw.types import Comparison, Hardware, Study

REPRESENTATIVES = (
    "pararevsnn37", "revsresnet37", "msresnet34",
    "pararevsformer_4_384", "revsformer_4_384", "spikingformer_4_384",
    "trevsnn_tiny", "zeromem_resnet18", "ottt_vgg11", "sltt_vgg11", "dsr_preactresnet18", "ptl_vgg11",
    "lru_scifar", "dsf_gru", "neverreset_gru", "neverreset_snn", "video_clstm", "bnn_resnet18",
)  # fmt: skip

_IMAGE, _CLASSES, _PIXELS = (3, 32, 32), 10, 32 * 32


def overview(
    device: Hardware, *, batch: int | None = None, spikes: str = "0.2", progress: Progress = silent
) -> Comparison:
    """Every system's representative on the device, a training step and then an inference of each.

    The firing rate is assumed alike for all (`spikes`, see `build_graph`): untrained networks of different kinds fire
    at rates that say nothing about trained ones.
    """
    return Comparison(bare_device(device), tuple(_studies(device, batch, spikes, progress)))


def _studies(device: Hardware, batch: int | None, spikes: str, progress: Progress) -> Iterator[Study]:
    launch = "graph" if device.kind == "gpu" else "eager"
    for name in REPRESENTATIVES:
        data, note = _data(name)
        for mode in ("train", "infer"):
            graph = build_graph(
                name, TraceOptions(batch=batch, mode=mode, spikes=spikes, **data), device=device, progress=progress
            )
            title = name if mode == "train" else f"{name}, inference"
            graph = replace(graph, model=title, assumptions=(*graph.assumptions, *note))
            # the list schedule alone: which of several is best differs little, and there are many networks
            yield study(graph, device, scheduler="heft", launch=launch, progress=progress)


def _data(name: str) -> tuple[Mapping[str, Any], tuple[str, ...]]:
    """The options that give a network the common data, and what it reads where it cannot."""
    match models.spec(name).layout:
        case "image":
            return {"input_shape": _IMAGE, "num_classes": _CLASSES}, ()
        case "sequence" | "steps":
            return {"input_shape": _IMAGE[:1], "num_classes": _CLASSES, "timesteps": _PIXELS}, ()
        case "tokens":
            return {}, (f"{name} reads tokens, not the images of the others",)
        case _:
            return {}, (f"{name} reads videos of 64×64, not the images of the others",)
