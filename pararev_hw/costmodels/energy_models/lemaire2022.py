"""Computation, memory accesses and addressing of a layer, each word 32 bits and each memory as large as what it holds:
weights, or what one sample has in one time step.

    analog input   compute    (E_mul + E_add) x MACs
                   memory     inputs read + weights read + outputs written
                              inputs read: MACs in a convolution, the inputs in a linear layer; weights read: MACs
                   addressing E_add x (inputs + outputs [+ weights' places in a convolution])
    spiking input  compute    E_add x SOPs
                   memory     spikes read + SOPs weights read + SOPs potentials read + SOPs potentials written
                   addressing E_add x SOPs [+ 2 (E_mul + E_add) x spikes in a convolution: where its window begins]

E_add = 0.1 pJ and E_mul = 3.1 pJ are 32-bit integers in 45 nm (Horowitz, ISSCC 2014). A word of a memory of 8 kB costs
10 pJ, of one of 32 kB 20 pJ, of one of 1 MB 100 pJ, linear in between and from 0, constant beyond.
E. Lemaire, L. Cordone, A. Castagnetti, P.-E. Novac, J. Courtois, B. Miramond, "An Analytical Estimation of Spiking
Neural Networks Energy Efficiency", ICONIP 2022. SOPs are the exact ones here, borders and strides included, where the
paper takes the whole kernel.
"""

from __future__ import annotations

from collections.abc import Mapping

from pararev_hw.costmodels.energy_models.layer_work import LayerWork

SOURCE = "45 nm, 32-bit integers, SRAM by size: Lemaire et al., ICONIP 2022; Horowitz, ISSCC 2014"
ADD_J = 0.1e-12
MULTIPLY_J = 3.1e-12
WORD_BYTES = 4
MEMORY = ((0, 0.0), (8 * 1024, 10e-12), (32 * 1024, 20e-12), (1024 * 1024, 100e-12))  # bytes, joules per word
SPIKE_QUEUE_BYTES = 8 * 1024
NOT_MODELLED = ("neuron updates beyond the potentials that synapses touch", "leakage", "backward and update")


def energy(work: LayerWork) -> Mapping[str, float]:
    """Joules of one layer's pass, by part."""
    if work.sops is None:
        read = work.macs if work.convolution else work.inputs
        passes = work.inputs / work.held
        places = work.inputs + work.outputs + (passes * work.weights if work.convolution else 0)
        return {
            "mac": (MULTIPLY_J + ADD_J) * work.macs,
            "memory": _access_j(read, work.held)
            + _access_j(work.macs, work.weights)
            + _access_j(work.outputs, work.neurons),
            "addressing": ADD_J * places,
        }
    start_j = 2 * (MULTIPLY_J + ADD_J) * work.spikes if work.convolution else 0.0
    return {
        "ac": ADD_J * work.sops,
        "memory": work.spikes * joules_per_word(SPIKE_QUEUE_BYTES)
        + _access_j(work.sops, work.weights)
        + 2 * _access_j(work.sops, work.neurons),
        "addressing": ADD_J * work.sops + start_j,
    }


def _access_j(accesses: float, words: int) -> float:
    return accesses * joules_per_word(words * WORD_BYTES)


def joules_per_word(capacity_bytes: float) -> float:
    """Of an access to a memory of that size."""
    (size, cost), *larger = MEMORY
    for next_size, next_cost in larger:
        if capacity_bytes <= next_size:
            return cost + (next_cost - cost) * (capacity_bytes - size) / (next_size - size)
        size, cost = next_size, next_cost
    return cost
