"""Which part of the step an op belongs to: forward, recompute, backward or update.

What runs outside the autograd engine is forward, inside an optimizer's step (or in place on gradients, parameters or
optimizer state, outside any module) update. Inside the engine it is backward, unless it repeats forward work: it does
not depend on any cotangent, and it runs in a module that the backward called, or with gradients enabled, or directly
in an autograd node that did such a thing (the subtraction that reconstructs a reversible block's input).
"""

from __future__ import annotations

from collections.abc import Sequence

from pararev_hw.tracing.recorder import OpSignature, Record
from pararev_hw.types import Phase


def phases(records: Sequence[Record], entries: Sequence[OpSignature], updated: frozenset[int]) -> tuple[Phase, ...]:
    """The phase of each record. `updated` are the storages of parameters, gradients and optimizer state."""
    from_cotangent = _depends_on_cotangent(records, entries)
    repeats = [
        r.node != -1 and not tainted and (r.recalled or r.grad_enabled)
        for r, tainted in zip(records, from_cotangent, strict=True)
    ]
    recomputing = {r.node for r, again in zip(records, repeats, strict=True) if again and r.node >= 0}
    phase_of_record: list[Phase] = []
    for r, tainted, again in zip(records, from_cotangent, repeats, strict=True):
        if r.node != -1:
            phase_of_record.append("recompute" if again or (not tainted and r.node in recomputing) else "backward")
        elif tainted:
            phase_of_record.append("update" if r.in_optimizer else "backward")
        elif r.in_optimizer or (r.frame < 0 and _writes(r, entries[r.entry], updated)):
            phase_of_record.append("update")
        else:
            phase_of_record.append("forward")
    return tuple(phase_of_record)


def _writes(record: Record, entry: OpSignature, storages: frozenset[int]) -> bool:
    return any(record.inputs[k].storage in storages for k in entry.writes)


def _depends_on_cotangent(records: Sequence[Record], entries: Sequence[OpSignature]) -> list[bool]:
    """Whether an op's data comes, through whatever the engine ran, from the gradient that starts the backward."""
    tainted: set[int] = set()
    is_tainted: list[bool] = []
    for k, r in enumerate(records):
        if r.node == -1:
            # autograd makes the first cotangent just before the engine starts
            seed = (
                k + 1 < len(records)
                and records[k + 1].node != -1
                and entries[r.entry].op_type.name == "aten.ones_like.default"
            )
            if seed:
                tainted.update(o.storage for o in r.outputs if o is not None)
            is_tainted.append(seed)
            continue
        depends = any(i.storage in tainted for i in r.inputs)
        if depends:
            tainted.update(o.storage for o in r.outputs if o is not None)
            tainted.update(r.inputs[w].storage for w in entries[r.entry].writes)
        is_tainted.append(depends)
    return is_tainted
