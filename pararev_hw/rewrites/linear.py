"""Two tensors that pass through the same linear ops and are then added: the ops may run once, on the sum."""

from __future__ import annotations

from dataclasses import dataclass

from pararev_hw.rewrites.values import Values, number_values
from pararev_hw.tracing.recorder import Info
from pararev_hw.tracing.tape import Tape
from pararev_hw.types.op_names import base_name

# ops that are linear in their first tensor, whatever the others are
_IN_FIRST = frozenset(
    """
    div neg _to_copy clone sum mean threshold_backward native_batch_norm_backward cudnn_batch_norm_backward
    avg_pool2d_backward max_pool2d_with_indices_backward _adaptive_avg_pool2d_backward select_backward slice_backward
    unfold_backward
    """.split()
)
_IN_ALL = frozenset({"add", "sub", "stack", "cat"})  # in all their tensors together


@dataclass(frozen=True, slots=True)
class Summed:
    """`dropped` are the ops on the second tensor and the additions; `stands` says which tensor takes the place of
    which, once the first tensor is the sum."""

    dropped: tuple[int, ...]
    stands: tuple[tuple[Info, Info], ...]


def summed(tape: Tape, values: Values, first: int, second: int) -> Summed | None:
    """What becomes of the first outputs of two lines if the first is given the sum of both. None: they do not pass
    through the same linear ops, or are wanted apart."""
    a, b = tape.lines[first].outputs[0], tape.lines[second].outputs[0]
    if a is None or b is None or a.meta != b.meta:
        return None
    assumed = number_values(tape, {b.slot: a.slot})
    twin: dict[int, Info] = {b.slot: a}
    chain: dict[int, int] = {}  # line on the second tensor -> line on the first
    for k in range(second + 1, len(tape.lines)):
        leader = assumed.leader[k]
        if leader == values.leader[k] or not any(i.slot in twin for i in tape.lines[k].inputs):
            continue
        if not _linear(tape, k, twin):
            return None
        chain[k] = leader
        for mine, other in zip(tape.lines[k].outputs, tape.lines[leader].outputs, strict=True):
            if mine is not None and other is not None and (mine.slot != other.slot):
                twin[mine.slot] = other
    return _met(tape, twin, chain, {a.slot, *(t.slot for t in twin.values())})


def _linear(tape: Tape, k: int, twin: dict[int, Info]) -> bool:
    line, entry = tape.lines[k], tape.entries[tape.lines[k].entry]
    base = base_name(entry.op_type.name)
    where = [n for n, i in enumerate(line.inputs) if i.slot in twin]
    if entry.view:
        return True
    if base in _IN_ALL:
        return len(where) == len(line.inputs)
    if base == "mul":
        return len(where) == 1
    if base == "masked_fill":
        return where == [0] and len(line.inputs) == 2 and entry.call.args[2] == 0
    return base in _IN_FIRST and where == [0]


def _met(tape: Tape, twin: dict[int, Info], chain: dict[int, int], first_slots: set[int]) -> Summed | None:
    """Every use of the two outside their ops is one addition, or two in a row."""
    results = set(tape.results.values())
    if not results.isdisjoint(first_slots) or not results.isdisjoint(twin):
        return None
    users: dict[int, list[int]] = {}
    for k, line in enumerate(tape.lines):
        for i in line.inputs:
            users.setdefault(i.slot, []).append(k)
    inside = {*chain, *chain.values()}
    ends_second = [(k, s) for s in twin for k in users.get(s, ()) if k not in inside]
    ends_first = [(k, s) for s in first_slots for k in users.get(s, ()) if k not in inside]
    dropped, stands = list(chain), []
    for k, slot in ends_second:
        mine = [(at, s) for at, s in ends_first if s == twin[slot].slot]
        if len(mine) != 1 or not _adds(tape, k) or not _adds(tape, mine[0][0]):
            return None
        at = mine[0][0]
        total, part = tape.lines[k].outputs[0], tape.lines[at].outputs[0]
        if total is None or part is None:
            return None
        if at == k:  # first + second: the sum itself
            if total.meta != twin[slot].meta:
                return None
            stands.append((total, twin[slot]))
        elif users.get(part.slot, []) == [k] and total.meta == part.meta and part.slot not in results:
            stands.append((total, part))  # (rest + first) + second: rest + sum
        else:
            return None
        dropped.append(k)
    if len(ends_second) != len(ends_first) or not ends_second:
        return None
    return Summed(tuple(dropped), tuple(stands))


def _adds(tape: Tape, k: int) -> bool:
    entry = tape.entries[tape.lines[k].entry]
    plain = entry.call.kwargs.get("alpha", 1) == 1 and len(set(entry.op_type.input_shapes)) == 1
    return entry.op_type.name == "aten.add.Tensor" and len(entry.op_type.input_shapes) == 2 and plain
