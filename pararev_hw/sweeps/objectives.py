"""Objectives: the one table of their names, columns, units, directions and labels, and how each is worked out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from pararev_hw.sweeps.columns import Outcome


@dataclass(frozen=True, slots=True)
class Objective:
    """What is minimised, or maximised: `column` is its name in results, `label` what people call it."""

    name: str
    column: str
    unit: str
    label: str
    meaning: str
    maximise: bool = False
    needs: tuple[str, ...] = ()  # parameters of the device


OBJECTIVES: Mapping[str, Objective] = {
    o.name: o
    for o in (
        Objective(
            "latency",
            "latency_s",
            "s",
            "latency",
            "time of one step, by the better of the schedule and the sequential one",
        ),
        Objective("latency_per_sample", "latency_per_sample_s", "s", "latency per sample", "latency over the batch"),
        Objective("energy", "energy_j", "J", "energy", "energy of one step, leakage included"),
        Objective("energy_per_sample", "energy_per_sample_j", "J", "energy per sample", "energy over the batch"),
        Objective("energy_delay", "energy_delay_js", "J s", "energy-delay product", "energy-delay product of one step"),
        Objective("power", "power_w", "W", "power", "energy over latency"),
        Objective(
            "dram_energy",
            "dram_energy_j",
            "J",
            "main-memory energy",
            "energy of main-memory traffic",
            needs=("dram_energy_j_per_byte",),
        ),
        Objective(
            "static_energy", "static_energy_j", "J", "static energy", "leakage over the step", needs=("static_power_w",)
        ),
        Objective("peak_memory", "peak_bytes", "B", "peak memory", "peak of the main memory"),
        Objective(
            "sram_total",
            "sram_total_bytes",
            "B",
            "SRAM in total",
            "on-chip memory of all cores",
            needs=("sram_bytes_per_lane",),
        ),
        Objective(
            "chip_area",
            "chip_area_mm2",
            "mm2",
            "chip area",
            "area of the cores' PEs and memories and of the global buffer, nothing else",
            needs=("sram_area_mm2_per_byte", "pe_area_mm2", "sram_bytes_per_lane"),
        ),
        Objective("cores", "cores", "", "cores", "cores of the chip"),
        Objective("speedup", "speedup", "", "speed-up", "sequential latency over latency", maximise=True),
        Objective("parameters", "parameters", "", "weights", "weights of the network", maximise=True),
        Objective("macs", "macs", "", "MACs", "multiply-accumulates of one step's forward pass", maximise=True),
    )
}


@dataclass(frozen=True, slots=True)
class NetworkSize:
    """What objectives need of a network: samples per step, weights, MACs of a forward pass."""

    batch: int
    parameters: int
    macs: int


def objective_values(outcome: Outcome, network: NetworkSize, lanes: int, device: Mapping[str, Any]) -> dict[str, Any]:
    """Column -> values of every objective of OBJECTIVES; `device` gives the configurations' parameters."""
    latency_s, energy_j = outcome.latency_s, outcome.energy_j["total"]
    with np.errstate(divide="ignore", invalid="ignore"):  # configurations that are not possible take no time
        power_w, speedup = energy_j / latency_s, outcome.sequential_s / latency_s
    values: dict[str, Any] = {
        "latency_s": latency_s,
        "latency_per_sample_s": latency_s / network.batch,
        "energy_j": energy_j,
        "energy_per_sample_j": energy_j / network.batch,
        "energy_delay_js": energy_j * latency_s,
        "power_w": power_w,
        "dram_energy_j": outcome.energy_j.get("dram", 0.0),
        "static_energy_j": outcome.energy_j.get("static", 0.0),
        "peak_bytes": outcome.peak_bytes,
        "cores": float(lanes),
        "speedup": speedup,
        "parameters": float(network.parameters),
        "macs": float(network.macs),
    }
    if "sram_bytes_per_lane" in device:
        values["sram_total_bytes"] = lanes * device["sram_bytes_per_lane"]
    if "pe_area_mm2" in device and "sram_area_mm2_per_byte" in device:
        memory = lanes * device["sram_bytes_per_lane"] + device.get("global_buffer_bytes", 0.0)
        pes = lanes * device["pe_rows"] * device["pe_columns"]
        values["chip_area_mm2"] = memory * device["sram_area_mm2_per_byte"] + pes * device["pe_area_mm2"]
    return values
