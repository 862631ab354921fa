"""NIR graphs step as their equations say, give gradients, and trace."""

from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from pararev_hw.errors import BadFile, BadInput
from pararev_hw.importers.nir_graph import DEFAULT_TIMESTEPS, load_nir, nir_network
from pararev_hw.tracing import StepDescription, trace_step
from pararev_hw.training.step import Loop

nir = pytest.importorskip("nir", reason="reads NIR graphs: the extra `interop`")
h5py = pytest.importorskip("h5py", reason="comes with nir")

DT = 1e-4


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def normal(*shape: int, seed: int = 0) -> np.ndarray:
    return rng(seed).normal(size=shape).astype(np.float32)


def neuron(kind: str, shape: tuple[int, ...], *, uniform: bool = False, seed: int = 0) -> Any:
    """A neuron of that kind, every parameter drawn from where something happens within a few steps."""
    draw = rng(seed)

    def value(low: float, high: float) -> np.ndarray:
        return np.full(shape, draw.uniform(low, high)) if uniform else draw.uniform(low, high, shape)

    firing = {"v_threshold": value(0.2, 0.6), "v_reset": value(-0.3, 0.1)}
    leaky = {"tau": value(2e-4, 8e-4), "r": value(1.0, 3.0), "v_leak": value(-0.1, 0.1)}
    current = {
        "tau_syn": value(2e-4, 5e-4),
        "tau_mem": value(2e-4, 8e-4),
        "r": value(1.0, 3.0),
        "v_leak": value(-0.1, 0.1),
        "w_in": value(0.5, 2.0),
    }
    given = {
        "I": {"r": value(0.5, 2.0)},
        "IF": {"r": value(0.5, 2.0), **firing},
        "LI": leaky,
        "LIF": {**leaky, **firing},
        "CubaLI": current,
        "CubaLIF": {**current, **firing},
    }
    return getattr(nir, kind)(**given[kind])


KINDS = ("I", "IF", "LI", "LIF", "CubaLI", "CubaLIF")


def stepped(node: Any, x: np.ndarray) -> np.ndarray:
    """The equations of NIR by Euler's method, one number at a time in double precision. x is [T, ...]."""
    kind = type(node).__name__
    out = np.zeros_like(x, dtype=np.float64)
    for place in np.ndindex(x.shape[1:]):
        at = {k: np.asarray(v)[place[1:]] for k, v in vars(node).items() if isinstance(v, np.ndarray)}
        v = current = 0.0
        for t in range(len(x)):
            drive = float(x[(t, *place)])
            if kind.startswith("Cuba"):
                current += DT / at["tau_syn"] * (at["w_in"] * drive - current)
                v += DT / at["tau_mem"] * (at["v_leak"] - v + at["r"] * current)
            elif kind.startswith("LI"):
                v += DT / at["tau"] * (at["v_leak"] - v + at["r"] * drive)
            else:
                v += at["r"] * drive
            if not kind.endswith("F"):
                out[(t, *place)] = v
                continue
            fires = v > at["v_threshold"]
            out[(t, *place)] = fires
            v = at["v_reset"] if fires else v
    return out


def shape_of(*sizes: int) -> np.ndarray:
    return np.array(sizes)


def chain(shape: tuple[int, ...], nodes: Mapping[str, Any], out: tuple[int, ...]) -> Any:
    """input -> the nodes in their order -> output."""
    every = {"input": nir.Input(shape_of(*shape)), **nodes, "output": nir.Output(shape_of(*out))}
    names = list(every)
    return nir.NIRGraph(every, list(pairwise(names)), type_check=False)


def run(graph: Any, *xs: np.ndarray) -> np.ndarray:
    with torch.no_grad():
        return np.asarray(nir_network(graph, dt_s=DT)(*(torch.from_numpy(x) for x in xs)))


