"""The fused neuron gives the reference's spikes and gradients: as an operation everywhere, as a kernel where Triton is.

Without a GPU the kernels run in Triton's interpreter, which must be asked for before Triton is imported: in a process
of their own. Without Triton those tests are skipped.
"""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from pararev_hw.errors import BadInput
from pararev_hw.models import IF, LIF, PLIF, ATan, Sigmoid, Triangle, create
from pararev_hw.models import fused_neurons as fused
from pararev_hw.models.neurons import Neuron
from pararev_hw.tracing import trace_step

SURROGATES = (ATan(), Sigmoid(), Triangle(), ATan(3.0))
SHAPE = (5, 3, 41)
HAS_TRITON = importlib.util.find_spec("triton") is not None
INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
KERNEL = pytest.mark.skipif(not (HAS_TRITON and INTERPRETED), reason="runs in Triton's interpreter, in its own process")


@pytest.fixture
def kernel(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Sees to it that the kernels are run, and not the operation's way without them."""
    from pararev_hw.kernels import neuron_launches  # Triton is optional

    launched = []
    for name in ("forward", "backward"):
        own = getattr(neuron_launches, name)
        monkeypatch.setattr(neuron_launches, name, lambda *a, own=own: (launched.append(1), own(*a))[1])
    yield
    assert len(launched) >= 2


@pytest.mark.skipif(not HAS_TRITON, reason="Triton is not installed: pip install triton (170 MB) to run its kernels")
@pytest.mark.skipif(INTERPRETED, reason="this is that process")
def test_the_kernels_in_tritons_interpreter() -> None:
    environment = os.environ | {"TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"}
    command = (sys.executable, "-m", "pytest", "-q", "-k", "kernel", "-p", "no:cacheprovider", __file__)
    ran = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stdout[-3000:]
    assert re.search(r"[1-9]\d+ passed", ran.stdout), ran.stdout[-3000:]


def neurons() -> list[tuple[str, Neuron]]:
    """Every charge, both resets, with and without gradient through the reset, all surrogates."""
    made: list[tuple[str, Neuron]] = []
    for n, (v_reset, detach) in enumerate([(0.0, True), (0.0, False), (None, True), (None, False), (-0.25, False)]):
        options: dict[str, Any] = {"v_reset": v_reset, "detach_reset": detach, "v_threshold": 0.7}
        for k, (kind, more) in enumerate(
            [(IF, {}), (LIF, {"tau": 1.5}), (LIF, {"decay_input": False}), (PLIF, {}), (PLIF, {"decay_input": False})]
        ):
            neuron = kind(**options, **more, surrogate=SURROGATES[(n + k) % len(SURROGATES)])
            made.append((f"{kind.__name__}{k}-reset={v_reset}-detach={detach}", neuron))
    return made


NEURONS = dict(neurons())


def ran(neuron: Neuron, fuse: bool, dtype: torch.dtype, *, state: bool, device: str = "cpu") -> list[torch.Tensor]:
    """Spikes, last state, and gradients of x, v and w."""
    g = torch.Generator().manual_seed(3)
    x = (2 * torch.rand(SHAPE, generator=g, dtype=torch.float64) - 0.4).to(device, dtype).requires_grad_()
    v = (torch.rand(SHAPE[1:], generator=g, dtype=torch.float64) - 0.5).to(device, dtype).requires_grad_()
    weigh = torch.randn(SHAPE, generator=g, dtype=torch.float64).to(device, dtype)
    neuron = neuron.to(device, dtype)
    neuron.zero_grad()
    neuron.fused = fuse
    try:
        spikes, last = neuron.with_state(x, v if state else None)
    finally:
        neuron.fused = False
    ((spikes * weigh).sum() + (last * weigh[0]).sum()).backward()
    found = [spikes.detach(), last.detach(), x.grad, v.grad if state else None, *(p.grad for p in neuron.parameters())]
    return [t for t in found if t is not None]


def assert_close(found: list[torch.Tensor], expected: list[torch.Tensor], dtype: torch.dtype) -> None:
    """Spikes and state bit for bit, gradients within what rounding in another order does."""
    assert len(found) == len(expected)
    assert torch.equal(found[0], expected[0])
    assert torch.equal(found[1], expected[1])
    assert 0.05 < float(found[0].double().mean()) < 0.95
    tolerance = {torch.float64: 1e-12, torch.float32: 2e-5, torch.bfloat16: 0.06}[dtype]
    for a, b in zip(found[2:], expected[2:], strict=True):
        scale = float(b.double().abs().max()) * (10 if b.numel() == 1 and dtype != torch.float64 else 1)
        assert float((a.double() - b.double()).abs().max()) <= tolerance * scale


@pytest.mark.parametrize("state", [False, True], ids=["at rest", "from a state"])
@pytest.mark.parametrize("name", NEURONS)
def test_the_fused_operation_equals_the_reference_without_a_kernel(name: str, state: bool) -> None:
    for dtype in (torch.float64, torch.float32):
        expected = ran(NEURONS[name], False, dtype, state=state)
        assert_close(ran(NEURONS[name], True, dtype, state=state), expected, dtype)


@KERNEL
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16], ids=["fp64", "fp32", "bf16"])
@pytest.mark.parametrize("name", NEURONS)
def test_the_kernel_equals_the_reference(name: str, dtype: torch.dtype, kernel: None) -> None:
    for state in (False, True):
        expected = ran(NEURONS[name], False, dtype, state=state)
        assert_close(ran(NEURONS[name], True, dtype, state=state), expected, dtype)


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16], ids=["fp64", "fp32", "bf16"])
@pytest.mark.parametrize("name", NEURONS)
def test_the_kernel_equals_the_reference_on_a_gpu(name: str, dtype: torch.dtype) -> None:
    expected = ran(NEURONS[name], False, dtype, state=True, device="cuda")
    found = ran(NEURONS[name], True, dtype, state=True, device="cuda")
    # a product and a sum may be contracted: a membrane within rounding of the threshold may fire in one of the two
    assert float((found[0] != expected[0]).double().mean()) < 1e-3
    tolerance = {torch.float64: 1e-9, torch.float32: 1e-3, torch.bfloat16: 0.1}[dtype]
    for a, b in zip(found[2:], expected[2:], strict=True):
        assert float((a.double() - b.double()).norm()) <= tolerance * float(b.double().norm())


