"""Networks on Loihi 1, ours beside SANA-FE: energy and time of the same spikes on the same cores.

    python -m venv sanafe && sanafe/bin/pip install sanafe==2.2.9
    python benchmarks/bench_sanafe.py --sanafe sanafe/bin/python

A multilayer perceptron and a convolutional network with weights in steps of 1/64, which SANA-FE's neurons hold exactly,
are counted and mapped here as `pararev-hw schedule --device loihi1` does, once as a loop over time steps and once
folded. The mapping, the weights and the input spikes go to SANA-FE (its Loihi file as installed, its timing model
"detailed"), which simulates every spike in an environment of its own. Input neurons stand there on a tile of their own,
west of the network's, and cost nothing but their messages. A layer is one time step behind the one before it, so that
SANA-FE runs a time step more for each layer.
"""

from __future__ import annotations

import argparse
import json
import math
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

STEPS = 64
CORES = (1, 4, 24)


# ---- what runs in SANA-FE's environment


def simulate(case: dict[str, Any]) -> dict[str, float]:
    """SANA-FE's energy, time and spikes of a mapped network."""
    import sanafe

    arch, net = sanafe.load_loihi(), sanafe.Network()
    tiles = list(arch.tiles)
    rows = 4
    groups = []
    for number, layer in enumerate(case["layers"]):
        if number == 0:
            group = net.create_neuron_group("input", layer["neurons"], soma_hw_name="loihi_inputs[0]")
        else:
            group = net.create_neuron_group(
                f"layer{number}",
                layer["neurons"],
                model_attributes={
                    "threshold": 127 / 128,  # fires above it, and potentials are steps of 1/64
                    "reset": 0.0,
                    "reset_mode": "hard",
                    "leak_decay": 1.0,
                    "input_decay": 0.0,
                },
                default_synapse_hw_name=f"loihi_{layer['synapse']}_synapse",
                soma_hw_name="loihi_lif",
            )
        groups.append(group)
        for k, (column, row, offset) in enumerate(layer["cores"]):
            neuron = group[k]
            if number == 0:
                neuron.set_attributes(
                    soma_hw_name=f"loihi_inputs[{k}]", model_attributes={"spikes": layer["spikes"][k]}
                )
            neuron.map_to_core(tiles[column * rows + row].cores[offset])
    for number, layer in enumerate(case["layers"][1:], start=1):
        pairs = [tuple(pair) for pair in layer["pairs"]]
        groups[number - 1].connect_neurons_sparse(groups[number], {"w": layer["weights"]}, pairs)
    chip = sanafe.SpikingChip(arch)
    chip.load(net)
    steps = case["steps"] + len(case["layers"]) - 1
    result = chip.sim(steps, timing_model="detailed")
    return {
        "time_s": result["sim_time"],
        **{f"{part}_j": joules for part, joules in result["energy"].items()},
        "events": result["spikes"],
        "packets": result["packets_sent"],
        "fired": result["neurons_fired"],
    }


# ---- what runs in ours


def networks() -> dict[str, tuple[list[tuple[str, Any]], tuple[int, ...], float]]:
    """By name: the layers' weights ("dense" [out, in], "conv" [out, in, 3, 3] of stride 2), the input and its rate."""
    rng = np.random.default_rng(0)

    def weights(*shape: int, gain: float) -> Any:
        fan_in = math.prod(shape[1:])
        return np.round(rng.normal(0.02, gain / math.sqrt(fan_in), shape) * 64) / 64

    mlp = [
        ("dense", weights(300, 256, gain=1.0)),
        ("dense", weights(100, 300, gain=1.4)),
        ("dense", weights(10, 100, gain=1.4)),
    ]
    conv = [
        ("conv", weights(6, 2, 3, 3, gain=1.2)),
        ("conv", weights(8, 6, 3, 3, gain=1.6)),
        ("dense", weights(10, 128, gain=1.6)),
    ]
    return {"MLP 256-300-100-10": (mlp, (256,), 0.15), "conv 2x14x14, 6, 8, 10": (conv, (2, 14, 14), 0.2)}


def built(layers: list[tuple[str, Any]], spikes: Any, folded: bool) -> tuple[Any, Any]:
    """The network as torch runs it, and its input [T, 1, ...]."""
    import torch
    from torch import nn

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            modules: list[nn.Module] = []
            for kind, w in layers:
                m: nn.Module = (
                    nn.Linear(w.shape[1], w.shape[0], bias=False)
                    if kind == "dense"
                    else nn.Conv2d(w.shape[1], w.shape[0], 3, 2, 1, bias=False)
                )
                m.weight = nn.Parameter(torch.tensor(w, dtype=torch.float32))  # type: ignore[assignment]
                modules.append(m)
            self.layers = nn.ModuleList(modules)

        def current(self, k: int, x: torch.Tensor) -> torch.Tensor:
            layer = self.layers[k]
            return layer(x.flatten(1) if isinstance(layer, nn.Linear) else x)  # type: ignore[no-any-return]

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.folded(x) if folded else self.looped(x)

        def folded(self, x: torch.Tensor) -> torch.Tensor:
            for k in range(len(self.layers)):
                current = self.current(k, x.flatten(0, 1)).unflatten(0, x.shape[:2])
                v, out = torch.zeros_like(current[0]), []
                for t in range(len(current)):
                    v = v + current[t]
                    out.append((v >= 1).to(v.dtype))
                    v = v * (1 - out[-1])
                x = torch.stack(out)
            return x.mean(0)

        def looped(self, x: torch.Tensor) -> torch.Tensor:
            potentials: list[Any] = [0.0] * len(self.layers)
            total = torch.zeros(1)
            for t in range(x.shape[0]):
                y = x[t]
                for k in range(len(self.layers)):
                    v = potentials[k] + self.current(k, y)
                    y = (v >= 1).to(v.dtype)
                    potentials[k] = v * (1 - y)
                total = total + y
            return total / x.shape[0]

    return Net(), torch.tensor(spikes, dtype=torch.float32)[:, None]


