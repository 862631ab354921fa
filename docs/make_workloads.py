"""Write docs/workloads/: a page per system of the literature, from its module, its traces and what was published.

`python docs/make_workloads.py` takes some minutes (`--pages`: without the comparison of all); nothing in it
is measured on a clock.
"""

from __future__ import annotations

import inspect
import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from types import ModuleType

from pararev_hw import models, reports
from pararev_hw.graph import critical_path
from pararev_hw.models.systems import (
    binary,
    dsr,
    feedback,
    lru,
    neverreset,
    online,
    spikformer,
    tandem,
    trevsnn,
    video,
    zeromem,
)
from pararev_hw.overview import overview
from pararev_hw.pipeline import find_device, study
from pararev_hw.reports import units
from pararev_hw.target_graph import build_graph
from pararev_hw.trace_options import TraceOptions
from pararev_hw.types import BlockGraph, Comparison

FOLDER = Path(__file__).parent / "workloads"
NOTE = "<!-- written by docs/make_workloads.py: change the code, then run it again -->"
DEVICES = ("h200", "edge8")


@dataclass(frozen=True)
class Page:
    """A system: its module, the networks that are shown, and what its authors published, with the source."""

    name: str
    title: str
    module: ModuleType
    networks: tuple[str, ...]
    published: tuple[tuple[str, str], ...]
    times: tuple[int, int] = (4, 8)  # time steps between which growth is measured
    note: str = ""


PAGES = (
    Page(
        "spiking-transformers", "RevSFormer, ParaRevSFormer, Spikingformer", spikformer,
        ("revsformer_2_384", "revsformer_4_384", "pararevsformer_4_384", "spikingformer_4_384"),
        (("RevSFormer-2-384: 5.76 M parameters, CIFAR-10 95.29 %, CIFAR-100 78.04 %", "README of the RevSNN code"),
         ("RevSFormer-4-384: 9.32 M parameters, CIFAR-10 95.34 %, CIFAR-100 79.04 %", "README of the RevSNN code"),
         ("3.00 times less GPU memory per image than its counterpart (4-384)", "arXiv 2312.07922, abstract")),
    ),
    Page(
        "t-revsnn", "T-RevSNN", trevsnn, ("trevsnn_tiny", "trevsnn_small", "trevsnn_tiny_dvs"),
        (("memory divided by 8.6, training time by 2.0, inference energy by 1.6", "arXiv 2405.16466, abstract"),
         ("'small', 512 images of 224×224 per GPU, mixed precision: peak 44,790 MB", "log in the published code")),
        note="Training is four times the inference, and shows as more: torch's counter, which these MACs follow, takes "
        "the weight gradients of depthwise convolutions for those of dense ones.",
    ),
    Page(
        "zero-memory", "Zero-memory-footprint training", zeromem, ("zeromem_vgg11", "zeromem_resnet18"),
        (("a neuron's memory 58.65 times smaller; training time 23.8 % below reversible layers",
          "arXiv 2308.08649, abstract"),),
    ),
    Page(
        "online-training", "OTTT and SLTT", online, ("ottt_vgg11", "sltt_vgg11", "ottt_vgg11_dvs"),
        (("OTTT: training memory that does not grow with T", "arXiv 2210.04195, abstract"),
         ("SLTT on ImageNet: memory more than 70 % and time more than 50 % below BPTT", "ICCV 2023, abstract")),
        (3, 12),
    ),
    Page(
        "dsr", "DSR", dsr, ("dsr_preactresnet18", "dsr_vgg11_dvs"),
        (("CIFAR-10, T = 5: about 94.45 %", "README of the published code"),), (5, 20),
    ),
    Page(
        "tandem", "Progressive tandem learning", tandem,
        ("ptl_alexnet_stage1", "ptl_alexnet_stage3", "ptl_alexnet", "ptl_vgg11"),
        (("at least an order of magnitude fewer time steps and synaptic operations than other SNNs",
          "arXiv 2007.01204, abstract"),), (4, 16),
    ),
    Page(
        "lru", "LRU", lru, ("lru_scifar",),
        (("sequential CIFAR-10: 89.0 %", "Papers with Code, row of arXiv 2303.06349"),), (256, 1024),
    ),
    Page(
        "state-feedback", "DSF", feedback, ("dsf_gru", "dsf_gru_bptt", "dsf_gru_truncated", "dsf_lstm", "dsf_rnn"),
        (("perplexity close to BPTT's on PTB and WikiText-103, better than full truncation: no figures were found",
          "arXiv 2503.23104, abstract"),), (64, 256),
    ),
    Page(
        "never-reset", "Never reset again", neverreset, ("neverreset_gru", "neverreset_snn"),
        (("no figures were found", "arXiv 2412.15983"),), (32, 128),
    ),
    Page(
        "video", "Learned video prediction", video, ("video_fcnn", "video_crnn", "video_clstm"),
        (("FCNN has the best PSNR; the CRNN needs an order of magnitude less inference time",
          "arXiv 2008.06106, abstract"),), (9, 33),
    ),
    Page(
        "binary", "Distilled binary networks", binary, ("bnn_resnet18",),
        (("ImageNet top-1 60.45 %", "arXiv 2007.05223, abstract"),
         ("binary operations 1,676,279,808 and full-precision ones 137,793,536 at 224×224, counted as BOPs/64 + FLOPs",
          "convention of Bi-Real Net; the counts are reproduced by a test")), (1, 1),
        note="Inference counts full-precision MACs alone; its binary convolutions stand under XNOR operations. "
        "Training runs in full precision, the teacher beside it.",
    ),
)  # fmt: skip


