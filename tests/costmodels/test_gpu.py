"""The GPU cost model against sums done by hand, and a published step that no table of the fit's networks holds."""

import math
from dataclasses import replace

import pytest
import torch
from torch import nn

from pararev_hw.costmodels.cost import cost
from pararev_hw.costmodels.gpu.kernel_time import Card, KernelTimes
from pararev_hw.costmodels.gpu.kernels import Kernel, kernels
from pararev_hw.costmodels.gpu.model import card_of, values_of
from pararev_hw.devices import load_device
from pararev_hw.devices.gpu_law import CARD, DIRECT, HOST, LAW, MATRIX_CLASSES, MEMORY_CLASSES
from pararev_hw.errors import BadInput
from pararev_hw.tracing import DispatchRules, trace_step
from pararev_hw.training.step import Loop
from pararev_hw.types import BlockGraph, OpType

GPUS = (
    "p4 p100 gtx1080ti titan-xp v100 v100-sxm2 t4 rtx2080ti rtx6000 rtx3090 a40 a100 rtx4090 l4 h100 h200 agx-orin "
    "orin-nano"
).split()
PLAIN = dict.fromkeys((*LAW, *CARD, *HOST), 1.0) | {
    f"{stem}.{unit}": value
    for stem, value in (
        ("tile_operand_cost", 0.0),
        ("tile_startup", 0.0),
        ("wave_smoothing", 0.0),
        ("overlap_exponent", 1e6),  # the longer of the two
        ("matrix_latency_s", 0.0),
    )
    for unit in ("tensor", "cuda")
}
CARD_OF_TEST = Card({"float16": 64e12, "tfloat32": 32e12}, {"float32": 8e12}, 1e12, 4)


def seconds(kernel: Kernel, card: Card = CARD_OF_TEST, **changed: float) -> float:
    return float(KernelTimes([kernel], card).seconds(PLAIN | {n.replace("__", "."): v for n, v in changed.items()})[0])


def graph(model: nn.Module, *shape: int, dtype: str = "float16", last: bool = False, mode: str = "train") -> BlockGraph:
    rules = DispatchRules(cuda=True, channels_last=last)
    x = torch.empty(shape, device="meta")
    return trace_step(
        model, x, loop=Loop() if mode == "train" else None, dtype=dtype, rules=rules, granularity="op"
    ).graph


def op(graph: BlockGraph, name: str) -> OpType:
    return next(t for t in graph.op_types if t.name.split(".")[1] == name)


def test_a_product_takes_whole_tiles_and_whole_waves() -> None:
    # 256 x 256 x 64 on 4 multiprocessors: 4 tiles of 128 x 128 are one wave, all of it work: 2 x 256 x 256 x 64 flops
    kernel = Kernel("product", 0, flops=1, m=256, n=256, k=64, dtype="float16")
    assert seconds(kernel) == pytest.approx(2 * 256 * 256 * 64 / 64e12)
    # one column more: the best are tiles of 256 x 16, 17 of them in 5 waves of 4
    more = Kernel("product", 0, flops=1, m=128, n=257, k=64, dtype="float16")
    assert seconds(more) > 1.2 * seconds(Kernel("product", 0, flops=1, m=128, n=256, k=64, dtype="float16"))


def test_a_deep_product_splits_its_sum_over_idle_multiprocessors() -> None:
    # one tile of 16 x 128 and k = 4096: four splits of 1024 run side by side
    kernel = Kernel("product", 0, flops=1, m=16, n=128, k=4096, dtype="float16")
    assert seconds(kernel) == pytest.approx(2 * 16 * 128 * 4096 / 64e12)


