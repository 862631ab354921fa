"""PyTorch gives the numbers that numpy and the compiled loops give: on the CPU here, on a GPU with the same calls."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from pararev_hw import sweeps
from pararev_hw.errors import BadInput
from pararev_hw.sweeps.engine import Engine
from pararev_hw.sweeps.memory_columns import peak_bytes
from pararev_hw.sweeps.replay import orders_with_waits, replay, sequential_seconds
from pararev_hw.sweeps.torch_batch import TorchBatch
from tests.sweeps.test_compiled_replay import columns, memory
from tests.sweeps.test_sweep_engine import device, graph

CLOSE = 1e-9
ON_CPU = TorchBatch("cpu")


def test_lane_orders_are_played_as_numpy_plays_them() -> None:
    shared = 0
    for seed in range(60):
        draw = np.random.default_rng(seed)
        n, lanes = int(draw.integers(1, 16)), int(draw.integers(1, 5))
        where = draw.integers(0, lanes, n)
        pairs = [(i, j, int(draw.integers(0, 5))) for j in range(n) for i in range(j) if draw.random() < 0.2]
        apart = [(i, j) for j in range(n) for i in range(j) if where[i] != where[j] and draw.random() < 0.1]
        orders = orders_with_waits([np.flatnonzero(where == k).tolist() for k in range(lanes)], pairs, apart)
        costs, events = columns(draw, n, 9), memory(draw, n)
        starts, ends = replay(orders, costs)
        alone_s = (ends - starts) - costs.seconds[costs.row_of_task]
        shared += bool((alone_s > 1e-6).any())
        makespan_s, peak = ON_CPU.played(orders, events, costs)
        np.testing.assert_allclose(makespan_s, ends.max(0), rtol=CLOSE)
        np.testing.assert_array_equal(peak, peak_bytes(events, starts, ends))
        np.testing.assert_allclose(ON_CPU.sequential_seconds(costs), sequential_seconds(costs), rtol=CLOSE)
    assert shared > 10  # some slowed each other down


@pytest.mark.parametrize("cores", [True, False])
def test_configurations_cost_what_they_cost_without_pytorch(cores: bool) -> None:
    plain, torch_batch = Engine(graph(), device(cores), "heft"), Engine(graph(), device(cores), "heft", compute="cpu")
    draw, count = np.random.default_rng(1), 40
    values = {
        "sram_bytes_per_lane": 2.0 ** draw.integers(13, 22, count),
        "memory_bandwidth_bytes_per_s": 1e9 * 64 ** draw.random(count),
        "noc_bandwidth_bytes_per_s": 1e9 * 16 ** draw.random(count),
        "memory_bytes": draw.choice([1e5, 1e9], count),
    }
    for lanes in (1, 3):
        expected, outcome = plain(values, lanes, count), torch_batch(values, lanes, count)
        np.testing.assert_array_equal(outcome.failure, expected.failure)
        assert 0 < (expected.failure == 0).sum() < count
        fits = expected.failure == 0
        for name in ("latency_s", "sequential_s", "peak_bytes"):
            np.testing.assert_allclose(getattr(outcome, name)[fits], getattr(expected, name)[fits], rtol=CLOSE)
        for part, joules in expected.energy_j.items():
            np.testing.assert_allclose(outcome.energy_j[part][fits], joules[fits], rtol=CLOSE, err_msg=part)


@pytest.mark.parametrize(
    ("on", "compute", "message"),
    [
        ("edge8", "gpu", "--compute is 'gpu': it must be one of cpu, cuda"),
        ("edge8", "cuda", "--compute cuda: PyTorch finds no CUDA GPU here: leave it out, or run where there is one"),
        ("h200", "cuda", "are evaluated one at a time on the CPU"),
    ],
)
def test_a_gpu_that_is_not_there_or_of_no_use_is_one_line(
    tmp_path: Path, on: str, compute: str, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    sweep = sweeps.spec.from_yaml(
        f"{{device: {on}, networks: pararevsnn21, batch: 1, parameters: {{memory_bandwidth_bytes_per_s: [1e12]}}, "
        "objectives: [latency, energy]}",
        "here",
    )
    with pytest.raises(BadInput, match=message):
        sweeps.run(sweep, tmp_path / "out", compute=compute)
    assert not (tmp_path / "out").exists()
