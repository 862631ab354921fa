"""Memory and MACs of every system as the method promises, from traces: exponents in T, in the batch and in depth."""

from __future__ import annotations

import math
from itertools import accumulate
from typing import Any

import pytest
import torch

from pararev_hw import models
from pararev_hw.tracing import trace_step
from pararev_hw.training.step import Loop
from pararev_hw.types import BlockGraph
from tests.helpers.system_cases import step_of

SHAPES: dict[str, tuple[int, ...]] = {"image": (3, 16, 16), "events": (2, 16, 16), "sequence": (3,), "steps": (40,)}


def traced(name: str, batch: int, steps: int, mode: str = "train", **options: Any) -> BlockGraph:
    network = models.create(name, timesteps=steps, num_classes=4, **{"width": 1 / 8, **options})
    layout = models.spec(name).layout
    sample = {"video": (1, 8, 8), "tokens": ()}.get(layout) or SHAPES.get(layout, ())
    inputs, targets = models.batch_shapes(layout, batch, steps, sample)
    own = getattr(network, "training_step", None) is not None and mode == "train"
    tensors = [torch.empty(s, dtype=d, device="meta") for s, d in (*inputs, *(targets if own else ()))]
    loop = Loop(step=step_of(network) if own else None) if mode == "train" else None
    return trace_step(network, tensors, loop=loop).graph


def activations(graph: BlockGraph) -> int:
    """The most bytes of activations, their gradients and temporaries alive at once."""
    changes: dict[int, int] = {}
    for s in graph.storages:
        if s.role in ("saved", "recomputed", "cotangent", "transient"):
            changes[s.born] = changes.get(s.born, 0) + s.bytes
            changes[s.freed + 1] = changes.get(s.freed + 1, 0) - s.bytes
    return max(accumulate(changes[at] for at in sorted(changes)))


def macs(graph: BlockGraph) -> int:
    return sum(t.macs for t in graph.tasks)


def growth(few: float, many: float, factor: float) -> float:
    return math.log(many / few) / math.log(factor)


# network, two numbers of time steps, how memory grows with T, training MACs over those of inference
METHODS: list[tuple[str, int, int, float, float]] = [
    ("revsformer_2_384", 2, 8, 1.0, 3.4),  # 3 for the tokenizer, 4 for the reversible blocks
    ("spikingformer_2_384", 2, 8, 1.0, 3.0),
    ("trevsnn_tiny_dvs", 4, 8, 0.25, 4.0),  # O(1) in T but for what its frames' stems keep
    ("zeromem_vgg11", 4, 16, 1.0, 3.0),  # convolution inputs stay
    ("ottt_vgg11", 2, 6, 0.0, 3.0),
    ("sltt_vgg11", 2, 6, 0.0, 3.0),
    ("dsr_preactresnet18", 5, 20, 1.0, 3.0),
    ("lru_scifar", 16, 64, 1.0, 3.0),
    ("dsf_gru", 8, 32, 1.0, 3.2),  # forward runs its recurrence twice
    ("dsf_gru_bptt", 6, 24, 1.0, 3.0),
    ("neverreset_gru", 16, 48, 1.0, 2.45),  # nobody asks for the gradient of what the first layer reads
    ("video_crnn", 9, 33, 0.0, 2.65),
]


@pytest.mark.parametrize(("name", "few", "many", "memory", "ratio"), METHODS, ids=[m[0] for m in METHODS])
def test_memory_and_work_grow_as_the_method_says(name: str, few: int, many: int, memory: float, ratio: float) -> None:
    short, long = traced(name, 4, few), traced(name, 4, many)
    assert growth(activations(short), activations(long), many / few) == pytest.approx(memory, abs=0.2)
    assert growth(macs(short), macs(long), many / few) == pytest.approx(1.0, abs=0.1)
    more = traced(name, 64, few)
    assert growth(macs(short), macs(more), 16) == pytest.approx(1.0, abs=0.02)
    # what is made of weights, as standardised ones and their gradients, is the same for every batch
    assert growth(activations(short), activations(more), 16) == pytest.approx(1.0, abs=0.25)
    if "trevsnn" not in name:  # torch counts the gradients of depthwise convolutions as dense
        assert macs(short) / macs(traced(name, 4, few, "infer")) == pytest.approx(ratio, abs=0.25)


def test_reversible_blocks_keep_no_memory_per_layer_and_plain_ones_do() -> None:
    def saved(family: str) -> float:
        shallow, deep = (traced(f"{family}_{d}_384", 2, 4).memory.saved_bytes for d in (2, 4))
        return deep / shallow

    assert saved("revsformer") == saved("pararevsformer") == 1.0
    assert saved("spikingformer") > 1.4


def test_dsr_in_its_ideal_form_saves_rates_instead_of_trains() -> None:
    # what the neurons keep still grows in this form: their outputs are the convolutions' inputs of forward alone
    def saved(form: str, steps: int) -> int:
        return traced("dsr_preactresnet18", 2, steps, backward=form).memory.saved_bytes

    assert growth(saved("ideal", 5), saved("ideal", 20), 4) < 0.2
    assert growth(saved("reference", 5), saved("reference", 20), 4) > 0.8


def test_online_training_has_no_edge_back_across_time() -> None:
    """A gradient at t waits for nothing that happens after t: the last step's forward may come after it."""
    graph = traced("ottt_vgg11", 2, 4)
    after: list[set[int]] = [set() for _ in graph.tasks]
    for e in sorted(graph.edges, key=lambda e: e.dst):
        after[e.dst] |= after[e.src] | {e.src}
    forward = [k for k, t in enumerate(graph.tasks) if t.phase == "forward"]
    first_backward = next(k for k, t in enumerate(graph.tasks) if t.phase == "backward")
    assert len(after[first_backward] & set(forward)) < 0.5 * len(forward)