def test_a_tile_of_cuda_cores_costs_as_much_as_a_full_one() -> None:
    # one tile of 64 x 128 on each of 4 multiprocessors: 65 columns are filled up to 128, and 70 rows to 128
    card = replace(CARD_OF_TEST, tiles={"batched_product": ((64, 128),)})
    kernel = Kernel("batched_product", 0, flops=1, m=64, n=65, k=64, groups=4)
    assert seconds(kernel, card) == pytest.approx(2 * 64 * 128 * 64 * 4 / 8e12)
    taller = replace(kernel, m=70, groups=2)
    assert seconds(taller, card) == pytest.approx(2 * 128 * 128 * 64 * 2 / 8e12)
    # nor do they split a batched product's sum: one tile of k = 4096 leaves three multiprocessors idle
    deep = Kernel("batched_product", 0, flops=1, m=64, n=128, k=4096, groups=1)
    assert seconds(deep, card) == pytest.approx(4 * 2 * 64 * 128 * 4096 / 8e12)


@pytest.mark.parametrize(("card", "rows"), [("p100", 64), ("v100", 32), ("a100", 128), ("l4", 128)])
def test_batched_products_take_the_tiles_of_cublas(card: str, rows: int) -> None:
    tiles = card_of(load_device(card)).tiles["batched_product"]
    assert min(tile for tile, _ in tiles) == rows


def test_traffic_is_bytes_over_the_reached_bandwidth() -> None:
    assert seconds(Kernel("softmax", 10**9), bandwidth_share__softmax=0.5) == pytest.approx(2e-3)
    assert seconds(Kernel("cast", 10**9), bandwidth_sustained_share=0.8) == pytest.approx(1e-3 / 0.8)


def test_the_overlap_exponent_adds_the_shorter_of_compute_and_traffic() -> None:
    kernel = Kernel("depthwise_forward", 10**9, flops=8 * 10**9)  # a millisecond each
    assert seconds(kernel) == pytest.approx(1e-3, rel=1e-4)
    assert seconds(kernel, overlap_exponent__cuda=1.0) == pytest.approx(2e-3)
    assert seconds(kernel, overlap_exponent__cuda=2.0) == pytest.approx(math.sqrt(2) * 1e-3)


def test_tensor_cores_by_datatype_and_alignment() -> None:
    def product(dtype: str, kind: str = "product", aligned: bool = True) -> float:
        return seconds(
            Kernel(kind, 0, flops=1, m=256, n=256, k=64, dtype=dtype, aligned=aligned), unaligned_slowdown__plain=3.0
        )

    work = 2 * 256 * 256 * 64
    assert product("float16") == pytest.approx(work / 64e12)
    assert product("float32") == pytest.approx(work / 8e12)  # PyTorch keeps float32 for products
    assert product("float32", "window_forward") == pytest.approx(work / 32e12)  # and lets cuDNN take TF32
    assert product("bfloat16") == pytest.approx(work / 8e12)  # which this card lacks
    assert product("float16", aligned=False) == pytest.approx(3 * work / 64e12)


def test_images_are_converted_for_tensor_cores_unless_they_lie_channels_last() -> None:
    for last, passes in ((False, 1), (True, 0)):
        kernel = Kernel("window_forward", 0, flops=1, m=256, n=256, k=64, dtype="float16", channels_last=last,
                        layout_bytes=10**9)  # fmt: skip
        assert seconds(kernel) == pytest.approx(2 * 256 * 256 * 64 / 64e12 + passes * 1e-3)


CARD_WITHOUT_TENSOR_CORES = Card({}, {"float32": 8e12}, 1e12, 4)


