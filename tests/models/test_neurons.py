"""Spiking neurons against SpikingJelly, against plain autograd of their equations, and against themselves."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from pararev_hw.errors import BadInput, UnknownName
from pararev_hw.models.neurons import IF, LIF, PLIF, Neuron
from pararev_hw.models.surrogates import ATan, Sigmoid, Surrogate, Triangle, surrogate
from tests.helpers.deterministic_tensors import noise

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "published_neurons" / "neuron_golden.json").read_text())
SURROGATES = {"atan": ATan, "sigmoid": Sigmoid, "triangle": Triangle}
TIGHT = {"rtol": 1e-12, "atol": 1e-14}


def build(kind: str, tau: float = 1.5, *, decay_input: bool | None = True, **options: Any) -> Neuron:
    if kind == "if":
        return IF(**options).double()
    neuron = LIF if kind == "lif" else PLIF
    return neuron(tau, decay_input=bool(decay_input), **options).double()


def name_of(case: dict[str, Any]) -> str:
    decay = {None: "", True: "-decayed", False: "-undecayed"}[case["decay_input"]]
    detach = "" if case["detach_reset"] else "-attached"
    state = "-state" if case["with_state"] else ""
    return f"{case['kind']}{decay}-reset{case['v_reset']}{detach}-{case['surrogate']}{case['alpha']:g}{state}"


@pytest.mark.parametrize("case", GOLDEN["cases"], ids=name_of)
def test_values_and_gradients_equal_spikingjelly(case: dict[str, Any]) -> None:
    options = {k: case[k] for k in ("decay_input", "v_threshold", "v_reset", "detach_reset")}
    neuron = build(case["kind"], surrogate=SURROGATES[case["surrogate"]](case["alpha"]), **options)
    if case["kind"] == "plif":  # SpikingJelly keeps w in single precision
        neuron.w.data = torch.tensor(neuron.w.item(), dtype=torch.float32).double()
    shape = (5, 2, 3)
    x = (1.5 * noise(shape, 3) + 0.5).requires_grad_()
    v = (0.5 * noise(shape[1:], 4)).requires_grad_()
    spikes, state = neuron.with_state(x, v if case["with_state"] else None)
    ((spikes * noise(shape, 5)).sum() + (state * noise(shape[1:], 6)).sum()).backward()

    assert spikes.flatten().int().tolist() == case["spikes"]
    assert 0 < sum(case["spikes"]) < spikes.numel()
    torch.testing.assert_close(state.flatten().tolist(), case["state"], **TIGHT)
    torch.testing.assert_close(x.grad.flatten().tolist(), case["grad_x"], **TIGHT)
    if case["with_state"]:
        torch.testing.assert_close(v.grad.flatten().tolist(), case["grad_v"], **TIGHT)
    if case["kind"] == "plif":
        torch.testing.assert_close(neuron.w.grad.item(), case["grad_w"], **TIGHT)


class Spike(torch.autograd.Function):
    """H(u) with a textbook σ(u), for the oracle below."""

    @staticmethod
    def forward(ctx: Any, u: Tensor, name: str, alpha: float) -> Tensor:
        ctx.save_for_backward(u)
        ctx.name, ctx.alpha = name, alpha
        return (u >= 0).to(u.dtype)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor, None, None]:
        (u,), a = ctx.saved_tensors, ctx.alpha
        match ctx.name:
            case "atan":
                sigma = a / 2 / (1 + (torch.pi / 2 * a * u) ** 2)
            case "sigmoid":
                sigma = a * torch.exp(-a * u) / (1 + torch.exp(-a * u)) ** 2
            case "triangle":
                sigma = torch.where(u.abs() > 1 / a, 0, a - a**2 * u.abs())
        return g * sigma, None, None


def oracle(neuron: Neuron, x: Tensor, v: Tensor, name: str) -> tuple[Tensor, Tensor]:
    """The equations step by step, as they stand in the literature."""
    rest = 0.0 if neuron.v_reset is None else neuron.v_reset
    spikes = []
    for t in range(x.shape[0]):
        if isinstance(neuron, IF):
            h = v + x[t]
        else:
            rate = 1 / neuron.tau if isinstance(neuron, LIF) else torch.sigmoid(neuron.w)
            h = v + (x[t] - (v - rest)) * rate if neuron.decay_input else v - (v - rest) * rate + x[t]
        s = Spike.apply(h - neuron.v_threshold, name, neuron.surrogate.alpha)
        r = s.detach() if neuron.detach_reset else s
        v = h - r * neuron.v_threshold if neuron.v_reset is None else (1 - r) * h + r * neuron.v_reset
        spikes.append(s)
    return torch.stack(spikes), v


@settings(max_examples=60, deadline=None)
@given(
    kind=st.sampled_from(["if", "lif", "plif"]),
    decay_input=st.booleans(),
    v_threshold=st.floats(0.3, 2.0),
    v_reset=st.none() | st.floats(-0.5, 0.25),
    detach_reset=st.booleans(),
    name=st.sampled_from(list(SURROGATES)),
    alpha=st.floats(0.5, 5.0),
    tau=st.floats(1.1, 4.0),
    shape=st.tuples(st.integers(1, 6), st.integers(1, 3), st.integers(1, 4)),
    seed=st.integers(0, 1000),
)
def test_values_and_gradients_equal_autograd_of_the_stepped_equations(
    kind: str,
    decay_input: bool,
    v_threshold: float,
    v_reset: float | None,
    detach_reset: bool,
    name: str,
    alpha: float,
    tau: float,
    shape: tuple[int, ...],
    seed: int,
) -> None:
    options = {"v_threshold": v_threshold, "v_reset": v_reset, "detach_reset": detach_reset}
    neuron = build(kind, tau, decay_input=decay_input, surrogate=SURROGATES[name](alpha), **options)
    x = (2 * noise(shape, seed) + 0.5).requires_grad_()
    v = noise(shape[1:], seed + 1).requires_grad_()
    wanted = [x, v, *neuron.parameters()]
    found, expected = neuron.with_state(x, v), oracle(neuron, x, v, name)
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-12)
    weights = noise(shape, seed + 2), noise(shape[1:], seed + 3)
    for a, b in zip(
        *(
            torch.autograd.grad([out[0], out[1]], wanted, list(weights), allow_unused=True, materialize_grads=True)
            for out in (found, expected)
        ),
        strict=True,
    ):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("kind", ["if", "lif", "plif"])
@pytest.mark.parametrize("v_reset", [0.0, 0.25, None])
def test_two_halves_with_the_state_between_equal_the_whole(kind: str, v_reset: float | None) -> None:
    neuron = build(kind, v_reset=v_reset)
    x = 2 * noise((6, 2, 5), 1)
    whole, end = neuron.with_state(x)
    first, v = neuron.with_state(x[:3])
    second, v = neuron.with_state(x[3:], v)
    assert torch.equal(torch.cat((first, second)), whole)
    assert torch.equal(v, end)


def test_a_call_leaves_nothing_behind() -> None:
    neuron = build("lif")
    x = 2 * noise((4, 2, 3), 1)
    before = dict(vars(neuron))
    assert torch.equal(neuron(x), neuron(x))
    assert vars(neuron) == before


@pytest.mark.parametrize("kind", ["if", "lif", "plif"])
def test_backward_keeps_one_word_and_one_byte_per_step(kind: str) -> None:
    """The membrane and the mask of the reset (none after the last step); where τ is trained, x − v as well."""
    steps, size = 5, 24
    neuron = build(kind).float()
    x = (2 * noise((steps, size), 1)).float().requires_grad_()
    saved: dict[int, int] = {}

    def pack(t: Tensor) -> Tensor:
        storage = t.untyped_storage()
        saved[storage.data_ptr()] = storage.nbytes()
        return t

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
        spikes = neuron(x)
    del spikes
    expected = steps * size * 4 + (steps - 1) * size
    if kind == "plif":
        expected += steps * size * 4 + 4  # and 1/τ
    assert sum(saved.values()) == expected


class Count(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.ops = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if not func.is_view:
            self.ops += 1
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize(("kind", "forward", "backward"), [("if", 4, 7), ("lif", 6, 10)])
def test_a_further_step_costs_few_operations(kind: str, forward: int, backward: int) -> None:
    def ops(steps: int) -> tuple[int, int]:
        x = (2 * noise((steps, 3), 1)).requires_grad_()
        with Count() as count:
            spikes = build(kind)(x)
            ahead = count.ops
            spikes.sum().backward()
        return ahead, count.ops - ahead

    five, six = ops(5), ops(6)
    assert six[0] - five[0] <= forward
    assert six[1] - five[1] <= backward


@pytest.mark.parametrize("s", [ATan(), ATan(3.0), Sigmoid(), Sigmoid(1.5), Triangle(), Triangle(2.0)], ids=repr)
def test_a_surrogate_is_even_falls_from_its_peak_and_has_an_area_of_one(s: Surrogate) -> None:
    u = torch.linspace(-400, 400, 800_001, dtype=torch.float64)
    sigma = s.vjp(u, torch.ones_like(u))
    torch.testing.assert_close(sigma, sigma.flip(0))
    assert (sigma[400_000:].diff() <= 0).all()
    torch.testing.assert_close(torch.trapezoid(sigma, u).item(), 1.0, rtol=2e-3, atol=0)


def test_a_membrane_exactly_at_the_threshold_fires() -> None:
    assert IF()(torch.tensor([[1.0], [0.5], [0.5]])).flatten().tolist() == [1.0, 0.0, 1.0]


@pytest.mark.parametrize("kind", ["if", "lif", "plif"])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_spikes_keep_the_dtype_of_the_input(kind: str, dtype: torch.dtype) -> None:
    neuron = build(kind).to(dtype)
    assert neuron(noise((3, 4), 1).to(dtype)).dtype is dtype


def test_a_tracer_can_tell_neurons() -> None:
    assert all(kind.is_spiking_neuron for kind in (IF, LIF, PLIF))


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: LIF(1.0), "time constant is 1.0"),
        (lambda: PLIF(0.5), "time constant is 0.5"),
        (lambda: IF(v_threshold=0.0), "threshold is 0.0"),
        (lambda: IF(v_threshold=1.0, v_reset=1.0), "above its resting potential 1.0"),
        (lambda: ATan(0.0), "alpha is 0.0"),
        (lambda: IF()(torch.zeros(3)), r"shape \(3,\)"),
        (lambda: IF()(torch.zeros(0, 3)), r"T >= 1"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(make: Any, says: str) -> None:
    with pytest.raises(BadInput, match=says) as caught:
        make()
    assert "\n" not in str(caught.value)


def test_an_unknown_surrogate_is_refused_with_the_nearest() -> None:
    with pytest.raises(UnknownName, match="atan"):
        surrogate("atna")
