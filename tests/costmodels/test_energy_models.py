"""The energy models of the literature, on layers worked by hand (`docs/how-each-joule-arises.md`)."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

import pararev_hw as ph
from pararev_hw.costmodels import cost
from pararev_hw.costmodels.energy_models import MODELS, forward_j_by_model, model_energy
from pararev_hw.costmodels.energy_models.layer_work import layer_works
from pararev_hw.costmodels.energy_models.lemaire2022 import joules_per_word
from pararev_hw.devices import load_device
from pararev_hw.errors import UnknownName
from pararev_hw.graph import attach
from pararev_hw.pipeline import layer_rows
from pararev_hw.tracing import trace_step
from pararev_hw.types import BlockGraph, LayerSpikes, Spikes


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 6, 3, padding=1, bias=False)
        self.fc = nn.Linear(6 * 8 * 8, 10, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc((self.conv(x) >= 0.5).to(x.dtype).flatten(1))  # type: ignore[no-any-return]


@pytest.fixture(scope="module")
def graph() -> BlockGraph:
    """One sample; 5 of the 384 inputs of the linear layer fire."""
    layers = (LayerSpikes("conv", 1.0, 5808, 6912, False), LayerSpikes("fc", 5 / 384, 50, 3840, True))
    traced = trace_step(Net(), torch.empty(1, 2, 8, 8), loop=None).graph
    return attach(traced, Spikes(True, "five spikes", 5 / 384, layers))


def parts(graph: BlockGraph, model: str) -> dict[str, dict[str, float]]:
    return {layer.module: dict(layer.parts_j) for layer in model_energy(graph, model).layers}


def test_the_papers_figure_is_macs_of_analog_layers_and_synaptic_operations(graph: BlockGraph) -> None:
    assert parts(graph, "papers") == {
        "conv": {"mac": pytest.approx(6 * 8 * 8 * 18 * 4.6e-12)},
        "fc": {"ac": pytest.approx(5 * 10 * 0.9e-12)},
    }
    energy = model_energy(graph, "papers")
    assert energy.total_j == pytest.approx(31.8402e-9)
    assert energy.by_phase == {"forward": pytest.approx(31.8402e-9)}
    assert "memory" in energy.not_modelled


def test_a_study_is_given_the_forward_pass_of_every_model(graph: BlockGraph) -> None:
    assert forward_j_by_model(graph) == {name: pytest.approx(model_energy(graph, name).total_j) for name in MODELS}
    assert forward_j_by_model(graph)["papers"] == pytest.approx(31.8402e-9)


def test_lemaires_model_adds_memory_and_addressing(graph: BlockGraph) -> None:
    by_hand = {
        "conv": {
            "mac": 6912 * 3.2e-12,
            "memory": 6912 * 10e-12 * 512 / 8192 + 6912 * 10e-12 * 432 / 8192 + 384 * 10e-12 * 1536 / 8192,
            "addressing": (128 + 384 + 108) * 0.1e-12,
        },
        "fc": {
            "ac": 50 * 0.1e-12,
            # a queue of 8 kB; 15,360 bytes of weights, between 8 and 32 kB; 40 bytes of potentials, read and written
            "memory": 5 * 10e-12 + 50 * (10e-12 + 10e-12 * 7168 / 24576) + 2 * 50 * 10e-12 * 40 / 8192,
            "addressing": 50 * 0.1e-12,
        },
    }
    found = parts(graph, "lemaire2022")
    for layer, expected in by_hand.items():
        assert found[layer] == pytest.approx(expected)
    assert joules_per_word(32 * 1024) == pytest.approx(20e-12)
    assert joules_per_word(1 << 30) == pytest.approx(100e-12)


def test_a_loop_over_time_steps_keeps_the_potentials_of_one() -> None:
    class Repeated(nn.Module):
        def __init__(self, steps: int) -> None:
            super().__init__()
            self.steps, self.conv, self.fc = steps, nn.Conv2d(2, 6, 3), nn.Linear(96, 10)

        def forward(self, x: Tensor) -> Tensor:
            spikes = (self.conv(x) > 0).to(x.dtype)
            return sum(self.fc(spikes.flatten(1)) for _ in range(self.steps))  # type: ignore[return-value]

    for steps in (1, 3):
        traced = trace_step(Repeated(steps), torch.empty(2, 2, 6, 6), loop=None).graph
        assert {w.module: w.neurons for w in layer_works(traced)} == {"conv": 96, "fc": 10}


def test_arrays_are_read_whole_and_driven_by_spikes(graph: BlockGraph) -> None:
    conv_reads, fc_reads = 64 * 16, 3  # 64 places in 16 passes of one array; 384 inputs in three arrays
    assert parts(graph, "compute-in-memory")["conv"] == pytest.approx(
        {"array": conv_reads * 30e-12, "adc": conv_reads * 128 * 1.5625e-12, "dac": 64 * 18 * 16 * 0.39e-12}
    )
    assert parts(graph, "compute-in-memory")["fc"] == pytest.approx(
        {"array": fc_reads * 30e-12, "adc": fc_reads * 128 * 1.5625e-12, "dac": 5 * 0.39e-12}
    )


@pytest.mark.parametrize("model", sorted(MODELS))
def test_every_model_grows_with_the_samples_and_counts_recomputation(model: str) -> None:
    class Checkpointed(Net):
        def forward(self, x: Tensor) -> Tensor:
            h: Tensor = torch.utils.checkpoint.checkpoint(lambda v: self.conv(v).tanh(), x, use_reentrant=False)
            return self.fc(h.flatten(1))

    one, two = (trace_step(Checkpointed(), torch.empty(n, 2, 8, 8)).graph for n in (1, 2))
    energies = [model_energy(g, model) for g in (one, two)]
    assert energies[0].by_phase.keys() == {"forward", "recompute"}
    assert energies[1].total_j == pytest.approx(2 * energies[0].total_j)
    conv = [e for e in energies[0].layers if e.module == "conv"]
    assert conv[0].total_j == pytest.approx(conv[1].total_j)


def test_the_devices_own_energy_is_given_by_layer_and_phase() -> None:
    traced = trace_step(nn.Sequential(nn.Linear(8, 6), nn.ReLU(), nn.Linear(6, 3)), torch.empty(2, 8)).graph
    rows = layer_rows(traced, cost(traced, load_device("edge8")))
    phases = {row.module: set(row.energy_by_phase_j or ()) for row in rows}
    assert {phase for row in phases.values() for phase in row} == {"forward", "backward", "update"}
    assert phases["0"] == phases["1"] == phases["2"] == {"forward", "backward"}
    for row in rows:
        assert row.energy_by_phase_j is not None
        assert sum(row.energy_by_phase_j.values()) == pytest.approx(row.energy_j)


def test_an_unknown_model_is_refused(graph: BlockGraph) -> None:
    with pytest.raises(UnknownName, match="papers"):
        model_energy(replace(graph), "popular")


class Recomputed(nn.Module):
    """A layer that reads spikes and is recomputed, and one that reads numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(8, 6, bias=False), nn.Linear(6, 4, bias=False)

    def block(self, x: Tensor) -> Tensor:
        return torch.tanh(self.a(x))

    def forward(self, x: Tensor) -> Tensor:
        return self.b(checkpoint(self.block, x, use_reentrant=False))  # type: ignore[no-any-return]


