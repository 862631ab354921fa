"""If and Loop as the nodes that they run, where the condition and the number of turns follow from sizes and constants.

That is what exporters leave of Python's own branches, and of loops over time steps, once a network's sizes are fixed.
What a body makes gets a name of its own in every turn; the weights in it are the same in all turns.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import torch
from onnx import GraphProto, NodeProto, TensorProto, helper
from torch import Tensor

from pararev_hw import limits
from pararev_hw.errors import BadInput

CONTROL_FLOW = ("If", "Loop")
_EXPORT = "export the network with fixed sizes, or trace its source instead"


class ControlFlow:
    """Writes out nodes of one graph. `value` gives a constant by its name, None for what depends on the network's
    data; `constant` and `initializer` make one known."""

    def __init__(
        self,
        value: Callable[[str], Tensor | None],
        constant: Callable[[str, Tensor], None],
        initializer: Callable[[TensorProto], None],
        opset: int,
    ) -> None:
        self._axes_are_inputs = opset >= 13  # of Unsqueeze
        self._value, self._constant, self._initializer = value, constant, initializer
        self._nodes = 0

    def written_out(self, node: NodeProto) -> Iterator[list[NodeProto]]:
        """The nodes that an If or a Loop runs, a list a turn. Each list must have been imported before the next is
        asked for: it may decide whether there is one. Raises BadInput where the data decide, or turns have no end."""
        bodies = {a.name: a.g for a in node.attribute}
        if node.op_type == "If":
            branch = bodies["then_branch" if self._truth(node.input[0]) else "else_branch"]
            names = self._weights(node, branch)
            yield self._turn(branch, f"{node.output[0]}/", names)
            yield _identities([names.get(o.name, o.name) for o in branch.output], node.output)
        else:
            yield from self._turns(node, bodies["body"])

    def _turns(self, node: NodeProto, body: GraphProto) -> Iterator[list[NodeProto]]:
        most = int(self._scalar(node.input[0])) if node.input[0] else None
        goes_on = len(node.input) < 2 or not node.input[1] or self._truth(node.input[1])
        carried, weights = list(node.input[2:]), self._weights(node, body)
        stacked: list[list[str]] = [[] for _ in body.output[1 + len(carried) :]]
        turn = 0
        while goes_on and (most is None or turn < most):
            prefix = f"{node.output[0] if node.output else node.name}/{turn}/"
            number, condition, *states = (value.name for value in body.input)
            names = {**weights, number: prefix + number, condition: prefix + condition}
            names |= dict(zip(states, carried, strict=True))
            self._constant(prefix + number, torch.tensor(turn))
            self._constant(prefix + condition, torch.tensor(True))
            yield self._turn(body, prefix, names)
            outputs = [names.get(o.name, o.name) for o in body.output]
            goes_on, carried = self._truth(outputs[0]), outputs[1 : 1 + len(carried)]
            for values, name in zip(stacked, outputs[1 + len(carried) :], strict=True):
                values.append(name)
            turn += 1
        if stacked and not turn:
            raise BadInput("stacks what its turns give, and has no turn")
        yield _identities(carried, node.output)
        for values, output in zip(stacked, node.output[len(carried) :], strict=False):
            yield self._stack(values, output)

    def _turn(self, graph: GraphProto, prefix: str, names: dict[str, str]) -> list[NodeProto]:
        """The graph's nodes, what they make renamed; `names` learns how."""
        self._nodes += len(graph.node)
        if self._nodes > limits.NETWORK_NODES:
            raise BadInput(f"is more than {limits.NETWORK_NODES} nodes once its turns are written out")
        names |= {name: prefix + name for node in graph.node for name in node.output if name}
        return [_renamed(node, names) for node in graph.node]

    def _weights(self, node: NodeProto, graph: GraphProto) -> dict[str, str]:
        names = {t.name: f"{node.output[0] if node.output else node.name}/{t.name}" for t in graph.initializer}
        for tensor in graph.initializer:
            copy = type(tensor)()
            copy.CopyFrom(tensor)
            copy.name = names[tensor.name]
            self._initializer(copy)
        return names

    def _stack(self, values: list[str], output: str) -> list[NodeProto]:
        if not output:
            return []
        self._constant(axes := f"{output}/axes", torch.tensor([0]))
        more = [axes] if self._axes_are_inputs else []
        attributes: dict[str, Any] = {} if self._axes_are_inputs else {"axes": [0]}
        rows = [f"{name}/row of {output}" for name in values]
        lifted = [
            helper.make_node("Unsqueeze", [value, *more], [row], **attributes)
            for value, row in zip(values, rows, strict=True)
        ]
        return [*lifted, helper.make_node("Concat", rows, [output], axis=0)]

    def _scalar(self, name: str) -> Tensor:
        value = self._value(name)
        if value is None or value.numel() != 1:
            raise BadInput(f"depends on the network's data ({name!r}): {_EXPORT}")
        return value

    def _truth(self, name: str) -> bool:
        return bool(self._scalar(name))


def _identities(sources: list[str], outputs: Iterable[str]) -> list[NodeProto]:
    return [helper.make_node("Identity", [s], [o]) for s, o in zip(sources, outputs, strict=False) if o]


def _renamed(node: NodeProto, names: Mapping[str, str]) -> NodeProto:
    """A copy of the node that reads and makes values by their new names, also in the graphs of its attributes."""
    copy = type(node)()
    copy.CopyFrom(node)
    for field in (copy.input, copy.output):
        field[:] = [names.get(name, name) for name in field]
    for attribute in copy.attribute:
        if attribute.HasField("g"):
            inside = [_renamed(n, names) for n in attribute.g.node]
            del attribute.g.node[:]
            attribute.g.node.extend(inside)
            for value in attribute.g.output:
                value.name = names.get(value.name, value.name)
    return copy
