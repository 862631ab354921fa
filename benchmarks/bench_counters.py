"""Synaptic operations beside NeuroBench's and SpikingJelly's counters, and beside brute force.

    python benchmarks/bench_counters.py

Needs an environment with neurobench 2.3, spikingjelly 2.0, snntorch 1.0 (installed with `--no-deps`) and this package.
Prints a table for docs/benchmarks.md: every figure per sample, in inference, and below it why a counter
differs. Ends with 1 where this package differs from brute force, or from a counter whose definition is the same.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import snntorch
import torch
from neurobench.metrics.static import ConnectionSparsity
from neurobench.metrics.workload import ActivationSparsity, MembraneUpdates, SynapticOperations
from neurobench.models import TorchModel
from snntorch import utils
from spikingjelly.activation_based.op_counter import DispatchCounterMode, SynOpCounter
from torch import Tensor, nn
from torch.nn import functional as F

from pararev_hw.tracing import StepDescription, measure_spikes, trace_step
from pararev_hw.types import Spikes

BATCH, STEPS = 4, 6


def leaky() -> nn.Module:
    return snntorch.Leaky(beta=0.8, init_hidden=True, threshold=0.3)


class Looped(nn.Module):
    """[B, T, ...] through `body`, step by step."""

    def __init__(self, *body: nn.Module) -> None:
        super().__init__()
        self.body = nn.Sequential(*body)

    def forward(self, x: Tensor) -> Tensor:
        utils.reset(self)
        return torch.stack([self.body(x[:, t]) for t in range(x.shape[1])]).mean(0)


class Attention(nn.Module):
    """Queries and keys of spikes; their product is of spikes too."""

    def __init__(self) -> None:
        super().__init__()
        self.q, self.k, self.nq, self.nk = nn.Linear(16, 16), nn.Linear(16, 16), leaky(), leaky()

    def forward(self, x: Tensor) -> Tensor:
        utils.reset(self)
        return self.nq(self.q(x)) @ self.nk(self.k(x)).transpose(1, 2)  # type: ignore[no-any-return]


def spikes_of(*shape: int) -> Tensor:
    return (torch.rand(BATCH, STEPS, *shape) < 0.3).float()


def perceptron() -> tuple[nn.Module, Tensor]:
    return Looped(nn.Linear(40, 32), leaky(), nn.Linear(32, 10), leaky()), spikes_of(40)


def convolutional() -> tuple[nn.Module, Tensor]:
    body = (nn.Conv2d(2, 8, 3, padding=1), leaky(), nn.Conv2d(8, 8, 3, stride=2, padding=1, groups=2), leaky())
    return Looped(*body, nn.Flatten(), nn.Linear(8 * 16, 10), leaky()), torch.rand(BATCH, STEPS, 2, 8, 8)


def pruned() -> tuple[nn.Module, Tensor]:
    net, x = perceptron()
    with torch.no_grad():
        for layer in (m for m in net.modules() if isinstance(m, nn.Linear)):
            layer.weight[torch.rand_like(layer.weight) < 0.5] = 0
    return net, x


def summed() -> tuple[nn.Module, Tensor]:
    return Looped(nn.Linear(40, 32), leaky(), nn.Linear(32, 10), leaky()), spikes_of(40) + spikes_of(40)


def attention() -> tuple[nn.Module, Tensor]:
    return Attention(), (torch.rand(BATCH, 12, 16) < 0.4).float()


NETWORKS: Mapping[str, Callable[[], tuple[nn.Module, Tensor]]] = {
    "perceptron": perceptron,
    "convolutional, analog input": convolutional,
    "perceptron, half pruned": pruned,
    "perceptron, summed spikes": summed,
    "attention": attention,
}


@dataclass(frozen=True, slots=True)
class Counts:
    """Per sample; None where a counter does not tell it."""

    dense: float | None = None
    effective_macs: float | None = None
    effective_acs: float | None = None
    sops: float | None = None
    connection_sparsity: float | None = None
    activation_sparsity: float | None = None
    membrane_updates: float | None = None


def ours(net: nn.Module, x: Tensor) -> Counts:
    graph = trace_step(net, x, loop=None, description=StepDescription(batch=BATCH)).graph
    spikes = measure_spikes(net, x, source="random", mode="infer", samples=BATCH, graph=graph)
    assert isinstance(spikes, Spikes)
    layers, neurons = spikes.layers, spikes.neurons
    weights = {n: m.weight.numel() for n, m in net.named_modules() if isinstance(m, nn.Linear | nn.Conv2d)}
    zeros = sum((s.connection_sparsity or 0.0) * weights.get(s.module, 0) for s in layers)
    updates = sum(n.updates for n in neurons)
    return Counts(
        dense=sum(s.dense_macs for s in layers),
        effective_macs=sum(s.effective_ops or 0 for s in layers if not s.spiking),
        effective_acs=sum(s.effective_ops or 0 for s in layers if s.spiking),
        sops=sum(s.sops for s in layers if s.spiking),
        connection_sparsity=zeros / sum(weights.values()),
        activation_sparsity=1 - sum(n.spikes for n in neurons) / updates,
        membrane_updates=updates,
    )


def neurobench(net: nn.Module, x: Tensor) -> Counts:
    model = TorchModel(net)
    model.add_activation_module(snntorch.SpikingNeuron)
    model.register_hooks()
    try:
        with torch.no_grad():
            outputs = model(x)
        data = (x, torch.zeros(len(x)))
        operations = SynapticOperations()(model, outputs, data)
        return Counts(
            dense=operations["Dense"],
            effective_macs=operations["Effective_MACs"],
            effective_acs=operations["Effective_ACs"],
            connection_sparsity=ConnectionSparsity()(model),
            activation_sparsity=ActivationSparsity()(model, outputs, data),
            membrane_updates=MembraneUpdates()(model, outputs, data),
        )
    finally:
        model.cleanup_hooks()


def spikingjelly(net: nn.Module, x: Tensor) -> Counts:
    counter = SynOpCounter()
    with torch.no_grad(), DispatchCounterMode([counter]):
        net.eval()(x)
    return Counts(sops=counter.get_total() / BATCH)


def brute_force(net: nn.Module, x: Tensor) -> Counts:
    """Every spike, and every sum of spikes as often as it was summed, through a layer of ones."""
    analog: set[nn.Module] = set()
    by_layer: dict[nn.Module, float] = {}

    def hook(layer: nn.Module, args: tuple[Tensor, ...], _: Tensor) -> None:
        value = args[0].double()
        if not bool((value == value.round()).all()):
            analog.add(layer)
        assert isinstance(layer, nn.Linear | nn.Conv2d)
        ones = torch.ones_like(layer.weight, dtype=torch.float64)
        if isinstance(layer, nn.Linear):
            reached = F.linear(value, ones)
        else:
            reached = F.conv2d(value, ones, None, layer.stride, layer.padding, layer.dilation, layer.groups)  # type: ignore[arg-type]
        by_layer[layer] = by_layer.get(layer, 0.0) + float(reached.sum())

    handles = [m.register_forward_hook(hook) for m in net.modules() if isinstance(m, nn.Linear | nn.Conv2d)]
    with torch.no_grad():
        out = net.eval()(x)
    for handle in handles:
        handle.remove()
    sops = sum(count for layer, count in by_layer.items() if layer not in analog)
    if isinstance(net, Attention):
        sops += float(out.sum())  # pairs of a query's and a key's spike
    return Counts(sops=sops / BATCH)


COUNTERS: Mapping[str, Callable[[nn.Module, Tensor], Counts]] = {
    "pararev-hw": ours,
    "brute force": brute_force,
    "NeuroBench 2.3": neurobench,
    "SpikingJelly 2.0": spikingjelly,
}
HEADS = ("dense", "effective MACs", "effective ACs", "SOPs", "connections 0", "activations 0", "membrane updates")


def main() -> int:
    print(f"| network | counter | {' | '.join(HEADS)} |\n|{'---|' * (len(HEADS) + 2)}")
    wrong = []
    for name, make in NETWORKS.items():
        results = {}
        for counter, count in COUNTERS.items():
            torch.manual_seed(0)
            results[counter] = count(*make())
            print(f"| {name} | {counter} | {' | '.join(cells(results[counter]))} |")
        wrong += [f"{name}: {what}" for what in differences(name, results)]
    print(f"\ncounting costs {overhead():.2f} x one plain forward run (convolutional network, batch 64, 64 channels)")
    for line in wrong:
        print(f"differs: {line}", file=sys.stderr)
    return int(bool(wrong))


def cells(counts: Counts) -> list[str]:
    whole = (counts.dense, counts.effective_macs, counts.effective_acs, counts.sops)
    shares = (counts.connection_sparsity, counts.activation_sparsity)
    return [
        *("" if v is None else f"{v:,.2f}".removesuffix(".00") for v in whole),
        *("" if v is None else f"{v:.4f}" for v in shares),
        "" if counts.membrane_updates is None else f"{counts.membrane_updates:,.2f}".removesuffix(".00"),
    ]


def differences(name: str, results: Mapping[str, Counts]) -> list[str]:
    """Where definitions agree and numbers do not."""
    mine, hooks, bench, jelly = results.values()
    pairs = {"SOPs by brute force": (mine.sops, hooks.sops)}
    if name not in ("perceptron, summed spikes", "attention"):  # see docs/benchmarks.md
        pairs["effective ACs"] = mine.effective_acs, bench.effective_acs
        pairs["effective MACs"] = mine.effective_macs, bench.effective_macs
        pairs["SpikingJelly's SOPs"] = mine.sops, jelly.sops
        pairs["membrane updates"] = mine.membrane_updates, bench.membrane_updates
        pairs["activation sparsity"] = mine.activation_sparsity, bench.activation_sparsity
    if name == "attention":
        pairs["SpikingJelly's SOPs"] = mine.sops, jelly.sops
    return [
        f"{what}: {a} and {b}"
        for what, (a, b) in pairs.items()
        if a is None or b is None or abs(a - b) > 1e-4 * max(1.0, abs(b))
    ]


def overhead(repeats: int = 5) -> float:
    """CPU time of counting over that of a plain forward run, the least of several each."""
    torch.manual_seed(0)
    body = (nn.Conv2d(2, 64, 3, padding=1), leaky(), nn.Conv2d(64, 64, 3, padding=1), leaky())
    net, x = Looped(*body, nn.Flatten(), nn.Linear(64 * 256, 10)).eval(), torch.rand(64, STEPS, 2, 16, 16)

    def seconds(run: Callable[[], object]) -> float:
        start = time.process_time()
        run()
        return time.process_time() - start

    with torch.no_grad():
        plain = min(seconds(lambda: net(x)) for _ in range(repeats))
        counted = min(
            seconds(lambda: measure_spikes(net, x, source="", mode="infer", samples=64)) for _ in range(repeats)
        )
    return counted / plain


if __name__ == "__main__":
    sys.exit(main())
