"""A step written down as data: the form that task graphs and programs are built from, and that rewrites change.

A line is one op: which call it makes, on which tensors, what comes of it, and where it belongs. Lines stand in an order
in which the step can run. `pararev_hw.tracing.build` makes the graph and the program of any tape, recorded or changed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from pararev_hw.tracing.blocks import BlockFinder
from pararev_hw.tracing.phases import phases
from pararev_hw.tracing.recorder import Frame, Info, Meta, OpSignature, Record, Recorder
from pararev_hw.types import Phase


@dataclass(frozen=True, slots=True)
class Scope:
    """Where an op belongs. `module` is its path (None: code outside any), `block` and `branch` what its task is called
    after, `call` which call of the block it ran in (`module_call`: of the module), `glue` whether it stands between
    branches."""

    module: str | None
    phase: Phase
    block: str
    branch: str
    call: int
    glue: bool
    module_call: int = 0

    @property
    def by_module(self) -> Scope:
        """Where it belongs if each module is a block."""
        if self.module is None or self.phase == "update":
            return self
        return replace(self, block=self.module or self.block, branch="", call=self.module_call)


@dataclass(frozen=True, slots=True)
class TapeOp:
    """One op. Two random ones with one `rng` token draw the same numbers; -1 where nothing is random. `origin` is the
    number of the line of the recorded step that it is, or that it was put in for."""

    entry: int  # index into Tape.entries
    inputs: tuple[Info, ...]
    outputs: tuple[Info | None, ...]
    rng: int
    home: Scope
    origin: int


@dataclass(frozen=True, slots=True)
class Tape:
    """The lines of a step and what they refer to.

    `last_line[s]` is the line after which eager PyTorch lets storage s go (the number of lines, if it outlives the
    step). `waits` are pairs of lines of which the second must follow the first, though no data say so.
    """

    entries: tuple[OpSignature, ...]
    lines: tuple[TapeOp, ...]
    metas: tuple[Meta, ...]
    storage_bytes: tuple[int, ...]
    last_line: tuple[int, ...]
    externals: Mapping[int, str]
    constants: Mapping[int, Any]
    results: Mapping[str, int]
    storage_of_external: Mapping[int, int]
    gradients: frozenset[int]  # storages
    neurons: frozenset[str]  # module paths
    granularity: str
    slots: int  # one more than the highest slot number
    waits: tuple[tuple[int, int], ...] = ()
    python_calls: Mapping[tuple[str, str], int] = field(default_factory=dict)


def regrouped(tape: Tape, granularity: str) -> Tape:
    """A tape in blocks, with tasks of another size."""
    if granularity != "module":
        return replace(tape, granularity=granularity)
    homes: dict[Scope, Scope] = {}
    lines = [replace(line, home=homes.setdefault(line.home, line.home.by_module)) for line in tape.lines]
    return replace(tape, granularity=granularity, lines=tuple(lines))


def tape_of(
    recorder: Recorder,
    results: Mapping[str, int],
    gradients: frozenset[int],
    finder: BlockFinder,
    neurons: frozenset[str],
) -> Tape:
    """What the recorder saw, in blocks. `gradients` are the storages of parameter gradients, `neurons` the paths of
    spiking neurons, whose elementwise ops are of kind "neuron"."""
    records, entries = recorder.records, recorder.entries
    externals = {slot: recorder.storage_of_slot[slot] for slot in recorder.externals}
    names = {storage: recorder.externals[slot] for slot, storage in externals.items()}
    names_of_storages = names | {recorder.storage_of_slot[s]: n for n, s in results.items() if ":" in n}
    persistent = {s for s, name in names.items() if name.partition(":")[0] in ("parameter", "optimizer")}
    phase_of = phases(records, entries, frozenset(persistent | gradients))
    homes = _Scopes(recorder.frames, entries, finder, names_of_storages)
    n = len(records)
    freed = recorder.freed
    return Tape(
        entries=tuple(entries),
        lines=tuple(
            [
                TapeOp(r.entry, r.inputs, r.outputs, r.rng, homes.of(r, phase), k)
                for k, (r, phase) in enumerate(zip(records, phase_of, strict=True))
            ]
        ),
        metas=recorder.metas,
        storage_bytes=tuple(recorder.storage_bytes),
        last_line=tuple([freed[s] - 1 if s in freed else n for s in range(len(recorder.storage_bytes))]),
        externals=dict(recorder.externals),
        constants=dict(recorder.constants),
        results=dict(results),
        storage_of_external=externals,
        gradients=gradients,
        neurons=neurons,
        granularity="block",
        slots=len(recorder.storage_of_slot),
        python_calls=dict(recorder.python_calls),
    )


class _Scopes:
    """Finds where records belong; what is found for one frame and phase serves all ops there."""

    def __init__(
        self,
        frames: Sequence[Frame],
        entries: Sequence[OpSignature],
        finder: BlockFinder,
        names: Mapping[int, str],
    ) -> None:
        self.frames, self.entries, self.finder, self.names = frames, entries, finder, names
        self._scope_of: dict[tuple[int, Phase, bool, bool], Scope] = {}

    def of(self, record: Record, phase: Phase) -> Scope:
        frame = record.frame if record.node == -1 or record.recalled else record.node_frame
        if phase == "update":
            return self._of_update(record, frame)
        heavy = self.entries[record.entry].op_type.flops > 0
        sums = phase == "backward" and not heavy and _sums_cotangents(record, self.entries[record.entry])
        key = (frame, phase, heavy, sums)
        if key not in self._scope_of:
            self._scope_of[key] = self._find(frame, phase, heavy, sums)
        return self._scope_of[key]

    def _find(self, frame: int, phase: Phase, heavy: bool, sums: bool) -> Scope:
        if frame < 0:
            return Scope(None, phase, "loss", "", 0, phase != "forward" and not heavy)
        path = self.frames[frame].path
        block, branch, between = self.finder.locate(path)
        glue = (between or sums) and not heavy
        calls = self._call(frame, block), self._call(frame, path or block)
        return Scope(path, phase, block or "net", branch, calls[0], glue, calls[1])

    def _of_update(self, record: Record, frame: int) -> Scope:
        path = self.frames[frame].path if frame >= 0 else None
        owners = {
            self.names[i.storage].split(":")[1].rpartition(".")[0] for i in record.inputs if i.storage in self.names
        }
        places = {self.finder.locate(module)[:2] for module in owners}
        if len(places) == 1:
            block, branch = places.pop()
            return Scope(path, "update", block or "net", branch, 0, False)
        light = self.entries[record.entry].op_type.flops == 0
        return Scope(path, "update", "optimizer", "", 0, not places and light)

    def _call(self, frame: int, block: str) -> int:
        """Which call of the block `frame` is part of: a network that walks through time calls it once per step. Of a
        block that is never called itself the parts are counted."""
        if not block:
            return 0
        at = frame
        while True:
            caller = self.frames[at].caller
            if caller < 0 or not (self.frames[caller].path + ".").startswith(block + "."):
                return self.frames[at].number
            at = caller


def _sums_cotangents(record: Record, entry: OpSignature) -> bool:
    """An add of two tensors of one shape: where branches meet, the engine sums cotangents while a node of one of them
    is still the current one."""
    shapes = entry.op_type.input_shapes
    return (
        entry.op_type.name in ("aten.add.Tensor", "aten.add_.Tensor")
        and len(shapes) == 2
        and shapes[0] == shapes[1]
        and record.node != -1
    )
