"""The table of layers, against the network itself and torch's own counter."""

from __future__ import annotations

import csv
import io

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from pararev_hw.graph import attach, layers
from pararev_hw.graph.files import from_document, to_document
from pararev_hw.reports.layers import layers_csv
from pararev_hw.tracing import trace_step
from pararev_hw.types import LayerSpikes, Spikes


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, padding=1)
        self.norm = nn.BatchNorm2d(8)
        self.fc = nn.Linear(8 * 16, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc(torch.relu(self.norm(self.conv(x))).flatten(1))


def test_rows_name_the_modules_with_their_shapes_parameters_and_macs() -> None:
    net, x = Net(), torch.rand(2, 3, 4, 4)
    graph = trace_step(net, x, loop=None).graph
    rows = {row.module: row for row in layers(graph)}
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        net.eval()(x)
    counts = {name.removeprefix("Net."): sum(c.values()) for name, c in counter.get_flop_counts().items()}
    for name, kind in (("conv", "Conv2d"), ("norm", "BatchNorm2d"), ("fc", "Linear")):
        module = net.get_submodule(name)
        assert rows[name].type == kind
        assert rows[name].parameters == sum(p.numel() for p in module.parameters())
        assert 2 * rows[name].macs == counts.get(name, 0)
        assert rows[name].macs == rows[name].forward_macs
    assert rows["conv"].input_shape == (2, 3, 4, 4) and rows["conv"].output_shape == (2, 8, 4, 4)
    assert rows["fc"].output_shape == (2, 5)


def test_the_datatype_of_a_step_is_that_of_its_work() -> None:
    x = torch.rand(2, 3, 4, 4)
    cast = {"float64": Net().double(), "float16": Net().half(), "bfloat16": Net().bfloat16(), "float32": Net()}
    for name, net in cast.items():
        graph = trace_step(net, x.to(getattr(torch, name))).graph
        assert (graph.dtype, graph.arithmetic) == ("float32", name)
    assert trace_step(Net(), x, dtype="bfloat16").graph.arithmetic == "bfloat16"
    head_in_full = nn.Sequential(Net().half(), nn.Flatten()).to(torch.float16)
    head_in_full[0].fc.float()
    head_in_full[0].fc.register_forward_pre_hook(lambda _, given: (given[0].float(),))
    assert trace_step(head_in_full, x.half()).graph.arithmetic == "float16"  # the convolution is most of the work


def test_rows_of_a_training_step_add_up_to_the_step() -> None:
    graph = trace_step(Net(), torch.rand(2, 3, 4, 4)).graph
    seconds = [0.5 + k for k in range(len(graph.ops))]
    rows = layers(graph, seconds, [2 * s for s in seconds])
    assert sum(row.macs for row in rows) == sum(t.flops for t in graph.tasks) // 2
    assert sum(row.time_s or 0.0 for row in rows) == sum(seconds)
    assert sum(row.energy_j or 0.0 for row in rows) == 2 * sum(seconds)
    saved = sum(s.bytes for s in graph.storages if s.role == "saved")
    assert sum(row.saved_bytes for row in rows) == saved > 0
    conv = next(row for row in rows if row.module == "conv")
    assert conv.macs > conv.forward_macs == 2 * 8 * 16 * 27  # batch x channels x places x taps


def test_activity_is_that_of_the_layers_inputs() -> None:
    graph = trace_step(Net(), torch.rand(2, 3, 4, 4), loop=None).graph
    activity = Spikes(True, "by hand", 0.25, (LayerSpikes("fc", 0.25, 160.0, 640.0, True),))
    rows = {row.module: row for row in layers(attach(graph, activity))}
    assert (rows["fc"].rate, rows["fc"].sops) == (0.25, 2 * 160)
    assert rows["conv"].rate is None and rows["conv"].sops is None


def test_the_csv_file_holds_every_row() -> None:
    rows = layers(trace_step(Net(), torch.rand(2, 3, 4, 4)).graph)
    read = list(csv.DictReader(io.StringIO(layers_csv(rows))))
    assert [r["module"] for r in read] == [row.module for row in rows]
    assert next(r for r in read if r["module"] == "conv")["output_shape"] == "2x8x4x4"
    assert all(r["time_s"] == "" for r in read)


def test_a_batchnorm_reads_the_image_and_not_its_counter_of_batches() -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
    rows = {layer.module: layer for layer in layers(trace_step(net, torch.rand(2, 3, 8, 8)).graph)}
    assert rows["1"].type == "BatchNorm2d" and rows["1"].input_shape == rows["1"].output_shape == (2, 4, 6, 6)


def test_macs_of_a_grouped_convolution_are_torchs_and_beside_them_the_true_ones() -> None:
    net = nn.Sequential(nn.Conv2d(8, 8, 3, padding=1, groups=4), nn.Flatten(), nn.Linear(128, 2))
    (conv, *_) = trace_step(net, torch.zeros(3, 8, 4, 4)).graph.layers()
    forward = 3 * 8 * 16 * 2 * 9  # samples x channels x places x inputs of the group x taps
    assert conv.forward_macs == forward
    assert conv.true_macs == 2 * forward  # and the weight's gradient
    assert conv.macs == forward + 4 * forward  # torch: every input channel meets every output channel


class _OverTime(nn.Module):
    """Works on one time step after the other, so that no operation reads what the module is given."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.stack([(step - 0.5).relu() for step in x])


class _Sequences(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.lstm, self.over_time, self.fc = nn.LSTM(5, 8), _OverTime(), nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.fc(self.over_time(self.lstm(x)[0]))
        return logits.mean(0)


def test_shapes_are_those_that_modules_are_given_and_give() -> None:
    net, x = _Sequences(), torch.rand(7, 3, 5)
    shapes: dict[str, tuple[tuple[int, ...], tuple[int, ...]]] = {}

    def note(path: str, given: tuple[Tensor, ...], out: Tensor | tuple[Tensor, ...]) -> None:
        shapes[path] = (tuple(given[0].shape), tuple((out[0] if isinstance(out, tuple) else out).shape))

    for path, module in net.named_children():
        module.register_forward_hook(lambda _, given, out, path=path: note(path, given, out))
    net(x)
    graph = trace_step(_Sequences(), x).graph
    rows = {row.module: row for row in layers(from_document(to_document(graph), "graph.json"))}
    assert {path: (rows[path].input_shape, rows[path].output_shape) for path in shapes} == shapes
    assert shapes["over_time"] == ((7, 3, 8), (7, 3, 8)) and shapes["fc"] == ((7, 3, 8), (7, 3, 4))
