"""The systems of the literature against independent computations: closed forms, identities, plain autograd."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as nnf

from pararev_hw import models
from pararev_hw.errors import BadInput
from pararev_hw.models.surrogates import ATan
from pararev_hw.models.systems import binary, dsr, feedback, lru, neverreset, online, tandem, trevsnn, video, zeromem
from pararev_hw.tracing import trace_step
from pararev_hw.training.step import Loop
from tests.helpers.system_cases import CASES

DOUBLE = torch.float64


def gradients(network: nn.Module, loss: Callable[[nn.Module], Tensor]) -> dict[str, Tensor]:
    network.zero_grad()
    loss(network).backward()
    return {n: p.grad.clone() for n, p in network.named_parameters() if p.grad is not None}


def assert_close(found: dict[str, Tensor], expected: dict[str, Tensor], tolerance: float = 1e-11) -> None:
    assert set(found) == set(expected)
    largest = max(float(g.abs().max()) for g in expected.values())
    for n, g in expected.items():
        scale = max(float(g.abs().max()), 1e-3 * largest)  # some gradients are zero but for rounding
        assert float((found[n] - g).abs().max()) <= tolerance * scale, n


def noise(*shape: int, seed: int = 0, dtype: torch.dtype = DOUBLE) -> Tensor:
    return torch.randn(*shape, dtype=dtype, generator=torch.Generator().manual_seed(seed))


# ---- reversible networks: their gradients are plain autograd's


@pytest.mark.parametrize("name", ["revsformer_2_384", "pararevsformer_2_384"])
def test_a_reversible_transformer_has_the_gradients_of_plain_autograd(name: str) -> None:
    case = CASES[name]
    x, y = case.batch()

    def loss(net: nn.Module) -> Tensor:
        return nnf.cross_entropy(net(x.double()), y)

    found, expected = (gradients(case.network(store=s).double(), loss) for s in (False, True))
    assert_close(found, expected)


@pytest.mark.parametrize("name", ["trevsnn_tiny", "trevsnn_tiny_dvs"])
def test_temporal_reversal_has_the_gradients_of_plain_autograd(name: str) -> None:
    case = CASES[name]
    x, y = case.batch()

    def loss(net: nn.Module) -> Tensor:
        return nnf.cross_entropy(net(x.double()), y)

    plain = case.network(keep="all").double()
    expected = gradients(plain, loss)
    for keep in ("last", "columns"):
        net = case.network(keep=keep).double()
        assert_close(gradients(net, loss), expected)
        for b, c in zip(net.buffers(), plain.buffers(), strict=True):  # statistics are updated once
            assert torch.allclose(b, c, rtol=1e-12)


def test_alpha_keeps_its_distance_from_zero() -> None:
    column = trevsnn.Column((4, 4, 4, 4), 3, False, [(nn.Identity(), nn.Identity())] * 4)
    with torch.no_grad():
        column.alphas[0].copy_(torch.tensor([0.5, -0.5, 1e-6, -1e-6]).view(1, 4, 1, 1))
    assert column.alpha(0).flatten().tolist() == pytest.approx([0.5, -0.5, 1e-3, -1e-3])


# ---- zero-memory neuron

CONSTANTS = zeromem.Constants(2.0, 1.0, 0.5, 0.5, ATan())


@given(st.integers(0, 10**6), st.floats(1.1, 4), st.floats(0.1, 1), st.floats(0.1, 1))
@settings(max_examples=50, deadline=None)
def test_the_inverse_step_undoes_the_step(seed: int, tau: float, alpha: float, beta: float) -> None:
    c = zeromem.Constants(tau, 1.0, alpha, beta, ATan())
    x1, x2, v1, v2 = noise(4, 64, seed=seed).unbind(0)
    back = zeromem.inverted(*zeromem.stepped(x1, x2, v1, v2, c), c)
    for found, expected in zip(back[:4], (x1, x2, v1, v2), strict=True):
        assert torch.allclose(found, expected, atol=1e-12 / min(alpha, beta))


@pytest.mark.parametrize("way", ["direct", "classic"])
def test_the_reversible_neuron_has_the_gradient_of_plain_autograd(way: str) -> None:
    found = []
    for backward in (way, "stored"):
        x = noise(5, 2, 6, 3).requires_grad_()
        y = zeromem.ReversibleNeuron(backward)(x)  # type: ignore[arg-type]
        y.backward(noise(*y.shape, seed=1))
        found.append((y.detach(), x.grad))
    assert torch.equal(found[0][0], found[1][0])
    assert torch.allclose(found[0][1], found[1][1], rtol=1e-11, atol=1e-13)


def test_the_reversible_neuron_saves_its_outputs_and_one_state_whatever_the_time() -> None:
    def saved(steps: int, backward: str) -> int:
        neuron = nn.Sequential(zeromem.ReversibleNeuron(backward))  # type: ignore[arg-type]
        wrapped = _Scaled(neuron)
        return trace_step(wrapped, torch.empty(steps, 2, 8, 4, device="meta")).graph.memory.saved_bytes

    step = 2 * 8 * 4 * 4  # bytes of one time step's tensor
    growth = {way: (saved(9, way) - saved(5, way)) / 4 / step for way in ("direct", "stored")}
    assert growth["direct"] == pytest.approx(1)  # y, which the next layer keeps anyway
    assert growth["stored"] >= 2


class _Scaled(nn.Module):
    """x times a trained number, so that there is something to train."""

    def __init__(self, body: nn.Module) -> None:
        super().__init__()
        self.gain, self.body = nn.Parameter(torch.ones(())), body

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.body(x * self.gain)
        return out.sum(0)


def test_the_direct_gradient_does_less_than_the_classic_one() -> None:
    def work(backward: str) -> int:
        net = _Scaled(zeromem.ReversibleNeuron(backward))  # type: ignore[arg-type]
        graph = trace_step(net, torch.empty(4, 2, 8, 4, 4, device="meta")).graph
        return sum(t.vector_flops for t in graph.tasks if t.phase in ("backward", "recompute"))

    assert work("direct") < 0.8 * work("classic")


# ---- OTTT and SLTT


def test_online_gradients_are_the_error_now_times_the_trace() -> None:
    net = CASES["ottt_vgg11"].network().double().train()
    assert isinstance(net, online.OnlineVGG)
    x, y = CASES["ottt_vgg11"].batch()
    x = x.double()
    net.training_step((x, y), torch.optim.SGD(net.parameters(), lr=0.0))
    found = {k: conv.weight.grad.clone() for k, conv in enumerate(net.convs)}  # type: ignore[union-attr]

    # the same by hand: plain autograd of one step at a time gives the errors, the traces are kept here
    traces: list[Tensor] = []
    states: list[online.State | None] = [None] * len(net.convs)
    expected = {k: torch.zeros_like(conv.weight) for k, conv in enumerate(net.convs)}  # type: ignore[arg-type]
    for _ in range(net.timesteps):
        inputs: list[Tensor] = []
        currents: list[Tensor] = []
        weights: list[Tensor] = []
        h, after = x, []
        for conv, neuron, pooled, state in zip(net.convs, net.neurons, net.pools, states, strict=True):
            weight = conv.standardised().detach().requires_grad_()  # type: ignore[operator]
            inputs.append(h.detach())
            weights.append(weight)
            current = nnf.conv2d(h, weight, conv.bias, padding=1)  # type: ignore[arg-type]
            currents.append(current)
            s, new = neuron(current, state)
            after.append(new)
            h = s * 2.74
            h = nnf.avg_pool2d(h, 2) if pooled else h
        loss = net.loss(net.fc(h.mean((2, 3))), y)
        errors = torch.autograd.grad(loss, currents)
        traces = [i if not traces else 0.5 * traces[k] + i for k, i in enumerate(inputs)]
        for k, (conv, error) in enumerate(zip(net.convs, errors, strict=True)):
            read = inputs[0] if k == 0 else traces[k]  # the first convolution reads the image itself
            dw = torch.nn.grad.conv2d_weight(read, weights[k].shape, error, padding=1)
            conv.zero_grad()
            conv.standardised().backward(dw)  # type: ignore[operator]
            expected[k] += conv.weight.grad  # type: ignore[operator]
        states = list(after)
    for k, g in expected.items():
        assert torch.allclose(found[k], g, rtol=1e-9, atol=1e-14), k


def test_the_reference_form_of_ottt_gives_the_same_gradients_and_runs_each_convolution_twice() -> None:
    case = CASES["ottt_vgg11"]
    x, y = case.batch()

    def loss(net: nn.Module) -> dict[str, Tensor]:
        net.train().training_step((x.double(), y), torch.optim.SGD(net.parameters(), lr=0.0))  # type: ignore[operator]
        return {n: p.grad.clone() for n, p in net.named_parameters() if p.grad is not None}

    assert_close(loss(case.network(reference=True).double()), loss(case.network().double()), 1e-9)

    def macs(reference: bool, phase: str) -> int:
        net = case.network(reference=reference)
        graph = trace_step(net, case.batch(), loop=Loop(step=lambda m, b, o: m.training_step(b, o))).graph
        return sum(t.macs for t in graph.tasks if t.phase == phase)

    first = 4 * 3 * 16 * 16 * 27 * 4  # the first convolution reads no spikes, and has no trace: T·B·H·W·27·c
    assert macs(True, "forward") >= 2 * (macs(False, "forward") - first)


@pytest.mark.parametrize(("name", "growth"), [("ottt_vgg11", 1.1), ("sltt_vgg11", 1.1)])
def test_online_training_needs_the_same_memory_whatever_the_time(name: str, growth: float) -> None:
    def peak(steps: int) -> int:
        net = models.create(name, width=1 / 8, timesteps=steps)
        x = torch.empty(8, 3, 32, 32, device="meta")
        y = torch.empty(8, dtype=torch.int64, device="meta")
        return trace_step(net, (x, y), loop=Loop(step=lambda m, b, o: m.training_step(b, o))).graph.memory.peak_bytes

    assert peak(12) <= growth * peak(3)


def test_without_memory_an_online_step_is_ordinary_backpropagation() -> None:
    case = CASES["sltt_vgg11"]
    net = case.network().double().train()
    assert isinstance(net, online.OnlineVGG)
    for neuron in net.neurons:
        neuron.keep = 0.0  # type: ignore[assignment]
    x, y = case.batch()
    net.training_step((x.double(), y), torch.optim.SGD(net.parameters(), lr=0.0))
    found = {n: p.grad.clone() for n, p in net.named_parameters() if p.grad is not None}

    def plain(net: nn.Module) -> Tensor:
        assert isinstance(net, online.OnlineVGG)
        logits, _ = net.step(x.double(), [None] * len(net.convs))
        return net.loss(logits, y) * net.timesteps

    assert_close(found, gradients(net, plain))


def test_sltt_may_train_fewer_steps() -> None:
    case = CASES["sltt_vgg11"]

    def backward_macs(trained: int) -> int:
        net = case.network(trained_steps=trained)
        graph = trace_step(net, case.batch(), loop=Loop(step=lambda m, b, o: m.training_step(b, o))).graph
        return sum(t.macs for t in graph.tasks if t.phase == "backward")

    assert backward_macs(3) == 3 * backward_macs(1)
    with pytest.raises(BadInput, match="SLTT may train fewer"):
        CASES["ottt_vgg11"].network(trained_steps=1)


# ---- DSR


@pytest.mark.parametrize("kind", ["lif", "if"])
def test_the_gradient_of_a_spike_train_is_that_of_its_clamped_rate(kind: str) -> None:
    neuron = dsr.RateNeuron(kind).double()
    x = (noise(6, 3, 20).abs() * (8 if kind == "if" else 0.4)).requires_grad_()
    g = noise(6, 3, 20, seed=1)
    neuron(x).backward(g)
    found_x, found_theta = x.grad, neuron.theta.grad

    leaf = x.detach().requires_grad_()
    theta = neuron.theta.detach().requires_grad_()
    if kind == "if":
        rate, g_rate = leaf.mean(0), g.sum(0)
        out = torch.minimum(rate.clamp(min=0), theta)
    else:
        w = torch.exp(-0.05 * torch.arange(5, -1, -1, dtype=DOUBLE))
        # dx[t] is the same at every t: the rate's own weights do not come in (published code)
        rate = torch.einsum("t,tbc->bc", w / w.sum(), leaf.detach()) + (leaf - leaf.detach()).mean(0)
        g_rate = 6 * torch.einsum("t,tbc->bc", w / w.sum(), g)
        out = torch.minimum(rate.clamp(min=0), theta / 0.05)
    out.backward(g_rate)
    assert torch.allclose(found_x, leaf.grad, rtol=1e-10)
    assert float(found_theta) == pytest.approx(float(theta.grad) * (0.05**2 if kind == "lif" else 1.0), rel=1e-9)


def test_one_backward_pass_does_for_all_time_steps_where_no_norm_stands_between() -> None:
    def run(ideal: bool) -> tuple[dict[str, Tensor], Tensor]:
        torch.manual_seed(0)
        layers = dsr._Layers("lif", ideal, 6)
        net = (
            nn.Sequential(layers.conv(2, 4), layers.neuron(), layers.conv(4, 4, 3, 2), layers.neuron()).double().train()
        )
        x = noise(6, 2, 2, 6, 6).abs().requires_grad_()
        found = gradients(net, lambda n: (n(x).mean(0) * noise(2, 4, 3, 3, seed=2)).sum())
        assert x.grad is not None
        return found, x.grad

    (found, dx), (expected, dx_expected) = run(True), run(False)
    assert_close(found, expected)
    assert torch.allclose(dx, dx_expected, rtol=1e-10, atol=1e-14)


def test_the_ideal_form_of_dsr_needs_a_backward_pass_per_batch_not_per_step() -> None:
    def backward_macs(form: str, steps: int) -> int:
        net = models.create("dsr_preactresnet18", width=1 / 8, timesteps=steps, backward=form)
        graph = trace_step(net, torch.empty(2, 3, 32, 32, device="meta")).graph
        return sum(t.macs for t in graph.tasks if t.phase == "backward")

    assert backward_macs("reference", 8) == pytest.approx(2 * backward_macs("reference", 4), rel=0.01)
    assert backward_macs("ideal", 8) == pytest.approx(backward_macs("ideal", 4), rel=0.05)
    assert backward_macs("reference", 8) > 7 * backward_macs("ideal", 8)


# ---- progressive tandem learning


def test_a_hybrid_layer_gives_the_spike_count_and_the_gradient_of_its_analog_path() -> None:
    net = CASES["ptl_alexnet_stage2"].network().double().train()
    assert isinstance(net, tandem.TandemNet)
    layer = net.layers[1]
    assert isinstance(layer, tandem.HybridLayer)
    train = (noise(4, 2, 6, 32, 32) > 0.5).double()
    count = train.sum(0)
    spikes = layer.spikes(train)  # before the analog path updates the running statistics
    out = net._through(layer, 2, tandem._Signal(train, count))
    assert set(spikes.unique().tolist()) <= {0.0, 1.0}
    assert torch.allclose(out.count, spikes.sum(0), atol=1e-12)
    assert out.train is not None
    g = noise(*out.count.shape, seed=4)
    found = torch.autograd.grad(out.count, list(layer.parameters()), g, retain_graph=True)
    expected = torch.autograd.grad(layer.analog(count), list(layer.parameters()), g)
    for a, b in zip(found, expected, strict=True):
        assert torch.allclose(a, b, rtol=1e-10, atol=1e-12)


def test_the_spike_path_fires_what_its_folded_batch_norm_integrates() -> None:
    net = CASES["ptl_alexnet_stage2"].network().double().eval()
    layer = net.layers[0]  # type: ignore[index,union-attr]
    assert isinstance(layer, tandem.HybridLayer)
    layer.norm.running_mean = noise(layer.norm.num_features, seed=5)
    layer.norm.running_var = noise(layer.norm.num_features, seed=6).abs() + 0.5
    train = noise(4, 2, 3, 8, 8).abs()
    total = layer.norm(layer.synapse(train.sum(0)))  # what all steps together bring in, bias once
    membrane_end = total - layer.theta * layer.spikes(train).sum(0)
    # what was not fired stays below θ unless the layer fired at every step, and came in at the last step at most
    assert bool(((membrane_end < layer.theta + 1e-9) | (layer.spikes(train)[-1] == 1)).all())


def test_each_stage_trains_its_layer_and_those_above_it_alone() -> None:
    for stage in (1, 3, 6):
        net = models.create(f"ptl_alexnet_stage{stage}" if stage < 6 else "ptl_alexnet", width=1 / 16)
        x, y = torch.rand(4, 3, 32, 32), torch.randint(0, 10, (4,))
        nnf.cross_entropy(net.train()(x), y).backward()
        trained = [any(p.grad is not None for p in layer.parameters()) for layer in net.layers]  # type: ignore[union-attr]
        assert trained == [k + 1 >= stage for k in range(6)]


def test_tandem_work_follows_its_formula() -> None:
    steps, batch = 4, 2
    for stage in (1, 3, 5):
        net = models.create(f"ptl_alexnet_stage{stage}", width=1 / 16, timesteps=steps)
        graph = trace_step(net, torch.empty(batch, 3, 32, 32, device="meta")).graph
        sizes = (32, 16, 8, 8, 4)
        macs = [
            layer.synapse.weight.numel() * (sizes[k] ** 2 if k < 5 else 1) * batch
            for k, layer in enumerate(net.layers)  # type: ignore[arg-type]
        ]
        macs.append(net.readout.weight.numel() * batch)  # type: ignore[union-attr,operator]
        spiking = sum(steps * m for m in macs[:stage])
        analog = sum(macs[stage - 1 :])  # frozen layers run their spike path alone
        backward = 2 * sum(macs[stage:]) + macs[stage - 1]  # nobody asks for the first trained layer's input gradient
        assert sum(t.macs for t in graph.tasks) == spiking + analog + backward


# ---- LRU


@given(st.integers(1, 40), st.integers(0, 1000))
@settings(max_examples=40, deadline=None)
def test_scan_and_loop_are_one_recurrence(steps: int, seed: int) -> None:
    g = torch.Generator().manual_seed(seed)
    lam = torch.polar(torch.rand(5, dtype=DOUBLE, generator=g), torch.rand(5, dtype=DOUBLE, generator=g))
    b = torch.randn(2, steps, 5, dtype=torch.complex128, generator=g)
    k = torch.arange(steps)
    powers = lam ** (k[:, None] - k[None, :]).clamp(min=0)[..., None]
    closed = torch.einsum("kjn,bjn->bkn", powers * (k[:, None] >= k[None, :])[..., None], b)
    assert torch.allclose(lru.looped(lam, b), closed, atol=1e-11)
    assert torch.allclose(lru.scanned(lam, b), closed, atol=1e-11)


def test_scan_and_loop_train_alike() -> None:
    case = CASES["lru_scifar"]
    x, y = case.batch()
    found, expected = (
        gradients(case.network(form=f).double(), lambda n: nnf.cross_entropy(n(x.double()), y))
        for f in ("scan", "loop")
    )
    assert_close(found, expected, 1e-9)


def test_the_scan_is_log_deep_and_the_loop_is_not() -> None:
    def depth(form: str, steps: int) -> int:
        from pararev_hw.graph import critical_path

        net = lru.LRUClassifier(3, 8, 8, 1, 4, form)  # type: ignore[arg-type]
        graph = trace_step(net, torch.empty(2, steps, 3, device="meta"), granularity="op").graph
        return len(critical_path(graph).by_phase["forward"])

    assert depth("loop", 128) - depth("loop", 64) >= 64
    assert depth("scan", 128) - depth("scan", 64) <= 8


# ---- DSF


@given(st.integers(1, 20), st.integers(0, 1000))
@settings(max_examples=30, deadline=None)
def test_loop_scan_and_fft_are_one_filter(steps: int, seed: int) -> None:
    delta, decay = noise(2, steps, 2, 5, seed=seed), torch.linspace(0, 1, 5, dtype=DOUBLE)
    by_loop = feedback.filtered(delta, decay, "loop")
    for way in ("scan", "fft"):
        assert torch.allclose(feedback.filtered(delta, decay, way), by_loop, atol=1e-10)  # type: ignore[arg-type]


class _LinearCell(feedback.Cell):
    """h' = W x + a ⊙ h: its Jacobian is the filter itself."""

    def __init__(self, features: int) -> None:
        super().__init__(features, features, 1)
        self.register_buffer("a", torch.linspace(0, 1, features))

    def step(self, projected: Tensor, state: Tensor) -> Tensor:
        return (projected + self.a * state[:, 0]).unsqueeze(1)  # type: ignore[operator]


