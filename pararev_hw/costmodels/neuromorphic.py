"""A neuromorphic core: it pays per synaptic event, neuron update and spike, and waits at each time step's barrier.

    seconds = events x t_event + updates x t_update + spikes x t_spike + T x t_barrier / (matrix ops of the task)
    events  = SOPs of a spiking layer; MACs where the input is analog, unknown, or a gradient
    updates = output elements of forward convolutions and linear layers (time steps are folded into them)
    spikes  = spiking share x input elements, a share of 1 where no spikes are known

Event costs as in SANA-FE (Boyle et al.), whose Loihi model they come from.
"""

from __future__ import annotations

import math

import numpy as np

from pararev_hw.costmodels.opcosts import OpCosts
from pararev_hw.costmodels.spikes import spiking_share
from pararev_hw.costmodels.traffic import Traffic
from pararev_hw.types import BlockGraph, Device


def event_costs(graph: BlockGraph, device: Device, flow: Traffic) -> OpCosts:
    """What each op costs in events."""
    n = len(graph.ops)
    type_of = np.fromiter((op.type for op in graph.ops), np.int64, n)
    macs = np.array([t.macs for t in graph.op_types], np.float64)[type_of]
    inputs = np.array([math.prod(t.input_shapes[0]) if t.input_shapes else 0 for t in graph.op_types])[type_of]
    outputs = np.array([sum(map(math.prod, t.output_shapes)) for t in graph.op_types])[type_of]
    forward = np.fromiter((op.phase in ("forward", "recompute") for op in graph.ops), np.bool_, n) & (macs > 0)

    share = spiking_share(graph)
    spiking = ~np.isnan(share)
    dense_inputs = forward & (graph.spikes is None)  # nothing is known: every input may be a spike
    events = macs * np.where(spiking, share, 1.0)
    updates = np.where(forward, outputs, 0.0)
    spikes = np.where(spiking, share * inputs, np.where(dense_inputs, inputs, 0.0))
    matrix_ops = np.append(flow.per_task(forward.astype(np.float64)), 0.0)[
        flow.task_of_op
    ]  # the appended one is for ops without a task
    barriers = np.divide(graph.timesteps or 1, matrix_ops, out=np.zeros(n), where=forward & (matrix_ops > 0))

    waiting = barriers * device.value("barrier_s")
    seconds = (
        events * device.value("synaptic_event_s")
        + updates * device.value("neuron_update_s")
        + spikes * device.value("spike_s")
        + waiting
    )
    message_j = device.value("message_energy_j") + device.value("hops_per_message") * device.value("hop_energy_j")
    return OpCosts(
        seconds=seconds,
        overhead_s=waiting,
        host_s=np.zeros(n),
        occupancy=np.zeros(n),
        dram_bytes=np.zeros(n),
        energy_j={
            "ac": events * device.value("synaptic_event_energy_j"),
            "neuron": updates * device.value("neuron_update_energy_j") + spikes * device.value("spike_energy_j"),
            "noc": spikes * message_j,
        },
    )