def test_winograd_does_16_products_for_tiles_of_four_results() -> None:
    # 64 -> 256 channels, 256 pixels in 64 tiles of 2 x 2: a block of threads does 32 of them for 64 channels
    kernel = Kernel("window_forward", 0, flops=1, m=256, n=256, k=64 * 9, winograd_tiles=64)
    assert seconds(kernel, CARD_WITHOUT_TENSOR_CORES) == pytest.approx(16 * 2 * 64 * 256 * 64 / 8e12)
    assert seconds(kernel, CARD_WITHOUT_TENSOR_CORES, winograd_share__forward=0.5) == pytest.approx(
        2 * 16 * 2 * 64 * 256 * 64 / 8e12
    )
    # too few tiles for four multiprocessors: 32 of them and 64 channels are one block, and direct tiles are faster
    few = Kernel("window_forward", 0, flops=1, m=128, n=64, k=64 * 9, winograd_tiles=32)
    slow = seconds(few, CARD_WITHOUT_TENSOR_CORES, winograd_share__forward=0.5)
    assert slow == pytest.approx(2 * 4 * 128 * 32 * 64 * 9 / 8e12)


def test_winograds_gradient_of_weights_reads_what_it_transforms() -> None:
    def gradient(images: int, **changed: float) -> float:
        kernel = Kernel("window_weight", images, flops=1, m=64, n=64 * 9, k=256, winograd_tiles=64, layout_bytes=images)
        return seconds(kernel, CARD_WITHOUT_TENSOR_CORES, **changed)

    work = 16 * 2 * 64 * 64 * 64  # 16 products of 64 x 64 over 64 tiles
    assert gradient(0) == pytest.approx(work / 8e12)
    # 16 values for each tile of 4 pixels are four times the images; beyond a point the direct algorithm is faster
    assert gradient(10**5, winograd_transform_passes=0.1) == pytest.approx(work / 8e12 + 0.1 * 4 * 1e5 / 1e12)
    assert gradient(10**9) == pytest.approx(1e-3)


@pytest.mark.parametrize(
    ("kind", "work"), [("product", "product"), ("window_weight", "weight"), ("depthwise_forward", "direct")]
)
def test_16_bits_are_slower_without_tensor_cores(kind: str, work: str) -> None:
    half, single = (Kernel(kind, 0, flops=10**9, m=256, n=256, k=64, dtype=d) for d in ("float16", "float32"))
    slowdown = {f"half_slowdown__{work}": 3.0}
    assert seconds(half, CARD_WITHOUT_TENSOR_CORES, **slowdown) == pytest.approx(
        3 * seconds(single, CARD_WITHOUT_TENSOR_CORES, **slowdown)
    )
    assert seconds(half, CARD_OF_TEST, **slowdown) == pytest.approx(seconds(half, CARD_OF_TEST))


@pytest.mark.parametrize(("row", "kind"), [(512, "softmax"), (49, "softmax_ragged"), (2048, "softmax_long")])
def test_softmax_by_the_length_of_its_rows(row: int, kind: str) -> None:
    g = graph(nn.Sequential(nn.Linear(32, row), nn.Softmax(-1)), 8, 32, dtype="float32", mode="infer")
    assert [k.kind for k in kernels(op(g, "_softmax"))] == [kind]


def test_a_convolutions_backward_is_one_kernel_for_each_gradient() -> None:
    conv = nn.Conv2d(32, 64, 3, stride=2, padding=1)
    g = graph(nn.Sequential(nn.Conv2d(3, 32, 1), conv), 4, 3, 16, 16, dtype="float32")
    t = next(t for t in g.op_types if t.kind == "conv_backward" and t.input_shapes[2] == (64, 32, 3, 3))
    by_kind = {k.kind: k for k in kernels(t)}
    assert set(by_kind) == {"window_strided_input", "window_strided_weight", "row_reduction"}
    flops = 2 * 4 * 8 * 8 * 64 * 32 * 9
    assert by_kind["window_strided_input"].flops == by_kind["window_strided_weight"].flops == flops
    weight = by_kind["window_strided_weight"]
    assert (weight.m, weight.n, weight.k) == (64, 32 * 9, 4 * 8 * 8)
    assert by_kind["row_reduction"].bytes == 4 * 4 * 64 * 8 * 8


