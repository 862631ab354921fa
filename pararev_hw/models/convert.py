"""State dicts carried over: from the published code to ours, from an unfused ParaRevSNN to the fused one and back."""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from pararev_hw.errors import BadInput
from pararev_hw.keywords import exact

State = Mapping[str, Tensor]

_PAIR = re.compile(r"(?P<stage>(?:.*\.)?)blocks\.(?P<i>\d+)\.(?P<unit>[fg])\.(?P<key>.+)")
_FUSED = re.compile(r"(?P<stage>(?:.*\.)?)(?P<unit>first|last|merged\.(?P<i>\d+))\.(?P<key>.+)")


@exact
def fuse(state: State) -> dict[str, Tensor]:
    """The state of a fused ParaRevSNN that computes what the unfused one of this state does.

    Raises BadInput where a fused pair would need two time constants (PLIF neurons that were trained apart).
    """
    pairs = max((int(m["i"]) for m in map(_PAIR.fullmatch, state) if m), default=-1)
    if pairs < 0:
        raise BadInput("the state has no reversible pairs (blocks.0.f...): it must be that of an unfused ParaRevSNN")
    fused: dict[str, Tensor] = {}
    for name, value in state.items():
        m = _PAIR.fullmatch(name)
        if m is None:
            fused[name] = value
            continue
        stage, i, key = m["stage"], int(m["i"]), m["key"]
        after = f"{stage}blocks.{i + 1}.f.{key}"
        if m["unit"] == "f" and i == 0:
            fused[f"{stage}first.{key}"] = value
        elif m["unit"] == "g" and after not in state:
            fused[f"{stage}last.{key}"] = value
        elif m["unit"] == "g":
            fused[f"{stage}merged.{i}.{key}"] = _joined(value, state[after], f"{name} and {after}")
    return fused


@exact
def unfuse(state: State) -> dict[str, Tensor]:
    """The inverse of `fuse`. Raises BadInput for a state of the merged form, which no unfused network computes."""
    last: dict[str, int] = {}
    for m in map(_FUSED.fullmatch, state):
        if m:
            last[m["stage"]] = max(last.get(m["stage"], 0), int(m["i"]) + 1 if m["i"] else 0)
    if not last:
        raise BadInput("the state has no fused stages (first, merged.0, last): it must be that of a fused ParaRevSNN")
    unfused: dict[str, Tensor] = {}
    for name, value in state.items():
        m = _FUSED.fullmatch(name)
        if m is None:
            unfused[name] = value
            continue
        stage, unit, key = m["stage"], m["unit"], m["key"]
        if unit == "first":
            unfused[f"{stage}blocks.0.f.{key}"] = value
        elif unit == "last":
            unfused[f"{stage}blocks.{last[stage]}.g.{key}"] = value
        else:
            if f"{stage}{unit}.norm1.running_mean" not in state:
                raise BadInput(f"{stage}{unit} has a group norm: the merged form has no unfused equal")
            i = int(m["i"])
            g, f = (value, value) if value.dim() == 0 else value.chunk(2)
            unfused[f"{stage}blocks.{i}.g.{key}"], unfused[f"{stage}blocks.{i + 1}.f.{key}"] = g.clone(), f.clone()
    return unfused


@exact
def load_published(net: nn.Module, state: State) -> None:
    """Loads a checkpoint of the published RevSNN code (mi804/RevSNN) into our RevSResNet or MS-ResNet of that name.

    Names differ, the order in which data meets the tensors does not. Raises BadInput where count or shapes differ.
    """
    own_state = net.state_dict()
    names = sorted(own_state, key=_data_order)
    if len(names) != len(state):
        raise BadInput(f"the checkpoint has {len(state)} tensors: the network has {len(names)}")
    for name, (theirs, value) in zip(names, state.items(), strict=True):
        if own_state[name].shape != value.shape:
            ours = tuple(own_state[name].shape)
            raise BadInput(f"the checkpoint's {theirs} has shape {tuple(value.shape)}: the network's {name} has {ours}")
    net.load_state_dict(dict(zip(names, state.values(), strict=True)))


def _data_order(name: str) -> tuple[int, int, bool]:
    """Sorts (stably) a network's tensors as data passes them: stem, stage 0, downsampling 0, stage 1, ..., head."""
    part, _, rest = name.partition(".")
    if part in ("stages", "downsamples"):
        return 1, int(rest.partition(".")[0]), part == "downsamples"
    return (0 if part == "stem" else 2), 0, False


def _joined(g: Tensor, f: Tensor, names: str) -> Tensor:
    """Tensors of G_i and F_{i+1} as one: stacked by output channel; counters and time constants are shared."""
    if g.dim() > 0:
        return torch.cat((g, f))
    if not torch.equal(g, f):
        raise BadInput(f"{names} differ ({g.item():g} and {f.item():g}): a fused pair shares them")
    return g.clone()
