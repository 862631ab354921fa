"""Changing a tape: lines dropped, moved and put in, tensors that take the place of others."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from pararev_hw.check.replay import filled
from pararev_hw.rewrites.titles import place
from pararev_hw.torch_private import FakeTensor, FakeTensorMode, fake_mode
from pararev_hw.tracing.recorder import Alias, Fresh, Info, Meta, OpSignature, Recorder
from pararev_hw.tracing.tape import Scope, Tape, TapeOp


class Edit:
    """Collects changes to `tape`; `finished` gives the tape that they make. Lines are named by their old numbers."""

    def __init__(self, tape: Tape) -> None:
        self.tape = tape
        self._fake = fake_mode()
        self._writer = _Writer(self._fake, tape)
        self._dropped: set[int] = set()
        self._place: dict[int, tuple[int, int, int]] = {}  # of moved lines: before which line, 0, in which order
        self._new: list[tuple[tuple[int, int, int], TapeOp]] = []
        self._slots: dict[int, Info] = {}
        self._storages: dict[int, int] = {}
        self._homes: dict[int, Scope] = {}
        self._entries: dict[int, int] = {}
        self._waits: list[tuple[int, int]] = []

    def drop(self, line: int) -> None:
        """Leave the line out. Something else must stand for what it made."""
        self._dropped.add(line)

    def drop_for(self, line: int, leader: int) -> None:
        """Leave out a line that does what `leader`, before it, has done."""
        lines = self.tape.lines
        for old, new, spec in zip(
            lines[line].outputs, lines[leader].outputs, self.tape.entries[lines[line].entry].outputs, strict=True
        ):
            if old is not None and new is not None and not isinstance(spec, int):
                (self.substitute if isinstance(spec, Alias) else self.replace_memory)(old, new)
        self.drop(line)

    def drop_unused(self) -> None:
        """Leave out what was made for dropped lines alone."""
        lines, live_slots = self.tape.lines, set(map(self._stands_for, self.tape.results.values()))
        users: dict[int, set[int]] = {}
        for k, line in enumerate(lines):
            for i in line.inputs if k not in self._dropped else ():
                users.setdefault(self._stands_for(i.slot), set()).add(k)
        live_slots |= {self._stands_for(i.slot) for _, line in self._new for i in line.inputs}
        inputs_of_dropped = {self._stands_for(i.slot) for k in self._dropped for i in lines[k].inputs}
        for k in range(len(lines) - 1, -1, -1):
            entry = self.tape.entries[lines[k].entry]
            outputs = [o.slot for o in lines[k].outputs if o is not None]
            if k in self._dropped or entry.writes or entry.random or not inputs_of_dropped.intersection(outputs):
                continue
            if any(slot in live_slots or users.get(slot) for slot in outputs):
                continue
            self._dropped.add(k)
            for i in lines[k].inputs:
                inputs_of_dropped.add(self._stands_for(i.slot))
                users[self._stands_for(i.slot)].discard(k)

    def substitute(self, old: Info, new: Info) -> None:
        """Let whatever uses the tensor `old` use `new`, which has its shape, strides and values."""
        self._slots[old.slot] = new

    def replace_memory(self, old: Info, new: Info) -> None:
        """The same, and views of `old`'s memory look at that of `new`, laid out alike."""
        self._slots[old.slot] = new
        self._storages[old.storage] = new.storage

    def rehome(self, line: int, home: Scope) -> None:
        """Let the line belong elsewhere."""
        self._homes[line] = home

    def move(self, lines: Iterable[int], before: int) -> None:
        """Let the lines run, in their old order, before the line `before`; nothing they need may come after it."""
        for k in lines:
            self._place[k] = min(self._place.get(k, (k, 1, 0)), (before, 0, k))

    def move_later(self, lines: Iterable[int], after: int) -> None:
        """Let the lines run, in their old order, after the line `after`; nothing before it may need them."""
        for k in lines:
            self._place[k] = max(self._place.get(k, (k, 1, 0)), (after + 1, 0, k))

    def rehome_new(self, homes: Sequence[Scope], to: Scope) -> None:
        """Let the lines put in at one of these places belong elsewhere."""
        for n, (at, line) in enumerate(self._new):
            if place(line.home) in homes:
                moved = replace(line.home, block=to.block, branch=to.branch, call=to.call)
                self._new[n] = (at, replace(line, home=moved))

    def rewire(self, old: Info, new: Info) -> bool:
        """Let whatever uses the tensor `old` use `new`, of its shape and values but laid out otherwise, where all of
        them then still make what they made. False: some do not, and nothing was changed."""
        lines = self.tape.lines
        entries: dict[int, int] = {}
        for k, line in enumerate(lines):
            if k in self._dropped or all(i.slot != old.slot for i in line.inputs):
                continue
            function, args, kwargs = self.call(k)
            entry, _, outputs = self._writer.write(function, _put_for(args, old, new), _put_for(dict(kwargs), old, new))
            before = self.tape.entries[line.entry].outputs
            after = self._writer.entries[entry].outputs
            if any(isinstance(spec, Alias) for spec in after) or list(map(type, before)) != list(map(type, after)):
                return False
            if list(map(_meta, outputs)) != list(map(_meta, line.outputs)):
                return False
            entries[k] = entry
        if old.slot in self.tape.results.values():
            return False
        self._entries |= entries
        self._slots[old.slot] = new
        return True

    def wait(self, src: int, dst: int) -> None:
        """Let line `dst` come after line `src`, which stands before it."""
        self._waits.append((src, dst))

    def call(self, line: int) -> tuple[Any, tuple[Any, ...], Mapping[str, Any]]:
        """Function and arguments of a line, with Infos where its tensors go."""
        old = self.tape.lines[line]
        call = self.tape.entries[old.entry].call
        keyword_arguments = {name: filled(value, old.inputs) for name, value in call.kwargs.items()}
        return call.function, filled(call.args, old.inputs), keyword_arguments

    def put(self, before: int, home: Scope, function: Any, *args: Any, **kwargs: Any) -> tuple[Info | None, ...]:
        """A new line before the line `before` (after what was moved or put there earlier): a call of `function`, with
        tensors where `args` and `kwargs` hold their Infos. Gives what it makes."""
        entry, inputs, outputs = self._writer.write(function, args, kwargs)
        at = (before, 0, len(self.tape.lines) + len(self._new))
        self._new.append((at, TapeOp(entry, inputs, outputs, -1, home, self.tape.lines[before].origin)))
        return outputs

    def finished(self) -> Tape:
        """The tape with all changes made."""
        old = self.tape
        remaining: list[tuple[tuple[int, int, int], int]] = [
            (self._place.get(k, (k, 1, 0)), k) for k in range(len(old.lines)) if k not in self._dropped
        ]
        order = sorted([*remaining, *((at, -1 - n) for n, (at, _) in enumerate(self._new))])
        lines: list[TapeOp] = []
        number: dict[int, int] = {}
        for _, k in order:
            if k >= 0:
                number[k] = len(lines)
            lines.append(self._changed(k) if k >= 0 else self._with_substitutes(self._new[-1 - k][1]))
        writer = self._writer
        created = _born_storages(lines, writer.entries)
        there = {*old.storage_of_external.values(), *(i.storage for line in lines for i in line.inputs)} - created
        alive = created | there
        bytes_ = tuple([b if s in alive else 0 for s, b in enumerate(writer.storage_bytes)])
        return replace(
            old,
            entries=tuple(writer.entries),
            lines=tuple(lines),
            metas=writer.metas,
            storage_bytes=bytes_,
            last_line=self._last_lines(lines, number, len(writer.storage_bytes)),
            results={name: self._stands_for(slot) for name, slot in old.results.items()},
            gradients=frozenset(self._storages.get(s, s) for s in old.gradients),
            slots=len(writer.storage_of_slot),
            waits=tuple((number[a], number[b]) for a, b in (*old.waits, *self._waits) if a in number and b in number),
        )

    def _stands_for(self, slot: int) -> int:
        while slot in self._slots:
            slot = self._slots[slot].slot
        return slot

    def _changed(self, k: int) -> TapeOp:
        line = self._with_substitutes(self.tape.lines[k])
        line = replace(line, entry=self._entries[k]) if k in self._entries else line
        return replace(line, home=self._homes[k]) if k in self._homes else line

    def _with_substitutes(self, line: TapeOp) -> TapeOp:
        slots, storages = self._slots, self._storages
        touched = any(i.slot in slots or i.storage in storages for i in line.inputs) or any(
            o is not None and o.storage in storages for o in line.outputs
        )
        if not touched:
            return line
        return replace(
            line,
            inputs=tuple([self._current(i) for i in line.inputs]),
            outputs=tuple([None if o is None else self._current(o) for o in line.outputs]),
        )

    def _current(self, info: Info) -> Info:
        while info.slot in self._slots:
            info = self._slots[info.slot]
        while info.storage in self._storages:
            info = replace(info, storage=self._storages[info.storage])
        return info

    def _last_lines(self, lines: Sequence[TapeOp], number: Mapping[int, int], storages: int) -> tuple[int, ...]:
        """Where each storage goes: where it went, or after its last use, or not at all if it outlives the step."""
        n, before = len(self.tape.lines), -1
        now = []  # for each old line where it, or the nearest one before it that is left, stands now
        for k in range(n):
            before = number.get(k, before)
            now.append(before)
        last = [now[at] if 0 <= at < n else len(lines) if at >= n else -1 for at in self.tape.last_line]
        last += [-1] * (storages - len(last))
        for old, new in self._storages.items():
            outlives = self.tape.last_line[old] >= n
            last[new] = max(last[new], len(lines) if outlives else last[old])
        for k, line in enumerate(lines):
            for i in (*line.inputs, *line.outputs):
                if i is not None and last[i.storage] < k:
                    last[i.storage] = k
        return tuple(last)