@pytest.mark.parametrize(
    ("window", "dtype", "form"),
    [(3, "float16", "depthwise_cudnn"), (3, "float32", "depthwise"), (7, "float16", "depthwise_large")],
)
def test_depthwise_convolutions(window: int, dtype: str, form: str) -> None:
    conv = nn.Conv2d(32, 32, window, padding=window // 2, groups=32, bias=False)
    for last in (False, True):  # channels last, all are cuDNN's
        g = graph(nn.Sequential(nn.Conv2d(3, 32, 1), conv), 4, 3, 16, 16, dtype=dtype, last=last)
        stem, end = (form.removesuffix("_cudnn"), "_last") if last else (form, "")
        kinds = [k.kind for t in g.op_types if t.kind.startswith("conv") for k in kernels(t)]
        assert {f"{stem}_{d}{end}" for d in ("forward", "input", "weight")} <= set(kinds)


def test_cudnn_takes_depthwise_convolutions_of_stride_2_with_many_channels_only() -> None:
    def form(channels: int, side: int, stride: int, batch: int = 8) -> str:
        conv = nn.Conv2d(channels, channels, 3, stride=stride, padding=1, groups=channels)
        g = graph(nn.Sequential(nn.Conv2d(3, channels, 1), conv), batch, 3, side, side, mode="infer")
        (kernel,) = kernels(next(t for t in g.op_types if t.input_shapes[1:2] == ((channels, 1, 3, 3),)))
        return kernel.kind

    assert form(128, 56, 1) == "depthwise_cudnn_forward"
    assert form(128, 56, 2) == "depthwise_forward"
    assert form(256, 56, 2) == "depthwise_cudnn_forward"
    assert form(256, 14, 2) == "depthwise_forward"
    assert form(16, 56, 1) == "depthwise_forward"
    assert form(128, 56, 2, batch=1) == "depthwise_cudnn_forward"


@pytest.mark.parametrize(
    ("groups", "channels", "last", "form"),
    [
        (32, 128, False, "grouped_packed_forward"),  # ResNeXt's 32 groups of 4
        (32, 128, True, "grouped_packed_forward_last"),
        (3, 24, False, "grouped_forward"),  # RegNet's groups of 8
        (3, 24, True, "grouped_forward_last"),
        (32, 64, True, "grouped_forward_last"),  # 2 channels per group
        (3, 192, True, "grouped_wide_forward_last"),
    ],
)
def test_grouped_convolutions(groups: int, channels: int, last: bool, form: str) -> None:
    conv = nn.Conv2d(channels, channels, 3, padding=1, groups=groups, bias=False)
    g = graph(nn.Sequential(nn.Conv2d(3, channels, 1), conv), 4, 3, 16, 16, last=last, mode="infer")
    (kernel,) = kernels(next(t for t in g.op_types if t.kind == "conv" and t.input_shapes[0][1] == channels))
    width = channels // groups
    assert kernel.kind == form
    assert kernel.flops == 2 * 4 * 16 * 16 * 9 * width * channels  # whatever the tiles hold beside
    if "packed" in form:  # 8 groups of 4 fill a tile of 32 channels: 4 products of 1024 x 32 x 288
        assert (kernel.m, kernel.n, kernel.k, kernel.groups) == (4 * 16 * 16, 32, 32 * 9, 4)


def test_a_kernel_with_a_block_per_channel_waits_where_channels_are_few() -> None:
    # 4 multiprocessors: with 8 channels and a half rate at 2 blocks each, 1 + 2 x 4 / 8 = 2 times as long
    wide, narrow = (Kernel("batch_norm", 10**9, blocks=n) for n in (10**6, 8))
    assert seconds(narrow, half_rate_blocks__batch_norm=2.0) == pytest.approx(2e-3)
    assert seconds(wide, half_rate_blocks__batch_norm=2.0) == pytest.approx(1e-3, rel=1e-4)
    g = graph(nn.Sequential(nn.Conv2d(3, 24, 1), nn.BatchNorm2d(24)), 4, 3, 16, 16)
    assert {k.blocks for t in g.op_types if t.kind.startswith("norm") for k in kernels(t)} == {24}


def test_direct_grouped_convolutions_speed_up_with_the_width_of_a_group() -> None:
    narrow, wide = (Kernel("grouped_forward_last", 0, flops=10**9, m=10**6, n=n, groups=4) for n in (16, 64))
    # the exponent of 0.5: a quarter of the channels, half of the rate
    assert seconds(narrow, group_width_exponent=0.5) == pytest.approx(2 * seconds(wide, group_width_exponent=0.5))
    # above 48 channels they fill tiles of 128: 64 channels half of one, 192 three quarters of two
    rates = [
        1 / seconds(Kernel("grouped_wide_forward_last", 0, flops=10**9, m=10**6, n=n, groups=4)) for n in (64, 128, 192)
    ]
    assert [rate / rates[1] for rate in rates] == pytest.approx([0.5, 1, 0.75])


class Recurrent(nn.Module):
    """Two layers of 64 states, read out after the last of 20 steps."""

    def __init__(self, kind: type[nn.Module]) -> None:
        super().__init__()
        self.layers, self.read = kind(32, 64, 2, batch_first=True), nn.Linear(64, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.read(self.layers(x)[0][:, -1])


@pytest.mark.parametrize(("kind", "gates", "kept"), [(nn.LSTM, 4, 6), (nn.GRU, 3, 4), (nn.RNN, 1, 1)])
def test_recurrent_layers_are_cudnns(kind: type[nn.Module], gates: int, kept: int) -> None:
    g = graph(Recurrent(kind), 4, 20, 32, dtype="float32")
    forward, backward = op(g, "_cudnn_rnn"), op(g, "_cudnn_rnn_backward")
    assert forward.output_shapes[0] == (4, 20, 64)
    assert (4 * 20 * 2 * 64 * kept * 4,) in forward.output_shapes  # bytes kept for backward
    products = [k for k in kernels(forward) if k.kind == "product"]
    assert [(k.m, k.n, k.k) for k in products[:2]] == [(80, gates * 64, 32), (4, gates * 64, 64)]
    assert len(products) == 2 * (1 + 20)  # of both layers: all inputs at once, states one step after the other
    assert sum(k.flops for k in products) == 2 * 80 * gates * 64 * (32 + 64 + 64 + 64)
    assert sum(k.flops for k in kernels(backward)) == 2 * sum(k.flops for k in products)
    half = graph(Recurrent(kind), 4, 20, 32, dtype="float16", mode="infer")
    assert op(half, "_cudnn_rnn").dtype == "float16"


@pytest.mark.parametrize(
    ("halves", "dtype", "mode", "kinds"),
    [
        (False, "float32", "train", {"batch_norm", "batch_norm_backward"}),
        (False, "float16", "train", {"batch_norm", "batch_norm_backward"}),  # autocast: weights of 32 bits
        (True, "float32", "train", {"batch_norm_native", "batch_norm_native_backward"}),
        (False, "float32", "infer", {"elementwise"}),
        (True, "float32", "infer", {"elementwise"}),
    ],
)
def test_batch_norm_is_cudnns_but_with_weights_of_16_bits(halves: bool, dtype: str, mode: str, kinds: set[str]) -> None:
    model = nn.Sequential(nn.Conv2d(3, 24, 3), nn.BatchNorm2d(24), nn.ReLU(), nn.Flatten(), nn.Linear(24 * 36, 10))
    x = torch.empty((4, 3, 8, 8), device="meta", dtype=torch.float16 if halves else torch.float32)
    loop = Loop() if mode == "train" else None
    rules = DispatchRules(cuda=True)
    g = trace_step(model.half() if halves else model, x, loop=loop, dtype=dtype, rules=rules, granularity="op").graph
    norms = [k for t in g.op_types if t.kind.startswith("norm") for k in kernels(t)]
    assert {k.kind for k in norms} == kinds
    assert {k.blocks for k in norms} == ({24} if mode == "train" else {0})


def test_every_class_that_a_kernel_can_have_is_a_parameter() -> None:
    assert {f"tensor_share.{c}" for c in MATRIX_CLASSES} | {f"cuda_share.{c}" for c in MATRIX_CLASSES} <= set(LAW)
    assert {f"bandwidth_share.{c}" for c in (*MEMORY_CLASSES, *DIRECT)} <= set(LAW)


@pytest.mark.parametrize("name", GPUS)
def test_every_card_gives_the_whole_law(name: str) -> None:
    device = load_device(name)
    assert {*LAW, *CARD, *HOST} - set(device.parameters) <= {"tensor_sustained_share"}
    copy = Kernel("copy", 2 * 10**9)
    value = values_of(device)
    bandwidth = device.value("memory_bandwidth_bytes_per_s")
    took = KernelTimes([copy], Card({}, {"float32": 1e12}, bandwidth, 1)).seconds(value)
    reached = 2e9 / float(took[0]) / bandwidth
    assert 0.5 < reached < 1.0


def test_eager_small_networks_wait_for_the_host_and_graphs_do_not() -> None:
    model = nn.Sequential(*[m for _ in range(20) for m in (nn.Linear(32, 32), nn.ReLU())], nn.Linear(32, 10))
    g = graph(model, 8, 32, dtype="float32")
    device = load_device("a100")
    eager, replayed = (cost(g, device, launch) for launch in ("eager", "graph"))
    host_s = sum(t.host_s for t in eager.problem(1).tasks)
    assert host_s > 1.2 * sum(eager.op_seconds)
    assert sum(t.host_s for t in replayed.problem(1).tasks) == 0
    assert sum(replayed.op_seconds) < sum(eager.op_seconds)


class Unrolled(nn.Module):
    """A leaky integrate-and-fire neuron over [T, N], one step after the other, as SpikingJelly's torch backend."""

    def __init__(self) -> None:
        super().__init__()
        self.threshold = nn.Parameter(torch.ones(1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        v, spikes = torch.zeros_like(x[0]), []
        for t in range(x.shape[0]):
            v = v + (x[t] - v) / 2.0
            spike = torch.sigmoid(4.0 * (v - 1.0))
            v = (1.0 - spike) * v
            spikes.append(spike.unsqueeze(0))
        return torch.cat(spikes)


def test_indexing_time_steps_costs_backward_the_square_of_their_number() -> None:
    def step(model: nn.Module, inputs: tuple[torch.Tensor, ...], _: torch.optim.Optimizer) -> None:
        model(torch.empty_like(inputs[0]).requires_grad_()).sum().backward()

    def took(steps: int) -> float:
        x = torch.empty((steps, 2**20), device="meta")
        rules = DispatchRules(cuda=True)
        g = trace_step(Unrolled(), x, loop=Loop(step=step), rules=rules, granularity="op").graph
        return sum(cost(g, load_device("rtx2080ti"), "eager").op_seconds)

    # published on that card: 66.3 ms at T = 32, 226 ms at T = 64, 828 ms at T = 128
    at32, at64, at128 = map(took, (32, 64, 128))
    assert at64 / at32 == pytest.approx(226.2 / 66.3, rel=0.1)
    assert at128 / at64 == pytest.approx(827.6 / 226.2, rel=0.1)


def test_a_card_without_bfloat16_says_what_it_has() -> None:
    g = graph(nn.Linear(32, 32), 8, 32, dtype="bfloat16")
    with pytest.raises(BadInput, match="'v100' has no bfloat16: its matrix rates are for float16, float32"):
        cost(g, load_device("v100"))
    assert sum(cost(g, load_device("a100")).op_seconds) > 0
