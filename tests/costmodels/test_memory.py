"""Predicted peak memory against torch's profiler, on networks that were not written for it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import nn

import pararev_hw as ph
from pararev_hw.costmodels.allocator.workspace import eager_peak_bytes, rule_here
from pararev_hw.errors import BadInput, UnknownName
from pararev_hw.tracing import trace_step
from pararev_hw.training.step import OPTIMIZERS, ZERO_GRADS, Loop
from tests.helpers.memory_networks import NETWORKS, batch_of
from tests.helpers.recorded_memory import Setting, recorded_peak_bytes

TRAIN = Setting(OPTIMIZERS["sgd"])


def both(model: nn.Module, x: torch.Tensor, setting: Setting) -> tuple[int, int]:
    """Predicted and recorded peak, bytes."""
    optimizer = setting.make_optimizer
    graph = trace_step(
        model,
        x,
        loop=Loop(
            optimizer=optimizer, accumulate=setting.accumulate, zero_grad="none" if setting.set_to_none else "zero"
        )
        if optimizer is not None
        else None,
        dtype="bfloat16" if setting.bfloat16 else "float32",
    ).graph
    predicted = eager_peak_bytes(graph, "cpu", rule_here())
    return predicted, recorded_peak_bytes(model, x, setting)


def holds(name: str, batch: int, setting: Setting) -> None:
    torch.manual_seed(0)
    predicted, recorded = both(NETWORKS[name][0](), batch_of(name, batch), setting)
    assert predicted == pytest.approx(recorded, rel=0.02 if setting.bfloat16 else 0.01)


@pytest.mark.machine
@pytest.mark.parametrize("name", NETWORKS)
def test_a_training_step_is_predicted(name: str) -> None:
    holds(name, 4, TRAIN)


@pytest.mark.slow
@pytest.mark.parametrize("optimizer", ["adam", "sgd-foreach"])
@pytest.mark.parametrize("batch", [1, 3, 8, 16, 32])
@pytest.mark.parametrize("name", NETWORKS)
def test_a_training_step_is_predicted_at_every_size(name: str, batch: int, optimizer: str) -> None:
    holds(name, batch, Setting(OPTIMIZERS[optimizer]))


OTHERS = {
    "amsgrad": lambda p: torch.optim.Adam(p, amsgrad=True, foreach=False),
    "adam-foreach": lambda p: torch.optim.Adam(p, foreach=True),
    "sgd-plain-foreach": lambda p: torch.optim.SGD(p, lr=0.1, foreach=True),
    "rmsprop": lambda p: torch.optim.RMSprop(p, momentum=0.9),
    "nesterov": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, nesterov=True),
    "adafactor, which asks for the size of parameters": lambda p: torch.optim.Adafactor(p),
    "asgd, which asks for its own state": lambda p: torch.optim.ASGD(p),
}


@pytest.mark.parametrize("optimizer", [*OPTIMIZERS, *OTHERS])
def test_optimizer_state_and_the_temporaries_of_its_step_are_predicted(optimizer: str) -> None:
    holds("mlp", 4, Setting({**OPTIMIZERS, **OTHERS}[optimizer]))


@pytest.mark.parametrize("set_to_none", [True, False])
@pytest.mark.parametrize("accumulate", [1, 3])
@pytest.mark.parametrize("name", ["mlp", "transformer", "vgg"])
def test_accumulated_and_zeroed_gradients_are_predicted(name: str, accumulate: int, set_to_none: bool) -> None:
    holds(name, 4, Setting(OPTIMIZERS["adamw-foreach"], accumulate, set_to_none))


@pytest.mark.slow
@pytest.mark.parametrize("set_to_none", [True, False])
@pytest.mark.parametrize("name", NETWORKS)
def test_accumulated_and_zeroed_gradients_are_predicted_for_every_network(name: str, set_to_none: bool) -> None:
    holds(name, 4, Setting(OPTIMIZERS["sgd"], 3, set_to_none))


def test_kept_gradients_are_there_from_the_first_op_and_let_go_ones_are_not() -> None:
    """Forward of a wide layer on a small batch: nothing else can be the difference."""
    model, x = nn.Linear(256, 256), torch.empty(1, 256)
    parameters = 4 * (256 * 256 + 256)
    peaks = {
        way: trace_step(model, x, loop=Loop(optimizer=OPTIMIZERS["sgd-plain"], zero_grad=way)).graph.memory
        for way in ZERO_GRADS
    }
    assert peaks["zero"].gradient_bytes == peaks["none"].gradient_bytes == parameters
    # the new gradient stands beside the old one until it is added
    assert peaks["zero"].peak_bytes - peaks["none"].peak_bytes == pytest.approx(parameters, rel=0.01)


def test_a_step_of_ones_own_that_zeroes_late_holds_the_old_gradients_through_its_forward() -> None:
    def late(model: nn.Module, inputs: tuple[torch.Tensor, ...], optimizer: torch.optim.Optimizer) -> None:
        loss = model(*inputs).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    def early(model: nn.Module, inputs: tuple[torch.Tensor, ...], optimizer: torch.optim.Optimizer) -> None:
        optimizer.zero_grad()
        model(*inputs).square().mean().backward()
        optimizer.step()

    model, x = nn.Linear(64, 64), torch.empty(512, 64)
    alive = {}
    for step in (late, early):
        graph = trace_step(model, x, loop=Loop(step=step)).graph
        assert graph.memory.gradient_bytes == 4 * (64 * 64 + 64)
        old = [s for s in graph.storages if s.role == "gradient" and s.born < 0]
        alive[step] = [(s.bytes, s.freed >= 0) for s in old]
    assert sorted(alive[late]) == [(4 * 64, True), (4 * 64 * 64, True)]
    assert all(not through for _, through in alive[early])


def test_a_batch_of_many_micro_batches_counts_all_samples() -> None:
    model, x = nn.Linear(8, 4), torch.empty(5, 8)
    one, three = (trace_step(model, x, loop=Loop(accumulate=n)).graph for n in (1, 3))
    assert (one.batch, three.batch) == (5, 15)
    flops = {g.batch: sum(t.flops for t in g.tasks) for g in (one, three)}
    assert flops[15] == 3 * flops[5]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"accumulate": 0}, "accumulate is 0"),
        ({"zero_grad": "nothing"}, "did you mean none"),
        ({"accumulate": 2, "step": lambda *_: None}, "leave both out"),
    ],
)
def test_a_loop_that_cannot_be_is_refused(options: dict[str, Any], said: str) -> None:
    with pytest.raises((BadInput, UnknownName), match=said):
        Loop(**options)


def test_inference_accumulates_no_gradients() -> None:
    with pytest.raises(BadInput, match="no gradients"):
        ph.trace(nn.Linear(8, 4), torch.empty(5, 8), accumulate=2, mode="infer")


@pytest.mark.machine
@pytest.mark.parametrize("name", sorted(set(NETWORKS) - {"resnet_checkpointed_reentrant"}))
def test_inference_is_predicted(name: str) -> None:
    holds(name, 8, Setting(None))


@pytest.mark.machine
@pytest.mark.parametrize("name", ["resnet18", "transformer", "unet", "convnext", "mlp"])
def test_a_training_step_under_bfloat16_autocast_is_predicted(name: str) -> None:
    holds(name, 8, replace(TRAIN, bfloat16=True))
