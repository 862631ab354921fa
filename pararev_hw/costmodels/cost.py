"""What a traced graph costs on a device: `cost(graph, device, launch)`, the one place that chooses a cost model.

A `CostedGraph` is computed once and taken by everything that asks: schedulers (`problem`), predictions and memory
curves (`op_seconds`), reports and rewrites.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from pararev_hw.costmodels import accelerator, neuromorphic, roofline
from pararev_hw.costmodels.buffers import buffers, planned_buffers
from pararev_hw.costmodels.calibrated import op_times
from pararev_hw.costmodels.measured_ops import measured_op_costs
from pararev_hw.costmodels.neuromorphic import timeline
from pararev_hw.costmodels.once import once
from pararev_hw.costmodels.opcosts import OpCosts
from pararev_hw.costmodels.traffic import Traffic, traffic
from pararev_hw.devices import bare_device
from pararev_hw.errors import BadInput
from pararev_hw.types import BlockGraph, Device, Hardware, MeasuredDevice, Profile, SchedulingProblem


@dataclass(frozen=True, slots=True)
class CostedGraph:
    """A graph, the device it is to run on, and what each of its ops costs there.

    `by_core_kind` holds the ops' costs on each kind of core, with the device that has only such cores and their number;
    the first kind's come first.
    """

    graph: BlockGraph
    hardware: Hardware
    launch: str  # "eager" or "graph" on a GPU; "eager" elsewhere
    traffic: Traffic
    by_core_kind: tuple[tuple[Device, int, OpCosts], ...]
    op_seconds: tuple[float, ...]  # of each op alone on one lane of the first kind, in the order of `graph.ops`
    # of a neuromorphic chip: its mapping and time steps, which are `graph`'s tasks then; None elsewhere
    run: neuromorphic.Run | None = None
    problems: dict[tuple[int | None, bool], SchedulingProblem] = field(default_factory=dict, compare=False, repr=False)
    holding: dict[tuple[int | None, int | None], SchedulingProblem] = field(
        default_factory=dict, compare=False, repr=False
    )

    @property
    def device(self) -> Device:
        """The device itself, without what calibration knows of it."""
        return bare_device(self.hardware)

    @property
    def op_joules(self) -> tuple[float, ...]:
        """Energy of each op on a lane of the first kind, without idle power; in the order of `graph.ops`."""
        parts = tuple(self.by_core_kind[0][2].energy_j.values())
        return tuple(float(sum(part[k] for part in parts)) for k in range(len(self.graph.ops)))

    def problem(self, lanes: int | None = None, limited: bool = True) -> SchedulingProblem:
        """The scheduling problem on `lanes` lanes (default: all that the device has), one for all who ask.

        `limited`: with the device's memory as a limit. Raises BadInput for more lanes than the device has.
        """
        if (lanes, limited) not in self.problems:
            problem = self._problem(lanes) if limited else self.problem(lanes).limited_to(None)
            self.problems[lanes, limited] = problem
        return self.problems[lanes, limited]

    def holding_problem(self, lanes: int | None, room: int | None) -> SchedulingProblem:
        """The problem with the step's storages as buffers of its tasks and `room` bytes as its limit, one for all who
        ask."""
        if (lanes, room) not in self.holding:
            same_buffers = next((p for (other, _), p in self.holding.items() if other == lanes), None)
            if same_buffers is None:
                held = planned_buffers if self.device.plans_memory else buffers
                same_buffers = self.problem(lanes, limited=False).holding(once(held, (self.graph,)))
            self.holding[lanes, room] = same_buffers.limited_to(room)
        return self.holding[lanes, room]

    def _problem(self, lanes: int | None) -> SchedulingProblem:
        if self.run is not None:
            return timeline.problem(self.graph, self.device, self.run, self.by_core_kind[0][2], lanes)
        problems = [
            roofline.problem(self.graph, device, self.traffic, ops, lanes) for device, _, ops in self.by_core_kind
        ]
        if len(problems) == 1:
            return problems[0]
        return roofline.mixed_problem(self.device, problems, [count for _, count, _ in self.by_core_kind])


def launches(graph: BlockGraph, device: Hardware) -> tuple[str, ...]:
    """The ways to get the step to the device. A CUDA graph holds no step whose host waits for what tensors hold."""
    return ("eager", "graph") if device.kind == "gpu" and graph.values_asked is None else ("eager",)


def cost(graph: BlockGraph, hardware: Hardware, launch: str = "eager", lanes: int | None = None) -> CostedGraph:
    """What each op of a graph costs on a device, or on the device of a profile as it was measured.

    `launch` is "eager", where a GPU's host launches every op, or "graph", where it replays them all at once. `lanes`
    matters on a neuromorphic chip alone, whose layers are mapped to so many cores. Raises BadInput for a launch that
    the device does not have or the step does not allow, or a parameter that its file lacks; Infeasible where a chip has
    no room.
    """
    if launch == "graph" and graph.values_asked is not None:
        raise BadInput(
            f"{graph.model}: a CUDA graph cannot wait for values, and {graph.values_asked}; launch it op by op"
        )
    return once(_cost, (graph, hardware), launch, lanes)


def _cost(graph: BlockGraph, hardware: Hardware, launch: str, lanes: int | None) -> CostedGraph:
    if hardware.kind == "neuromorphic" and isinstance(hardware, Device):
        roofline.check_launch(hardware, launch)
        ran = neuromorphic.run(graph, hardware, lanes)
        on_chip, ops = timeline.timeline(graph, ran), timeline.op_costs(ran)
        one_kind = ((hardware, hardware.lanes, ops),)
        return CostedGraph(on_chip, hardware, launch, traffic(on_chip), one_kind, tuple(ops.seconds.tolist()), ran)
    flow = once(traffic, (graph,))
    if isinstance(hardware, Profile):
        ops = op_times.op_costs(graph, hardware, flow, launch)
        kinds: tuple[tuple[Device, int, OpCosts], ...] = ((hardware.device, hardware.lanes, ops),)
    elif isinstance(hardware, MeasuredDevice):
        ops = measured_op_costs(graph, hardware, cost(graph, hardware.base, launch).by_core_kind[0][2])
        kinds = ((hardware.device, hardware.lanes, ops),)
    elif accelerator.has_cores(hardware):
        kinds = tuple(
            (device, count, roofline.op_costs(graph, device, flow, launch))
            for device, count in accelerator.core_kinds(hardware)
        )
    else:
        kinds = ((hardware, hardware.lanes, roofline.op_costs(graph, hardware, flow, launch)),)
    return CostedGraph(graph, hardware, launch, flow, kinds, tuple(kinds[0][2].seconds.tolist()))