def test_on_a_linear_recurrence_with_its_own_filter_dsf_is_bptt() -> None:
    def run(gradient: str) -> dict[str, Tensor]:
        torch.manual_seed(0)
        layer = feedback.Recurrent(_LinearCell(6), gradient).double()  # type: ignore[arg-type]
        return gradients(layer, lambda n: (n(noise(3, 9, 6)) * noise(3, 9, 6, seed=1)).sum())

    assert_close(run("dsf"), run("bptt"))


@pytest.mark.parametrize("cell", [feedback.GRUCell, feedback.LSTMCell, feedback.RNNCell])
def test_without_feedback_dsf_is_truncation_and_cells_are_torchs(cell: type[feedback.Cell]) -> None:
    def run(gradient: str, feed: float) -> dict[str, Tensor]:
        torch.manual_seed(0)
        layer = feedback.Recurrent(cell(5, 5), gradient).double()  # type: ignore[arg-type,call-arg]
        layer.decay.mul_(feed)
        return gradients(layer, lambda n: (n(noise(3, 7, 5)) * noise(3, 7, 5, seed=1)).sum())

    assert_close(run("dsf", 0.0), run("truncated", 1.0))

    torch.manual_seed(0)
    mine = cell(5, 4).double()  # type: ignore[call-arg]
    theirs = {"GRUCell": nn.GRU, "LSTMCell": nn.LSTM, "RNNCell": nn.RNN}[cell.__name__](5, 4, batch_first=True).double()
    with torch.no_grad():
        theirs.weight_ih_l0.copy_(mine.input.weight)
        theirs.weight_hh_l0.copy_(mine.state.weight)
        theirs.bias_ih_l0.copy_(mine.input.bias)
        theirs.bias_hh_l0.copy_(mine.state.bias)
    x = noise(2, 6, 5)
    assert torch.allclose(feedback.unrolled(mine, x)[:, :, 0], theirs(x)[0], atol=1e-12)


