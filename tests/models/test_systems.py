"""What holds for every system of the literature: published sizes, traces that replay, a falling loss, clear errors."""

from __future__ import annotations

import copy
import dataclasses
import runpy
from pathlib import Path

import pytest
import torch

from pararev_hw import models
from pararev_hw.check import random_order, replay
from pararev_hw.errors import BadInput
from pararev_hw.target_graph import build_graph
from pararev_hw.trace_options import TraceOptions
from pararev_hw.tracing import trace_step
from pararev_hw.training.step import OPTIMIZERS, Loop
from tests.helpers.system_cases import CASES, Case, step_of

RESIDUAL = ("msresnet", "pararevsnn", "revsresnet")

PARAMETERS = {
    "revsformer_2_384": 5_766_586,  # RevSNN README: 5.76 M, and its code's own count
    "trevsnn_tiny": 17_376_912,  # published code, k = 5
    "ottt_vgg11": 9_228_362,  # published code, vgg11_ws
    "dsr_preactresnet18": 11_176_945,  # published code, LIF
    "ptl_alexnet": 11_739_722,  # published code
    "video_fcnn": 38_376_193,  # 8 frames, 32 blocks of 256 channels
}


@pytest.mark.parametrize("name", PARAMETERS)
def test_parameter_counts_are_the_published_ones(name: str) -> None:
    with torch.device("meta"):
        network = models.create(name)
    assert sum(p.numel() for p in network.parameters()) == PARAMETERS[name]


def test_every_system_has_a_case_here() -> None:
    families = {models.spec(n).family for n in models.names()} - set(RESIDUAL)
    assert families == {models.spec(n).family for n in CASES}


@pytest.mark.parametrize("case", CASES.values(), ids=lambda c: c.name)
def test_the_traced_step_replays_bit_for_bit_in_any_order(case: Case) -> None:
    network = case.network().train()
    batch = case.batch()
    step = step_of(network)
    traced = trace_step(network, batch, loop=Loop(optimizer=OPTIMIZERS["sgd"], step=step))
    assert traced.graph.unknown_ops == {}
    trained = [p for p in network.parameters() if p.requires_grad]
    chosen = OPTIMIZERS["sgd"](trained)
    for p in trained:
        p.grad = torch.zeros_like(p)
    chosen.step()
    twin = copy.deepcopy(network)
    names = {p: n for n, p in network.named_parameters()}
    values: dict[str, torch.Tensor] = {f"input:{k}": x for k, x in enumerate(batch)}
    values |= {f"parameter:{n}": p.data for n, p in twin.named_parameters()}
    values |= {f"buffer:{n}": b for n, b in twin.named_buffers()}
    values |= {f"gradient:{n}": torch.zeros_like(p) for n, p in network.named_parameters() if p.requires_grad}
    for p, state in chosen.state.items():
        values |= {f"optimizer:{names[p]}:{k}": v.clone() for k, v in state.items() if isinstance(v, torch.Tensor)}
    loss = step(network, batch, chosen)
    found = replay(traced.program, values, random_order(traced.graph.ops, 3))
    assert torch.equal(found["loss"], loss)
    for (n, p), q in zip(network.named_parameters(), twin.parameters(), strict=True):
        assert torch.equal(p, q), n
    for (n, b), c in zip(network.named_buffers(), twin.named_buffers(), strict=True):
        assert torch.equal(b, c[1]), n


@pytest.mark.parametrize("case", CASES.values(), ids=lambda c: c.name)
def test_training_lowers_the_loss(case: Case) -> None:
    network = case.network(seed=3).train()
    batch = case.batch(size=8)
    step = step_of(network)
    optimizer = torch.optim.Adam([p for p in network.parameters() if p.requires_grad], lr=case.rate)
    losses = [float(step(network, batch, optimizer)) for _ in range(25)]
    assert sum(losses[-3:]) < 0.94 * sum(losses[:3])  # examples/train_systems.py trains them on real data


@pytest.mark.slow
def test_every_system_learns_from_real_data() -> None:
    example = runpy.run_path(str(Path(__file__).parents[2] / "examples" / "train_systems.py"))
    assert {models.spec(n).family for n in example["SMALL"]} == {models.spec(n).family for n in CASES}
    for name in example["SMALL"]:
        losses = example["train"](name, 60)
        assert sum(losses[-5:]) < 0.65 * sum(losses[:5]), name


@pytest.mark.parametrize("name", [n for n in models.names() if models.spec(n).family not in RESIDUAL])
def test_it_traces_by_name_for_training_and_inference(name: str) -> None:
    spec = models.spec(name)
    sample = (spec.input_shape[0], 64, 64) if spec.input_shape[-1:] == (224,) else None
    fewer = {"image": 4, "events": 4, "tokens": 8, "steps": 8, "sequence": 16}.get(spec.layout, spec.timesteps)
    steps = fewer if fewer < spec.timesteps else None
    for mode in ("train", "infer"):
        graph = build_graph(
            name, TraceOptions(batch=2, mode=mode, width=1 / 32, timesteps=steps, input_shape=sample, spikes="0.2")
        )
        assert graph.unknown_ops == {}
        assert {t.phase for t in graph.tasks} >= ({"forward", "backward", "update"} if mode == "train" else {"forward"})
        assert all(a in graph.assumptions for a in spec.assumptions)


@pytest.mark.parametrize("case", CASES.values(), ids=lambda c: c.name)
def test_wrong_inputs_and_options_are_refused_in_one_line(case: Case) -> None:
    with pytest.raises(BadInput, match="no option 'nonsense'"):
        case.network(nonsense=1)
    with pytest.raises(BadInput, match="must be"):
        case.network()(torch.zeros(3))


def test_a_spec_is_frozen() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        models.spec("lru_scifar").depth = 3  # type: ignore[misc]
