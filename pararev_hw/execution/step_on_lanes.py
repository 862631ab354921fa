"""A network's own training step on the lanes of a plan: `with parallel(net, plan) as step: loss = step(x, y)`."""

from __future__ import annotations

from collections.abc import Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Literal

import torch
from torch import nn

from pararev_hw.cuda_calls import CUDA
from pararev_hw.errors import BadInput
from pararev_hw.execution.bound_step import bind
from pararev_hw.execution.state import network_state
from pararev_hw.execution.streams import LaneStreams, make_streams
from pararev_hw.execution.threads import LaneThreads
from pararev_hw.graph.order import lane_orders
from pararev_hw.types import BlockGraph, Program

if TYPE_CHECKING:
    from pararev_hw.pipeline import Plan
    from pararev_hw.tracing import Traced

_GIVEN = ("input:", "target:")


def parallel(net: nn.Module, plan: Plan, *, launch: Literal["eager", "graph"] = "eager") -> ParallelStep:
    """The forward and backward pass of `net` on the lanes of `plan`, as a context.

    Args:
        net: The network that was traced, on a CPU (lanes are threads) or a GPU (streams). It is trained in place.
        plan: What `ph.schedule(graph, device)` gave for a graph that this process traced.
        launch: On a GPU "graph" captures the step once and replays it.

    Returns:
        A callable: `step(*inputs, target)` gives the loss and leaves the gradients in `p.grad`, as
        `loss.backward()` does. The optimizer is yours.

    Raises:
        BadInput: The graph holds no program (it came from a file), or is of another network.

    Example:
        >>> with ph.parallel(net, plan) as step:  # doctest: +SKIP
        ...     for x, y in data:
        ...         loss = step(x, y)
        ...         optimizer.step()
    """
    program: Program | None = plan.graph.replayable.value
    if program is None:
        raise BadInput(f"{plan.graph.model}: its graph holds no program to run: trace the network in this process")
    return ParallelStep(net, plan.graph, program, lane_orders(plan.graph, plan.schedule), launch)


def parallel_step(
    net: nn.Module,
    traced: Traced,
    lanes: Sequence[Sequence[str]],
    *,
    launch: Literal["eager", "graph"] = "eager",
) -> ParallelStep:
    """As `parallel`, of a traced or rewritten step and the ids of each lane's tasks in order; tasks that no lane names
    are left to the first. Raises BadInput where a lane names a task that the step does not have."""
    index = {task.id: k for k, task in enumerate(traced.graph.tasks)}
    unknown = next((t for lane in lanes for t in lane if t not in index), None)
    if unknown is not None:
        raise BadInput(
            f"{traced.graph.model} has no task {unknown!r}: the schedule is of another step, or of this one on another "
            "kind of device, whose operations differ (a GPU's recurrent layers): report it for the device that runs it"
        )
    orders = [[index[t] for t in lane] for lane in lanes] or [[]]
    placed = {k for order in orders for k in order}
    orders[0] += [k for k, task in enumerate(traced.graph.tasks) if k not in placed and task.phase != "update"]
    return ParallelStep(net, traced.graph, traced.program, orders, launch)


class ParallelStep:
    """A step on lanes: see `parallel`."""

    def __init__(
        self,
        net: nn.Module,
        graph: BlockGraph,
        program: Program,
        orders: Sequence[Sequence[int]],
        launch: Literal["eager", "graph"],
    ) -> None:
        self._net = net
        self._given = sorted(n for n in program.externals.values() if n.startswith(_GIVEN))
        state = network_state(net)
        home = next(iter(state.values()), torch.empty(0)).device
        for name in set(program.externals.values()) - set(state):
            state[name] = _empty(graph, program, name, home)
        self._state = state
        orders = _without_update(graph, orders)
        streams = make_streams(len(orders), CUDA) if home.type == "cuda" else []
        self._bound = bind(graph, program, state, orders, streams=streams, lend=CUDA.lend)
        self._lanes: LaneStreams | LaneThreads = (
            LaneStreams(self._bound, streams, launch=launch, cuda=CUDA) if streams else LaneThreads(self._bound)
        )

    def __enter__(self) -> ParallelStep:
        self._lanes.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._lanes.__exit__(kind, error, trace)

    def __call__(self, *batch: torch.Tensor) -> torch.Tensor:
        """The loss of a batch (inputs, then targets); gradients are in `p.grad` afterwards, not added to it."""
        if len(batch) != len(self._given):
            raise BadInput(f"the step takes {', '.join(self._given)}: {len(batch)} tensors were given")
        for name, tensor in zip(self._given, batch, strict=True):
            if tensor.shape != self._state[name].shape:
                raise BadInput(
                    f"{name} has shape {tuple(tensor.shape)}: the step was traced for {tuple(self._state[name].shape)}"
                )
            self._state[name].copy_(tensor)
        self._lanes.run()
        results = self._bound.results()
        for name, p in self._net.named_parameters():
            gradient = results.get(f"gradient:{name}")
            if gradient is not None:
                p.grad = gradient.detach()
        return results["loss"].detach()


def _without_update(graph: BlockGraph, orders: Sequence[Sequence[int]]) -> list[list[int]]:
    return [[t for t in order if graph.tasks[t].phase != "update"] for order in orders]


def _empty(graph: BlockGraph, program: Program, name: str, home: torch.device) -> torch.Tensor:
    """A tensor for what is given to each step; optimizer state, which these passes leave alone, is a placeholder."""
    if not name.startswith(_GIVEN):
        return torch.zeros((), device=home)
    slot = next(s for s, n in program.externals.items() if n == name)
    if slot not in program.layouts:
        raise BadInput(f"{graph.model}: {name} is read by no operation")
    shape, _, dtype = program.layouts[slot]
    return torch.zeros(shape, dtype=getattr(torch, dtype), device=home)