def synapses(kind: str, w: Any, shape: tuple[int, ...]) -> tuple[list[tuple[int, int]], list[float], tuple[int, ...]]:
    """Pairs of neurons, their weights, and the shape of what the layer gives."""
    if kind == "dense":
        out, fan_in = w.shape
        return [(i, o) for i in range(fan_in) for o in range(out)], w.T.ravel().tolist(), (out,)
    channels, height, width = shape
    out_shape = (w.shape[0], (height + 1) // 2, (width + 1) // 2)
    pairs, values = [], []
    for o, y, x in np.ndindex(*out_shape):
        for c, dy, dx in np.ndindex(channels, 3, 3):
            at = (2 * y + dy - 1, 2 * x + dx - 1)
            if 0 <= at[0] < height and 0 <= at[1] < width:
                source = int(np.ravel_multi_index((c, *at), shape))
                pairs.append((source, int(np.ravel_multi_index((o, y, x), out_shape))))
                values.append(float(w[o, c, dy, dx]))
    return pairs, values, out_shape


def core_of_neurons(layer: Any, cores: Any, shape: tuple[int, ...]) -> list[tuple[int, int, int]]:
    """Column, row and place in its tile of each neuron's core, as the mapping splits channels and places."""
    sizes = (layer.channel_groups, *layer.tiles)
    axes = [np.arange(n) * g // n for n, g in zip(shape, sizes, strict=False)]
    parts = math.prod(sizes)
    numbers = np.zeros(shape, np.int64)
    for axis, (index, g) in enumerate(zip(axes, sizes, strict=False)):
        numbers = numbers * g + index.reshape([-1 if a == axis else 1 for a in range(len(shape))])
    used = layer.cores
    return [place(cores, used[int(n) * len(used) // parts]) for n in numbers.ravel()]


def place(cores: Any, core: int) -> tuple[int, int, int]:
    c = cores[core]
    same_tile = [o.core for o in cores if (o.column, o.row) == (c.column, c.row)]
    return c.column + 1, c.row, same_tile.index(core)  # the first column is the entrance


def compare(name: str, cores: int, folded: bool, python: str) -> dict[str, Any]:
    """One row of the table."""
    from pararev_hw import trace
    from pararev_hw.costmodels.neuromorphic import run
    from pararev_hw.devices import load_device

    layers, shape, rate = networks()[name]
    spikes = (np.random.default_rng(1).random((STEPS, *shape)) < rate).astype(float)
    net, x = built(layers, spikes, folded)
    graph = trace(net, x, mode="infer", layout="TB")
    device = load_device("loihi1")
    summary = run(graph, device, cores).summary
    case: dict[str, Any] = {"steps": STEPS, "layers": []}
    flat = spikes.reshape(STEPS, -1).T > 0
    case["layers"].append({"neurons": len(flat), "cores": [(0, 0, 0)] * len(flat), "spikes": flat.tolist()})
    for (kind, w), mapped in zip(layers, summary.layers, strict=True):
        pairs, values, shape = synapses(kind, w, shape)
        places = core_of_neurons(mapped, summary.cores, shape)
        case["layers"].append(
            {"neurons": math.prod(shape), "cores": places, "synapse": kind, "pairs": pairs, "weights": values}
        )
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "case.json"
        path.write_text(json.dumps(case))
        done = subprocess.run([python, __file__, "--simulate", str(path)], capture_output=True, text=True, check=True)
        theirs = json.loads(done.stdout.strip().splitlines()[-1])
    energy: dict[str, float] = {}
    for layer in summary.layers:
        for part, joules in layer.energy_j.items():
            energy[part] = energy.get(part, 0.0) + joules
    return {
        "network": name,
        "form": "folded" if folded else "loop",
        "cores": summary.cores_used,
        "events": sum(layer.events for layer in summary.layers),
        "packets": summary.packets,
        "energy": energy,
        "energy_j": sum(energy.values()),
        "time_s": summary.time_step_s * summary.timesteps + summary.fill_s,
        "sanafe": theirs,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sanafe", help="the Python of the environment that has SANA-FE")
    parser.add_argument("--simulate", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.simulate:
        print(json.dumps(simulate(json.loads(Path(args.simulate).read_text()))))
        return
    if not args.sanafe:
        parser.error("give --sanafe, the Python that has SANA-FE")
    print("| network | cores | form | synaptic events | energy, ours | SANA-FE | off | time, ours | SANA-FE | off |")
    print("|---|---|---|---|---|---|---|---|---|---|")
    for name in networks():
        for cores in CORES:
            for folded in (False, True):
                row = compare(name, cores, folded, args.sanafe)
                theirs = row["sanafe"]
                events = f"{row['events']:,.0f}"
                if round(row["events"]) != theirs["events"]:
                    events += f" ({theirs['events']:,} there)"
                print(
                    f"| {name} | {row['cores']} | {row['form']} | {events} | {row['energy_j'] * 1e6:.3f} uJ | "
                    f"{theirs['total_j'] * 1e6:.3f} uJ | {row['energy_j'] / theirs['total_j'] - 1:+.1%} | "
                    f"{row['time_s'] * 1e6:.1f} us | {theirs['time_s'] * 1e6:.1f} us | "
                    f"{row['time_s'] / theirs['time_s'] - 1:+.1%} |",
                    flush=True,
                )


if __name__ == "__main__":
    main()
