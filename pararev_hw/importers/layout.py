"""Which axis of a network's input is time and which is the batch: TB (time first), BT (batch first), B (no time axis).

Known from, in this order: the user (`--layout`), the network's declaration (an attribute `layout`; SpikingJelly's
`step_mode`), the sizes that the user, the factory's arguments or the network name (`batch`, `timesteps`, `T`),
`batch_first` of recurrent and attention layers, and how the traced step walks along an axis. Where none tells, that is
said.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import nn

from pararev_hw.errors import BadInput
from pararev_hw.types import AXES_UNKNOWN

LAYOUTS = ("TB", "BT", "B")
BATCH_NAMES = ("batch", "batch_size")
TIME_NAMES = ("timesteps", "time_steps", "T", "num_steps", "n_steps", "step_count")
_STEP_MODE = "the layers' step_mode 'm'"
_WORDS = {"TB": "time first, then the batch", "BT": "batch first, then time", "B": "batch first, no time axis"}


@dataclass(frozen=True, slots=True)
class Axes:
    """The layout of an input, its sample count and time steps, and what tells so."""

    layout: str
    batch: int
    timesteps: int | None
    because: str

    @property
    def sentence(self) -> str:
        """For the list of assumptions."""
        steps = "" if self.timesteps is None else f", T = {self.timesteps}"
        sizes = f"{_WORDS[self.layout]} (batch {self.batch}{steps})"
        return f"input axes: {sizes}, told by {self.because}; give --layout where it is another"


@dataclass(frozen=True, slots=True)
class Declared:
    """What is known of the axes beside the shape; None: nothing."""

    layout: str | None = None
    batch: int | None = None
    timesteps: int | None = None
    because: str = ""


def declared(network: nn.Module, factory: Any, declarations: Mapping[str, int | None]) -> Declared:
    """What the network and its factory say of their axes; `given` are the user's `batch` and `timesteps`."""
    arguments = _defaults(factory)
    batch, timesteps = declarations.get("batch"), declarations.get("timesteps")
    sources = [f"--{name}" for name in ("batch", "timesteps") if declarations.get(name) is not None]
    if batch is None:
        batch = next((arguments[n] for n in BATCH_NAMES if n in arguments), None)
    if timesteps is None:
        timesteps = next((arguments[n] for n in TIME_NAMES if n in arguments), None)
    if (batch, timesteps) != (declarations.get("batch"), declarations.get("timesteps")):
        sources.append("the factory's arguments")
    if timesteps is None:
        timesteps = next((n for a in TIME_NAMES if (n := _positive(getattr(network, a, None))) is not None), None)
        sources += ["the network's number of time steps"] if timesteps is not None else []
    layout, because = _declared_layout(network)
    return Declared(layout, batch, timesteps, because or " and ".join(sources))


def _declared_layout(network: nn.Module) -> tuple[str | None, str]:
    layout = getattr(network, "layout", None)
    if layout in LAYOUTS:
        return layout, "the network's attribute `layout`"
    modes = {mode for m in network.modules() if (mode := getattr(m, "step_mode", None)) in ("s", "m")}
    if modes == {"m"}:
        return "TB", _STEP_MODE
    return None, ""


def _recurrent_layout(network: nn.Module) -> tuple[str | None, str]:
    for kind, words in ((nn.RNNBase, "recurrent"), (nn.MultiheadAttention, "attention")):
        firsts = {m.batch_first for m in network.modules() if isinstance(m, kind)}
        if len(firsts) == 1:
            return ("BT" if firsts.pop() else "TB"), f"batch_first of its {words} layers"
    return None, ""


def _is_sequence(network: nn.Module, shape: tuple[int, ...]) -> bool:
    """Whether an input is sequences of features, or of the indices that a table takes."""
    return len(shape) == 3 or (len(shape) == 2 and any(isinstance(m, nn.Embedding) for m in network.modules()))


def _defaults(factory: Any) -> dict[str, int]:
    """The whole-number defaults of a factory's parameters."""
    try:
        parameters = inspect.signature(factory).parameters
    except (TypeError, ValueError):  # built-in callables may have no signature
        return {}
    return {name: n for name, p in parameters.items() if (n := _positive(p.default)) is not None}


