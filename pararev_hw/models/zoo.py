"""The networks by name: `create("pararevsnn37")`, `names()`, `spec(name)`.

A family is a module with `SPECS` and `create(spec, num_classes=, timesteps=, width=, **options)`, and a line below.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

from torch import nn

from pararev_hw.errors import BadInput, unknown_name
from pararev_hw.keywords import exact
from pararev_hw.models import residual
from pararev_hw.models.spec import Spec, whole
from pararev_hw.models.systems import (
    binary,
    dsr,
    feedback,
    lru,
    neverreset,
    online,
    spikformer,
    tandem,
    trevsnn,
    video,
    zeromem,
)
from pararev_hw.types import Table

_FAMILIES = (residual, spikformer, trevsnn, zeromem, online, dsr, tandem, lru, feedback, neverreset, video, binary)
_SPECS: Mapping[str, Spec] = {s.name: s for f in _FAMILIES for s in f.SPECS}
_BUILDERS: Mapping[str, Callable[..., nn.Module]] = {s.name: f.create for f in _FAMILIES for s in f.SPECS}


@exact
def names() -> tuple[str, ...]:
    """The networks of the zoo, the residual ones first, by family and depth."""
    return tuple(s.name for f in _FAMILIES for s in sorted(f.SPECS, key=lambda s: (s.family, s.event, s.depth)))


@exact
def spec(name: str) -> Spec:
    """What the network of that name is. Raises UnknownName."""
    if name not in _SPECS:
        raise unknown_name("network", name, names())
    return _SPECS[name]


def builder_of(name: str) -> Callable[..., nn.Module]:
    """The function that builds the network of that name. Raises UnknownName."""
    return _BUILDERS[spec(name).name]


def listing() -> Table[Spec]:
    """The networks of the zoo, a row each."""
    rows = tuple(map(spec, names()))
    columns = ("name", "family", "depth", "blocks", "timesteps", "input_shape", "layout", "classes", "method")
    return Table("networks of the zoo", rows, columns, tuple(tuple(getattr(s, c) for c in columns) for s in rows))


@exact
def create(
    name: str,
    *,
    num_classes: int | None = None,
    timesteps: int | None = None,
    width: float = 1.0,
    **options: Any,
) -> nn.Module:
    """The network of that name with fresh weights, drawn from torch's global generator.

    `width` scales the channels. Options of the residual networks: `form`, how a ParaRevSNN computes G_i and F_{i+1}:
    "unfused" (two units), "fused" (one unit, the same function exactly) or "merged" (the paper's block M); `store`
    keeps activations instead of recomputing them; blocks, in_channels, and of the neuron: neuron ("if", "lif",
    "plif"), surrogate (a name or an object), tau, v_threshold, v_reset, detach_reset. Other families document theirs.

    Raises UnknownName for a name that is not in the zoo, BadInput for a value or option that cannot be.
    """
    network_spec = spec(name)
    if not (isinstance(width, int | float) and 0 < width < math.inf):
        raise BadInput(f"width is {width!r}: it must be a number above 0")
    return _BUILDERS[name](
        network_spec,
        num_classes=whole("num_classes", network_spec.classes if num_classes is None else num_classes),
        timesteps=whole("timesteps", network_spec.timesteps if timesteps is None else timesteps),
        width=width,
        **options,
    )
