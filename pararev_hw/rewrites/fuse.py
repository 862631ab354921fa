"""Sibling convolutions on one input stacked into one: G of one ParaRev block and F of the next as one wider task.

Forward and recomputation: the weights are concatenated by output channel (once per step, and counted), one convolution
runs, and each branch goes on with its slice of the channels. Backward: one call on the concatenated cotangents gives
both weights' gradients, as slices, and the sum of both input gradients. That sum is all that is wanted where whatever
follows each of them, up to the point where they are added, is the same linear function, as the slope of a shared neuron
is: it then runs once, on the sum. What both branches compute alike is done once too.

Another kernel adds in another order: equal up to rounding.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch

from pararev_hw.rewrites.draft import Draft
from pararev_hw.rewrites.editing import Edit
from pararev_hw.rewrites.linear import Summed, summed
from pararev_hw.rewrites.opportunity import Opportunity
from pararev_hw.rewrites.titles import place, titles
from pararev_hw.rewrites.values import Values, number_values
from pararev_hw.tracing.recorder import Info
from pararev_hw.tracing.tape import Scope, Tape

_ATEN = torch.ops.aten
_FORWARD, _BACKWARD = _ATEN.convolution.default, _ATEN.convolution_backward.default


@dataclass(frozen=True, slots=True)
class _Plan:
    """The two convolutions, the places they are in, the lines that both places run alike, and, in backward, where the
    input gradients meet."""

    first: int
    second: int
    places: tuple[Scope, Scope]
    alike: tuple[tuple[int, int], ...]
    summed: Summed | None


def find(draft: Draft) -> tuple[Opportunity, ...]:
    """Pairs of places of one phase with convolutions of one shape on one input, neither of which needs the other."""
    tape = draft.values
    values = number_values(tape)
    title_of = titles(tape)
    families: dict[object, list[int]] = {}
    for k, line in enumerate(tape.lines):
        key = _family(tape, values, k)
        if key is not None:
            families.setdefault((line.home.phase, key), []).append(k)
    alike = _alike(tape, values)
    opportunities: list[Opportunity] = []
    fused_scopes: set[Scope] = set()
    for lines in families.values():
        for first, second in zip(lines[::2], lines[1::2], strict=False):
            a, b = place(tape.lines[first].home), place(tape.lines[second].home)
            if a == b or a in fused_scopes or b in fused_scopes or _path(draft, first, second):
                continue
            meets = None
            if tape.entries[tape.lines[first].entry].call.function is _BACKWARD:
                meets = summed(tape, values, first, second)
                if meets is None:
                    continue
            fused_scopes |= {a, b}
            name = f"fuse {title_of[a]} + {title_of[b]}"
            plan = _Plan(first, second, (a, b), tuple(alike.get(frozenset((a, b)), ())), meets)
            opportunities.append(Opportunity(name, "fuse", (first, second), plan))
    return tuple(opportunities)


def apply(draft: Draft, chosen: Sequence[Opportunity]) -> Tape:
    """The tape with the chosen pairs stacked."""
    edit = Edit(draft)
    for opportunity in chosen:
        plan: _Plan = opportunity.plan
        for k, leader in plan.alike:
            edit.drop_for(k, leader)
        if plan.summed is None:
            _stack(edit, draft, plan)
        else:
            _stack_backward(edit, draft, plan, plan.summed)
        _merge(edit, plan.places)
    edit.drop_unused()
    return edit.finished()


def _alike(tape: Tape, values: Values) -> dict[frozenset[Scope], list[tuple[int, int]]]:
    """By the two places they are in: lines that do what another did before, and that other."""
    pairs: dict[frozenset[Scope], list[tuple[int, int]]] = {}
    for k, leader in enumerate(values.leader):
        if leader != k and not tape.entries[tape.lines[k].entry].view:
            places = frozenset((place(tape.lines[k].home), place(tape.lines[leader].home)))
            pairs.setdefault(places, []).append((k, leader))
    return pairs


def _family(tape: Tape, values: Values, k: int) -> object:
    """What siblings have in common: the value of the input, all numbers, all shapes. None: no such convolution."""
    line = tape.lines[k]
    entry = tape.entries[line.entry]
    call = entry.call
    if call.function is _FORWARD:
        x, plain = 0, not call.args[6] and call.args[8] == 1  # not transposed, one group
    elif call.function is _BACKWARD:
        x, plain = 1, not call.args[7] and call.args[9] == 1 and all(call.args[10][:2])
    else:
        return None
    info = line.inputs[x]
    same = values.of_slot.get(info.slot, info.slot)
    shapes = entry.op_type.input_shapes
    return (same, line.entry, shapes) if plain and info.storage not in values.written else None


def _path(draft: Draft, first: int, second: int) -> bool:
    """Whether the second op follows the first, directly or through others."""
    queue, visited = [second], {second}
    while queue:
        for a in draft.after[queue.pop()]:
            if a == first:
                return True
            if a > first and a not in visited:
                visited.add(a)
                queue.append(a)
    return False


def _stack(edit: Edit, draft: Draft, plan: _Plan) -> None:
    tape = draft.values
    function, args, _ = edit.call(plan.first)
    _, others, _ = edit.call(plan.second)
    home = tape.lines[plan.first].home
    made_late = {i.slot for i in tape.lines[plan.second].inputs[1:]}
    edit.move(_needed(draft, plan.first, plan.second, made_late), before=plan.first)
    weight = _cat(edit, plan.first, home, [args[1], others[1]], 0)
    bias = None if args[2] is None else _cat(edit, plan.first, home, [args[2], others[2]], 0)
    (wide,) = edit.put(plan.first, home, function, args[0], weight, bias, *args[3:])
    channels = tape.metas[args[1].meta][0][0]
    assert wide is not None
    for k, start in ((plan.first, 0), (plan.second, channels)):
        old = tape.lines[k].outputs[0]
        (part,) = edit.put(plan.first, tape.lines[k].home, _ATEN.slice.Tensor, wide, 1, start, start + channels)
        assert old is not None and part is not None
        if not edit.rewire(old, part):
            (copy,) = edit.put(plan.first, tape.lines[k].home, _ATEN.clone.default, part,
                               memory_format=torch.contiguous_format)  # fmt: skip
            assert copy is not None
            edit.replace_memory(old, copy)
        edit.drop(k)


def _stack_backward(edit: Edit, draft: Draft, plan: _Plan, meets: Summed) -> None:
    tape = draft.values
    function, args, _ = edit.call(plan.first)
    _, others, _ = edit.call(plan.second)
    at, home = plan.second, tape.lines[plan.first].home
    edit.move_later(_followers(draft, plan.first, at), after=at)
    cotangent = _cat(edit, at, home, [args[0], others[0]], 1)
    weight = _cat(edit, at, home, [args[2], others[2]], 0)
    sizes = None if args[3] is None else [2 * args[3][0]]
    sums, weights, biases = edit.put(at, home, function, cotangent, args[1], weight, sizes, *args[4:])
    old = tape.lines[plan.first].outputs
    assert sums is not None and old[0] is not None
    edit.replace_memory(old[0], sums)
    for n, wide in ((1, weights), (2, biases)):
        for k in (plan.first, plan.second):
            out = tape.lines[k].outputs[n]
            if wide is None or out is None:
                continue
            size = tape.metas[out.meta][0][0]
            start = 0 if k == plan.first else size
            (part,) = edit.put(at, tape.lines[k].home, _ATEN.slice.Tensor, wide, 0, start, start + size)
            # a gradient is memory of its own: who holds it must not hold the other
            (copy,) = edit.put(at, tape.lines[k].home, _ATEN.clone.default, part,
                               memory_format=torch.contiguous_format)  # fmt: skip
            assert copy is not None
            edit.replace_memory(out, copy)
    for k in (plan.first, plan.second, *meets.dropped):
        edit.drop(k)
    for replaced, stands in meets.stands:
        edit.replace_memory(replaced, stands)


def _cat(edit: Edit, at: int, home: Scope, parts: Sequence[Info], dim: int) -> Info:
    (joined,) = edit.put(at, home, _ATEN.cat.default, list(parts), dim)
    assert joined is not None
    return joined


def _needed(draft: Draft, before: int, until: int, slots: set[int]) -> list[int]:
    """Lines between the two that make these slots, and what those need of lines after the first."""
    lines = draft.values.lines
    needed_lines = [k for k in range(before, until) for o in lines[k].outputs if o is not None and o.slot in slots]
    needed: set[int] = set()
    while needed_lines:
        k = needed_lines.pop()
        if k >= before and k not in needed:
            needed.add(k)
            needed_lines += draft.after[k]
    return sorted(needed)


def _followers(draft: Draft, line: int, until: int) -> list[int]:
    """Lines before `until` that follow `line`, directly or through others."""
    followers = {line}
    for k in range(line + 1, until):
        if not followers.isdisjoint(draft.after[k]):
            followers.add(k)
    return sorted(followers - {line})


def _merge(edit: Edit, places: tuple[Scope, Scope]) -> None:
    """One task of two places."""
    a, b = places
    name = ".".join(part for part in (b.block, b.branch) if part)
    branch = f"{a.branch}+{name}"
    for k in (*edit.lines_at(a), *edit.lines_at(b)):
        edit.rehome(k, replace(edit.tape.lines[k].home, block=a.block, branch=branch, call=a.call))
    edit.rehome_new(places, replace(a, branch=branch))
