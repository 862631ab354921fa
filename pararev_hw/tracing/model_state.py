"""The whole state of a network, put back after a run: attributes, lists and dictionaries of tensors, and tensor values.

Neurons keep their membranes wherever their framework likes: in buffers that change shape, plain attributes, lists,
dictionaries or small objects of their own. Nothing is copied but values, so whatever refers to the network (a bound
method, a registry) goes on referring to it.
"""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from types import BuiltinFunctionType, FunctionType, MethodType, ModuleType
from typing import Any

import torch
from torch import nn

from pararev_hw.torch_private import version_of

_DEPTH = 6  # of containers and objects inside an attribute
_OPAQUE = (type, ModuleType, FunctionType, BuiltinFunctionType, MethodType, str, bytes, int, float, complex, bool)
_TABLES = ("_modules", "_parameters", "_buffers")


@contextlib.contextmanager
def state_preserved(model: nn.Module, *, values: bool) -> Iterator[None]:
    """On exit every module is as it was, hidden state included. `values`: the contents of tensors too, which a run on
    fake tensors cannot change."""
    snapshot = _Snapshot(values)
    for module in model.modules():
        snapshot.attributes(module.__dict__, 0)
    try:
        yield
    finally:
        snapshot.restore()


class _Snapshot:
    """What each container held, and what each tensor's values were."""

    def __init__(self, values: bool) -> None:
        self.values = values
        self.seen: dict[int, Any] = {}  # keeps what it saw alive, so that no id is used twice
        self.undo: list[Callable[[], None]] = []

    def attributes(self, table: dict[str, Any], depth: int) -> None:
        before = dict(table)
        self.undo.append(lambda: _refill(table, before))
        for value in before.values():
            self.visit(value, depth + 1)

    def visit(self, value: Any, depth: int) -> None:
        if value is None or depth > _DEPTH or isinstance(value, _OPAQUE) or id(value) in self.seen:
            return
        self.seen[id(value)] = value
        if isinstance(value, torch.Tensor):
            self._tensor(value)
        elif isinstance(value, nn.Module):
            return  # a module of the network is visited as such; a stranger's is not ours to put back
        elif isinstance(value, dict):
            self.attributes(value, depth)
        elif isinstance(value, list):
            items = list(value)
            self.undo.append(lambda: value.__setitem__(slice(None), items))
            self._each(items, depth)
        elif isinstance(value, deque):
            queued = list(value)
            self.undo.append(lambda: _replace_items(value, queued))
            self._each(queued, depth)
        elif isinstance(value, set):
            members = set(value)
            self.undo.append(lambda: value.intersection_update(members))
            self.undo.append(lambda: value.update(members))
        elif isinstance(value, tuple):
            self._each(list(value), depth)
        elif isinstance(vars(value) if hasattr(value, "__dict__") else None, dict):
            self.attributes(value.__dict__, depth)

    def _each(self, items: list[Any], depth: int) -> None:
        for item in items:
            self.visit(item, depth + 1)

    def _tensor(self, tensor: torch.Tensor) -> None:
        if not self.values or tensor.device.type == "meta" or tensor.layout is not torch.strided:
            return
        data, version = tensor.detach(), version_of(tensor)
        before = data.clone()

        def put_back() -> None:
            # batch normalisation changes its statistics without a word to the version counter: of weights it is true
            if tensor.requires_grad and version_of(tensor) == version and tensor.shape == before.shape:
                return
            with torch.no_grad():
                if tensor.shape == before.shape:
                    tensor.detach().copy_(before)
                else:
                    tensor.data = before

        self.undo.append(put_back)

    def restore(self) -> None:
        for step in reversed(self.undo):
            step()


def _replace_items(queue: deque[Any], items: list[Any]) -> None:
    queue.clear()
    queue.extend(items)


def _refill(table: dict[Any, Any], before: Mapping[Any, Any]) -> None:
    if table.keys() == before.keys() and all(table[k] is v for k, v in before.items()):
        return
    table.clear()
    table.update(before)


@contextlib.contextmanager
def in_mode(model: nn.Module, train: bool) -> Iterator[None]:
    """The network in training or inference mode, its modes put back on exit.

    Where the network already is in that mode its parts keep theirs: a factory that freezes a part by `eval()` meant it.
    """
    modes = [(m, m.training) for m in model.modules()]
    if model.training != train:
        model.train(train)
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training
