"""The whole state of a network, put back after a run: attributes, containers, values of tensors, random generators.

Neurons keep their membranes wherever their framework likes: in buffers that change shape, plain attributes, lists,
dictionaries, NumPy arrays or small objects, in what a function encloses, in attributes of the class or globals of the
file that defines it. Nothing is copied but values, so whatever refers to the network (a bound method, a registry) goes
on referring to it. A generator or an iterator cannot be put back: `uncopied_state` names it.
"""

from __future__ import annotations

import contextlib
import functools
import io
import random
import sys
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import BuiltinFunctionType, CellType, FunctionType, MethodType, ModuleType
from typing import Any

import numpy as np
import torch
from torch import nn

from pararev_hw.torch_private import version_of

_DEPTH = 12  # of containers and objects inside an attribute
_LONGEST = 100_000  # items of a list that are looked at one by one
_LARGEST_GLOBAL_BYTES = 1 << 24  # a larger array beside the network is data, not a membrane
_OPAQUE = (type, ModuleType, BuiltinFunctionType, str, bytes, int, float, complex, bool)


@contextlib.contextmanager
def state_preserved(model: nn.Module, *, values: bool) -> Iterator[None]:
    """On exit every module is as it was, hidden state included. `values`: the contents of tensors too, which a run on
    fake tensors cannot change."""
    snapshot = _Snapshot(values)
    snapshot.network(model)
    try:
        yield
    finally:
        snapshot.restore()


def uncopied_state(model: nn.Module) -> str | None:
    """What of the network's state cannot be put back, in words; None where all can."""
    snapshot = _Snapshot(values=False)
    snapshot.network(model)
    return snapshot.uncopied[0] if snapshot.uncopied else None


def random_states() -> tuple[object, ...]:
    """Where Python's and NumPy's random numbers stand."""
    of_numpy = np.random.get_state(legacy=False)["state"]
    return random.getstate(), of_numpy["key"].tobytes(), of_numpy["pos"]


class _Snapshot:
    """What each container held, and what each tensor's values were."""

    def __init__(self, values: bool) -> None:
        self.values = values
        self.seen: dict[int, Any] = {}  # keeps what it saw alive, so that no id is used twice
        self.undo: list[Callable[[], object]] = []
        self.uncopied: list[str] = []
        self.largest_bytes = sys.maxsize

    def network(self, model: nn.Module) -> None:
        self.undo.append(functools.partial(random.setstate, random.getstate()))
        self.undo.append(functools.partial(np.random.set_state, np.random.get_state()))
        for module in model.modules():
            self.attributes(module.__dict__, 0)
        self.largest_bytes = _LARGEST_GLOBAL_BYTES
        for cls in {c: None for module in model.modules() for c in type(module).__mro__ if _is_users(c)}:
            self._of_class(cls)

    def _of_class(self, cls: type) -> None:
        """Attributes of a class, and the globals of the file that defines it."""
        values = {k: v for k, v in vars(cls).items() if not (k.startswith("__") or hasattr(type(v), "__get__"))}
        self.undo.append(lambda: _put_back(values, lambda k: vars(cls).get(k), lambda k, v: setattr(cls, k, v)))
        for value in values.values():
            self.visit(value, 1)
        table = getattr(sys.modules.get(cls.__module__), "__dict__", None)
        if table is None or id(table) in self.seen:
            return
        self.seen[id(table)] = table
        names = {k: v for k, v in table.items() if not k.startswith("__")}
        self.undo.append(lambda: _put_back(names, table.get, table.__setitem__))
        for value in names.values():
            self.visit(value, 1)

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
        elif isinstance(value, list | deque | set):
            self._container(value, depth)
        elif isinstance(value, tuple):
            self._each(value, depth)
        elif isinstance(value, FunctionType):
            for cell in value.__closure__ or ():
                self._cell(cell, depth)
        elif isinstance(value, MethodType | functools.partial):
            parts = (value.__self__,) if isinstance(value, MethodType) else (value.args, value.keywords, value.func)
            self._each(parts, depth)
        elif isinstance(value, Iterator) and not isinstance(value, io.IOBase):
            self.uncopied.append(f"a {type(value).__name__}")
        elif not self._numbers(value):
            self._object(value, depth)

    def _numbers(self, value: Any) -> bool:
        """Whether the value is an array of NumPy, or draws random numbers."""
        if isinstance(value, np.ndarray):
            # a run on fake tensors changes NumPy's values too
            if value.flags.writeable and not value.dtype.hasobject and value.nbytes <= self.largest_bytes:
                self.undo.append(functools.partial(np.copyto, value, value.copy()))
        elif isinstance(value, torch.Generator):
            self.undo.append(functools.partial(value.set_state, value.get_state()))
        elif isinstance(value, random.Random):
            self.undo.append(functools.partial(value.setstate, value.getstate()))
        elif isinstance(value, np.random.RandomState):
            self.undo.append(functools.partial(value.set_state, value.get_state()))
        elif isinstance(value, np.random.Generator):
            self.undo.append(functools.partial(setattr, value.bit_generator, "state", value.bit_generator.state))
        else:
            return False
        return True

    def _container(self, value: list[Any] | deque[Any] | set[Any], depth: int) -> None:
        items = list(value)
        if isinstance(value, set):
            self.undo.append(lambda: value.intersection_update(items))
            self.undo.append(lambda: value.update(items))
            return
        self.undo.append(lambda: _replace_items(value, items))
        self._each(items, depth)

    def _cell(self, cell: CellType, depth: int) -> None:
        """A variable that a function encloses."""
        try:
            before = cell.cell_contents
        except ValueError:  # not assigned yet
            return
        self.undo.append(lambda: setattr(cell, "cell_contents", before))
        self.visit(before, depth + 1)

    def _object(self, value: Any, depth: int) -> None:
        if isinstance(vars(value) if hasattr(value, "__dict__") else None, dict):
            self.attributes(value.__dict__, depth)
        for name in [n for c in type(value).__mro__ for n in _names_of_slots(c)]:
            if not hasattr(value, name):
                self.undo.append(functools.partial(_without, value, name))
                continue
            before = getattr(value, name)
            self.undo.append(functools.partial(object.__setattr__, value, name, before))
            self.visit(before, depth + 1)

    def _each(self, items: Sequence[Any], depth: int) -> None:
        for item in items if len(items) <= _LONGEST else ():
            self.visit(item, depth + 1)

    def _tensor(self, tensor: torch.Tensor) -> None:
        if not self.values or tensor.device.type == "meta" or tensor.layout is not torch.strided:
            return
        if tensor.numel() * tensor.element_size() > self.largest_bytes:
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


def _is_users(cls: type) -> bool:
    """Whether a class is of the user's own files, not of a library's."""
    file = getattr(sys.modules.get(cls.__module__), "__file__", None) or ""
    return cls.__module__.partition(".")[0] not in ("torch", "pararev_hw", "builtins") and "site-packages" not in file


def _names_of_slots(cls: type) -> tuple[str, ...]:
    names = cls.__dict__.get("__slots__", ())
    names = (names,) if isinstance(names, str) else tuple(names)
    return tuple(n for n in names if n not in ("__dict__", "__weakref__") and not n.startswith("__"))


def _without(value: object, name: str) -> None:
    if hasattr(value, name):
        object.__delattr__(value, name)


def _put_back(values: Mapping[str, Any], get: Callable[[str], Any], put: Callable[[str, Any], object]) -> None:
    for name, value in values.items():
        if get(name) is not value:
            put(name, value)


def _replace_items(queue: list[Any] | deque[Any], items: list[Any]) -> None:
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
