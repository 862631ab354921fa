"""ONNX files come back as the network that was exported: same values, same module paths, same work."""

import re
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
import torch.nn.functional as F
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from pararev_hw.errors import BadFile, BadInput
from pararev_hw.importers.onnx_graph import load_onnx
from pararev_hw.importers.onnx_operators import OPERATORS, OTHER_DOMAINS
from pararev_hw.importers.targets import resolve
from pararev_hw.target_graph import build_graph
from pararev_hw.trace_options import TraceOptions
from pararev_hw.tracing import trace_step
from pararev_hw.tracing.cuda_dispatch import DispatchRules
from pararev_hw.training.step import Loop
from pararev_hw.types import BlockGraph

OPSET = 20


# --- whole networks through torch's exporter


class Block(nn.Module):
    def __init__(self, cin: int, cout: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(cin, cout, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(cout)
        self.conv2 = nn.Conv2d(cout, cout, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(cout)
        short = nn.Sequential(nn.Conv2d(cin, cout, 1, stride, bias=False), nn.BatchNorm2d(cout))
        self.downsample = short if stride > 1 else nn.Identity()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        return F.relu(y + self.downsample(x))


class Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 4, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(4)
        self.pool = nn.MaxPool2d(3, 2, 1)
        self.layer1 = nn.Sequential(Block(4, 4, 1), Block(4, 4, 1))
        self.layer2 = nn.Sequential(Block(4, 8, 2), Block(8, 8, 1))
        self.fc = nn.Linear(8, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.layer2(self.layer1(self.pool(F.relu(self.bn1(self.conv1(x))))))
        return self.fc(F.adaptive_avg_pool2d(y, 1).flatten(1))


class Attention(nn.Module):
    """Softmax attention by hand, layer normalisation, GELU: shape arithmetic on a symbolic batch."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(12)
        self.qkv = nn.Linear(12, 36)
        self.out = nn.Linear(12, 12)
        self.drop = nn.Dropout(0.1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        b, n, c = x.shape
        q, k, v = self.qkv(self.norm(x)).reshape(b, n, 3, 2, c // 2).permute(2, 0, 3, 1, 4).unbind(0)
        weights = (q @ k.transpose(-2, -1) * (c // 2) ** -0.5).softmax(-1)
        y = (weights @ v).transpose(1, 2).reshape(b, n, c)
        return F.gelu(self.out(self.drop(y)) + x)


class _Step(torch.autograd.Function):
    """Fires strictly above 0, in the manner of snnTorch and SpikingJelly."""

    @staticmethod
    def forward(ctx: Any, u: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(u)
        return (u > 0).to(u)

    @staticmethod
    def backward(ctx: Any, g: torch.Tensor) -> torch.Tensor:
        (u,) = ctx.saved_tensors
        return g / (1 + (torch.pi * u) ** 2)  # ATan, alpha 2


class Neuron(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        v = torch.zeros_like(x[0])
        spikes = []
        for t in range(x.shape[0]):
            h = v + (x[t] - v) / 2.0
            s = _Step.apply(h - 1.0)
            v = h * (1.0 - s)  # ONNX has no detach
            spikes.append(s)
        return torch.stack(spikes)


class Spiking(nn.Module):
    """Two steps of a convolution, a leaky neuron and a readout, unrolled as every exporter unrolls them."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.neuron = nn.Conv2d(1, 6, 3), Neuron()
        self.conv2, self.neuron2, self.fc = nn.Conv2d(6, 6, 3), Neuron(), nn.Linear(6, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = 4.0 * self.conv(x)
        s = self.neuron(torch.stack((x, x)))
        y = self.conv2(s.flatten(0, 1)).unflatten(0, (2, -1))
        return self.fc(self.neuron2(4.0 * y).mean((0, 3, 4)))


NETWORKS = {
    "residual": (Residual, (3, 32, 32)),
    "attention": (Attention, (7, 12)),
    "spiking": (Spiking, (1, 8, 8)),
}


def export(net: nn.Module, x: torch.Tensor, path: Path, *, train: bool) -> None:
    mode = torch.onnx.TrainingMode.TRAINING if train else torch.onnx.TrainingMode.EVAL
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter that needs no package of its own calls itself old
        torch.onnx.export(
            net,
            (x,),
            str(path),
            dynamo=False,
            training=mode,
            do_constant_folding=not train,
            input_names=["x"],
            dynamic_axes={"x": {0: "batch"}},
            opset_version=OPSET,
        )


def network(kind: str) -> tuple[nn.Module, torch.Tensor]:
    torch.manual_seed(1)
    make, shape = NETWORKS[kind]
    x = torch.randn(3, *shape)
    net = make()
    net(x)  # running statistics that are not their defaults
    return net, x


def work(graph: BlockGraph) -> tuple[int, int]:
    return sum(t.macs for t in graph.tasks), sum(graph.op_types[o.type].flops or 0 for o in graph.ops)


@pytest.mark.parametrize("train", [False, True])
@pytest.mark.parametrize("kind", sorted(NETWORKS))
def test_an_exported_network_computes_what_it_did(kind: str, train: bool, tmp_path: Path) -> None:
    net, x = network(kind)
    export(net, x, tmp_path / "net.onnx", train=train)
    found = load_onnx(tmp_path / "net.onnx", batch=3)
    net.eval(), found.network.eval()
    with torch.no_grad():
        torch.testing.assert_close(found.network(x), net(x), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kind", sorted(NETWORKS))
def test_onnx_runtime_gives_the_same(kind: str, tmp_path: Path) -> None:
    runtime = pytest.importorskip("onnxruntime", reason="compares with onnxruntime: the extra `interop`")
    net, x = network(kind)
    export(net, x, tmp_path / "net.onnx", train=False)
    found = load_onnx(tmp_path / "net.onnx", batch=3)
    with torch.no_grad():
        ours = found.network.eval()(x)
    session = runtime.InferenceSession(str(tmp_path / "net.onnx"), providers=["CPUExecutionProvider"])
    (theirs,) = session.run(None, {"x": x.numpy()})
    np.testing.assert_allclose(ours.numpy(), theirs, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("mode", ["infer", "train"])
@pytest.mark.parametrize("kind", sorted(NETWORKS))
def test_the_trace_has_the_same_macs_and_blocks(kind: str, mode: Any, tmp_path: Path) -> None:
    net, x = network(kind)
    export(net, x, tmp_path / "net.onnx", train=True)
    found = load_onnx(tmp_path / "net.onnx", batch=3)
    theirs, ours = (trace_step(n, x, loop=Loop() if mode == "train" else None).graph for n in (net, found.network))
    assert work(ours)[0] == work(theirs)[0] > 0
    assert ours.parameters == theirs.parameters

    def places(g: BlockGraph) -> set[tuple[str, str, str]]:
        return {(t.block, t.branch, t.phase) for t in g.tasks if t.macs}

    assert places(ours) == places(theirs)


def test_a_network_of_batch_norms_has_the_same_flops_too(tmp_path: Path) -> None:
    net, x = network("residual")
    export(net, x, tmp_path / "net.onnx", train=True)
    theirs, ours = (trace_step(n, x, loop=None).graph for n in (net, load_onnx(tmp_path / "net.onnx", batch=3).network))
    assert work(ours) == work(theirs)
    # a file does not say which calls of a shared activation are one call of a block: its tasks may be cut finer
    assert {t.id.partition("#")[0] for t in ours.tasks} == {t.id for t in theirs.tasks}


@pytest.mark.parametrize("kind", ["residual", "spiking"])
def test_gradients_are_those_of_the_exported_network(kind: str, tmp_path: Path) -> None:
    net, x = network(kind)
    export(net, x, tmp_path / "net.onnx", train=True)
    found = load_onnx(tmp_path / "net.onnx", batch=3)
    for n in (net, found.network):
        n.train()
        n(x).square().sum().backward()
    ours = dict(found.network.named_parameters())
    for name, p in net.named_parameters():
        assert p.grad is not None
        assert p.grad.abs().sum() > 0, name
        torch.testing.assert_close(ours[name].grad, p.grad, rtol=1e-4, atol=1e-5)


def test_running_statistics_move_as_in_the_exported_network(tmp_path: Path) -> None:
    net, x = network("residual")
    export(net, x, tmp_path / "net.onnx", train=True)
    found = load_onnx(tmp_path / "net.onnx", batch=3)
    net.load_state_dict({**net.state_dict(), **dict(found.network.named_buffers())})
    for n in (net, found.network):
        n.train()
        n(x)
    for name, value in found.network.named_buffers():
        torch.testing.assert_close(value, net.state_dict()[name])


def test_a_comparison_that_becomes_a_number_is_a_spiking_neuron(tmp_path: Path) -> None:
    net, x = network("spiking")
    export(net, x, tmp_path / "net.onnx", train=True)
    found = load_onnx(tmp_path / "net.onnx", batch=3)
    kinds = {n for n, m in found.network.named_modules() if getattr(m, "is_spiking_neuron", False)}
    assert kinds == {"neuron", "neuron2"}
    assert any("ATan" in a for a in found.assumptions)


def test_module_paths_follow_the_names_of_nodes(tmp_path: Path) -> None:
    net, x = network("residual")
    export(net, x, tmp_path / "net.onnx", train=True)
    found = load_onnx(tmp_path / "net.onnx", batch=3)
    ours = {n for n, _ in found.network.named_parameters()}
    assert ours == {n for n, _ in net.named_parameters()}
    assert isinstance(found.network.get_submodule("layer1"), nn.ModuleList)


def test_values_die_after_their_last_use(tmp_path: Path) -> None:
    net, x = network("residual")
    export(net, x, tmp_path / "net.onnx", train=True)
    found = load_onnx(tmp_path / "net.onnx", batch=3)
    theirs, ours = (trace_step(n, x, loop=None).graph.memory for n in (net, found.network))
    assert ours.peak_bytes == pytest.approx(theirs.peak_bytes, rel=0.1)


# --- single operators against their definition


def model(
    nodes: Sequence[onnx.NodeProto],
    inputs: dict[str, Sequence[int | str]],
    *,
    weights: dict[str, np.ndarray] | None = None,
    outputs: Sequence[str] = ("y",),
    opset: int = OPSET,
) -> onnx.ModelProto:
    graph = helper.make_graph(
        list(nodes),
        "g",
        [helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in inputs.items()],
        [helper.make_tensor_value_info(n, TensorProto.FLOAT, ()) for n in outputs],  # no check reads the rank
        [numpy_helper.from_array(a, n) for n, a in (weights or {}).items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


def run(made: onnx.ModelProto, folder: Path, *xs: np.ndarray, **options: Any) -> np.ndarray:
    onnx.save(made, str(folder / "one.onnx"))
    found = load_onnx(folder / "one.onnx", **options)
    with torch.no_grad():
        y = found.network.eval()(*(torch.from_numpy(x) for x in xs))
    return np.asarray(y)


def reference(made: onnx.ModelProto, *xs: np.ndarray) -> np.ndarray:
    """What the ONNX project's own plain implementation gives."""
    from onnx.reference import ReferenceEvaluator

    names = [v.name for v in made.graph.input if v.name not in {t.name for t in made.graph.initializer}]
    return np.asarray(ReferenceEvaluator(made).run(None, dict(zip(names, xs, strict=True)))[0])


def at_run_time(made: onnx.ModelProto, *xs: np.ndarray) -> np.ndarray:
    """What ONNX Runtime gives, where the plain implementation lacks the operator or misreads it."""
    runtime = pytest.importorskip("onnxruntime", reason="compares with onnxruntime: the extra `interop`")
    names = [v.name for v in made.graph.input if v.name not in {t.name for t in made.graph.initializer}]
    session = runtime.InferenceSession(made.SerializeToString(), providers=["CPUExecutionProvider"])
    return np.asarray(session.run(None, dict(zip(names, xs, strict=True)))[0])


def ints(*values: int) -> np.ndarray:
    return np.array(values, dtype=np.int64)


def normal(*shape: int) -> np.ndarray:
    return np.random.default_rng(sum(shape)).normal(size=shape).astype(np.float32)


W3, W5 = normal(4, 2, 3), normal(4, 1, 3, 2)
CASES: dict[str, tuple[str, Sequence[int], dict[str, np.ndarray], dict[str, Any]]] = {
    # name: operator, shape of x, further inputs, attributes
    "conv 1d": ("Conv", (2, 2, 9), {"w": W3}, {"pads": [1, 1]}),
    "conv, uneven pads": ("Conv", (2, 2, 7, 6), {"w": W5}, {"pads": [0, 1, 2, 0], "group": 2, "strides": [2, 1]}),
    "conv, same upper": ("Conv", (2, 2, 7, 6), {"w": W5}, {"auto_pad": "SAME_UPPER", "group": 2, "strides": [2, 2]}),
    "conv, same lower": ("Conv", (2, 2, 7, 6), {"w": W5}, {"auto_pad": "SAME_LOWER", "group": 2}),
    "conv 3d": ("Conv", (1, 2, 4, 4, 4), {"w": normal(3, 2, 2, 2, 2), "b": normal(3)}, {"dilations": [1, 2, 1]}),
    "conv transpose": (
        "ConvTranspose",
        (2, 3, 4, 4),
        {"w": normal(3, 2, 3, 3), "b": normal(2)},
        {"strides": [2, 2], "pads": [1, 1, 1, 1], "output_padding": [1, 1]},
    ),
    "conv transpose, uneven": ("ConvTranspose", (1, 3, 4), {"w": normal(3, 2, 3)}, {"strides": [2], "pads": [0, 1]}),
    "conv transpose, shape": (
        "ConvTranspose",
        (1, 3, 4),
        {"w": normal(3, 2, 3)},
        {"strides": [2], "output_shape": [8]},
    ),
    "gemm": ("Gemm", (3, 4), {"w": normal(4, 5), "b": normal(3, 1)}, {"alpha": 0.5, "beta": 2.0}),
    "gemm, transposed": ("Gemm", (4, 3), {"w": normal(5, 4), "b": normal(5)}, {"transA": 1, "transB": 1}),
    "matmul": ("MatMul", (2, 3, 4), {"w": normal(4, 5)}, {}),
    "max pool": ("MaxPool", (1, 2, 7, 7), {}, {"kernel_shape": [3, 2], "pads": [0, 1, 1, 0], "strides": [2, 2]}),
    "max pool, ceil": ("MaxPool", (1, 2, 8), {}, {"kernel_shape": [3], "strides": [2], "ceil_mode": 1}),
    "average pool": ("AveragePool", (1, 2, 7, 7), {}, {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1]}),
    "average pool, uneven": ("AveragePool", (1, 2, 7, 7), {}, {"kernel_shape": [2, 2], "auto_pad": "SAME_UPPER"}),
    "average pool, counted": (
        "AveragePool",
        (1, 2, 6, 6),
        {},
        {"kernel_shape": [2, 2], "pads": [0, 0, 1, 1], "count_include_pad": 1},
    ),
    "global average": ("GlobalAveragePool", (2, 3, 4, 5), {}, {}),
    "global max": ("GlobalMaxPool", (2, 3, 4, 5), {}, {}),
    "layer norm": ("LayerNormalization", (2, 3, 8), {"w": normal(8), "b": normal(8)}, {"epsilon": 1e-3}),
    "instance norm": ("InstanceNormalization", (2, 3, 8), {"w": normal(3), "b": normal(3)}, {}),
    "batch norm": (
        "BatchNormalization",
        (4, 3, 5),
        {"w": normal(3), "b": normal(3), "m": normal(3), "v": np.abs(normal(3))},
        {"epsilon": 1e-3},
    ),
    "clip": ("Clip", (3, 4), {"low": np.float32(-0.5), "high": np.float32(0.5)}, {}),
    "hard sigmoid": ("HardSigmoid", (3, 4), {}, {"alpha": 0.3, "beta": 0.4}),
    "hard swish": ("HardSwish", (3, 4), {}, {}),
    "leaky relu": ("LeakyRelu", (3, 4), {}, {"alpha": 0.2}),
    "gelu": ("Gelu", (3, 4), {}, {"approximate": "tanh"}),
    "erf": ("Erf", (3, 4), {}, {}),
    "softmax": ("Softmax", (3, 4, 2), {}, {"axis": 1}),
    "log softmax": ("LogSoftmax", (3, 4), {}, {}),
    "prelu": ("PRelu", (2, 3, 4), {"w": normal(3, 1)}, {}),
    "div": ("Div", (3, 4), {"w": np.float32(3.0)}, {}),
    "pow": ("Pow", (3, 4), {"w": np.float32(2.0)}, {}),
    "min": ("Min", (3, 4), {"w": normal(4)}, {}),
    "max": ("Max", (3, 4), {"w": np.float32(0.1)}, {}),
    "reduce mean": ("ReduceMean", (2, 3, 4), {"axes": ints(-1, 1)}, {"keepdims": 0}),
    "reduce sum": ("ReduceSum", (2, 3, 4), {"axes": ints(1)}, {}),
    "reduce max": ("ReduceMax", (2, 3, 4), {}, {}),
    "reduce product": ("ReduceProd", (2, 3, 4), {"axes": ints(0, 2)}, {}),
    "reduce l1": ("ReduceL1", (2, 3, 4), {"axes": ints(1)}, {}),
    "reduce l2": ("ReduceL2", (2, 3, 4), {"axes": ints(1, 2)}, {"keepdims": 0}),
    "reduce squares": ("ReduceSumSquare", (2, 3, 4), {"axes": ints(-1)}, {}),
    "reduce log sum exp": ("ReduceLogSumExp", (2, 3, 4), {"axes": ints(1)}, {}),
    "selu": ("Selu", (3, 4), {}, {}),
    "selu, other numbers": ("Selu", (3, 4), {}, {"alpha": 1.5, "gamma": 0.9}),
    "celu": ("Celu", (3, 4), {}, {"alpha": 0.7}),
    "thresholded relu": ("ThresholdedRelu", (3, 4), {}, {"alpha": 0.4}),
    "shrink": ("Shrink", (3, 4), {}, {"lambd": 0.3, "bias": 0.1}),
    "softsign": ("Softsign", (3, 4), {}, {}),
    "hardmax": ("Hardmax", (3, 4), {}, {}),
    "atan": ("Atan", (3, 4), {}, {}),
    "sinh": ("Sinh", (3, 4), {}, {}),
    "fmod": ("Mod", (3, 4), {"w": normal(3, 4)}, {"fmod": 1}),
    "mean": ("Mean", (3, 4), {"w": normal(3, 4)}, {}),
    "response norm": ("LRN", (2, 7, 3, 3), {}, {"size": 3, "alpha": 0.3, "beta": 0.6, "bias": 1.5}),
    "response norm, even": ("LRN", (2, 7, 3, 3), {}, {"size": 4, "alpha": 0.3}),
    "lp norm": ("LpNormalization", (3, 4), {}, {"p": 1, "axis": 0}),
    "mean variance norm": ("MeanVarianceNormalization", (2, 3, 4, 4), {}, {}),
    "depth to space": ("DepthToSpace", (2, 8, 3, 2), {}, {"blocksize": 2}),
    "depth to space, columns": ("DepthToSpace", (2, 8, 3, 2), {}, {"blocksize": 2, "mode": "CRD"}),
    "space to depth": ("SpaceToDepth", (2, 3, 4, 6), {}, {"blocksize": 2}),
    "upper triangle": ("Trilu", (3, 4), {"k": np.array(1)}, {}),
    "lower triangle": ("Trilu", (3, 4), {}, {"upper": 0}),
    "top k": ("TopK", (3, 7), {"k": ints(2)}, {}),
    "top k, smallest": ("TopK", (5, 3), {"k": ints(2)}, {"axis": 0, "largest": 0}),
    "arg max": ("ArgMax", (3, 7), {}, {"axis": 1, "keepdims": 0}),
    "arg min, last": ("ArgMin", (3, 7), {}, {"axis": 1, "select_last_index": 1}),
    "cumulative sum": ("CumSum", (3, 7), {"a": np.array(1)}, {}),
    "cumulative sum, backwards": ("CumSum", (3, 7), {"a": np.array(1)}, {"exclusive": 1, "reverse": 1}),
    "gather elements": ("GatherElements", (3, 4), {"i": ints(1, 0, -1, 3, 2, 0).reshape(3, 2)}, {"axis": 1}),
    "scatter elements": (
        "ScatterElements",
        (3, 4),
        {"i": ints(1, 0, -1).reshape(3, 1), "u": normal(3, 1)},
        {"axis": 1, "reduction": "add"},
    ),
    "global l2 pool": ("GlobalLpPool", (2, 3, 4, 5), {}, {}),
    "transpose": ("Transpose", (2, 3, 4), {}, {"perm": [2, 0, 1]}),
    "reshape": ("Reshape", (2, 3, 4), {"s": ints(0, -1)}, {}),
    "flatten": ("Flatten", (2, 3, 4), {}, {"axis": 2}),
    "squeeze": ("Squeeze", (2, 1, 4, 1), {"a": ints(1)}, {}),
    "unsqueeze": ("Unsqueeze", (2, 4), {"a": ints(0, -1)}, {}),
    "expand": ("Expand", (2, 1, 4), {"s": ints(3, 1)}, {}),
    "tile": ("Tile", (2, 3), {"r": ints(1, 2)}, {}),
    "gather, one": ("Gather", (2, 5), {"i": np.array(-1)}, {"axis": 1}),
    "gather, many": ("Gather", (2, 5), {"i": ints(4, 0, -2).reshape(1, 3)}, {"axis": 1}),
    "slice": ("Slice", (3, 9), {"s": ints(1), "e": ints(-1), "a": ints(1), "k": ints(3)}, {}),
    "slice, backwards": ("Slice", (3, 9), {"s": ints(-2), "e": ints(-100), "a": ints(1), "k": ints(-2)}, {}),
    "pad": ("Pad", (2, 3, 4), {"p": ints(0, 1, 0, 0, 0, 2), "v": np.float32(1.5)}, {}),
    "pad, reflect": ("Pad", (2, 3, 4), {"p": ints(0, 0, 1, 0, 0, 2)}, {"mode": "reflect"}),
    "resize, nearest": (
        "Resize",
        (1, 2, 3, 4),
        {"roi": np.zeros(0, np.float32), "s": np.array([1, 1, 2, 2], np.float32)},
        {"mode": "nearest", "coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"},
    ),
    "resize, nearest half pixel": (
        "Resize",
        (1, 2, 3, 4),
        {"roi": np.zeros(0, np.float32), "s": np.array([1, 1, 3, 2], np.float32)},
        {"mode": "nearest"},
    ),
    "resize, bilinear": (
        "Resize",
        (1, 2, 3, 4),
        {"roi": np.zeros(0, np.float32), "s": np.array([1, 1, 2, 1.5], np.float32)},
        {"mode": "linear"},
    ),
    "resize, corners": (
        "Resize",
        (1, 2, 3, 4),
        {"roi": np.zeros(0, np.float32), "s": np.array([1, 1, 2, 2], np.float32)},
        {"mode": "linear", "coordinate_transformation_mode": "align_corners"},
    ),
}
# The plain implementation refuses or misreads these few: torch's own layers stand in for it.
AT_RUN_TIME = {"LRN", "LpNormalization", "GlobalLpPool"}
BY_HAND = {
    "response norm, even": lambda x: (
        x / (1 + 0.3 / 4 * np.stack([(x[:, max(0, c - 1) : c + 3] ** 2).sum(1) for c in range(7)], 1)) ** 0.75
    ),
    "conv transpose, shape": lambda x: F.conv_transpose1d(
        torch.from_numpy(x), torch.from_numpy(normal(3, 2, 3)), None, 2
    )[..., 1:],
}


@pytest.mark.parametrize("case", sorted(CASES))
def test_an_operator_does_what_the_standard_says(case: str, tmp_path: Path) -> None:
    op, shape, more, attributes = CASES[case]
    outputs = ["y", "i"] if op == "TopK" else ["y"]
    made = model([helper.make_node(op, ["x", *more], outputs, name="n", **attributes)], {"x": shape}, weights=more)
    x = normal(*shape)
    expected = BY_HAND[case](x) if case in BY_HAND else (at_run_time if op in AT_RUN_TIME else reference)(made, x)
    np.testing.assert_allclose(run(made, tmp_path, x), np.asarray(expected), rtol=2e-5, atol=2e-5)


OLDER: dict[str, tuple[int, str, Sequence[int], dict[str, np.ndarray], dict[str, Any]]] = {
    # name: version, and as above
    "group norm": (21, "GroupNormalization", (2, 6, 4), {"w": normal(6), "b": normal(6)}, {"num_groups": 3}),
    "upsample": (9, "Upsample", (1, 2, 3, 4), {"s": np.array([1, 1, 2, 3], np.float32)}, {"mode": "nearest"}),
    "hardmax of all": (11, "Hardmax", (3, 4, 2), {}, {}),
    "reduce l2 by attribute": (13, "ReduceL2", (2, 3, 4), {}, {"axes": [1]}),
    "rms norm": (23, "RMSNormalization", (3, 8), {"w": normal(8)}, {}),
}


@pytest.mark.parametrize("case", sorted(OLDER))
def test_an_operator_of_another_version_does_what_that_version_says(case: str, tmp_path: Path) -> None:
    opset, op, shape, more, attributes = OLDER[case]
    node = helper.make_node(op, ["x", *more], ["y"], name="n", **attributes)
    made = model([node], {"x": shape}, weights=more, opset=opset)
    x = normal(*shape)
    if case == "hardmax of all":  # the plain implementation knows the newer version alone
        expected = (x.reshape(3, 8) == x.reshape(3, 8).max(1, keepdims=True)).reshape(shape).astype(np.float32)
    else:
        expected = reference(made, x) if case != "group norm" else at_run_time(made, x)
    np.testing.assert_allclose(run(made, tmp_path, x), expected, rtol=2e-5, atol=2e-5)


RECURRENT = {"LSTM": 4, "GRU": 3, "RNN": 1}  # gates


@pytest.mark.parametrize(
    ("op", "direction", "attributes"),
    [
        ("LSTM", "forward", {}),
        ("LSTM", "bidirectional", {}),
        ("LSTM", "reverse", {"layout": 1}),
        ("GRU", "forward", {"linear_before_reset": 1}),
        ("GRU", "bidirectional", {}),
        ("RNN", "reverse", {}),
    ],
)
@pytest.mark.parametrize("starts", [False, True])
def test_a_recurrent_layer_does_what_the_standard_says(
    op: str, direction: str, attributes: dict[str, Any], starts: bool, tmp_path: Path
) -> None:
    """Sequence, last state and last cell state, with and without biases and states at the start."""
    steps, batch, inputs, hidden = 5, 3, 4, 6
    d, gates = 2 if direction == "bidirectional" else 1, RECURRENT[op]
    weights = {"W": normal(d, gates * hidden, inputs), "R": normal(d, gates * hidden, hidden)}
    state = (batch, d, hidden) if attributes.get("layout") else (d, batch, hidden)
    if starts:
        weights["B"] = normal(d, 2 * gates * hidden)
    names = ["x", "W", "R", "B" if starts else ""]
    outputs = ["y", "h"] + (["c"] if op == "LSTM" else [])
    states = dict.fromkeys(outputs[1:], state) if starts else {}
    named = [f"{n}0" for n in states]
    node = helper.make_node(
        op, [*names, *(["", *named] if named else [])], outputs, hidden_size=hidden, direction=direction, **attributes
    )
    shape = (batch, steps, inputs) if attributes.get("layout") else (steps, batch, inputs)
    made = model([node], {"x": shape, **{f"{n}0": s for n, s in states.items()}}, weights=weights, outputs=outputs)
    xs = [normal(*shape), *(normal(*s) for s in states.values())]
    from onnx.reference import ReferenceEvaluator

    expected = ReferenceEvaluator(made).run(None, dict(zip(["x", *named], xs, strict=True)))
    onnx.save(made, str(tmp_path / "one.onnx"))
    network = load_onnx(tmp_path / "one.onnx").network
    for mode in (network.eval(), network.train()):
        got = mode(*map(torch.from_numpy, xs))
        for ours, theirs in zip(got, expected, strict=True):
            np.testing.assert_allclose(ours.detach().numpy(), theirs, rtol=2e-5, atol=2e-5)
    assert sum(p.numel() for p in network.parameters()) == sum(w.size for w in weights.values())


def test_an_lstm_of_a_file_costs_what_torchs_own_costs(tmp_path: Path) -> None:
    layer = nn.LSTM(4, 6)
    node = helper.make_node("LSTM", ["x", "W", "R", "B"], ["y", "h", "c"], name="/rnn/LSTM", hidden_size=6)
    weights = {"W": normal(1, 24, 4), "R": normal(1, 24, 6), "B": normal(1, 48)}
    onnx.save(model([node], {"x": (5, 3, 4)}, weights=weights), str(tmp_path / "one.onnx"))
    networks = (load_onnx(tmp_path / "one.onnx").network, layer)
    x, rules = torch.zeros(5, 3, 4), DispatchRules(cuda=True)
    ours, theirs = (trace_step(n, x, rules=rules).graph for n in networks)
    assert ours.totals.flops == theirs.totals.flops > 0
    assert ours.memory.gradient_bytes == theirs.memory.gradient_bytes == 4 * (24 * 10 + 48)


def quantized(zero: np.generic, scale: np.ndarray, **attributes: Any) -> onnx.ModelProto:
    """x and a weight of eight bits, both through the same format."""
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "s", "z"], ["q"], **attributes),
        helper.make_node("DequantizeLinear", ["q", "s", "z"], ["d"], **attributes),
        helper.make_node("DequantizeLinear", ["w", "t"], ["v"]),
        helper.make_node("MatMul", ["d", "v"], ["y"], name="/fc/MatMul"),
    ]
    w = np.arange(-6, 6, dtype=np.int8).reshape(4, 3)
    zeros = np.full(scale.shape, zero)
    return model(nodes, {"x": (5, 4)}, weights={"s": scale, "z": zeros, "w": w, "t": np.float32(0.2)})


@pytest.mark.parametrize(
    "made",
    [
        quantized(np.int8(3), np.array(0.02, np.float32)),
        quantized(np.uint8(128), np.array([0.02, 0.01, 0.3, 0.1], np.float32), axis=1),
    ],
    ids=["one scale", "one per channel"],
)
def test_numbers_of_eight_bits_are_what_the_standard_says_and_train(made: onnx.ModelProto, tmp_path: Path) -> None:
    x = normal(5, 4)
    np.testing.assert_allclose(run(made, tmp_path, x), reference(made, x), rtol=1e-6, atol=1e-6)
    network = load_onnx(tmp_path / "one.onnx").network
    assert [tuple(p.shape) for p in network.parameters()] == [(4, 3)]  # the weight of eight bits
    inputs = torch.from_numpy(x).requires_grad_()
    network(inputs).sum().backward()
    step, zero = numpy_helper.to_array(made.graph.initializer[0]), numpy_helper.to_array(made.graph.initializer[1])
    level, bounds = np.round(x / step) + zero, np.iinfo(zero.dtype)
    inside = (level >= bounds.min) & (level <= bounds.max)
    weight = next(network.parameters()).detach().numpy()
    assert inputs.grad is not None
    np.testing.assert_allclose(inputs.grad.numpy(), inside * weight.sum(1), rtol=1e-5, atol=1e-5)
    assert 0 < inside.sum() < inside.size


def test_functions_of_the_file_and_activations_of_other_domains_run(tmp_path: Path) -> None:
    twice = helper.make_function(
        "local", "Twice", ["a"], ["b"], [helper.make_node("Add", ["a", "a"], ["b"])], [helper.make_opsetid("", OPSET)]
    )
    nodes = [
        helper.make_node("Twice", ["x"], ["t"], domain="local"),
        helper.make_node("Silu", ["t"], ["y"], domain="com.example"),
    ]
    made = model(nodes, {"x": (2, 3)})
    made.functions.append(twice)
    made.opset_import.extend([helper.make_opsetid("local", 1), helper.make_opsetid("com.example", 1)])
    x = normal(2, 3)
    np.testing.assert_allclose(run(made, tmp_path, x), 2 * x / (1 + np.exp(-2 * x)), rtol=1e-5, atol=1e-5)


def test_functions_that_never_end_or_fill_the_memory_are_refused(tmp_path: Path) -> None:
    def function(name: str, *calls: str) -> onnx.FunctionProto:
        steps = ["a", *(f"v{k}" for k in range(len(calls)))]
        nodes = [helper.make_node(c, [i], [o], domain="f") for c, i, o in zip(calls, steps, steps[1:], strict=False)]
        nodes.append(helper.make_node("Identity", [steps[-1]], ["b"]))
        opsets = [helper.make_opsetid("", OPSET), helper.make_opsetid("f", 1)]
        return helper.make_function("f", name, ["a"], ["b"], nodes, opsets)

    doubling = [function(f"F{k}", *(f"F{k + 1}",) * 2) for k in range(30)] + [function("F30")]
    for functions, says in ((doubling, "once written out"), ([function("F0", "F0")], "calls itself")):
        made = model([helper.make_node("F0", ["x"], ["y"], domain="f")], {"x": (2, 3)})
        made.functions.extend(functions)
        made.opset_import.append(helper.make_opsetid("f", 1))
        onnx.save(made, str(tmp_path / "one.onnx"))
        with pytest.raises(BadFile, match=says):
            load_onnx(tmp_path / "one.onnx")


@pytest.mark.parametrize("size", [0, -1])
def test_a_size_that_is_not_positive_is_named(size: int, tmp_path: Path) -> None:
    onnx.save(model([helper.make_node("Relu", ["x"], ["y"])], {"x": (size, 3)}), str(tmp_path / "one.onnx"))
    with pytest.raises(BadInput, match=f"'x' has size {size} in dimension 0"):
        load_onnx(tmp_path / "one.onnx")


@pytest.mark.parametrize(
    ("op", "expected"), [("Greater", 0.0), ("GreaterOrEqual", 1.0), ("Less", 0.0), ("LessOrEqual", 1.0)]
)
@pytest.mark.parametrize("swapped", [False, True])
def test_firing_on_the_threshold_is_as_the_file_says(op: str, expected: float, swapped: bool, tmp_path: Path) -> None:
    made = model(
        [
            helper.make_node(op, ["t", "x"] if swapped else ["x", "t"], ["c"]),
            helper.make_node("Cast", ["c"], ["y"], to=TensorProto.FLOAT),
        ],
        {"x": (1, 3)},
        weights={"t": np.array(0.7, np.float32)},
    )
    level = np.float32(0.7)
    x = np.array([[np.nextafter(level, np.float32(0)), level, np.nextafter(level, np.float32(1))]], np.float32)
    np.testing.assert_array_equal(run(made, tmp_path, x), reference(made, x))
    assert run(made, tmp_path, x)[0, 1] == expected


@given(data=st.data())
@settings(max_examples=60, deadline=None)
def test_a_slice_takes_what_numpy_takes(data: st.DataObject, tmp_path_factory: pytest.TempPathFactory) -> None:
    size = data.draw(st.integers(1, 7))
    start, end = (data.draw(st.integers(-9, 9)) for _ in range(2))
    step = data.draw(st.sampled_from([-3, -2, -1, 1, 2, 3]))
    x = np.arange(2 * size, dtype=np.float32).reshape(2, size)
    assume(step > 0 or start >= -size)  # there ONNX begins at index 0, numpy nowhere
    expected = x[:, slice(start, end, step)]
    more = {"s": ints(start), "e": ints(end), "a": ints(1), "k": ints(step)}
    made = model([helper.make_node("Slice", ["x", *more], ["y"])], {"x": x.shape}, weights=more)
    np.testing.assert_array_equal(run(made, tmp_path_factory.mktemp("slice"), x), expected)


def test_split_gives_its_parts(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Split", ["x"], ["a", "b"], axis=1, num_outputs=2),
        helper.make_node("Sub", ["a", "b"], ["y"]),
    ]
    x = normal(2, 6)
    np.testing.assert_array_equal(run(model(nodes, {"x": (2, 6)}), tmp_path, x), x[:, :3] - x[:, 3:])


def test_shape_arithmetic_leaves_nothing_to_run(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Shape", ["x"], ["s"]),
        helper.make_node("Gather", ["s", "zero"], ["b"]),
        helper.make_node("Unsqueeze", ["b", "zeros"], ["bs"]),
        helper.make_node("Concat", ["bs", "rest"], ["target"], axis=0),
        helper.make_node("Reshape", ["x", "target"], ["y"]),
    ]
    constants = {"zero": np.array(0), "zeros": ints(0), "rest": ints(-1)}
    made = model(nodes, {"x": ("batch", 3, 4)}, weights=constants)
    assert run(made, tmp_path, normal(5, 3, 4), batch=5).shape == (5, 12)
    found = load_onnx(tmp_path / "one.onnx", batch=5)
    graph = trace_step(found.network, found.inputs, loop=None).graph
    assert {graph.op_types[o.type].kind for o in graph.ops} == {"view"}


def test_tied_weights_stay_one_parameter(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Identity", ["w"], ["w2"]),
        helper.make_node("MatMul", ["x", "w"], ["h"], name="/a/MatMul"),
        helper.make_node("MatMul", ["h", "w2"], ["y"], name="/b/MatMul"),
    ]
    w, x = normal(4, 4), normal(2, 4)
    made = model(nodes, {"x": (2, 4)}, weights={"w": w})
    np.testing.assert_allclose(run(made, tmp_path, x), x @ w @ w, rtol=1e-5, atol=1e-5)
    parameters = list(load_onnx(tmp_path / "one.onnx").network.named_parameters())
    assert [(n, tuple(p.shape)) for n, p in parameters] == [("a.weight", (4, 4))]


def test_every_operator_of_the_table_is_one_of_onnx() -> None:
    assert all(onnx.defs.has(op) for op in OPERATORS)


def test_the_page_lists_the_table() -> None:
    page = (Path(__file__).parents[2] / "docs" / "how-to" / "onnx-and-nir.md").read_text(encoding="utf-8")
    table = page.split("### What is supported")[1].split("## NIR")[0]
    assert set(re.findall(r"`(\w+)`", table)) == set(OPERATORS) | set(OTHER_DOMAINS)


# --- as a target of the command line


def test_a_file_is_a_target_with_its_own_weights(tmp_path: Path) -> None:
    net, x = network("spiking")
    export(net, x, tmp_path / "net.onnx", train=True)
    found = resolve(str(tmp_path / "net.onnx"), TraceOptions(batch=3))
    assert (found.name, found.batch, found.event, found.any_batch) == ("net.onnx", 3, False, False)
    assert [tuple(t.shape) for t in found.inputs] == [(3, 1, 8, 8)]
    assert found.realise() is found.network
    with pytest.raises(BadInput, match="leave --num-classes out"):
        resolve(str(tmp_path / "net.onnx"), TraceOptions(num_classes=4))


def test_spikes_are_counted_on_a_batch_that_the_file_can_run(tmp_path: Path) -> None:
    net, x = network("spiking")
    export(net, x, tmp_path / "net.onnx", train=True)
    graph = build_graph(str(tmp_path / "net.onnx"), TraceOptions(batch=3, spikes="digits"))
    assert graph.spikes is not None
    assert graph.spikes.measured
    (layer,) = [s for s in graph.spikes.layers if s.module == "conv2"]
    assert layer.spiking
    assert 0 < layer.density < 1


# --- what cannot be imported


def test_an_error_names_the_sizes_it_was_imported_for(tmp_path: Path) -> None:
    nodes = [helper.make_node("Add", ["x", "w"], ["y"], name="/a/Add")]
    path = saved(model(nodes, {"x": ("batch", 3)}, weights={"w": normal(2, 3)}), tmp_path)
    assert load_onnx(path, batch=2).batch == 2
    with pytest.raises(BadInput, match=r"'/a/Add' \(Add\) cannot be imported for x \[5, 3\]: "):
        load_onnx(path, batch=5)


def relu(shape: Sequence[int | str] = ("batch", 3)) -> onnx.ModelProto:
    return model([helper.make_node("Relu", ["x"], ["y"])], {"x": shape})


def saved(made: onnx.ModelProto, folder: Path) -> Path:
    onnx.save(made, str(folder / "net.onnx"))
    return folder / "net.onnx"


def test_a_named_batch_is_bound_and_a_fixed_one_is_kept(tmp_path: Path) -> None:
    assert load_onnx(saved(relu(), tmp_path), batch=7).inputs[0].shape == (7, 3)
    assert load_onnx(saved(relu((2, 3)), tmp_path)).batch == 2
    with pytest.raises(BadInput, match="batch is fixed at 2"):
        load_onnx(saved(relu((2, 3)), tmp_path), batch=7)


def test_an_unbound_size_is_named(tmp_path: Path) -> None:
    path = saved(relu(("batch", "height", 3)), tmp_path)
    with pytest.raises(BadInput, match=r"'x' has no size for 'height' \(dimension 1\): give --input-shape"):
        load_onnx(path)
    assert load_onnx(path, batch=2, input_shape=(5, 3)).inputs[0].shape == (2, 5, 3)
    with pytest.raises(BadInput, match="has size 3 in dimension 2, not 4"):
        load_onnx(path, input_shape=(5, 4))


def test_time_in_front_of_the_batch_is_bound_by_timesteps(tmp_path: Path) -> None:
    path = saved(relu(("time", "batch", 3)), tmp_path)
    found = load_onnx(path, batch=2, timesteps=6)
    assert (found.inputs[0].shape, found.event, found.timesteps) == ((6, 2, 3), True, 6)
    with pytest.raises(BadInput, match=r"'time'.*give --timesteps"):
        load_onnx(path)
    with pytest.raises(BadInput, match="no size named after time"):
        load_onnx(saved(relu(), tmp_path), timesteps=6)


def test_unsupported_operators_are_counted_and_named(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Relu", ["x"], ["h"]),
        helper.make_node("NonZero", ["h"], ["i"], name="/find/NonZero"),
        helper.make_node("Fancy", ["h"], ["y"], domain="my.ops"),
    ]
    with pytest.raises(
        BadInput, match=r"2 of 3 nodes .*: NonZero, my\.ops\.Fancy \(the first is node '/find/NonZero'\)"
    ):
        load_onnx(saved(model(nodes, {"x": (1, 3)}), tmp_path))


def test_a_shape_that_depends_on_data_is_refused_with_its_node(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Cast", ["x"], ["s"], to=TensorProto.INT64),
        helper.make_node("Reshape", ["z", "s"], ["y"], name="/r/Reshape"),
    ]
    with pytest.raises(BadInput, match=r"node '/r/Reshape' .*depends on the network's data"):
        load_onnx(saved(model(nodes, {"x": (2,), "z": (2, 3)}), tmp_path))


@given(cut=st.integers(1, 400))
@settings(max_examples=40, deadline=None)
def test_a_truncated_file_is_a_bad_file(cut: int, tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("cut")
    made = model([helper.make_node("MatMul", ["x", "w"], ["y"])], {"x": (1, 8)}, weights={"w": normal(8, 8)})
    whole = made.SerializeToString()
    (folder / "net.onnx").write_bytes(whole[: max(0, len(whole) - cut)])
    with pytest.raises((BadFile, BadInput)) as caught:
        load_onnx(folder / "net.onnx")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"not a network", b"\x08\x08\x12\x00", b"\xff" * 64])
def test_what_is_no_onnx_is_a_bad_file(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "net.onnx").write_bytes(content)
    with pytest.raises(BadFile):
        load_onnx(tmp_path / "net.onnx")


def test_a_missing_file_is_a_bad_file(tmp_path: Path) -> None:
    with pytest.raises(BadFile, match="no such file"):
        load_onnx(tmp_path / "absent.onnx")


def external(folder: Path, location: str) -> Path:
    made = model([helper.make_node("MatMul", ["x", "w"], ["y"])], {"x": (1, 8)}, weights={"w": normal(8, 8)})
    (tensor,) = made.graph.initializer
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value=location)
    (folder / "net.onnx").write_bytes(made.SerializeToString())
    return folder / "net.onnx"


def test_weights_beside_the_file_are_read(tmp_path: Path) -> None:
    (tmp_path / "w.bin").write_bytes(normal(8, 8).tobytes())
    (weight,) = load_onnx(external(tmp_path, "w.bin")).network.parameters()
    np.testing.assert_array_equal(weight.detach().numpy(), normal(8, 8))


@pytest.mark.parametrize("location", ["../w.bin", "", "link.bin"])
def test_weights_elsewhere_are_refused(location: str, tmp_path: Path) -> None:
    inner = tmp_path / "inner"
    inner.mkdir()
    (tmp_path / "w.bin").write_bytes(normal(8, 8).tobytes())
    (inner / "link.bin").symlink_to(tmp_path / "w.bin")
    with pytest.raises(BadFile, match="must be a file in the model's own folder"):
        load_onnx(external(inner, location))


def test_a_short_weight_file_is_a_bad_file(tmp_path: Path) -> None:
    (tmp_path / "w.bin").write_bytes(b"\0" * 17)
    with pytest.raises(BadFile):
        load_onnx(external(tmp_path, "w.bin"))


def test_a_huge_constant_is_refused_before_it_is_made(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("ConstantOfShape", ["s"], ["c"]),
        helper.make_node("Add", ["x", "c"], ["y"]),
    ]
    with pytest.raises(BadInput, match="makes a constant of shape"):
        load_onnx(saved(model(nodes, {"x": (1,)}, weights={"s": ints(10**6, 10**6)}), tmp_path))


def test_inputs_of_another_shape_are_refused(tmp_path: Path) -> None:
    found = load_onnx(saved(relu(), tmp_path), batch=2)
    with pytest.raises(BadInput, match=r"imported for x \[2, 3\]"):
        found.network(torch.zeros(4, 3))


def test_weights_in_nodes_are_parameters_and_absent_ones_leave_the_shapes(tmp_path: Path) -> None:
    """Weights as Constant and ConstantOfShape nodes; then the same model without the values of its weights."""
    weights = {"w": np.ones((4, 3, 3, 3), np.float32), "b": np.zeros(4, np.float32)}
    shape = numpy_helper.from_array(np.array([2, 4], np.int64), "shape")
    fill = helper.make_tensor("fill", TensorProto.FLOAT, [1], [0.5])
    body = [
        helper.make_node("Conv", ["x", "w", "b"], ["c"], pads=[1, 1, 1, 1]),
        helper.make_node("GlobalAveragePool", ["c"], ["p"]),
        helper.make_node("Flatten", ["p"], ["f"]),
        helper.make_node("Gemm", ["f", "v"], ["y"], transB=1),
    ]
    ends = (
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [2, 3, 6, 6])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [2, 2])],
    )
    constants = [helper.make_node("Constant", [], [n], value=numpy_helper.from_array(v, n)) for n, v in weights.items()]
    of_shape = helper.make_node("ConstantOfShape", ["shape"], ["v"], value=fill)
    graph = helper.make_graph([*constants, of_shape, *body], "g", *ends, [shape])
    path = tmp_path / "nodes.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8), path)
    traced = build_graph(str(path), TraceOptions(spikes="none"))
    assert traced.parameters == 4 * 3 * 9 + 4 + 2 * 4
    assert traced.memory.gradient_bytes == 4 * traced.parameters

    stripped = [numpy_helper.from_array(v, n) for n, v in {**weights, "v": np.ones((2, 4), np.float32)}.items()]
    for tensor in stripped:
        tensor.ClearField("raw_data")
        tensor.data_location = TensorProto.EXTERNAL
        tensor.external_data.add(key="location", value="left-out.bin")
    graph = helper.make_graph(body, "g", *ends, stripped)
    path = tmp_path / "stripped.onnx"
    path.write_bytes(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8).SerializeToString()
    )
    without = build_graph(str(path), TraceOptions(spikes="none"))
    assert [t.flops for t in without.tasks] == [t.flops for t in traced.tasks]
    assert any("values of 3 weights are not in the file" in a for a in without.assumptions)