def test_dsf_has_no_time_in_its_backward_but_the_filter() -> None:
    def chain(gradient: str, steps: int) -> int:
        from pararev_hw.graph import critical_path

        layer = nn.Sequential(feedback.Recurrent(feedback.GRUCell(4, 4), gradient))  # type: ignore[arg-type]
        graph = trace_step(layer, torch.empty(2, steps, 4, device="meta"), granularity="op").graph
        return len(critical_path(graph).by_phase["backward"])

    assert chain("dsf", 64) - chain("dsf", 32) <= 8
    assert chain("truncated", 64) == chain("truncated", 32)
    assert chain("bptt", 64) - chain("bptt", 32) >= 32


# ---- never reset again


def test_where_every_step_tells_something_the_loss_is_cross_entropy() -> None:
    net = CASES["neverreset_gru"].network()
    assert isinstance(net, neverreset.StreamClassifier)
    logits, y = noise(3, 6, 4, dtype=torch.float32), torch.randint(0, 4, (3, 6))
    assert float(net.loss(logits, y)) == pytest.approx(float(nnf.cross_entropy(logits.flatten(0, 1), y.flatten())))
    silent = net.loss(logits, torch.full((3, 6), -1))
    uniform = torch.full((18, 4), 0.25)
    told = nnf.kl_div(nnf.log_softmax(logits.flatten(0, 1), -1), uniform, reduction="batchmean")
    assert float(silent) == pytest.approx(float(told), rel=1e-5)


