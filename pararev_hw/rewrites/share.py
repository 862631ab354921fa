"""Common work on one input done once: G of one ParaRev block and F of the next begin with the same neuron.

What is shared becomes a task of its own, so that neither of those that need it waits for the rest of the other.
Nothing is computed differently: results are bit-equal.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from pararev_hw.rewrites.draft import Draft
from pararev_hw.rewrites.editing import Edit
from pararev_hw.rewrites.opportunity import Opportunity
from pararev_hw.rewrites.titles import place, titles
from pararev_hw.rewrites.values import number_values
from pararev_hw.tracing.tape import Tape


def find(draft: Draft) -> tuple[Opportunity, ...]:
    """Ops that some place does again although another place of the same phase has done them. One opportunity for each
    pair of places; its `plan` is, for each line, the line that does the same."""
    tape = draft.values
    values = number_values(tape)
    title_of = titles(tape)
    result_slots = set(tape.results.values())
    pairs_by_name: dict[str, list[tuple[int, int]]] = {}
    for k, leader in enumerate(values.leader):
        line, entry = tape.lines[k], tape.entries[tape.lines[k].entry]
        if leader == k or entry.view or not line.inputs:
            continue
        if any(o is not None and (o.slot in result_slots or o.storage in tape.gradients) for o in line.outputs):
            continue
        first = tape.lines[leader]
        if first.home.phase != line.home.phase:
            continue
        name = f"share {title_of[place(first.home)]} + {title_of[place(line.home)]}"
        pairs_by_name.setdefault(name, []).append((k, leader))
    return tuple(
        Opportunity(name, "share", tuple(k for pair in pairs for k in pair), tuple(pairs))
        for name, pairs in sorted(pairs_by_name.items(), key=lambda item: (item[1][0], item[0]))
    )


def apply(draft: Draft, chosen: Sequence[Opportunity]) -> Tape:
    """The tape in which the chosen work is done once."""
    tape = draft.values
    edit = Edit(draft)
    dropped: set[int] = set()
    common: set[int] = set()
    for opportunity in chosen:
        for k, leader in opportunity.plan:
            dropped.add(k)
            edit.drop_for(k, leader)
            if place(tape.lines[leader].home) != place(tape.lines[k].home):
                common.add(leader)
    common -= dropped
    edit.drop_unused()
    for k in _feeding_only(tape, common):
        home = tape.lines[k].home
        edit.rehome(k, replace(home, branch=".".join(part for part in (home.branch, "shared") if part), glue=False))
    return edit.finished()


def _feeding_only(tape: Tape, common: set[int]) -> set[int]:
    """`common`, and what in the same place makes something for them alone."""
    users: dict[int, set[int]] = {}
    for k, line in enumerate(tape.lines):
        for i in line.inputs:
            users.setdefault(i.slot, set()).add(k)
    shared = set(common)
    for k in range(max(common, default=-1), -1, -1):
        line = tape.lines[k]
        entry = tape.entries[line.entry]
        uses = set().union(*(users.get(o.slot, set()) for o in line.outputs if o is not None))
        if k in shared or entry.writes or entry.view or not uses or not uses <= shared or line.inputs:
            continue
        if any(place(tape.lines[u].home) == place(line.home) for u in uses):
            shared.add(k)
    return shared
