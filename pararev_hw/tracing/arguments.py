"""What a network's forward needs and is not given, such as the state of its neurons."""

from __future__ import annotations

import inspect

from torch import nn

from pararev_hw.errors import BadInput


def left_at_none(model: nn.Module, count: int) -> str:
    """What to do where forward may fail for an argument left at its default None; "" where `count` inputs give all."""
    try:
        parameters = list(inspect.signature(model.forward).parameters.values())
    except (TypeError, ValueError):
        return ""
    absent = [p.name for p in parameters[count:] if p.default is None]
    if not absent:
        return ""
    return f"; forward's {' and '.join(absent)} {'is' if len(absent) == 1 else 'are'} None: return it with the inputs"


def check_arguments(model: nn.Module, count: int, name: str) -> None:
    """Raises BadInput where `count` inputs leave arguments of forward without a value: which, and what to do."""
    try:
        parameters = list(inspect.signature(model.forward).parameters.values())
    except (TypeError, ValueError):  # compiled code has no signature
        return
    positional = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    keywords = [p for p in parameters if p.kind == p.KEYWORD_ONLY]
    missing = [p.name for p in (*positional[count:], *keywords) if p.default is p.empty]
    if not missing or count == 0:
        return
    names = ", ".join(p.name for p in positional[:count])
    needed = ", ".join(missing)
    raise BadInput(
        f"{name}: forward needs {needed}, which cannot be guessed from {names}: return it with the inputs, as in "
        f"`return net, ({names}, {needed})`, give it a default (such as {missing[0]}=None, and make the state inside), "
        f"or wrap the network in a module whose forward({names}) makes it"
    )
