"""The whole state of a network, put back after a run: attributes, containers, values of tensors, random generators.

Neurons keep their membranes wherever their framework likes: in buffers that change shape, plain attributes, lists,
dictionaries, NumPy arrays or small objects, in what a function encloses, in attributes of the class, in globals of the
file that defines it and in those of the user's other files that its code names. Nothing is copied but values, so
whatever refers to the network (a bound method, a registry) goes on referring to it. A generator or an iterator that the
code can reach cannot be put back: `uncopied_state` names it.
"""

from __future__ import annotations

import array
import contextlib
import functools
import io
import queue
import random
import sys
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextvars import ContextVar
from types import BuiltinFunctionType, CellType, CodeType, FunctionType, MemberDescriptorType, MethodType, ModuleType
from typing import Any
from weakref import WeakSet

import numpy as np
import torch
from torch import nn

from pararev_hw.torch_private import version_of

_DEPTH = 12  # of containers and objects inside an attribute
_LONGEST = 100_000  # items of a list that are looked at one by one
_LARGEST_GLOBAL_BYTES = 1 << 24  # a larger array beside the network is data, not a membrane
_OPAQUE = (type, ModuleType, BuiltinFunctionType, str, bytes, int, float, complex, bool)
_CACHED_FUNCTION = type(functools.cache(lambda: None))


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


def library_constants(model: nn.Module) -> list[torch.Tensor]:
    """Trainable tensors among the globals of the packages that define the network's modules, such as the resting
    potentials of a library's neurons: no optimizer is meant to train them."""
    packages = {type(m).__module__.partition(".")[0] for m in model.modules() if not _is_users(type(m).__module__)}
    packages -= {"torch", "pararev_hw"}
    tables = [vars(m) for n, m in list(sys.modules.items()) if n.partition(".")[0] in packages and m is not None]
    return [t for table in tables for value in list(table.values()) for t in _trainable(value, 0)]


def _trainable(value: object, depth: int) -> Iterator[torch.Tensor]:
    """Leaf tensors that ask for a gradient, through tuples and lists."""
    if isinstance(value, torch.Tensor):
        if value.requires_grad and value.is_leaf and not isinstance(value, nn.Parameter):
            yield value
    elif isinstance(value, tuple | list) and depth < _DEPTH:
        for item in value:
            yield from _trainable(item, depth + 1)


