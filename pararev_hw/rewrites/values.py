"""Which ops of a step compute the same: value numbering, as compilers do it.

Two ops are equal if they make the same call on equal tensors. A tensor whose memory is written in place is equal to
itself and like views of that memory alone, at one moment; ops that write in place are equal to nothing. A random op
equals one that draws the same numbers (in a recomputation that restores the generator's state).
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass

from pararev_hw.tracing.recorder import Alias, Info
from pararev_hw.tracing.tape import Tape


@dataclass(frozen=True, slots=True)
class Values:
    """`leader[k]` is the first line that computes what line k does: k itself where there is none before.

    `written` are storages that a line writes in place after they were made. `of_slot` names the values of what lines
    made: equal names, equal values.
    """

    leader: tuple[int, ...]
    written: frozenset[int]
    of_slot: Mapping[int, Hashable]


def written_in_place(tape: Tape) -> frozenset[int]:
    """Storages that are written after they were made."""
    return frozenset(line.inputs[k].storage for line in tape.lines for k in tape.entries[line.entry].writes)


def number_values(tape: Tape, alike: Mapping[int, int] | None = None) -> Values:
    """Equal ops of a tape. `alike`: slots that are taken to be equal to another, made before them."""
    written_slots = written_in_place(tape)
    version: dict[int, int] = {}
    value: dict[int, Hashable] = {}  # slot -> what names its value; its own number where nothing else does
    first: dict[Hashable, int] = {}
    leader: list[int] = []

    def read(info: Info, view: bool) -> Hashable:
        number = value.get(info.slot, info.slot)
        if view or info.storage not in written_slots:
            return number
        return number, info.storage, version.get(info.storage, 0)

    for k, line in enumerate(tape.lines):
        entry = tape.entries[line.entry]
        if entry.writes:
            leader.append(k)
            for at in entry.writes:
                storage = line.inputs[at].storage
                version[storage] = version.get(storage, 0) + 1
            continue
        key = (line.entry, line.rng, *[read(i, entry.view) for i in line.inputs])
        changes = any(
            o is not None and o.storage in written_slots and not isinstance(spec, Alias)
            for o, spec in zip(line.outputs, entry.outputs, strict=True)
        )
        at = k if changes else first.setdefault(key, k)
        leader.append(at)
        for n, o in enumerate(line.outputs):
            if o is not None and o.slot not in value and not isinstance(entry.outputs[n], int):
                same = (alike or {}).get(o.slot)
                value[o.slot] = ("made", at, n) if same is None else value[same]
    return Values(tuple(leader), written_slots, value)
