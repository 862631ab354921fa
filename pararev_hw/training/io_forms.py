"""Inputs and outputs of other forms than tensors: dictionaries, keywords, nested tuples, dataclasses.

Everything else in the package sees a network that takes tensors. A network whose forward takes another form is given a
forward that takes the form's tensors and puts them in their places; its modules and their names stay as they are.
"""

from __future__ import annotations

import contextlib
import dataclasses
import inspect
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from pararev_hw import limits
from pararev_hw.errors import BadInput


@dataclass(frozen=True, slots=True)
class Place:
    """Stands for the k-th tensor of an input."""

    index: int


@dataclass(frozen=True, slots=True)
class InputForm:
    """What a network's forward is given, as tensors and the form that they stand in."""

    tensors: tuple[torch.Tensor, ...]
    form: Any

    @property
    def plain(self) -> bool:
        """Whether the form is a tensor or a tuple of tensors, as every network here takes."""
        return bool(self.form == tuple(Place(k) for k in range(len(self.tensors))))

    def filled(self, tensors: Sequence[torch.Tensor]) -> Any:
        """The form with these tensors in their places."""
        return _filled(self.form, tensors)


def input_form(inputs: Any) -> InputForm:
    """The tensors in what a network is given, and their form. Raises BadInput where there is none."""
    tensors: list[torch.Tensor] = []
    try:
        form = _form((inputs,) if isinstance(inputs, torch.Tensor) else inputs, tensors)
    except RecursionError:
        raise BadInput("inputs must hold tensors: a container that holds itself has no end") from None
    if not tensors:
        raise BadInput(f"inputs must hold a tensor: {type(inputs).__name__} holds none")
    for tensor in tensors:
        _check_plain(tensor)
    return InputForm(tuple(tensors), tuple(form) if isinstance(form, list) else form)


def _check_plain(tensor: torch.Tensor) -> None:
    """Refuse what no layer can be fed from or no memory holds. Raises BadInput."""
    if tensor.is_nested:
        raise BadInput("an input is a nested tensor: give one padded to equal lengths (to_padded_tensor())")
    if tensor.layout is not torch.strided:
        raise BadInput(f"an input is a tensor in {tensor.layout}: give a dense one (to_dense())")
    if tensor.is_quantized:
        raise BadInput(f"an input is quantized, of {tensor.dtype}: give its values (dequantize())")
    if tensor.numel() > limits.INPUT_ELEMENTS:
        raise BadInput(
            f"an input of shape {tuple(tensor.shape)} has {tensor.numel()} elements: more than any device holds"
        )


def _form(value: Any, tensors: list[torch.Tensor]) -> Any:
    if isinstance(value, torch.Tensor):
        tensors.append(value)
        return Place(len(tensors) - 1)
    return _mapped(value, lambda v: _form(v, tensors))


def _filled(value: Any, tensors: Sequence[torch.Tensor]) -> Any:
    return tensors[value.index] if isinstance(value, Place) else _mapped(value, lambda v: _filled(v, tensors))


def _mapped(value: Any, change: Any) -> Any:
    """A container of the same kind with its members changed; anything else as it is."""
    if isinstance(value, Mapping):
        items = {k: change(v) for k, v in value.items()}
        return items if type(value) is dict else type(value)(items)  # type: ignore[call-arg]
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return type(value)(*(change(v) for v in value))
    if isinstance(value, list | tuple):
        return type(value)(change(v) for v in value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type | Place):
        return dataclasses.replace(value, **{f.name: change(getattr(value, f.name)) for f in dataclasses.fields(value)})
    return value


def takes_tensors(network: nn.Module, form: InputForm) -> nn.Module:
    """The network with a forward that takes the form's tensors, one after the other, or what it took before."""
    if form.plain:
        return network
    base = type(network)
    base = getattr(base, "takes_form", base)  # a network that was given one before
    call_by_keyword = isinstance(form.form, Mapping) and _accepts(network, base, form.form)

    def forward(self: nn.Module, *arguments: Any, **keywords: Any) -> Any:
        if keywords or len(arguments) != len(form.tensors) or not all(isinstance(a, torch.Tensor) for a in arguments):
            return base.forward(self, *arguments, **keywords)  # as a user's own step calls it
        value = form.filled(arguments)
        if call_by_keyword:
            return base.forward(self, **value)
        return base.forward(self, *value) if isinstance(value, tuple) else base.forward(self, value)

    try:
        network.__class__ = type(base.__name__, (base,), {"forward": forward, "takes_form": base})
    except TypeError as error:
        raise BadInput(
            f"{base.__name__} takes inputs that are no tensors and cannot be given another forward: wrap it in a "
            "module whose forward takes tensors"
        ) from error
    return network


@contextlib.contextmanager
def taking_tensors(network: nn.Module, form: InputForm) -> Iterator[None]:
    """`takes_tensors` for the length of a block."""
    before = type(network)
    takes_tensors(network, form)
    try:
        yield
    finally:
        if type(network) is not before:
            network.__class__ = before


def _accepts(network: nn.Module, base: type[nn.Module], keywords: Mapping[str, Any]) -> bool:
    """Whether the network's forward has a parameter for each of the keywords."""
    if not all(isinstance(k, str) for k in keywords):
        return False
    try:
        inspect.signature(base.forward).bind(network, **keywords)
    except TypeError:
        return False
    except ValueError:  # built-in callables may have no signature
        return True
    return True


def tensors_in(out: Any) -> list[torch.Tensor]:
    """Every tensor in what a network gave, in order."""
    if isinstance(out, torch.Tensor):
        return [out]
    if isinstance(out, Mapping):
        return [t for v in out.values() for t in tensors_in(v)]
    if isinstance(out, list | tuple):
        return [t for v in out for t in tensors_in(v)]
    if dataclasses.is_dataclass(out) and not isinstance(out, type):
        return [t for f in dataclasses.fields(out) for t in tensors_in(getattr(out, f.name))]
    if isinstance(out, torch.distributions.Distribution):
        return [t for t in vars(out).values() if isinstance(t, torch.Tensor)]
    return []
