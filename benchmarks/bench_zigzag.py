"""Layers on one core, ours beside ZigZag: cycles, main-memory traffic, energy, their rankings, and the time it takes.

    python -m venv zigzag && zigzag/bin/pip install zigzag-dse
    python benchmarks/bench_zigzag.py --zigzag zigzag/bin/python

The core is the same in both: 16 x 16 processing elements that hold weights, input channels along the rows and output
channels along the columns, one memory of 64 KiB for all operands, 8-bit words and 32-bit partial sums, 8 bytes per
cycle from a main memory. ZigZag (package zigzag-dse) runs in an environment of its own and never imports ours.
docs/accelerators.md explains where the two differ.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
from scipy.stats import kendalltau

from pararev_hw.costmodels.accelerator import config_table, layer_costs, layer_table
from pararev_hw.devices import load_device
from pararev_hw.types import BlockGraph, Device, DeviceParameter, Op, OpType, StepMemory, Storage, Task

ROWS = COLUMNS = 16
SRAM_BYTES = 64 * 1024
MAC_J, SRAM_J, DRAM_J = 0.2e-12, 1.25e-12, 100e-12  # per MAC, per byte, per byte
DRAM_BYTES_PER_CYCLE, SRAM_BYTES_PER_CYCLE = 8, 256

# images, input channels, output channels, rows and columns of the output, kernel, stride
LAYERS: tuple[tuple[str, int, int, int, int, int, int], ...] = (
    ("stem 3x3, 3 -> 64 at 32", 1, 3, 64, 32, 3, 1),
    ("3x3, 16 -> 16 at 32", 1, 16, 16, 32, 3, 1),
    ("3x3, 64 -> 64 at 32", 1, 64, 64, 32, 3, 1),
    ("3x3, 64 -> 128 at 16, stride 2", 1, 64, 128, 16, 3, 2),
    ("3x3, 128 -> 128 at 16", 1, 128, 128, 16, 3, 1),
    ("1x1, 128 -> 256 at 16", 1, 128, 256, 16, 1, 1),
    ("3x3, 256 -> 256 at 8", 1, 256, 256, 8, 3, 1),
    ("3x3, 256 -> 512 at 4, stride 2", 1, 256, 512, 4, 3, 2),
    ("3x3, 448 -> 448 at 4", 1, 448, 448, 4, 3, 1),
    ("3x3, 64 -> 64 at 56", 1, 64, 64, 56, 3, 1),
    ("1x1, 512 -> 128 at 28", 1, 512, 128, 28, 1, 1),
    ("5x5, 48 -> 48 at 14", 1, 48, 48, 14, 5, 1),
    ("1x1, 20 -> 20 at 10", 1, 20, 20, 10, 1, 1),
    ("dense 512 -> 1000", 1, 512, 1000, 1, 1, 1),
)

DRIVER = """
import json, logging, sys, time
logging.disable(logging.CRITICAL)
from zigzag.api import get_hardware_performance_zigzag
found = []
for k, layer in enumerate(json.load(open(sys.argv[1]))):
    start = time.perf_counter()
    energy, latency, cmes = get_hardware_performance_zigzag(
        [layer], sys.argv[2], sys.argv[3], opt="EDP", dump_folder=sys.argv[4] + f"/{k}",
        loma_show_progress_bar=False)
    took = time.perf_counter() - start
    cme = cmes[0][1][0][0]
    parts = {str(op): [float(x) if not hasattr(x, "__iter__") else float(sum(x)) for x in levels]
             for op, levels in cme.mem_energy_breakdown.items()}
    dram = sum(levels[-1] for levels in parts.values())
    found.append({"cycles": float(latency), "energy_pj": float(energy), "dram_pj": dram,
                  "ideal_cycles": float(cme.ideal_cycle), "seconds": took})