@pytest.mark.parametrize("name", ["neverreset_gru", "neverreset_snn"])
def test_a_stream_in_two_halves_is_the_stream(name: str) -> None:
    net = CASES[name].network().double()
    assert isinstance(net, neverreset.StreamClassifier)
    x = noise(2, 8, 40)
    whole, _ = net.stream(x, None)
    first, state = net.stream(x[:, :3], None)
    second, _ = net.stream(x[:, 3:], state)
    assert torch.allclose(torch.cat((first, second), 1), whole, atol=1e-12)


# ---- video


@pytest.mark.parametrize("name", ["video_crnn", "video_clstm"])
def test_one_chunk_for_all_frames_is_full_backpropagation(name: str) -> None:
    case = CASES[name]
    (x,) = case.batch()
    x = x.double()
    net = case.network(chunk=6).double()
    net.training_step((x,), torch.optim.SGD(net.parameters(), lr=0.0))  # type: ignore[operator]
    found = {n: p.grad.clone() for n, p in net.named_parameters() if p.grad is not None}
    assert_close(found, gradients(net, lambda n: nnf.mse_loss(n(x[:, :-1]), x[:, 1:])))


def test_carrying_a_zero_state_is_carrying_none() -> None:
    case = CASES["video_crnn"]
    (x,) = case.batch()

    def run(stateful: bool) -> Tensor:
        net = case.network(stateful=stateful).double()
        assert isinstance(net, video.RecurrentPredictor)
        if stateful:
            original = net.stream
            net.stream = lambda frames, state: original(frames, None)  # type: ignore[method-assign]
        return net.training_step((x.double(),), torch.optim.SGD(net.parameters(), lr=0.1))

    assert torch.equal(run(True), run(False))