def test_every_phase_of_a_training_step_has_its_joules() -> None:
    """A batch of 3. Recomputed spikes are accumulated again, gradients are dense, momentum updates each weight by four
    operations."""
    x = (torch.arange(24).reshape(3, 8) % 3 == 0).float()
    graph = ph.trace(Recomputed(), x, optimizer="sgd")
    spikes = 6 * float(x.sum())  # each reaches 6 outputs
    phases = ph.predict(ph.schedule(graph, "edge8", "sequential")).energy_by_phase_j
    assert {p: (parts["mac"], parts["ac"]) for p, parts in phases.items()} == {
        "forward": pytest.approx((3 * 6 * 4 * 4.6e-12, spikes * 0.9e-12)),
        "recompute": pytest.approx((0, spikes * 0.9e-12)),
        "backward": pytest.approx(((3 * 8 * 6 + 2 * 3 * 6 * 4) * 4.6e-12, 0)),  # of a, no gradient of its input
        "update": pytest.approx((0, 0)),
    }
    assert phases["update"]["vector"] == pytest.approx(4 * (8 * 6 + 6 * 4) * 0.9e-12)
    for model in MODELS:
        layers = {(layer.module, layer.phase): layer.parts_j for layer in model_energy(graph, model).layers}
        assert set(layers) == {("a", "forward"), ("b", "forward"), ("a", "recompute")}
        assert layers["a", "recompute"] == layers["a", "forward"]
