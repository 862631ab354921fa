"""A neuromorphic chip: layers on cores, one barrier a time step, counts and joules against sums by hand."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

import pararev_hw as ph
from pararev_hw import pipeline, recommendation, reports
from pararev_hw.check import check_schedule
from pararev_hw.costmodels.neuromorphic import run
from pararev_hw.costmodels.neuromorphic.chip import barrier_s, learning, several_chips
from pararev_hw.costmodels.neuromorphic.contention import Mesh, last_message_s
from pararev_hw.costmodels.neuromorphic.placement import link_load, placed
from pararev_hw.devices import load_device
from pararev_hw.errors import BadInput, Infeasible
from pararev_hw.graph.spiking_network import INPUT, spiking_network
from pararev_hw.types import BlockGraph, Device, DeviceParameter
from tests.helpers import command_line
from tests.helpers.spiking_layers import BATCH, STEPS, Net, conv, events, mlp


def loihi() -> Device:
    device = load_device("loihi1")
    assert isinstance(device, Device)
    return device


def with_room(device: Device, **figures: float) -> Device:
    given = {n: DeviceParameter(v, "a test", "assumed") for n, v in figures.items()}
    return replace(device, parameters={**device.parameters, **given})


@pytest.mark.parametrize("make", [mlp, conv])
def test_a_loop_over_time_and_its_folded_form_are_one_network(make: Callable[[bool], BlockGraph]) -> None:
    loop, folded = make(False), make(True)
    assert spiking_network(loop).projections == spiking_network(folded).projections
    for lanes in (None, 9):
        a, b = (run(graph, loihi(), lanes).summary for graph in (loop, folded))
        assert a.layers == b.layers and a.time_step_s == b.time_step_s and a.cores == b.cores


def test_populations_are_found_by_where_data_flows() -> None:
    network = spiking_network(conv())
    assert network.steps == STEPS
    assert [p.neurons for p in network.populations] == [6 * 64, 8 * 16, 5]
    assert [p.sources for p in network.projections] == [(INPUT,), (0,), (1,)]
    assert [p.fan_in for p in network.projections] == [18, 54, 128]
    assert [(p.inputs, p.outputs) for p in network.projections] == [(128, 384), (384, 128), (128, 5)]


class Recurrent(nn.Module):
    """[T, B, 12]: spikes come back through a weight, one time step later; `resets` compares a second time."""

    def __init__(self, resets: bool) -> None:
        super().__init__()
        self.resets, self.into, self.back, self.out = resets, nn.Linear(12, 9), nn.Linear(9, 9), nn.Linear(9, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        v, spikes, total = torch.zeros(x.shape[1], 9), None, torch.zeros(())
        for frame in x:
            reset = (v > 0.1).to(v.dtype)
            v = 0.5 * v + self.into(frame) + (0 if spikes is None else self.back(spikes))
            v = v - 0.1 * reset if self.resets else v
            spikes = (v > 0.1).to(v.dtype)
            total = total + self.out(spikes)
        return total


@pytest.mark.parametrize("resets", [False, True])
def test_a_recurrent_population_is_one_from_its_first_time_step_on(resets: bool) -> None:
    network = spiking_network(ph.trace(Recurrent(resets), torch.ones(5, 3, 12), mode="infer", layout="TB"))
    assert [(p.neurons, p.fires) for p in network.populations] == [(9, True), (4, False)]
    assert [p.sources for p in network.projections] == [(INPUT,), (0,), (0,)]


def test_energy_is_events_updates_spikes_and_messages_times_their_costs() -> None:
    graph = mlp()
    x = events(40).flatten(0, 1)
    (first, second) = run(graph, loihi()).summary.layers
    active = float(x.sum()) / BATCH
    assert first.messages == pytest.approx(active) and first.events == pytest.approx(active * 30)
    assert second.messages == pytest.approx(first.spikes) and second.events == pytest.approx(first.spikes * 8)
    # 35.5 pJ an event, 51.2 + 21.6 pJ an update, 69.3 pJ a spike, 111 pJ a message; one link of 3 pJ from outside
    assert first.energy_j["synapse"] == pytest.approx(active * 30 * 35.5e-12)
    assert first.energy_j["soma"] == pytest.approx(STEPS * 30 * 72.8e-12 + first.spikes * 69.3e-12)
    sent = first.messages + second.messages
    joules = first.energy_j["network"] + second.energy_j["network"]
    assert joules == pytest.approx(sent * 111e-12 + first.messages * 3e-12)


def test_the_step_ends_with_one_barrier_and_a_prediction_adds_up() -> None:
    graph, device = mlp(), loihi()
    plan = pipeline.plan(graph, device)
    check_schedule(plan.costs, plan.schedule)
    prediction = pipeline.predict(plan)
    barriers = [t for t in plan.graph.tasks if t.block == "barrier"]
    assert len(barriers) == STEPS * BATCH
    assert plan.chip is not None
    assert prediction.latency_s == pytest.approx(plan.chip.time_step_s * STEPS * BATCH)
    joules = sum(sum(layer.energy_j.values()) for layer in plan.chip.layers) * BATCH
    assert prediction.energy_j["total"] == pytest.approx(joules)
    assert barrier_s(device, 1) == 0.6e-6 and barrier_s(device, 3) == 1.0e-6 and barrier_s(device, 32) == 1.8e-6


def test_time_steps_of_one_layer_do_not_run_side_by_side() -> None:
    graph = mlp(sizes=(40, 30))
    one, many = (run(graph, loihi(), lanes).summary for lanes in (1, STEPS))
    assert one.cores_used == 1 and many.cores_used == STEPS
    # each core takes every message: 16 ns for each of them stay, and the barrier
    least = many.barrier_s + one.layers[0].messages / STEPS * 16e-9
    assert many.time_step_s >= least > one.time_step_s / STEPS


def test_more_cores_mean_more_messages_and_no_more_events() -> None:
    few, many = (run(conv(), loihi(), lanes).summary for lanes in (None, 12))
    assert few.cores_used == 3 and few.cores_used < many.cores_used <= 12
    assert many.packets > few.packets
    assert [layer.events for layer in few.layers] == pytest.approx([layer.events for layer in many.layers])
    assert many.time_step_s < few.time_step_s


def test_parts_keep_to_every_limit_of_a_core() -> None:
    tight = with_room(loihi(), neurons_per_core=64, axons_in_per_core=150, axons_out_per_core=300)
    summary = run(conv(), tight).summary
    for core in summary.cores:
        assert core.neurons <= 64 and core.axons_in <= 150 and core.axons_out <= 300
        assert all(share is not None and share <= 1 for share in core.use.values())
    assert sum(c.neurons for c in summary.cores) >= 6 * 64 + 8 * 16 + 5


@pytest.mark.parametrize(
    "figures, said",
    [
        ({"axons_in_per_core": 35}, "layers.0 does not fit loihi1: its smallest part needs 40 inputs"),
        ({"synapse_bytes_per_core": 30}, "needs 40 bytes of weights, and a core has 30"),
    ],
)
def test_what_no_core_holds_is_refused_with_need_and_have(figures: dict[str, float], said: str) -> None:
    with pytest.raises(Infeasible) as refused:
        run(mlp(), with_room(loihi(), **figures))
    assert said in str(refused.value)


def test_too_few_cores_are_refused_and_more_chips_are_offered() -> None:
    small = replace(with_room(loihi(), neurons_per_core=16), lanes=2)
    with pytest.raises(Infeasible, match=r"needs 3 cores .* there are 2, .* --chips 2 would do"):
        run(mlp(), small)
    assert run(mlp(), several_chips(small, 2)).summary.chips == 2


def test_a_network_with_too_many_weights_for_a_chip_is_refused() -> None:
    net = Net(*(nn.Linear(3000, 3000) for _ in range(2)))  # 18 M weights of a byte; a chip has 16 MiB
    graph = ph.trace(net, torch.zeros(2, 1, 3000), mode="infer", layout="TB", spikes="0.1")
    with pytest.raises(Infeasible, match="does not fit loihi1"):
        run(graph, loihi())


def test_a_training_step_needs_a_learning_rule_whose_assumptions_come_first() -> None:
    graph = replace(mlp(), mode="train")
    with pytest.raises(BadInput, match="--mode infer, or name what changes its weights there: --learning-rule stdp"):
        run(graph, loihi())
    with pytest.raises(BadInput, match="--learning-rule is 'hebb': it must be stdp"):
        learning(loihi(), "hebb")
    device = learning(loihi(), "stdp")
    ran = run(graph, device)
    assert ran.assumptions[0].startswith("learning by pairwise STDP")
    count = sum(layer.events for layer in ran.summary.layers)
    assert sum(layer.energy_j["learning"] for layer in ran.summary.layers) == pytest.approx(count * 120e-12)
    study = recommendation.study(graph, device)
    assert reports.answer_lines(study)[0].startswith("Assumed: learning by pairwise STDP")


def test_several_spikes_at_once_are_one_message_that_the_answer_tells_of() -> None:
    graph = mlp()
    assert graph.spikes is not None
    layers = tuple(replace(layer, largest=3) for layer in graph.spikes.layers)
    ran = run(replace(graph, spikes=replace(graph.spikes, layers=layers)), loihi())
    (line,) = [a for a in ran.assumptions if "several spikes at once" in a]
    assert "one message tells how many" in line
    assert not [a for a in run(graph, loihi()).assumptions if "several spikes at once" in a]


def test_a_product_of_two_activations_has_no_synapses() -> None:
    class Attention(Net):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y = super().forward(x)
            return y @ y.mT @ y

    net = Attention(nn.Linear(40, 30))
    graph = ph.trace(net, events(40), mode="infer", layout="TB")
    with pytest.raises(BadInput, match="multiplies two activations"):
        run(graph, loihi())


def test_swaps_never_cost_hops_and_the_link_loads_add_up_to_them() -> None:
    rng = np.random.default_rng(0)
    count = 12
    traffic = rng.random((count + 1, count)) * (rng.random((count + 1, count)) < 0.3)
    tiles = [(k // 4, k % 4) for k in range(count)]
    slots = placed(traffic, tiles)
    assert sorted(slots.tolist()) == list(range(count))

    def hops(order: list[int]) -> float:
        across, along, loads = link_load(traffic, [tiles[s] for s in order])
        assert loads.sum() == pytest.approx(across + along)
        return across + along

    best = hops(slots.tolist())
    assert best <= hops(list(range(count)))
    for a in range(count):
        for b in range(a):
            swapped = slots.tolist()
            swapped[a], swapped[b] = swapped[b], swapped[a]
            assert best <= hops(swapped) + 1e-9


def test_messages_queue_at_their_receiver_and_wait_for_their_sender() -> None:
    mesh = Mesh(((0, 0), (0, 0), (-1, 0)), (4e-9, 4e-9), 1e9)
    traffic = np.array([[0.0, 5.0], [0.0, 0.0], [0.0, 0.0]])
    fast = last_message_s(traffic, np.array([50e-9, 0]), np.array([0, 1000e-9]), 5e-9, mesh)
    assert 1000e-9 <= fast <= 1100e-9  # five messages of 200 ns each, the first after 9.5 ns
    slow = last_message_s(traffic, np.array([5000e-9, 0]), np.array([0, 1000e-9]), 5e-9, mesh)
    assert slow == pytest.approx(5000e-9)  # its last neurons are updated after the last message is gone
    held = last_message_s(traffic * 20, np.array([500e-9, 0]), np.array([0, 20_000e-9]), 5e-9,
                          replace(mesh, buffer=1.0))  # fmt: skip
    assert held > 20_000e-9


def test_a_report_shows_the_mapping() -> None:
    graph = conv()
    study = recommendation.study(graph, loihi())
    lines = reports.answer_lines(study)
    assert study.chip is not None
    assert study.chosen.latency_s == pytest.approx(study.chip.time_step_s * STEPS * BATCH)
    assert "3 of 128 cores" in lines[1] and f"{STEPS} time steps" in lines[0]
    document = reports.report_document(study)
    assert [layer["name"] for layer in document["mapping"]["layers"]] == ["layers.0", "layers.1", "layers.2"]
    assert document["totals"]["energy_j"] == pytest.approx(
        BATCH * sum(sum(layer["energy_j"].values()) for layer in document["mapping"]["layers"])
    )
    page = reports.report_html(study)
    assert "Mapping to cores" in page and "busy in a time step" in page
    assert load_device("loihi1-like") == load_device("loihi1")


def test_networks_on_a_chip_are_compared() -> None:
    options = ("--timesteps", 2, "--mode", "infer", "-d", "loihi1", "--spikes", "0.2", "--json")
    both = command_line.run("compare", "pararevsnn21", "revsresnet21", *command_line.SMALL, *options)
    assert both.status == 0, both.err
    rows = json.loads(both.out)["networks"]
    assert [row["model"] for row in rows] == ["pararevsnn21", "revsresnet21"]