def test_a_chunk_bounds_the_memory_of_a_long_video() -> None:
    def peak(frames: int, chunk: int) -> int:
        net = models.create("video_crnn", width=0.25, chunk=chunk)
        x = torch.empty(2, frames, 1, 16, 16, device="meta")
        memory = trace_step(net, x, loop=Loop(step=lambda m, b, o: m.training_step(b, o))).graph.memory
        return memory.peak_bytes - memory.input_bytes

    assert peak(33, 8) <= 1.15 * peak(17, 8)
    assert peak(33, 32) >= 1.6 * peak(17, 16)


# ---- binary networks


@given(st.integers(1, 70), st.integers(0, 1000))
@settings(max_examples=30, deadline=None)
def test_a_convolution_of_signs_is_xnor_and_popcount(channels: int, seed: int) -> None:
    g = torch.Generator().manual_seed(seed)
    a, w = (torch.randint(0, 2, (channels, 3, 3), generator=g) for _ in range(2))
    found = binary.xnor_conv2d((2.0 * a - 1)[None], (2.0 * w - 1)[None], 1, 0)

    def word(bits: Tensor) -> int:
        return int("".join(map(str, bits.flatten().tolist())), 2)

    taps = channels * 9
    same = taps - (word(a) ^ word(w)).bit_count()  # popcount(xnor)
    assert float(found.flatten()) == 2 * same - taps