def _registered_beside(model: nn.Module) -> list[nn.Module]:
    """Modules of other networks that a class of this one holds in a list: its library resets all of them at once."""
    classes = {c: None for m in model.modules() for c in type(m).__mro__ if c.__module__.partition(".")[0] != "torch"}
    lists = [v for c in classes for v in vars(c).values() if isinstance(v, list | tuple | set | WeakSet)]
    inside = {id(m) for m in model.modules()}
    return [m for items in lists for m in list(items) if isinstance(m, nn.Module) and id(m) not in inside]


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
        self.used = True  # by the network's code, as far as it tells
        self.largest_bytes = sys.maxsize

    def network(self, model: nn.Module) -> None:
        self.undo.append(functools.partial(random.setstate, random.getstate()))
        self.undo.append(functools.partial(np.random.set_state, np.random.get_state()))
        for module in model.modules():
            self.attributes(module.__dict__, 0)
        for module in _registered_beside(model):
            self.attributes(module.__dict__, 0)
        self.largest_bytes = _LARGEST_GLOBAL_BYTES
        classes = list({c: None for module in model.modules() for c in type(module).__mro__ if _is_users(c.__module__)})
        for cls in classes:
            self._of_class(cls)
        self.used = False
        for cls in classes:
            self._file(cls.__module__)

    def _of_class(self, cls: type) -> None:
        """Attributes of a class, and what its methods name."""
        if id(cls) in self.seen:
            return
        self.seen[id(cls)] = cls
        values = {k: v for k, v in vars(cls).items() if not (k.startswith("__") or hasattr(type(v), "__get__"))}
        self.undo.append(lambda: _put_back(values, lambda k: vars(cls).get(k), lambda k, v: setattr(cls, k, v)))
        for value in values.values():
            self.visit(value, 1)
        for method in vars(cls).values():
            for function in _functions_of(method):
                self.visit(function, 1)

    def _file(self, module: str) -> None:
        """All globals of a file."""
        table = getattr(sys.modules.get(module), "__dict__", None)
        if table is None or id(table) in self.seen:
            return
        self.seen[id(table)] = table
        names = {k: v for k, v in table.items() if not k.startswith("__")}
        self.undo.append(lambda: _put_back(names, table.get, table.__setitem__))
        for value in names.values():
            self.visit(value, 1)

    def _code(self, code: CodeType, table: dict[str, Any], depth: int) -> None:
        """Globals that a function's code names, and members of the user's other files that it names."""
        names = set(code.co_names)
        files = [
            table,
            *(vars(m) for n in names if isinstance(m := table.get(n), ModuleType) and _is_users(m.__name__)),
        ]
        for file in files:
            values = {n: file[n] for n in names & file.keys()}
            self.undo.append(functools.partial(_put_back, values, file.get, file.__setitem__))
            for value in values.values():
                self.visit(value, depth + 1)
        for inner in code.co_consts:
            if isinstance(inner, CodeType):
                self._code(inner, table, depth)

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
            if _is_users(value.__module__):
                self._code(value.__code__, value.__globals__, depth)
        elif isinstance(value, _CACHED_FUNCTION):
            self.undo.append(value.cache_clear)  # a run on fake tensors leaves some there
            self.visit(value.__wrapped__, depth + 1)
        elif isinstance(value, MethodType | functools.partial):
            parts = (value.__self__,) if isinstance(value, MethodType) else (value.args, value.keywords, value.func)
            self._each(parts, depth)
        elif isinstance(value, io.IOBase):
            self._open_file(value)
        elif isinstance(value, Iterator | queue.SimpleQueue):
            self._cannot(value)
        elif not self._numbers(value):
            self._object(value, depth)

    def _cannot(self, value: object) -> None:
        if self.used:
            self.uncopied.append(f"{'an' if type(value).__name__[0] in 'aeiou' else 'a'} {type(value).__name__}")

    def _open_file(self, file: Any) -> None:
        if file.closed:
            return
        try:
            self.undo.append(functools.partial(file.seek, file.tell()))
        except OSError:  # a pipe, or a file in the middle of being read line by line
            self._cannot(file)

    def _numbers(self, value: Any) -> bool:
        """Whether the value is an array, a context's variable, or draws random numbers."""
        if isinstance(value, np.ndarray):
            # a run on fake tensors changes NumPy's values too
            if value.flags.writeable and not value.dtype.hasobject and value.nbytes <= self.largest_bytes:
                self.undo.append(functools.partial(np.copyto, value, value.copy()))
        elif isinstance(value, bytearray | array.array):
            self.undo.append(functools.partial(value.__setitem__, slice(None), value[:]))
        elif isinstance(value, ContextVar):
            with contextlib.suppress(LookupError):  # no value yet
                self.undo.append(functools.partial(value.set, value.get()))
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
        if _is_users(type(value).__module__):
            self._of_class(type(value))
        if isinstance(vars(value) if hasattr(value, "__dict__") else None, dict):
            self.attributes(value.__dict__, depth)
        for slot in [s for c in type(value).__mro__ for s in _slots(c)]:
            try:
                before = slot.__get__(value)
            except AttributeError:  # nothing is in it yet
                self.undo.append(functools.partial(_empty, slot, value))
                continue
            self.undo.append(functools.partial(slot.__set__, value, before))
            self.visit(before, depth + 1)

    def _each(self, items: Sequence[Any], depth: int) -> None:
        for item in items if len(items) <= _LONGEST else ():
            self.visit(item, depth + 1)

    def _tensor(self, tensor: torch.Tensor) -> None:
        if tensor.is_leaf and not tensor.is_inference():
            self.undo.append(functools.partial(_with_gradient, tensor, tensor.requires_grad))
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


def _is_users(module: str | None) -> bool:
    """Whether a module is one of the user's own files, not a library's."""
    file = getattr(sys.modules.get(module or ""), "__file__", None) or ""
    top = (module or "builtins").partition(".")[0]
    library = top in ("torch", "pararev_hw", "builtins") or top in sys.stdlib_module_names - {"__main__"}
    return not library and "site-packages" not in file


def _functions_of(member: object) -> tuple[object, ...]:
    """The functions behind a member of a class."""
    if isinstance(member, property):
        return member.fget, member.fset
    return (member.__func__ if isinstance(member, staticmethod | classmethod) else member,)


def _slots(cls: type) -> list[MemberDescriptorType]:
    """Those that a class itself declares, which a subclass may hide behind a property of the same name."""
    return [m for m in vars(cls).values() if isinstance(m, MemberDescriptorType)] if "__slots__" in vars(cls) else []


def _with_gradient(tensor: torch.Tensor, requires_grad: bool) -> None:
    if tensor.is_leaf and tensor.requires_grad is not requires_grad:
        tensor.requires_grad_(requires_grad)


def _empty(slot: MemberDescriptorType, value: object) -> None:
    with contextlib.suppress(AttributeError):
        slot.__delete__(value)


def _put_back(values: Mapping[str, Any], get: Callable[[str], Any], set_value: Callable[[str, Any], object]) -> None:
    for name, value in values.items():
        if get(name) is not value:
            set_value(name, value)


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