def traced(name: str, mode: str = "train", timesteps: int | None = None) -> BlockGraph:
    batch = 1 if models.spec(name).input_shape[-1:] == (224,) else 8
    return build_graph(name, TraceOptions(batch=batch, mode=mode, timesteps=timesteps, spikes="0.2"))  # type: ignore[arg-type]


def macs(graph: BlockGraph) -> int:
    return sum(t.macs for t in graph.tasks)


def made_by_the_step(graph: BlockGraph) -> int:
    """The most bytes of activations, their gradients and temporaries that are alive at once."""
    changes: dict[int, int] = {}
    for s in graph.storages:
        if s.role in ("saved", "recomputed", "cotangent", "transient"):
            changes[s.born] = changes.get(s.born, 0) + s.bytes
            changes[s.freed + 1] = changes.get(s.freed + 1, 0) - s.bytes
    return max(accumulate(changes[at] for at in sorted(changes)))


def exponent(name: str, times: tuple[int, int]) -> str:
    """The power of T with which the memory of a step grows, between two values of T."""
    if times[0] == times[1]:
        return "-"
    few, many = (made_by_the_step(traced(name, timesteps=t)) for t in times)
    return f"T^{math.log(many / few) / math.log(times[1] / times[0]):.2f} ({times[0]} to {times[1]})"


def table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = ["| " + " | ".join(row) + " |" for row in (heads, ["---"] * len(heads), *rows)]
    return "\n".join(lines)


def row(name: str, times: tuple[int, int]) -> list[str]:
    train, infer = traced(name), traced(name, "infer")
    path = critical_path(train).by_phase
    longest = ", ".join(f"{phase} {len(tasks)}" for phase, tasks in path.items() if phase != "update")
    forward = macs(infer)
    return [
        f"`{name}`",
        f"{train.parameters:,}",
        units.count(forward / train.batch),
        f"{macs(train) / forward:.2f}",
        units.size(made_by_the_step(train)),
        exponent(name, times),
        f"{len(train.tasks)}: {longest}",
    ]