def test_binary_operations_are_counted_as_published() -> None:
    """ResNet-18 at 224: BOPs 1,676,279,808, FLOPs 137,793,536 (MACs in full precision)."""
    with torch.device("meta"):
        net = models.create("bnn_resnet18", teacher=False)
    graph = trace_step(net, torch.empty(1, 3, 224, 224, device="meta"), loop=None).graph
    xnor = [graph.op_types[op.type] for op in graph.ops if graph.op_types[op.type].kind == "xnor"]
    taps = [math.prod(t.input_shapes[1][1:]) * math.prod(t.output_shapes[0]) for t in xnor]
    assert sum(taps) == 1_676_279_808
    gates = sum(2 * c * max(1, c // 16) for c in (64, 64, 128, 128, 256, 256, 512, 512))  # the branches added per block
    assert sum(t.macs for t in graph.tasks) - gates == 137_793_536


def test_local_losses_let_all_blocks_train_at_the_same_time() -> None:
    from pararev_hw.graph import critical_path

    def chain(local: bool) -> int:
        net = CASES["bnn_resnet18"].network(local=local)
        graph = trace_step(
            net, CASES["bnn_resnet18"].batch(), loop=Loop(step=lambda m, b, o: m.training_step(b, o))
        ).graph
        return len(critical_path(graph).by_phase["backward"])

    assert chain(True) <= chain(False) / 3
