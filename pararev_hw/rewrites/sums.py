"""Sums in place as values: where torch adds to a tensor in place, as its engine does where gradients meet, the sum is
a new value of the same storage. Rewrites see it as a tensor of its own, and it is written in place again afterwards.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace

import torch

from pararev_hw.check.replay import filled
from pararev_hw.rewrites.writer import Writer
from pararev_hw.torch_private import fake_mode
from pararev_hw.tracing.recorder import Info
from pararev_hw.tracing.tape import Tape, TapeOp

_ADD, _ADD_IN_PLACE = torch.ops.aten.add.Tensor, torch.ops.aten.add_.Tensor


@dataclass(frozen=True, slots=True)
class _Sum:
    """A sum that was in place: its entry as a tensor of its own, and as it was."""

    apart: int
    in_place: int


@dataclass(frozen=True, slots=True)
class SumsApart:
    """`tape` is the recorded one, line for line, with sums in place as tensors of their own."""

    tape: Tape
    _sums: Mapping[int, _Sum] = field(default_factory=dict)  # by the sum's slot

    def in_place(self, tape: Tape) -> Tape:
        """A changed form of `tape`, whose sums are in place again unless what they would be written over is wanted
        later."""
        if not self._sums:
            return tape
        last_use = _last_uses(tape)
        lasting = {*tape.storage_of_external.values(), *_storages_of(tape, tape.constants)}
        renamed, lines = _Renamed(), []
        last_line, storage_bytes = list(tape.last_line), list(tape.storage_bytes)
        for k, recorded in enumerate(tape.lines):
            line = renamed.line(recorded)
            total, first = (line.outputs or (None,))[0], (line.inputs or (None,))[0]
            of_sum = None if total is None else self._sums.get(total.slot)
            if of_sum is not None and total is not None and first is not None and line.entry == of_sum.apart:
                over = recorded.inputs[0].storage
                if last_use[over] == k and over not in lasting:
                    renamed.add(total, first)
                    last_line[first.storage] = max(last_line[first.storage], last_line[total.storage])
                    storage_bytes[total.storage] = 0
                    line = replace(line, entry=of_sum.in_place, outputs=(first,))
            lines.append(line)
        lived = replace(tape, last_line=tuple(last_line), storage_bytes=tuple(storage_bytes))
        return renamed.tape(replace(lived, lines=tuple(lines)))


def sums_apart(tape: Tape) -> SumsApart:
    """The tape with sums in place as values of their own, where nothing that was made before looks at their memory
    afterwards."""
    at = set(_sums_in_place(tape))
    if not at:
        return SumsApart(tape)
    writer = Writer(fake_mode(), tape)
    renamed, lines, last_line = _Renamed(), [], list(tape.last_line)
    sums: dict[int, _Sum] = {}
    for k, recorded in enumerate(tape.lines):
        line = renamed.line(recorded)
        if k in at:
            call, first = tape.entries[line.entry].call, line.inputs[0]
            arguments = {name: filled(value, line.inputs) for name, value in call.kwargs.items()}
            apart, _, (total,) = writer.write(_ADD, filled(call.args, line.inputs), arguments)
            last_line.extend([-1] * (len(writer.storage_bytes) - len(last_line)))
            if total is not None and total.meta == first.meta:
                renamed.add(recorded.inputs[0], total)
                sums[total.slot] = _Sum(apart, line.entry)
                last_line[first.storage], last_line[total.storage] = k, last_line[first.storage]
                line = replace(line, entry=apart, outputs=(total,))
        lines.append(line)
    changed = replace(
        tape,
        entries=tuple(writer.entries),
        lines=tuple(lines),
        metas=writer.metas,
        storage_bytes=tuple(writer.storage_bytes),
        last_line=tuple(last_line),
        slots=len(writer.storage_of_slot),
    )
    return SumsApart(renamed.tape(changed), sums)


class _Renamed:
    """Tensors that others stand for from some line on, together with all later views of them."""

    def __init__(self) -> None:
        self._tensors: dict[int, Info] = {}  # by slot
        self._storages: dict[int, int] = {}

    def add(self, old: Info, new: Info) -> None:
        """Let `new` stand for `old` and its memory."""
        self._tensors[old.slot] = new
        self._storages[old.storage] = new.storage

    def line(self, line: TapeOp) -> TapeOp:
        """The line with the tensors that stand now."""
        if not self._touches(line):
            return line
        inputs = tuple(map(self._info, line.inputs))
        outputs = tuple([None if o is None else self._info(o) for o in line.outputs])
        return replace(line, inputs=inputs, outputs=outputs)

    def _touches(self, line: TapeOp) -> bool:
        tensors, storages = self._tensors, self._storages
        for infos in (line.inputs, line.outputs) if tensors else ():  # loops: this is asked of every line
            for info in infos:
                if info is not None and (info.slot in tensors or info.storage in storages):
                    return True
        return False

    def tape(self, tape: Tape) -> Tape:
        """The tape with the names that stand at its end."""
        return replace(
            tape,
            results={name: self._tensors[s].slot if s in self._tensors else s for name, s in tape.results.items()},
            gradients=frozenset(self._storages.get(s, s) for s in tape.gradients),
        )

    def _info(self, info: Info) -> Info:
        if info.slot in self._tensors:
            return self._tensors[info.slot]
        if info.storage not in self._storages:
            return info
        return Info(info.slot, info.meta, self._storages[info.storage], info.lo, info.hi)


def _sums_in_place(tape: Tape) -> Iterator[int]:
    """Lines that add to a tensor in place which the step made, and at whose memory nothing made before them looks
    afterwards."""
    entries = {
        n
        for n, e in enumerate(tape.entries)
        if e.call.function is _ADD_IN_PLACE and e.writes == (0,) and e.outputs == (0,)
    }
    lines = [k for k, line in enumerate(tape.lines) if line.entry in entries]
    over = {tape.lines[k].inputs[0].storage for k in lines}
    over -= {*tape.storage_of_external.values(), *_storages_of(tape, tape.constants)}
    makers, used = _lives(tape, over)
    for k in lines:
        first = tape.lines[k].inputs[0]
        others = makers.get(first.storage, {}).items()
        if first.storage in over and all(s == first.slot or at > k or used[s] < k for s, at in others):
            yield k


def _lives(tape: Tape, storages: set[int]) -> tuple[dict[int, dict[int, int]], dict[int, int]]:
    """For each of the storages the tensors that look at it, with the line that makes each, and for each of those the
    last line that uses it."""
    makers: dict[int, dict[int, int]] = {}
    used: dict[int, int] = {}
    for k, line in enumerate(tape.lines):
        for info in (*line.inputs, *line.outputs):
            if info is not None and info.storage in storages:
                makers.setdefault(info.storage, {}).setdefault(info.slot, k)
                used[info.slot] = k
    return makers, used | dict.fromkeys(tape.results.values(), len(tape.lines))


def _last_uses(tape: Tape) -> dict[int, int]:
    """The last line that uses each storage; the number of lines where its data outlive the step."""
    storage_of: dict[int, int] = {}
    last: dict[int, int] = {}
    for k, line in enumerate(tape.lines):
        for info in (*line.inputs, *line.outputs):
            if info is not None:
                storage_of[info.slot] = info.storage
                last[info.storage] = k
    return last | {storage_of[s]: len(tape.lines) for s in tape.results.values() if s in storage_of}


def _storages_of(tape: Tape, slots: Mapping[int, object]) -> set[int]:
    if not slots:
        return set()
    return {i.storage for line in tape.lines for i in line.inputs if i.slot in slots}
