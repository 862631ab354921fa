"""A gradient task split in two: the gradient of its input, on which the step waits, and that of its weights, which may
fill a lane that has nothing better to do.

One `convolution_backward` that makes both becomes two calls with complementary output masks, which run the same
kernels: bit-equal. Matrix products are separate calls from the start, they only change their task.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch

from pararev_hw.rewrites.draft import Draft
from pararev_hw.rewrites.editing import Edit
from pararev_hw.rewrites.opportunity import Opportunity
from pararev_hw.rewrites.titles import place, titles
from pararev_hw.tracing.tape import Scope, Tape

_BACKWARD = torch.ops.aten.convolution_backward.default
_MASK = -1  # output_mask is the last argument


def find(draft: Draft) -> tuple[Opportunity, ...]:
    """Gradient tasks with work of both sorts."""
    tape = draft.values
    title_of = titles(tape)
    needed = _needed_elsewhere(draft)
    lines_of: dict[Scope, list[int]] = {}
    for k, line in enumerate(tape.lines):
        if line.home.phase == "backward" and not line.home.glue:
            lines_of.setdefault(place(line.home), []).append(k)
    opportunities = []
    for home, lines in lines_of.items():
        both = [k for k in lines if k in needed and _makes_both(tape, k)]
        weights = [k for k in lines if k not in needed]
        heavy = [k for k in lines if _work(tape, k) > 0]
        if any(k in needed for k in heavy) and (both or any(k not in needed for k in heavy)):
            touched = tuple(sorted({*both, *weights}))
            opportunities.append(
                Opportunity(f"split {title_of[home]}", "split", touched, (tuple(both), tuple(weights)))
            )
    return tuple(opportunities)


def apply(draft: Draft, chosen: Sequence[Opportunity]) -> Tape:
    """The tape with the chosen tasks split."""
    tape = draft.values
    edit = Edit(draft)
    for opportunity in chosen:
        both, weights = opportunity.plan
        for k in both:
            _split(edit, tape, k)
        for k in weights:
            edit.rehome(k, _weights(tape.lines[k].home))
    return edit.finished()


def _weights(home: Scope) -> Scope:
    return replace(home, branch=".".join(part for part in (home.branch, "weights") if part))


def _split(edit: Edit, tape: Tape, k: int) -> None:
    line = tape.lines[k]
    function, args, _ = edit.call(k)
    mask = args[_MASK]
    first = edit.put(k, line.home, function, *args[:_MASK], [True, False, False])
    second = edit.put(k, _weights(line.home), function, *args[:_MASK], [False, mask[1], mask[2]])
    edit.drop(k)
    for old, new in zip(line.outputs, (first[0], *second[1:]), strict=True):
        if old is not None and new is not None:
            edit.replace_memory(old, new)


def _makes_both(tape: Tape, k: int) -> bool:
    call = tape.entries[tape.lines[k].entry].call
    return call.function is _BACKWARD and bool(call.args[_MASK][0]) and any(call.args[_MASK][1:])


def _work(tape: Tape, k: int) -> int:
    return tape.entries[tape.lines[k].entry].op_type.flops


def _needed_elsewhere(draft: Draft) -> set[int]:
    """Backward lines on which the backward of another place depends; of a line that makes the gradients of input and
    weights at once, the input's alone counts."""
    tape = draft.values
    users: dict[int, set[int]] = {}
    for k, line in enumerate(tape.lines):
        for i in line.inputs:
            users.setdefault(i.slot, set()).add(k)
    followers: list[list[int]] = [[] for _ in tape.lines]
    for k, sources in enumerate(draft.after):
        for a in sources:
            followers[a].append(k)
    needed: set[int] = set()
    for k in range(len(tape.lines) - 1, -1, -1):
        line = tape.lines[k]
        if line.home.phase != "backward":
            continue
        first = line.outputs[0] if _makes_both(tape, k) else None
        uses = followers[k] if first is None else users.get(first.slot, set())
        if any(u in needed or _carries(tape, k, u) for u in uses):
            needed.add(k)
    return needed


def _carries(tape: Tape, k: int, user: int) -> bool:
    """Whether `user` is work of another place's backward."""
    home = tape.lines[user].home
    return home.phase == "backward" and not home.glue and place(home) != place(tape.lines[k].home)
