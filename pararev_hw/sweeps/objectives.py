"""Objectives by name: the column they fill, their unit, and what they need.

A negative direction means that more is better; everything else is to be small.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Objective:
    """What is minimised (or maximised): `column` is its name in results."""

    name: str
    column: str
    unit: str
    meaning: str
    maximise: bool = False
    needs: tuple[str, ...] = ()  # figures of the device


_ENERGY = ("energy_per_vector_flop_j",)
KNOWN: Mapping[str, Objective] = {
    o.name: o
    for o in (
        Objective(
            "latency", "latency_s", "s", "time of one step, by the better of the schedule and the sequential one"
        ),
        Objective("latency_per_sample", "latency_per_sample_s", "s", "latency over the batch"),
        Objective("energy", "energy_j", "J", "energy of one step, leakage included"),
        Objective("energy_per_sample", "energy_per_sample_j", "J", "energy over the batch"),
        Objective("energy_delay", "energy_delay_js", "J s", "energy-delay product of one step"),
        Objective("power", "power_w", "W", "energy over latency"),
        Objective(
            "dram_energy", "dram_energy_j", "J", "energy of main-memory traffic", needs=("dram_energy_j_per_byte",)
        ),
        Objective("static_energy", "static_energy_j", "J", "leakage over the step", needs=("static_power_w",)),
        Objective("peak_memory", "peak_bytes", "B", "peak of the main memory"),
        Objective("sram_total", "sram_total_bytes", "B", "on-chip memory of all cores", needs=("sram_bytes_per_lane",)),
        Objective("cores", "cores", "", "cores of the chip"),
        Objective("speedup", "speedup", "", "sequential latency over latency", maximise=True),
        Objective("parameters", "parameters", "", "weights of the network", maximise=True),
        Objective("macs", "macs", "", "multiply-accumulates of one step's forward pass", maximise=True),
    )
}
