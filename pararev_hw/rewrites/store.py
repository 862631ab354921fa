"""Recomputation replaced by storing: what forward made is kept until the gradients have read it.

For each recomputing task on its own, in the order in which the step runs them: that of the last block comes first, and
its tensors wait the shortest. Exact where the recomputation repeats forward's calls, and up to rounding where a
reversible network first reconstructs its inputs: the gradients are then those of the network that stores.
"""

from __future__ import annotations

from collections.abc import Sequence

from pararev_hw.rewrites.algebra import Algebra
from pararev_hw.rewrites.draft import Draft
from pararev_hw.rewrites.editing import Edit
from pararev_hw.rewrites.opportunity import Opportunity
from pararev_hw.rewrites.titles import place, titles
from pararev_hw.tracing.recorder import Alias, Fresh, Info
from pararev_hw.tracing.tape import Scope, Tape


def find(draft: Draft) -> tuple[Opportunity, ...]:
    """Recomputing tasks all of whose work forward has done. The `plan` gives for each line what stands for what it
    makes."""
    tape = draft.values
    if not any(line.home.phase == "recompute" for line in tape.lines):
        return ()
    same = _forward_twins(tape)
    title_of = titles(tape)
    lines_of: dict[Scope, list[int]] = {}
    for k, line in enumerate(tape.lines):
        if line.home.phase == "recompute":
            lines_of.setdefault(place(line.home), []).append(k)
    opportunities = []
    for home, lines in lines_of.items():
        replaced = [k for k in lines if k in same]
        heavy = [k for k in lines if tape.entries[tape.lines[k].entry].op_type.flops]
        if heavy and all(k in same for k in heavy):
            plan = tuple((k, same[k]) for k in replaced)
            opportunities.append(Opportunity(f"store {title_of[home]}", "store", tuple(replaced), plan))
    return tuple(opportunities)


def apply(draft: Draft, chosen: Sequence[Opportunity]) -> Tape:
    """The tape on which the chosen tasks read what forward made."""
    tape = draft.values
    edit = Edit(draft)
    for opportunity in chosen:
        for k, twins in opportunity.plan:
            line = tape.lines[k]
            for old, new in zip(line.outputs, twins, strict=True):
                if old is not None and new is not None:
                    (edit.replace_memory if _is_only_use(tape, k, old, new) else edit.substitute)(old, new)
            edit.drop(k)
    edit.drop_unused()
    return edit.finished()


def _forward_twins(tape: Tape) -> dict[int, tuple[Info | None, ...]]:
    """For each recompute line that can go, the tensors of forward that stand for what it makes."""
    algebra = Algebra(tape)
    twin: dict[tuple[int, int], Info] = {}  # value, layout -> a tensor of forward
    stored: dict[int, tuple[Info | None, ...]] = {}
    for k, line in enumerate(tape.lines):
        if line.home.phase == "forward":
            for o in line.outputs:
                value = None if o is None else algebra.of(o)
                if o is not None and value is not None and o.storage not in algebra.written:
                    twin.setdefault((value, o.meta), o)
        elif line.home.phase == "recompute" and not tape.entries[line.entry].writes:
            values = [None if o is None else algebra.of(o) for o in line.outputs]
            twins = [
                None if o is None or value is None else twin.get((value, o.meta))
                for o, value in zip(line.outputs, values, strict=True)
            ]
            if all(t is not None or o is None for o, t in zip(line.outputs, twins, strict=True)) and not any(
                o is not None and o.storage in algebra.written for o in line.outputs
            ):
                stored[k] = tuple(twins)
    _keep_bases(tape, stored)
    return stored


def _keep_bases(tape: Tape, dropped: dict[int, tuple[Info | None, ...]]) -> None:
    """Takes out the lines whose tensor some remaining view looks at, where the twin is laid out in other memory."""
    maker = {o.slot: k for k, line in enumerate(tape.lines) for o in line.outputs if o is not None}
    for k in range(len(tape.lines) - 1, -1, -1):
        line = tape.lines[k]
        if k in dropped:
            continue
        for spec in tape.entries[line.entry].outputs:
            if isinstance(spec, Alias):
                base = line.inputs[spec.of]
                at = maker.get(base.slot, -1)
                twins = dropped.get(at)
                if twins is not None:
                    n = [None if o is None else o.slot for o in tape.lines[at].outputs].index(base.slot)
                    new = twins[n]
                    if new is not None and not _is_only_use(tape, at, base, new):
                        del dropped[at]


def _is_only_use(tape: Tape, k: int, old: Info, new: Info) -> bool:
    """Whether `old`, made by line k, is in memory of its own, and `new` in as much, laid out alike."""
    outputs = tape.lines[k].outputs
    n = [None if o is None else o.slot for o in outputs].index(old.slot)
    fresh = isinstance(tape.entries[tape.lines[k].entry].outputs[n], Fresh)
    return fresh and new.lo == 0 and tape.storage_bytes[old.storage] == tape.storage_bytes[new.storage]
