"""The largest batch that fits, against every batch tried one by one."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from pararev_hw import capacity as capacities
from pararev_hw import pipeline
from pararev_hw.capacity import MOST, capacity, memory_of
from pararev_hw.devices import load_device
from pararev_hw.errors import BadInput, Infeasible
from pararev_hw.graph.process_memory import process_memory
from pararev_hw.tracing import DispatchRules, trace_step
from pararev_hw.types import BlockGraph, Device, DeviceParameter


def graph(batch: int) -> BlockGraph:
    model = nn.Sequential(nn.Linear(300, 700), nn.ReLU(), nn.Linear(700, 10))
    return trace_step(model, torch.empty(batch, 300, device="meta")).graph


def of_memory(device: Device, memory_bytes: int) -> Device:
    limit = DeviceParameter(float(memory_bytes), "made up for a test", "assumed")
    return replace(device, parameters={**device.parameters, "memory_bytes": limit})


@pytest.mark.parametrize("name", ["rtx3090", "edge8"])
@pytest.mark.parametrize("wanted", [1, 2, 37])
def test_it_is_the_last_batch_that_fits(name: str, wanted: int) -> None:
    plain = load_device(name)
    device = of_memory(plain, memory_of(graph(wanted), plain).least_bytes)
    one_by_one = max(
        b for b in range(1, wanted + 4) if memory_of(graph(b), device).least_bytes <= device.value("memory_bytes")
    )
    found = capacity(graph, device)
    assert found.size == one_by_one
    assert found.next_memory is not None
    assert found.memory.least_bytes <= found.limit_bytes < found.next_memory.least_bytes
    assert found.traces <= 8


def test_the_process_of_the_largest_batch_is_no_larger_than_the_card() -> None:
    plain = load_device("rtx3090")
    least = memory_of(graph(37), plain).least_bytes  # 1.3 GiB and little more; with room to spare 1,900 MiB
    memory = capacity(graph, of_memory(plain, least)).memory
    assert memory.least_bytes == memory.process_bytes == least
    assert memory.peak_bytes <= memory.reserved_bytes < least
    assert capacity(graph, plain, limit_bytes=least).memory == memory_of(graph(37), plain)  # a limit leaves the card


def test_a_limit_beyond_the_device_is_the_device() -> None:
    plain = load_device("edge8")
    device = of_memory(plain, memory_of(graph(37), plain).least_bytes)
    assert capacity(graph, device, limit_bytes=1 << 50).size == 37


def test_what_does_not_fit_at_all_says_need_and_have() -> None:
    device = of_memory(load_device("rtx3090"), 10**9)
    with pytest.raises(Infeasible) as caught:
        capacity(graph, device)
    assert str(caught.value) == (
        "batch 1 needs 1.30 GiB (1.30 GiB of it CUDA's context and libraries), and rtx3090 has 954 MiB: "  # 1e9 / 2^20
        "choose a smaller network or a 16-bit datatype, or a device with more memory"
    )


def test_a_limit_of_the_user_is_called_theirs() -> None:
    device = load_device("edge8")
    needed = memory_of(graph(1), device).least_bytes
    with pytest.raises(Infeasible) as caught:
        capacity(graph, device, limit_bytes=1 << 20, of="timesteps")
    assert str(caught.value) == (
        f"1 time step needs {needed / 2**20:.2f} MiB on edge8, and the limit given is 1.00 MiB: raise it, or choose a "
        "smaller network or a 16-bit datatype"
    )


def test_a_card_without_the_datatype_says_what_it_has() -> None:
    def step(batch: int) -> BlockGraph:
        x = torch.empty(batch, 300, device="meta")
        return trace_step(nn.Linear(300, 10), x, dtype="bfloat16", rules=DispatchRules(cuda=True)).graph

    with pytest.raises(BadInput, match="'p100' has no bfloat16: its matrix rates are for float32"):
        capacity(step, load_device("p100"))
    assert capacity(step, load_device("a100"), limit_bytes=2 * 10**9).size > 1


def test_published_process_memory() -> None:
    # 1,900 MiB + 1.14 x the peak of live tensors, an A100 over 4,330 networks
    assert process_memory(10 * 2**30).process_bytes == pytest.approx((1900 + 1.14 * 10240) * 2**20)


@pytest.mark.parametrize("name", ["eyeriss-like", "edge8"])
def test_it_counts_what_the_sequential_schedule_counts(name: str) -> None:
    """Of a step that Python keeps tensors in longer than any task needs, and small batches of which are parameters."""

    class Keeping(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(30, 400), nn.Linear(400, 10)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            first = self.a(x)
            return self.b(torch.relu(first)) + first.mean()

    def step(batch: int) -> BlockGraph:
        return trace_step(Keeping(), torch.empty(batch, 30, device="meta"), granularity="op").graph

    device = load_device(name)
    found = capacity(step, of_memory(device, 3_000_000))
    peaks = [pipeline.predict(pipeline.plan(step(found.size + k), device, "sequential")).peak_bytes for k in (0, 1)]
    assert found.next_memory is not None
    assert [found.memory.peak_bytes, found.next_memory.peak_bytes] == peaks
    assert peaks[0] <= 3_000_000 < peaks[1]
    assert found.traces <= 20


class _Walk(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(30, 20)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        potential = torch.zeros(x.shape[1], 20, dtype=x.dtype, device=x.device)
        for step in x:
            potential = torch.sigmoid(0.9 * potential + self.layer(step))
        return potential


def walk(timesteps: int) -> BlockGraph:
    return trace_step(_Walk(), torch.empty(timesteps, 4, 30, device="meta")).graph


@pytest.mark.parametrize("name", ["rtx3090", "edge8"])
@pytest.mark.parametrize("checked", [True, False])
def test_time_steps_lie_on_a_line_of_small_traces(name: str, checked: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if not checked:
        monkeypatch.setattr(capacities, "MOST_OPS_CHECKED", 100)
    plain = load_device(name)
    device = of_memory(plain, memory_of(walk(600), plain).least_bytes)
    found = capacity(walk, device, of="timesteps")
    assert found.size == 600
    assert len(found.line) == (0 if checked else 3)
    assert max(found.line, default=0) < 600
    assert found.traces <= (7 if checked else 5)
    assert found.next_memory is not None
    for memory, size in ((found.memory, 600), (found.next_memory, 601)):
        rounding = 600 if name == "rtx3090" else 0  # a block of the allocator, 512 bytes, and its share of slack
        assert memory.least_bytes == pytest.approx(memory_of(walk(size), device).least_bytes, abs=rounding)


def test_memory_that_does_not_grow_with_time_is_no_search() -> None:
    same = walk(3)
    found = capacity(lambda _: same, load_device("edge8"), of="timesteps")
    assert (found.size, found.next_memory) == (MOST, None)
    assert found.traces == 4  # three on a line, and the last size there is