@pytest.mark.parametrize("uniform", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_a_neuron_follows_its_equation(kind: str, uniform: bool) -> None:
    node = neuron(kind, (5,), uniform=uniform)
    x = normal(12, 3, 5, seed=1)
    expected = stepped(node, x)
    if kind.endswith("F"):
        assert 0 < expected.mean() < 1
    np.testing.assert_allclose(run(chain((5,), {"n": node}, (5,)), x), expected, rtol=1e-4, atol=1e-5)


@given(seed=st.integers(0, 1000), kind=st.sampled_from(["LI", "CubaLI", "I"]), steps=st.integers(1, 8))
@settings(max_examples=30, deadline=None)
def test_what_does_not_fire_adds_up(seed: int, kind: str, steps: int) -> None:
    """Response to a + b, less the response to nothing, is the sum of both."""
    graph = chain((4,), {"n": neuron(kind, (4,), seed=seed)}, (4,))
    a, b = normal(steps, 2, 4, seed=seed), normal(steps, 2, 4, seed=seed + 1)
    rest = run(graph, np.zeros_like(a))
    np.testing.assert_allclose(run(graph, a + b) + rest, run(graph, a) + run(graph, b), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("uniform", [False, True])
def test_a_membrane_on_the_threshold_does_not_fire(uniform: bool) -> None:
    level = np.full(2, 0.5) if uniform else np.array([0.5, 0.25])
    graph = chain((2,), {"n": nir.IF(r=np.ones(2), v_threshold=level, v_reset=np.zeros(2))}, (2,))
    on = level.astype(np.float32).reshape(1, 1, 2)
    np.testing.assert_array_equal(run(graph, on), 0.0)
    np.testing.assert_array_equal(run(graph, np.nextafter(on, np.float32(1))), 1.0)
    alone = chain((2,), {"n": nir.Threshold(threshold=level)}, (2,))
    np.testing.assert_array_equal(run(alone, on), 0.0)
    np.testing.assert_array_equal(run(alone, np.nextafter(on, np.float32(1))), 1.0)


def conv_graph() -> Any:
    nodes = {
        "conv": nir.Conv2d(
            (8, 8), normal(4, 1, 3, 3), stride=(1, 1), padding=(1, 0), dilation=(1, 2), groups=2, bias=normal(4)
        ),
        "if": neuron("IF", (4, 8, 4)),
        "sum": nir.SumPool2d(shape_of(2, 2), shape_of(2, 2), shape_of(0, 0)),
        "mean": nir.AvgPool2d(shape_of(2, 2), shape_of(2, 1), shape_of(0, 1)),
        "scale": nir.Scale(normal(4, 2, 3)),
        "flat": nir.Flatten({"input": shape_of(4, 2, 3)}, start_dim=0, end_dim=-1),
        "fc": nir.Affine(normal(3, 24), normal(3)),
    }
    return chain((2, 8, 8), nodes, (3,))


def test_layers_do_what_torch_does_step_by_step() -> None:
    graph = conv_graph()
    x = normal(5, 2, 2, 8, 8, seed=3)
    n = graph.nodes
    maps = [
        F.conv2d(
            torch.from_numpy(s),
            torch.from_numpy(n["conv"].weight),
            torch.from_numpy(n["conv"].bias),
            1,
            (1, 0),
            (1, 2),
            2,
        )
        for s in x
    ]
    spikes = torch.from_numpy(stepped(n["if"], torch.stack(maps).numpy()).astype(np.float32))
    expected = []
    for s in spikes:
        y = F.avg_pool2d(F.avg_pool2d(s, 2) * 4, 2, (2, 1), (0, 1)) * torch.from_numpy(n["scale"].scale)
        expected.append(y.flatten(1) @ torch.from_numpy(n["fc"].weight).T + torch.from_numpy(n["fc"].bias))
    np.testing.assert_allclose(run(graph, x), torch.stack(expected).numpy(), rtol=1e-4, atol=1e-5)


def test_conv1d_with_padding_same() -> None:
    w = normal(3, 2, 3)
    node = nir.Conv1d(9, w, stride=1, padding="same", dilation=1, groups=1, bias=np.zeros(3))
    x = normal(2, 2, 2, 9)
    expected = [F.conv1d(torch.from_numpy(s), torch.from_numpy(w), padding=1).numpy() for s in x]
    np.testing.assert_allclose(run(chain((2, 9), {"c": node}, (3, 9)), x), np.stack(expected), rtol=1e-5, atol=1e-6)


def recurrent(bias: bool) -> Any:
    w_rec = normal(6, 6, seed=5) * 0.6
    rec = nir.Affine(w_rec, normal(6, seed=6)) if bias else nir.Linear(w_rec)
    nodes = {
        "input": nir.Input(shape_of(4)),
        "fc": nir.Affine(normal(6, 4), normal(6, seed=7)),
        "lif": neuron("LIF", (6,)),
        "rec": rec,
        "out": nir.Linear(normal(3, 6)),
        "output": nir.Output(shape_of(3)),
    }
    edges = [("input", "fc"), ("fc", "lif"), ("lif", "rec"), ("rec", "lif"), ("lif", "out"), ("out", "output")]
    return nir.NIRGraph(nodes, edges)


@pytest.mark.parametrize("bias", [False, True])
def test_a_recurrent_edge_brings_the_spikes_of_one_step_before(bias: bool) -> None:
    graph = recurrent(bias)
    n = graph.nodes
    x = normal(10, 3, 4, seed=8)
    share = DT / n["lif"].tau
    v, spikes, expected = np.zeros((3, 6)), np.zeros((3, 6)), []
    for step in x:
        drive = step @ n["fc"].weight.T + n["fc"].bias + spikes @ n["rec"].weight.T + (n["rec"].bias if bias else 0.0)
        v = v + share * (n["lif"].v_leak - v + n["lif"].r * drive)
        spikes = (v > n["lif"].v_threshold).astype(float)
        v = np.where(spikes > 0, n["lif"].v_reset, v)
        expected.append(spikes @ n["out"].weight.T)
    assert 0 < np.mean(np.abs(expected) > 0) < 1
    np.testing.assert_allclose(run(graph, x), expected, rtol=1e-4, atol=1e-5)


def nested() -> Any:
    """The recurrent graph again, its cycle in a graph of its own, as snnTorch and nirtorch write it."""
    n = recurrent(True).nodes
    inner = nir.NIRGraph(
        {"input": nir.Input(shape_of(6)), "lif": n["lif"], "rec": n["rec"], "output": nir.Output(shape_of(6))},
        [("input", "lif"), ("lif", "rec"), ("rec", "lif"), ("lif", "output")],
    )
    nodes = {"input": n["input"], "fc": n["fc"], "loop": inner, "out": n["out"], "output": n["output"]}
    return nir.NIRGraph(nodes, list(pairwise(nodes)))


def test_a_graph_in_a_graph_is_the_same_graph() -> None:
    x = normal(10, 3, 4, seed=8)
    np.testing.assert_array_equal(run(nested(), x), run(recurrent(True), x))


def test_a_graph_in_a_cycle_keeps_its_state() -> None:
    """A LIF inside a graph of its own, inside a cycle: the same as the LIF itself there."""
    plain = recurrent(False)
    inner = nir.NIRGraph(
        {"input": nir.Input(shape_of(6)), "lif": plain.nodes["lif"], "output": nir.Output(shape_of(6))},
        [("input", "lif"), ("lif", "output")],
    )
    boxed = nir.NIRGraph({**plain.nodes, "lif": inner}, plain.edges, type_check=False)
    x = normal(10, 3, 4, seed=8)
    np.testing.assert_array_equal(run(boxed, x), run(plain, x))


@given(order=st.permutations(["input", "fc", "lif", "rec", "out", "output"]), edges=st.randoms())
@settings(max_examples=25, deadline=None)
def test_the_order_of_nodes_and_edges_changes_nothing(order: list[str], edges: Any) -> None:
    graph = recurrent(True)
    shuffled = list(graph.edges)
    edges.shuffle(shuffled)
    again = nir.NIRGraph({n: graph.nodes[n] for n in order}, shuffled, type_check=False)
    x = normal(6, 2, 4, seed=8)
    np.testing.assert_allclose(run(again, x), run(graph, x), rtol=1e-5, atol=1e-6)


def test_edges_into_one_node_add_up() -> None:
    a, b = normal(3, 4), normal(3, 4, seed=1)
    nodes = {
        "input": nir.Input(shape_of(4)),
        "a": nir.Linear(a),
        "b": nir.Linear(b),
        "output": nir.Output(shape_of(3)),
    }
    graph = nir.NIRGraph(nodes, [("input", "a"), ("input", "b"), ("a", "output"), ("b", "output")])
    x = normal(2, 2, 4)
    np.testing.assert_allclose(run(graph, x), x @ (a + b).T, rtol=1e-5, atol=1e-6)


def saved(graph: Any, folder: Path) -> Path:
    nir.write(folder / "net.nir", graph)
    return folder / "net.nir"


@pytest.mark.parametrize("graph", [conv_graph, lambda: recurrent(True), nested])
def test_a_file_gives_the_network_of_its_graph(graph: Any, tmp_path: Path) -> None:
    made = graph()
    found = load_nir(saved(made, tmp_path), batch=2, timesteps=4)
    x = normal(*found.inputs[0].shape)
    with torch.no_grad():
        np.testing.assert_allclose(found.network(torch.from_numpy(x)), run(made, x), rtol=1e-6, atol=1e-6)
    assert found.event
    assert found.timesteps == 4


@pytest.mark.parametrize("mode", ["infer", "train"])
def test_the_trace_has_the_macs_of_the_layers(mode: Any, tmp_path: Path) -> None:
    steps, batch = 4, 2
    found = load_nir(saved(recurrent(True), tmp_path), batch=batch, timesteps=steps)
    graph = trace_step(
        found.network,
        found.inputs,
        loop=Loop() if mode == "train" else None,
        description=StepDescription(batch=batch, timesteps=steps),
    ).graph
    forward = steps * batch * (6 * 4 + 6 * 6 + 3 * 6)  # fc, rec, out
    assert sum(t.macs for t in graph.tasks if t.phase == "forward") == forward
    neurons = {o.module for o in graph.ops if graph.op_types[o.type].kind == "neuron"}
    assert neurons == {"lif"}
    assert {t.block for t in graph.tasks if t.macs} == {"fc", "rec", "out"}


def test_every_weight_gets_a_gradient(tmp_path: Path) -> None:
    found = load_nir(saved(recurrent(True), tmp_path), batch=3, timesteps=10)
    found.network(torch.from_numpy(normal(10, 3, 4, seed=8))).square().sum().backward()
    names = {n: p.grad for n, p in found.network.named_parameters()}
    assert set(names) == {"fc.weight", "fc.bias", "rec.weight", "rec.bias", "out.weight"}
    assert all(g is not None and g.abs().sum() > 0 for g in names.values())


def test_time_steps_are_assumed_and_said(tmp_path: Path) -> None:
    found = load_nir(saved(recurrent(False), tmp_path), batch=2)
    assert found.inputs[0].shape == (DEFAULT_TIMESTEPS, 2, 4)
    assert any("time steps assumed" in a for a in found.assumptions)
    assert any("0.0001 s" in a for a in found.assumptions)


def test_snntorch_gives_the_same_spikes() -> None:
    snn = pytest.importorskip("snntorch", reason="compares with snnTorch: the extra `interop`")
    importer = pytest.importorskip("snntorch.import_nir", reason="compares with snnTorch: the extra `interop`")
    assert snn
    beta = 0.8
    lif = nir.LIF(
        tau=np.full(6, DT / (1 - beta)),
        r=np.full(6, 1 / (1 - beta)),
        v_leak=np.zeros(6),
        v_threshold=np.full(6, 0.9),
        v_reset=np.zeros(6),
    )
    graph = chain((4,), {"fc": nir.Affine(normal(6, 4), normal(6)), "lif": lif, "out": nir.Linear(normal(3, 6))}, (3,))
    x = normal(10, 2, 4)
    theirs, state = importer.import_from_nir(graph), None
    expected = []
    for step in torch.from_numpy(x):
        out = theirs(step, state)
        y, state = out if isinstance(out, tuple) else (out, state)
        expected.append(y.detach().numpy())
    assert 0 < np.mean(np.abs(expected) > 0) < 1
    np.testing.assert_allclose(run(graph, x), np.stack(expected), rtol=1e-4, atol=1e-5)


# --- what cannot be read


def test_unsupported_nodes_are_counted_and_named() -> None:
    graph = chain((2,), {"wait": nir.Delay(np.full(2, 1e-3))}, (2,))
    with pytest.raises(BadInput, match=r"1 of 3 nodes are not supported: Delay \(the first is node 'wait'\)"):
        nir_network(graph)


def test_a_node_that_nothing_feeds_is_refused() -> None:
    nodes = {"input": nir.Input(shape_of(2)), "fc": nir.Linear(normal(2, 2)), "output": nir.Output(shape_of(2))}
    graph = nir.NIRGraph(nodes, [("fc", "output")], type_check=False)
    with pytest.raises(BadInput, match="'fc' has no input"):
        nir_network(graph)


def test_an_input_of_another_shape_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"has shape \(4,\), not \(5,\)"):
        load_nir(saved(recurrent(False), tmp_path), input_shape=(5,))


@pytest.mark.parametrize("content", [b"", b"not a network", b"\x89HDF\r\n\x1a\n" + b"\0" * 40])
def test_what_is_no_nir_is_a_bad_file(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "net.nir").write_bytes(content)
    with pytest.raises(BadFile) as caught:
        load_nir(tmp_path / "net.nir")
    assert "\n" not in str(caught.value)


@given(share=st.floats(0.0, 0.97))
@settings(max_examples=25, deadline=None)
def test_a_truncated_file_is_a_bad_file(share: float, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = saved(recurrent(True), tmp_path_factory.mktemp("cut"))
    whole = path.read_bytes()
    path.write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(BadFile):
        load_nir(path)


def test_a_file_that_leads_into_another_is_refused(tmp_path: Path) -> None:
    saved(recurrent(True), tmp_path).rename(tmp_path / "other.nir")
    with h5py.File(tmp_path / "net.nir", "w") as f:
        f["version"] = nir.version
        f["node"] = h5py.ExternalLink("other.nir", "/node")
    with pytest.raises(BadFile, match="is a link"):
        load_nir(tmp_path / "net.nir")


def test_arrays_that_unpack_to_too_much_are_refused_unread(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "net.nir", "w") as f:
        f.create_dataset("node", shape=(1 << 20, 1 << 20), dtype="f4", chunks=(1024, 1024))
    with pytest.raises(BadFile, match="unpack to"):
        load_nir(tmp_path / "net.nir")


def test_a_missing_file_is_a_bad_file(tmp_path: Path) -> None:
    with pytest.raises(BadFile, match="no such file"):
        load_nir(tmp_path / "absent.nir")