json.dump(found, open(sys.argv[5], "w"))
"""


def architecture(weight_words: int = 8) -> str:
    """The core as ZigZag reads it; energies in pJ per access of the port's width."""

    def memory(name: str, bits: int, j_per_byte: float, operands: str, wide: int, served: str) -> str:
        users = operands.split(", ")
        ports = ""
        uses_of = {kind: [f"{o}, {way}" for o in users] for kind, way in (("read", "tl"), ("write", "fh"))}
        sums = {"read": ["O, th"], "write": ["O, fl"]} if "O" in users else {}
        # the register of sums faces both ways at once, a memory has one port to read and one to write
        apart = name == "rf_o"
        merged = [(k, u + ([] if apart else sums.get(k, []))) for k, u in uses_of.items()]
        for number, (kind, uses) in enumerate(merged + (list(sums.items()) if apart else [])):
            ports += f"""
      - name: {kind[0]}_port_{number}
        type: {kind}
        bandwidth_min: 8
        bandwidth_max: {wide}
        allocation: {json.dumps(uses)}"""
        cost = j_per_byte * 1e12 * wide / 8
        return f"""
  {name}:
    size: {bits}
    r_cost: {cost}
    w_cost: {cost}
    area: 0
    latency: 1
    operands: [{operands}]
    ports:{ports}
    served_dimensions: [{served}]"""

    parts = (
        memory("rf_w", 8 * weight_words, 0.0, "I2", 8, ""),
        memory("rf_o", 64, 0.0, "O", 32, "D2"),  # a column's sum, and the next one
        memory("sram", 8 * SRAM_BYTES, SRAM_J, "I1, I2, O", 8 * SRAM_BYTES_PER_CYCLE, "D1, D2"),
        memory("dram", 10**11, DRAM_J, "I1, I2, O", 8 * DRAM_BYTES_PER_CYCLE, "D1, D2"),
    )
    array = f"""
operational_array:
  unit_energy: {MAC_J * 1e12}
  unit_area: 1
  dimensions: [D1, D2]
  sizes: [{COLUMNS}, {ROWS}]
"""
    return "name: one_core\n\nmemories:" + "".join(parts) + "\n" + array


MAPPING = f"""
- name: default
  spatial_mapping:
    D1:
      - K, {COLUMNS}
    D2:
      - C, {ROWS}
  memory_operand_links:
    O: O
    W: I2
    I: I1
"""


def workload() -> list[dict[str, object]]:
    """The layers as ZigZag reads them."""
    return [
        {
            "id": 0,
            "operator_type": "Conv",
            "equation": "O[b][k][oy][ox]+=W[k][c][fy][fx]*I[b][c][iy][ix]",
            "dimension_relations": [f"ix={stride}*ox+1*fx", f"iy={stride}*oy+1*fy"],
            "loop_dims": ["B", "K", "C", "OY", "OX", "FY", "FX"],
            "loop_sizes": [b, k, c, size, size, kernel, kernel],
            "operand_precision": {"O": 32, "O_final": 8, "W": 8, "I": 8},
            "operand_source": {"I": 0, "W": 0},
        }
        for _, b, c, k, size, kernel, stride in LAYERS
    ]


def zigzag(python: Path, weight_words: int) -> list[dict[str, float]]:
    """What ZigZag says of each layer, and how long it took."""
    with tempfile.TemporaryDirectory() as folder:
        there = Path(folder)
        (there / "layers.json").write_text(json.dumps(workload()))
        (there / "core.yaml").write_text(architecture(weight_words))
        (there / "mapping.yaml").write_text(MAPPING)
        (there / "driver.py").write_text(DRIVER)
        names = ("driver.py", "layers.json", "core.yaml", "mapping.yaml", "dumps", "found.json")
        ran = subprocess.run([python, *(str(there / n) for n in names)], capture_output=True, text=True)
        if ran.returncode:
            raise SystemExit(f"ZigZag failed: {ran.stderr.strip()[-2000:]}")
        layers: list[dict[str, float]] = json.loads((there / "found.json").read_text())
        return layers


def core() -> Device:
    """The core as our devices describe it, at 1 GHz."""
    figures = {
        "pe_rows": ROWS, "pe_columns": COLUMNS, "dataflow": 1, "clock_hz": 1e9, "sram_bytes_per_lane": SRAM_BYTES,
        "sram_tile_share": 1, "sram_weight_share": 0, "sram_banks": 1, "sram_bank_read_bytes": SRAM_BYTES_PER_CYCLE,
        "sram_bank_write_bytes": SRAM_BYTES_PER_CYCLE, "sram_energy_j_per_byte": SRAM_J, "sram_energy_at_bytes": 0,
        "memory_bandwidth_bytes_per_s": DRAM_BYTES_PER_CYCLE * 1e9, "dram_energy_j_per_byte": DRAM_J,
        "energy_per_mac_j.int8": MAC_J, "pe_macs_per_cycle.int8": 1, "activation_bits": 8, "weight_bits": 8,
        "accumulator_bits": 32, "dram_latency_s": 0, "launch_overhead_s": 0, "zero_skipping": 0,
    }  # fmt: skip
    parameters = {n: DeviceParameter(float(v), "the benchmark's own core", "assumed") for n, v in figures.items()}
    base = load_device("edge8")
    return replace(base, name="one core", lanes=1, parameters={**base.parameters, **parameters})