def _positive(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else None


def given_axes(shape: tuple[int, ...], layout: str, declaration: Declared, because: str) -> Axes:
    """The axes of a shape in a layout that is settled. Raises BadInput where the sizes contradict it."""
    if len(shape) < len(layout):
        raise BadInput(f"layout {layout} names {len(layout)} axes: the input has shape {shape}")
    sizes = dict(zip(layout, shape, strict=False))
    if declaration.batch is not None and sizes["B"] != declaration.batch:
        raise BadInput(_contradiction(shape, layout, declaration))
    return Axes(layout, sizes["B"], sizes.get("T", declaration.timesteps), because)


def _contradiction(shape: tuple[int, ...], layout: str, declaration: Declared) -> str:
    """Who says what of the batch, and which layouts agree with the one that is not the layout."""
    steps = f"{shape[layout.index('T')]} time steps of " if "T" in layout else ""
    agree = [x for x in LAYOUTS if len(shape) >= len(x) and shape[x.index("B")] == declaration.batch]
    advice = f"that is --layout {' or '.join(agree)}" if agree else "give the --batch that the network is built for"
    source = declaration.because or "the network"
    return (
        f"--layout {layout} reads an input of shape {shape} as {steps}batch {shape[layout.index('B')]}, but "
        f"{source} {'give' if source.endswith('s') else 'gives'} batch {declaration.batch}: {advice}"
    )


def axes_of(network: nn.Module, shape: tuple[int, ...], layout: str | None, declaration: Declared) -> Axes | None:
    """The axes of the network's first input, None where neither the user nor the network tells."""
    if layout is not None:
        return given_axes(shape, layout, declaration, "--layout")
    images = len(shape) == 4 and declaration.because == _STEP_MODE  # [B, C, H, W], repeated over time inside
    if declaration.layout is not None and len(shape) >= len(declaration.layout) and not images:
        return given_axes(shape, declaration.layout, Declared(timesteps=declaration.timesteps), declaration.because)
    by_size = _by_size(shape, declaration)
    if by_size is not None:
        return by_size
    recurrent, because = _recurrent_layout(network)
    if recurrent is not None and _is_sequence(network, shape):
        return given_axes(shape, recurrent, Declared(), because)
    return None


def _by_size(shape: tuple[int, ...], declaration: Declared) -> Axes | None:
    """The axes by the sizes that are known: of batch and time, or of one of them where the other leaves no doubt."""
    batch, steps = declaration.batch, declaration.timesteps
    first, second = shape[0], shape[1] if len(shape) > 1 else None
    if batch is not None and steps is not None:
        if (first, second) == (steps, batch) and batch != steps:
            return Axes("TB", batch, steps, declaration.because)
        if (first, second) == (batch, steps) and batch != steps:
            return Axes("BT", batch, steps, declaration.because)
        if first == batch and second != steps:
            return Axes("B", batch, steps, declaration.because)
    elif batch is not None:
        if first == batch and second != batch:
            return Axes("B", batch, None, declaration.because)
        if second == batch and first != batch:
            return Axes("TB", batch, first, declaration.because)
    elif steps is not None and len(shape) > 2:  # the second axis of two may hold features, whatever its size
        if first == steps:
            return None  # time first, or a batch of as many samples: the traced step tells
        if second == steps and first != steps and len(shape) != 4:
            return Axes("BT", first, steps, declaration.because)
        if steps not in (first, second):
            return Axes("B", first, steps, declaration.because)
    return None


def unsettled(shape: tuple[int, ...]) -> str:
    """What is said where nothing tells which axis is time."""
    alone = "; one sequence alone is [T, 1, features] with --layout TB" if len(shape) == 2 else ""
    return (
        f"{AXES_UNKNOWN}: the first of {shape} is taken for the batch; say which it is with --layout TB "
        f"({_WORDS['TB']}), BT ({_WORDS['BT']}) or B ({_WORDS['B']}){alone}"
    )