@dataclass(frozen=True, slots=True)
class _Written:
    """What a call comes to: its entry, and how its outputs lie in memory (the numbers in the entry are one tape's)."""

    entry: OpSignature
    metas: tuple[Meta | None, ...]


_WRITTEN: dict[Hashable, _Written] = {}  # of all tapes: rewrites ask for the same calls again and again
MOST_WRITTEN = 4096


class _Writer(Recorder):
    """A recorder that goes on where a tape ends."""

    def __init__(self, fake: FakeTensorMode, tape: Tape) -> None:
        super().__init__(fake)
        self.entries = list(tape.entries)
        self.storage_bytes = list(tape.storage_bytes)
        self.storage_of_slot = [-1] * tape.slots
        self.born = [-1] * len(tape.storage_bytes)
        self._metas = {meta: k for k, meta in enumerate(tape.metas)}
        self._metas_by_index = tape.metas
        self._tensors: dict[int, torch.Tensor] = {}
        self._position: dict[Hashable, int] = {}  # of the entry of calls that are alike

    def write(
        self, function: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> tuple[int, tuple[Info, ...], tuple[Info | None, ...]]:
        """Entry, inputs and outputs of a call. Calls alike were worked out once, on whatever tape."""
        inputs: list[Info] = []
        key = (function, self._pattern(args, inputs), tuple(kwargs), self._pattern(tuple(kwargs.values()), inputs))
        written = _WRITTEN.get(key)
        if written is not None:
            return self._again(key, written, tuple(inputs))
        position, in_, out = self._worked_out(function, args, kwargs)
        entry = self.entries[position]
        self._position[key] = position
        if entry.replayable and all(spec is None or isinstance(spec, Fresh) for spec in entry.outputs):
            if len(_WRITTEN) >= MOST_WRITTEN:
                _WRITTEN.clear()
            metas = self.metas
            of_outputs = tuple(metas[s.meta] if isinstance(s, Fresh) else None for s in entry.outputs)
            _WRITTEN[key] = _Written(entry, of_outputs)
        return position, in_, out

    def _pattern(self, value: Any, inputs: list[Info]) -> Hashable:
        """All of an argument that decides what a call of it makes: how its tensors lie, which of them are the same."""
        if isinstance(value, Info):
            first = next((k for k, i in enumerate(inputs) if i.slot == value.slot), len(inputs))
            inputs.append(value)
            return Info, self._layout(value), first
        if isinstance(value, list | tuple):
            return type(value), *[self._pattern(v, inputs) for v in value]
        return type(value), value

    def _again(
        self, key: Hashable, written: _Written, inputs: tuple[Info, ...]
    ) -> tuple[int, tuple[Info, ...], tuple[Info | None, ...]]:
        """The call as it was worked out before, with new memory for what it makes."""
        specs: list[Fresh | None] = []
        outputs: list[Info | None] = []
        for spec, meta in zip(written.entry.outputs, written.metas, strict=True):
            if not isinstance(spec, Fresh) or meta is None:
                specs.append(None)
                continue
            specs.append(replace(spec, meta=self._metas.setdefault(meta, len(self._metas))))
        for fresh in specs:
            if fresh is None:
                outputs.append(None)
                continue
            storage = len(self.storage_bytes)
            self.storage_bytes.append(fresh.storage_bytes)
            self.born.append(-1)
            outputs.append(Info(len(self.storage_of_slot), fresh.meta, storage, 0, fresh.span))
            self.storage_of_slot.append(storage)
        if key not in self._position:
            self._position[key] = len(self.entries)
            self.entries.append(replace(written.entry, outputs=tuple(specs)))
        return self._position[key], inputs, tuple(outputs)

    def _layout(self, info: Info) -> Meta:
        of_tape = self._metas_by_index
        return of_tape[info.meta] if info.meta < len(of_tape) else self.metas[info.meta]

    def _worked_out(
        self, function: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> tuple[int, tuple[Info, ...], tuple[Info | None, ...]]:
        filled = [self._with_tensors(a) for a in args]
        keyword_arguments = {name: self._with_tensors(a) for name, a in kwargs.items()}
        with torch.no_grad(), self:
            out = function(*filled, **keyword_arguments)
        for t in out if isinstance(out, tuple | list) else (out,):
            info = self.info(t) if isinstance(t, torch.Tensor) else None
            if info is not None:
                self._tensors[info.slot] = t
        record = self.records[-1]
        return record.entry, record.inputs, record.outputs

    def _with_tensors(self, value: Any) -> Any:
        if isinstance(value, Info):
            return self._tensor(value)
        return [self._with_tensors(v) for v in value] if isinstance(value, list | tuple) else value

    def _tensor(self, info: Info) -> torch.Tensor:
        """The fake tensor that an Info speaks of."""
        if info.slot not in self._tensors:
            shape, stride, dtype, device = self._layout(info)
            offset = info.lo // dtype.itemsize
            elements = max(self.storage_bytes[info.storage], info.hi) // dtype.itemsize
            memory = torch.empty(elements, dtype=dtype, device="meta")
            tensor = FakeTensor(self.fake, memory.as_strided(shape, stride, offset), device)
            tensor.pararev_info = info  # type: ignore[attr-defined]
            self._tensors[info.slot] = tensor
        return self._tensors[info.slot]


def _put_for(value: Any, old: Info, new: Info) -> Any:
    """The arguments with one tensor in the place of another."""
    if isinstance(value, Info):
        return new if value.slot == old.slot else value
    if isinstance(value, dict):
        return {name: _put_for(v, old, new) for name, v in value.items()}
    return [_put_for(v, old, new) for v in value] if isinstance(value, list | tuple) else value


def _born_storages(lines: Sequence[TapeOp], entries: Sequence[Any]) -> set[int]:
    """Storages that the lines make."""
    return {
        out.storage
        for line in lines
        for out, spec in zip(line.outputs, entries[line.entry].outputs, strict=True)
        if out is not None and isinstance(spec, Fresh)
    }


def _meta(output: Info | None) -> int | None:
    return None if output is None else output.meta
