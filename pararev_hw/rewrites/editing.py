"""Changing a tape: lines dropped, moved and put in, tensors that take the place of others."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any

from pararev_hw.check.replay import filled
from pararev_hw.rewrites.draft import Draft
from pararev_hw.rewrites.titles import place
from pararev_hw.rewrites.writer import Writer
from pararev_hw.torch_private import fake_mode
from pararev_hw.tracing.recorder import Alias, Fresh, Info, OpSignature
from pararev_hw.tracing.tape import Scope, Tape, TapeOp


class Edit:
    """Collects changes to `tape`, that of `draft` with sums in place as values; `finished` gives the tape that they
    make. Lines are named by their old numbers."""

    def __init__(self, draft: Draft) -> None:
        self._sums = draft.sums_apart
        self.tape = self._sums.tape
        self._writer = Writer(fake_mode(), self.tape)
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
        stands = {slot: self._stands_for(slot) for slot in self._slots}
        users: dict[int, set[int]] = {}
        for k, line in enumerate(lines):
            for i in line.inputs if k not in self._dropped else ():
                users.setdefault(stands.get(i.slot, i.slot), set()).add(k)
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

    def lines_at(self, home: Scope) -> Sequence[int]:
        """The lines of one place."""
        return self._lines_at.get(home, ())

    @cached_property
    def _lines_at(self) -> Mapping[Scope, Sequence[int]]:
        lines: dict[Scope, list[int]] = {}
        for k, line in enumerate(self.tape.lines):
            lines.setdefault(place(line.home), []).append(k)
        return lines

    @cached_property
    def _users(self) -> Mapping[int, Sequence[int]]:
        """The lines that are given each slot."""
        lines: dict[int, list[int]] = {}
        for k, line in enumerate(self.tape.lines):
            for slot in dict.fromkeys([i.slot for i in line.inputs]):
                lines.setdefault(slot, []).append(k)
        return lines

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
        for k in self._users.get(old.slot, ()):
            if k in self._dropped:
                continue
            line = lines[k]
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
        lines: list[TapeOp] = []
        number: dict[int, int] = {}
        for k in self._order():
            if k >= 0:
                number[k] = len(lines)
            lines.append(self._changed(k) if k >= 0 else self._with_substitutes(self._new[-1 - k][1]))
        writer = self._writer
        alive, last_use = _uses(lines, writer.entries, len(writer.storage_bytes))
        alive |= set(old.storage_of_external.values())
        bytes_ = tuple([b if s in alive else 0 for s, b in enumerate(writer.storage_bytes)])
        changed = replace(
            old,
            entries=tuple(writer.entries),
            lines=tuple(lines),
            metas=writer.metas,
            storage_bytes=bytes_,
            last_line=self._last_lines(last_use, number, len(lines)),
            results={name: self._stands_for(slot) for name, slot in old.results.items()},
            gradients=frozenset(self._storages.get(s, s) for s in old.gradients),
            slots=len(writer.storage_of_slot),
            waits=tuple((number[a], number[b]) for a, b in (*old.waits, *self._waits) if a in number and b in number),
        )
        return self._sums.in_place(changed)

    def _order(self) -> Iterator[int]:
        """The lines as they come to stand, new ones as -1, -2, ..."""
        elsewhere: dict[int, list[tuple[int, int]]] = {}  # before which line: in which order, and which
        for k, (before, stays, at) in self._place.items():
            if not stays and k not in self._dropped:
                elsewhere.setdefault(before, []).append((at, k))
        for n, ((before, _, at), _) in enumerate(self._new):
            elsewhere.setdefault(before, []).append((at, -1 - n))
        moved = {k for places in elsewhere.values() for _, k in places} | self._dropped
        for k in range(len(self.tape.lines) + 1):
            yield from (line for _, line in sorted(elsewhere.get(k, ())))
            if k < len(self.tape.lines) and k not in moved:
                yield k

    def _stands_for(self, slot: int) -> int:
        while slot in self._slots:
            slot = self._slots[slot].slot
        return slot

    def _changed(self, k: int) -> TapeOp:
        line = self._with_substitutes(self.tape.lines[k])
        line = replace(line, entry=self._entries[k]) if k in self._entries else line
        return replace(line, home=self._homes[k]) if k in self._homes else line

    def _with_substitutes(self, line: TapeOp) -> TapeOp:
        if not self._touches(line):
            return line
        return replace(
            line,
            inputs=tuple([self._current(i) for i in line.inputs]),
            outputs=tuple([None if o is None else self._current(o) for o in line.outputs]),
        )

    def _touches(self, line: TapeOp) -> bool:
        slots, storages = self._slots, self._storages
        for i in line.inputs:  # a loop: this is asked of every line
            if i.slot in slots or i.storage in storages:
                return True
        return bool(storages) and any(o is not None and o.storage in storages for o in line.outputs)

    def _current(self, info: Info) -> Info:
        while info.slot in self._slots:
            info = self._slots[info.slot]
        while info.storage in self._storages:
            info = Info(info.slot, info.meta, self._storages[info.storage], info.lo, info.hi)
        return info

    def _last_lines(self, last_use: Sequence[int], number: Mapping[int, int], lines: int) -> tuple[int, ...]:
        """Where each storage goes: where it went, or after its last use, or not at all if it outlives the step."""
        n, before = len(self.tape.lines), -1
        now = []  # for each old line where it, or the nearest one before it that is left, stands now
        for k in range(n):
            before = number.get(k, before)
            now.append(before)
        last = [now[at] if 0 <= at < n else lines if at >= n else -1 for at in self.tape.last_line]
        last += [-1] * (len(last_use) - len(last))
        for old, new in self._storages.items():
            outlives = self.tape.last_line[old] >= n
            last[new] = max(last[new], lines if outlives else last[old])
        return tuple(map(max, last, last_use))


def _put_for(value: Any, old: Info, new: Info) -> Any:
    """The arguments with one tensor in the place of another."""
    if isinstance(value, Info):
        return new if value.slot == old.slot else value
    if isinstance(value, dict):
        return {name: _put_for(v, old, new) for name, v in value.items()}
    return [_put_for(v, old, new) for v in value] if isinstance(value, list | tuple) else value


def _uses(lines: Sequence[TapeOp], entries: Sequence[OpSignature], storages: int) -> tuple[set[int], list[int]]:
    """The storages that the lines make or are given, and for each storage the last line that uses it, -1 for none."""
    there: set[int] = set()
    last = [-1] * storages
    for k, line in enumerate(lines):
        for i in line.inputs:
            there.add(i.storage)
            last[i.storage] = k
        for out, spec in zip(line.outputs, entries[line.entry].outputs, strict=True):
            if out is not None:
                last[out.storage] = k
                if type(spec) is Fresh:
                    there.add(out.storage)
    return there, last


def _meta(output: Info | None) -> int | None:
    return None if output is None else output.meta
