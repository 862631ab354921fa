"""Every op has a kind, and its work is counted by a formula or listed as unknown."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from pararev_hw import models
from pararev_hw.tracing import trace_step
from pararev_hw.tracing.formulas import KINDS, describe, product_flops
from pararev_hw.training.step import OPTIMIZERS, Loop
from pararev_hw.types import BlockGraph
from pararev_hw.types.op_names import base_name
from tests.helpers.unseen_networks import STRANGERS


def vector_flops(graph: BlockGraph, name: str) -> list[int | None]:
    return [graph.op_types[op.type].vector_flops for op in graph.ops if base_name(graph.op_types[op.type].name) == name]


@pytest.mark.parametrize(
    ("name", "base"),
    [("aten.add_.Tensor", "add"), ("aten.add.Tensor", "add"), ("aten._to_copy.default", "_to_copy"), ("mul", "mul")],
)
def test_in_place_ops_and_overloads_share_a_name(name: str, base: str) -> None:
    assert base_name(name) == base


def test_the_zoo_and_the_strangers_hold_no_op_without_a_formula() -> None:
    torch.manual_seed(0)
    for name in ("pararevsnn37", "revsresnet37", "msresnet18"):
        model = models.create(name, width=0.0625, num_classes=10, timesteps=2)
        assert not trace_step(model, torch.empty(2, 3, 16, 16)).graph.unknown_ops, name
    for name, make in STRANGERS.items():
        assert not trace_step(make(), torch.empty(4, 3, 8, 8)).graph.unknown_ops, name
    for name in OPTIMIZERS:
        graph = trace_step(
            STRANGERS["inception"](), torch.empty(4, 3, 8, 8), loop=Loop(optimizer=OPTIMIZERS[name])
        ).graph
        assert not graph.unknown_ops, name


def test_every_kind_that_traces_hold_is_explained() -> None:
    for make in STRANGERS.values():
        assert {t.kind for t in trace_step(make(), torch.empty(4, 3, 8, 8)).graph.op_types} <= set(KINDS)


def test_elementwise_work_is_one_operation_per_element() -> None:
    graph = trace_step(nn.ReLU(), torch.empty(2, 3, 4), loop=None).graph
    assert vector_flops(graph, "relu") == [2 * 3 * 4]


def test_normalisation_costs_more_in_training_than_in_evaluation() -> None:
    norm = nn.Sequential(nn.BatchNorm2d(3), nn.Conv2d(3, 1, 1))
    n = 2 * 3 * 4 * 4
    # mean 1, variance 3, scale and shift 2
    assert vector_flops(trace_step(norm, torch.empty(2, 3, 4, 4)).graph, "native_batch_norm") == [6 * n]
    evaluated = trace_step(norm, torch.empty(2, 3, 4, 4), loop=None).graph
    found = [t.vector_flops for t in evaluated.op_types if t.kind == "norm"]
    assert found == [2 * n]


def test_pooling_counts_its_window() -> None:
    graph = trace_step(nn.AvgPool2d(3, 1, 1), torch.empty(2, 3, 8, 8), loop=None).graph
    assert vector_flops(graph, "avg_pool2d") == [2 * 3 * 8 * 8 * 9]


def test_an_update_of_all_parameters_in_one_call_counts_what_single_ones_count() -> None:
    def work(optimizer: str) -> int:
        graph = trace_step(
            STRANGERS["inception"](), torch.empty(4, 3, 8, 8), loop=Loop(optimizer=OPTIMIZERS[optimizer])
        ).graph
        return sum(t.vector_flops for t in graph.tasks if t.phase == "update")

    assert work("sgd") == work("sgd-foreach") > 0


def test_elementwise_work_in_a_spiking_neuron_is_told_apart() -> None:
    model = models.create("revsresnet21", width=0.0625, num_classes=10, timesteps=2)
    graph = trace_step(model, torch.empty(2, 3, 16, 16)).graph
    neurons = {n for n, m in model.named_modules() if isinstance(m, models.IF)}
    for op in graph.ops:
        kind = graph.op_types[op.type].kind
        assert kind != "neuron" or op.module in neurons
        assert kind != "elementwise" or op.module not in neurons


def test_an_unknown_op_has_a_kind_and_no_number() -> None:
    assert describe("mine.magic.default", False, [(3,)], [(3,)], {}) == ("unknown", None)
    assert describe("aten.erfinv.default", True, [(3,)], [(3,)], {}) == ("elementwise", 3)


IMAGE, HALF = (2, 3, 8, 8), (2, 3, 4, 4)
COUNTED = {  # op: inputs, outputs, attributes; kind and work, by hand
    "adaptive_max_pool2d": ([IMAGE], [HALF, HALF], {}, "pool", 2 * 3 * 8 * 8),
    "adaptive_max_pool2d_backward": ([HALF, IMAGE, HALF], [IMAGE], {}, "pool_backward", 2 * 3 * 8 * 8),
    "fractional_max_pool2d": ([IMAGE], [HALF, HALF], {"kernel_size": (2, 3)}, "pool", 2 * 3 * 4 * 4 * 6),
    "upsample_bicubic2d": ([HALF], [IMAGE], {}, "pool", 2 * 3 * 8 * 8 * (16 + 15)),  # 16 weights, 15 sums
    "upsample_bicubic2d_backward": ([IMAGE], [HALF], {}, "pool_backward", 2 * 3 * 4 * 4 * 32),
    "upsample_trilinear3d": ([(1, 1, 2, 2, 2)], [(1, 1, 4, 4, 4)], {}, "pool", 64 * (8 + 7)),
    "grid_sampler_2d": ([HALF, (2, 8, 8, 2)], [IMAGE], {}, "pool", 2 * 3 * 8 * 8 * (4 + 3)),
    "reflection_pad2d_backward": ([IMAGE, HALF], [HALF], {}, "pool_backward", 2 * 3 * 8 * 8),
    "_cdist_forward": ([(5, 7), (6, 7)], [(5, 6)], {}, "reduction", 5 * 6 * 7 * 3),
    "_unique2": ([(4, 16)], [(9,), (4, 16)], {}, "sort", 64 * 6),  # log2 of 64
    "affine_grid_generator": ([(2, 2, 3)], [(2, 8, 8, 2)], {}, "elementwise", 2 * 8 * 8 * 2 * 5),
    "replication_pad3d": ([(1, 1, 2, 2, 2)], [(1, 1, 4, 4, 4)], {}, "copy", 0),
    "bincount": ([(64,)], [(10,)], {}, "index", 0),
}


@pytest.mark.parametrize("name", COUNTED)
def test_work_of_pools_samples_and_distances(name: str) -> None:
    inputs, outputs, attributes, kind, work = COUNTED[name]
    assert describe(f"aten.{name}.default", False, inputs, outputs, attributes) == (kind, work)


def test_attention_that_torchs_counter_does_not_know_counts_its_products_and_its_softmax() -> None:
    q = (2, 4, 16, 8)  # B, heads, tokens, channels
    name = "aten._scaled_dot_product_flash_attention_for_cpu.default"
    scores = 2 * 4 * 16 * 16
    assert describe(name, False, [q, q, q], [q], {}) == ("attention", scores * 5)
    assert product_flops(name, [q, q, q]) == scores * 2 * 2 * 8