def page(p: Page) -> str:
    doc = inspect.getdoc(p.module) or ""
    assumed = dict.fromkeys(a for name in p.networks for a in models.spec(name).assumptions)
    heads = (
        "network", "parameters", "MACs of inference, per sample", "training MACs / inference MACs",
        "memory of a step", "growing as", "tasks, and those on the longest path",
    )  # fmt: skip
    batch = "1 (224×224)" if models.spec(p.networks[0]).input_shape[-1:] == (224,) else "8"
    parts = [
        f"# {p.title}",
        NOTE,
        f"```text\n{doc}\n```",
        "## Cost",
        f"Training step at batch {batch}, default shapes and T, SGD with momentum, from the trace. The memory of a "
        "step is the peak of activations, their gradients and temporaries. Tasks are blocks; the longest path is by "
        "the work of its tasks.",
        table(heads, [row(name, p.times) for name in p.networks]),
        *([p.note] if p.note else []),
        f"![The tasks of a training step of {p.networks[0]}, and what flows between them.](figures/{p.name}.svg)",
        "## Published",
        table(("figure", "source"), p.published),
        "## Assumed",
        "\n".join(f"- {a}" for a in assumed) or "Nothing: all is as in the published code.",
        "## Try it",
        "<!-- illustrative: takes up to a minute -->\n"
        f"```console\n$ pararev-hw report {p.networks[0]} --device edge8 --batch 4 -o out/\n```",
    ]
    return "\n\n".join(parts) + "\n"


def figure(p: Page) -> str:
    """The tasks of a small twin of the first network: the same graph, read more easily."""
    name, steps = p.networks[0], p.times[0]
    spec = models.spec(name)
    sample = (spec.input_shape[0], 32, 32) if len(spec.input_shape) == 3 else None
    graph = build_graph(
        name, TraceOptions(batch=2, width=1 / 8, timesteps=max(1, steps), input_shape=sample, spikes="0.2")
    )
    device = find_device("edge8")
    return reports.graph_svg(study(graph, device, scheduler="heft"))


def named(networks: Sequence[str]) -> str:
    return ", ".join(f"`{n}`" for n in networks)


def index(comparisons: Sequence[Comparison]) -> str:
    parts = [
        "# Workloads",
        NOTE,
        "Every system of the literature around reversible and memory-saving training of spiking networks is a network "
        "or a training method of the zoo: it trains, traces, schedules and reports like any other. The residual ones, "
        "ParaRevSNN, RevSNN and MS-ResNet, are told about in [concepts](../concepts.md).",
        table(("system", "networks"), [(f"[{p.title}]({p.name}.md)", named(p.networks)) for p in PAGES]),
        "## Side by side",
        "`pararev-hw compare --all --device D` predicts a training step and an inference of each on one device: batch "
        "32, images of 3×32×32 in 10 classes (networks of sequences read them as 1024 pixels; tokens and videos are "
        "data of their own), a firing rate of 0.2, one task after another and as the list schedule has it. The figures "
        "are as good as the device's: see its page.",
    ]
    for c in comparisons:
        rows = [
            [f"`{s.graph.model}`", *(f(p) for p in (s.sequential, s.chosen) for f in (
                lambda p: units.seconds(p.latency_s), lambda p: units.size(p.peak_bytes),
                lambda p: units.joules(p.energy_j.get("total"))))]
            for s in c.studies
        ]  # fmt: skip
        heads = ("network", "latency", "memory", "energy", "parallel: latency", "memory", "energy")
        parts += [f"### {c.device.title}", table(heads, rows), f"![The same as bars.](figures/all-{c.device.name}.svg)"]
    return "\n\n".join(parts) + "\n"


def main() -> None:
    pages_only = "--pages" in sys.argv
    (FOLDER / "figures").mkdir(parents=True, exist_ok=True)
    for p in PAGES:
        (FOLDER / f"{p.name}.md").write_text(page(p), encoding="utf-8")
        (FOLDER / "figures" / f"{p.name}.svg").write_text(figure(p), encoding="utf-8")
        print(p.name, flush=True)
    if pages_only:
        return
    overviews = [overview(find_device(name)) for name in DEVICES]
    for c in overviews:
        (FOLDER / "figures" / f"all-{c.device.name}.svg").write_text(reports.compare_svg(c), encoding="utf-8")
    (FOLDER / "index.md").write_text(index(overviews), encoding="utf-8")


if __name__ == "__main__":
    main()
