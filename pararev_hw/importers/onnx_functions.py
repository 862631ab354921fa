"""Functions that an ONNX file defines for itself, and files of old versions, as plain nodes of versions that run."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from functools import cache

from onnx import ModelProto, NodeProto, inliner, version_converter

from pararev_hw import limits
from pararev_hw.errors import BadFile, BadInput

OLDEST = 7  # from here on shapes are broadcast as in numpy


def inline_functions(model: ModelProto) -> ModelProto:
    """The model with the bodies of its functions in place of their calls. Raises BadFile where they never end."""
    if not model.functions:
        return model
    nodes = _nodes_once_inlined(model)
    if nodes > limits.NETWORK_NODES:
        raise BadFile(f"its functions are {nodes} nodes once written out: at most {limits.NETWORK_NODES} are read")
    try:
        return inliner.inline_local_functions(model)
    except Exception as error:  # the inliner raises whatever its parser and checker raise
        raise BadFile(f"its functions cannot be written out: {str(error).strip()[:300]}") from error


def _nodes_once_inlined(model: ModelProto) -> int:
    bodies = {(f.domain, f.name): f.node for f in model.functions}
    open_calls: set[tuple[str, str]] = set()

    @cache
    def size(key: tuple[str, str]) -> int:
        if key in open_calls or len(open_calls) > limits.MODULE_DEPTH:
            raise BadFile(f"function {key[1]!r} calls itself, or calls nest deeper than {limits.MODULE_DEPTH}")
        open_calls.add(key)
        count = total(bodies[key])
        open_calls.remove(key)
        return count

    def total(nodes: Iterable[NodeProto]) -> int:
        calls = Counter((n.domain, n.op_type) for n in all_nodes(nodes))
        return sum(times * (size(key) if key in bodies else 1) for key, times in calls.items())

    return total(model.graph.node)


def all_nodes(nodes: Iterable[NodeProto]) -> Iterator[NodeProto]:
    """Nodes, and those of the graphs in their attributes."""
    stack = [nodes]
    while stack:
        for node in stack.pop():
            yield node
            stack.extend(g.node for a in node.attribute for g in (a.g, *a.graphs) if g.node)


def to_supported_version(model: ModelProto) -> ModelProto:
    """The model in a version whose operators are known. Raises BadInput for an old one that cannot be brought there."""
    version = max((o.version for o in model.opset_import if o.domain in ("", "ai.onnx")), default=1)
    if version >= OLDEST:
        return model
    try:
        return version_converter.convert_version(model, OLDEST)
    except Exception as error:  # the converter raises whatever its parser and its adapters raise
        raise BadInput(
            f"has operators of version {version}, and cannot be brought to version {OLDEST}: export it anew"
        ) from error