@given(st.integers(1, 6), st.integers(1, 3000), st.integers(0, 1 << 16))
@settings(max_examples=20, deadline=None)
def test_any_number_of_steps_and_neurons(steps: int, count: int, seed: int) -> None:
    x = 2 * torch.rand(steps, count, generator=torch.Generator().manual_seed(seed)) - 0.3
    neuron = LIF()
    expected = neuron(x)
    neuron.fused = True
    assert torch.equal(neuron(x), expected)


@KERNEL
def test_the_kernel_takes_neurons_beyond_one_block_and_an_image_shown_at_all_steps(kernel: None) -> None:
    image = torch.rand(1, 3, 700, generator=torch.Generator().manual_seed(0)).expand(4, -1, -1)
    for x in (image, image.contiguous().transpose(1, 2)):
        one, two = (x.detach().requires_grad_() for _ in range(2))
        neuron = IF(detach_reset=False)
        expected = neuron(one)
        neuron.fused = True
        found = neuron(two)
        assert torch.equal(found, expected)
        expected.sum().backward()
        found.sum().backward()
        assert one.grad is not None
        assert two.grad is not None
        assert torch.allclose(one.grad, two.grad, atol=1e-6)


def test_a_network_of_fused_neurons_trains_to_the_same_gradients() -> None:
    torch.manual_seed(0)
    network = create("pararevsnn21", width=0.0625, num_classes=10, timesteps=3).double()
    x, y = torch.rand(2, 3, 16, 16, dtype=torch.float64), torch.tensor([1, 2])
    found = []
    for fuse in (False, True):
        assert fused.use_fused(network, fuse) == 20
        network.zero_grad()
        nn.functional.cross_entropy(network(x), y).backward()
        found.append([p.grad for p in network.parameters()])
    for a, b in zip(*found, strict=True):
        assert torch.allclose(a, b, rtol=1e-9, atol=1e-12)


def test_the_tracer_sees_a_fused_neuron_as_one_op_of_kind_neuron_with_its_work_and_bytes() -> None:
    class One(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.sn, self.fc = nn.Conv2d(3, 4, 3, padding=1), LIF(), nn.Linear(4, 10)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            spikes = self.sn(self.conv(x.flatten(0, 1)).unflatten(0, x.shape[:2]))
            return self.fc(spikes.mean((0, 3, 4)))

    network = One()
    fused.use_fused(network)
    graph = trace_step(network, torch.empty(4, 2, 3, 8, 8)).graph
    ops = [(graph.op_types[o.type], o) for o in graph.ops if "spiking_neuron" in graph.op_types[o.type].name]
    assert [(t.kind, o.phase, o.module) for t, o in ops] == [("neuron", "forward", "sn"), ("neuron", "backward", "sn")]
    elements = 4 * 2 * 4 * 8 * 8
    assert (ops[0][0].vector_flops, ops[1][0].vector_flops) == (4 * elements, 12 * elements)
    assert ops[0][0].read_bytes == 4 * elements
    assert ops[0][0].write_bytes == 4 * (2 * elements + elements // 4)  # spikes and h, and v after the last step
    assert not [n for n in graph.unknown_ops if "neuron" in n]


def test_a_surrogate_without_a_kernel_is_refused() -> None:
    class Flat:
        def vjp(self, u: torch.Tensor, g: torch.Tensor) -> torch.Tensor:
            return g

    with pytest.raises(BadInput, match=r"has no surrogate .*: use ATan, Sigmoid or Triangle"):
        fused.use_fused(nn.Sequential(IF(surrogate=Flat())))


def test_inputs_without_time_steps_are_refused_as_in_the_reference() -> None:
    neuron = IF()
    neuron.fused = True
    with pytest.raises(BadInput, match=r"it must be \[T, ...\] with T >= 1"):
        neuron(torch.rand(3))
