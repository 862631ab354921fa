"""Ops as rows of amounts: what a fit is made from, and what it is applied to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from pararev_hw.costmodels.calibrated import gaussian_process
from pararev_hw.costmodels.calibrated.cache_model import miss_share
from pararev_hw.costmodels.calibrated.features import branches, coefficient_names, coordinates, work_terms
from pararev_hw.costmodels.calibrated.gaussian_process import Hyperparameters
from pararev_hw.costmodels.traffic import Floats
from pararev_hw.devices.instruction_sets import InstructionSet, instruction_set_of
from pararev_hw.sizes import item_bytes
from pararev_hw.types import Estimate, Fit, Hardware, OpSample, OpType, Profile

_ENDLESS_BYTES = float(1 << 60)
_CACHE_WEIGHT = 2.0  # of where the bytes were, among the logarithms of sizes


@dataclass(frozen=True, slots=True)
class DesignMatrix:
    """Ops of one group: amounts [n, prices], coordinates [n, d]."""

    names: tuple[str, ...]
    work_terms: Floats
    at: Floats

    def seconds(self, coefficients: Mapping[str, Estimate]) -> Floats:
        """Seconds by the prices alone; an amount without a price costs nothing."""
        price = [coefficients[n].value if n in coefficients else 0.0 for n in self.names]
        return np.asarray(self.work_terms @ np.array(price), np.float64)


def design_matrix(
    types: Sequence[OpType],
    l2: Floats,
    dram: Floats,
    density: Floats,
    code: Floats | None = None,
    isa: InstructionSet | None = None,
) -> DesignMatrix:
    """The matrix of ops of one group: `l2` and `dram` are bytes fetched from beyond the caches, `density` shares of
    masks, `code` shares of the code that were fetched as well, `isa` the instruction set of a CPU."""
    first = types[0]
    row_by_type: dict[int, tuple[tuple[float, ...], tuple[float, ...]]] = {}
    for t in types:
        if id(t) not in row_by_type:
            row_by_type[id(t)] = work_terms(t, isa), coordinates(t, isa)
    terms = np.array([row_by_type[id(t)][0] for t in types], np.float64)
    moved = np.maximum(terms[:, 1] + terms[:, 2], 1.0)
    columns = [terms, l2[:, None], dram[:, None], (np.zeros_like(l2) if code is None else code)[:, None]]
    if branches(first):
        elements = terms[:, 2] / item_bytes(first.dtype)
        columns.append((elements * np.minimum(density, 1 - density))[:, None])
    where = _CACHE_WEIGHT * np.stack((l2 / moved, dram / moved), 1)
    at = np.concatenate((np.array([row_by_type[id(t)][1] for t in types], np.float64), where), 1)
    return DesignMatrix(coefficient_names(first), np.concatenate(columns, 1), at)


def coordinate_count(t: OpType, isa: InstructionSet | None) -> int:
    """How many coordinates `at` has for ops of that type: its own, and where its bytes were."""
    return len(coordinates(t, isa)) + 2


def measured_design_matrix(
    samples: Sequence[OpSample], capacities: tuple[float, float], isa: InstructionSet | None = None
) -> DesignMatrix:
    """DesignMatrix of measured ops: one that ran warm last touched its memory one run before, a cold one never; of one
    measured in a step its place there says what it fetched."""
    moved = np.array([float(s.op.read_bytes + s.op.write_bytes) for s in samples])
    cold = np.array([s.cold for s in samples])
    l2, dram = (
        np.array(
            [
                share if s.fetched_bytes is None else s.fetched_bytes[level]
                for s, share in zip(samples, np.where(cold, moved, moved * miss_share(moved, c)).tolist(), strict=True)
            ]
        )
        for level, c in enumerate(capacities)
    )
    density = np.array([0.0 if s.density is None else s.density for s in samples])
    code = np.array([float(s.cold) if s.fetched_code is None else s.fetched_code for s in samples])
    return design_matrix([s.op for s in samples], l2, dram, density, code, isa)


def seconds_without_faults(samples: Sequence[OpSample], fault_s_per_byte: float) -> Floats:
    """Measured lower quartiles without the time to map memory in, which a step counts apart."""
    low = np.array([s.low_s if s.fetched_code is None else s.median_s for s in samples])
    faults = fault_s_per_byte * np.array([float(s.faulted_bytes) for s in samples])
    return np.maximum(low - faults, 0.3 * low)


def capacities(profile: Profile) -> tuple[float, float]:
    """Bytes of the second-level and of the last cache; endless where the profile does not say."""

    def bytes_of(name: str) -> float:
        return profile.host[name].value if name in profile.host else _ENDLESS_BYTES

    return bytes_of("l2_capacity_bytes"), bytes_of("last_capacity_bytes")


def instruction_set(hardware: Hardware) -> InstructionSet | None:
    """That of a CPU, none of another device."""
    return instruction_set_of(hardware) if hardware.kind == "cpu" else None


def fault_s_per_byte(host: Mapping[str, Estimate]) -> float:
    """Seconds for each byte of memory that is touched for the first time; none where it was not measured."""
    return host["fault_s_per_byte"].value if "fault_s_per_byte" in host else 0.0


def hyperparameters_of(fit: Fit) -> Hyperparameters | None:
    """How the residuals of a fit are smoothed, None where they are not."""
    c = fit.coefficients
    if "residual_share" not in c:
        return None
    lengths = tuple(c[length_name(d)].value for d in range(len(c)) if length_name(d) in c)
    return Hyperparameters(c["residual_share"].value, lengths, c["noise_share"].value)


def hyperparameter_estimates(how: Hyperparameters) -> Mapping[str, Estimate]:
    """The same as coefficients of a fit."""
    lengths = {length_name(d): Estimate(length) for d, length in enumerate(how.lengths)}
    return {"residual_share": Estimate(how.deviation), "noise_share": Estimate(how.noise), **lengths}


def length_name(coordinate: int) -> str:
    """Name of the coefficient that says how far a residual reaches along a coordinate."""
    return f"length{coordinate}_factor"


def corrected(
    measured: DesignMatrix, residual: Floats, how: Hyperparameters | None, unmeasured: DesignMatrix
) -> Floats:
    """Factors on the predicted times of `unmeasured`, from the residuals of `measured`."""
    if how is None or not len(residual):
        return np.ones(len(unmeasured.at))
    return gaussian_process.correction(measured.at, residual, how, unmeasured.at)
