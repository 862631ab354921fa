"""A small sweep: a zoo network that traces in a second, on edge8."""

from pathlib import Path

from pararev_hw.sweeps.spec import Sweep, from_yaml

SMALL = """
name: small
device: edge8
networks: pararevsnn21
batch: 2
spikes: 0.15
parameters:
  network.width: 0.0625
  lanes: [1, 2, 4]
  sram_bytes_per_lane: {from: 16 * KiB, to: 1 * MiB, scale: powers_of_two}
  memory_bandwidth_bytes_per_s: {from: 1e9, to: 100e9, scale: log}
  pe_rows: [4, 8, 16, 32]
derived:
  area: lanes * (1 + sram_bytes_per_lane / MiB + pe_rows / 16)
constraints: [area <= 9]
objectives: [latency, energy, area]
method: {name: random, samples: 6000, seed: 1}
"""


def small(**changes: str) -> Sweep:
    """The small sweep, with other text for some of its lines: `small(method="grid")`."""
    return from_yaml(text(**changes), "small.yaml")


def text(**changes: str) -> str:
    lines = SMALL.strip().splitlines()
    for key, value in changes.items():
        at = next(k for k, line in enumerate(lines) if line.startswith(f"{key}:"))
        lines[at] = f"{key}: {value}"
    return "\n".join(lines) + "\n"


def written(folder: Path, **changes: str) -> Path:
    """The small sweep as a file in `folder`."""
    file = folder / "small.yaml"
    file.write_text(text(**changes), encoding="utf-8")
    return file