def network() -> BlockGraph:
    """The layers as a graph, a task each."""
    types, ops, storages, tasks = [], [], [], []
    for i, (name, b, c, k, size, kernel, stride) in enumerate(LAYERS):
        wide = (size - 1) * stride + kernel
        shapes = ((b, c, wide, wide), (k, c, kernel, kernel)), ((b, k, size, size),)
        macs = b * c * k * size * size * kernel * kernel
        attributes = (("stride", (stride, stride)), ("padding", (0, 0)), ("dilation", (1, 1)), ("groups", (1,)))
        types.append(OpType("aten.convolution.default", "conv", "float32", *shapes, attributes, 2 * macs, 0, 0, 0))
        words = (b * c * wide * wide, k * c * kernel * kernel, b * k * size * size)
        roles = ("input", "parameter", "transient")
        storages += [Storage(4 * w, r, -1 if r != "transient" else i, 99) for w, r in zip(words, roles, strict=True)]
        ops.append(Op(i, name, "forward", (3 * i, 3 * i + 1), (3 * i + 2,), ()))
        tasks.append(Task(name, name, "", "forward", (i,), 2 * macs, 0, 0, 0))
    memory = StepMemory(0, 0, 0, 0, 0, 0, 0, 0)
    return BlockGraph("layers", "infer", 1, None, "float32", "op", (), 0, tuple(types), tuple(ops), tuple(storages),
                      tuple(tasks), (), memory)  # fmt: skip


def ours() -> list[dict[str, float]]:
    graph, device = network(), core()
    start = time.perf_counter()
    table, configs = layer_table(graph), config_table(device)
    costs = layer_costs(table, configs)
    took = (time.perf_counter() - start) / len(LAYERS)
    at = table.row_of_op
    joules = np.sum([v[at, 0] for part, v in costs.energy_j.items() if part in ("mac", "sram", "dram")], axis=0)
    return [
        {
            "cycles": float(costs.seconds[at[i], 0] * 1e9),
            "energy_pj": float(joules[i] * 1e12),
            "dram_pj": float(costs.energy_j["dram"][at[i], 0] * 1e12),
            "seconds": took,
        }
        for i in range(len(LAYERS))
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--zigzag", type=Path, required=True, help="Python of an environment with zigzag-dse")
    parser.add_argument("--weight-words", type=int, default=8, help="weights that a PE of ZigZag's core has room for")
    given = parser.parse_args()
    zigzag_layers, here = zigzag(given.zigzag, given.weight_words), ours()
    print(f"{'layer':32} {'kcycles':>9} {'ZigZag':>9} {'ratio':>6} {'uJ':>9} {'ZigZag':>9} {'ratio':>6} "
          f"{'DRAM uJ':>9} {'ZigZag':>9} {'ratio':>6}")  # fmt: skip
    for (name, *_), a, b in zip(LAYERS, here, zigzag_layers, strict=True):
        cells = []
        for key, unit in (("cycles", 1e3), ("energy_pj", 1e6), ("dram_pj", 1e6)):
            cells.append(f"{a[key] / unit:9.2f} {b[key] / unit:9.2f} {a[key] / b[key]:6.2f}")
        print(f"{name:32} {' '.join(cells)}")
    for key in ("cycles", "energy_pj", "dram_pj"):
        tau = kendalltau([a[key] for a in here], [b[key] for b in zigzag_layers]).statistic
        print(f"Kendall tau of {key.removesuffix('_pj')}: {tau:.3f}")
    slow, fast = (sum(x["seconds"] for x in layers) / len(LAYERS) for layers in (zigzag_layers, here))
    print(f"{slow:.2f} s per layer in ZigZag, {fast * 1e3:.2f} ms per layer here, the search for tilings included")


if __name__ == "__main__":
    main()
