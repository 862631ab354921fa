"""From a tape to the nouns: ops, storages, tasks, edges, memory; and to the program, which few ask for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from hashlib import blake2s
from itertools import accumulate

from pararev_hw.graph.lstm_workspace import lstm_workspace_bytes
from pararev_hw.tracing.dependencies import Access, Flow, dependencies
from pararev_hw.tracing.grouping import Group, Key, Member, each_alone, group
from pararev_hw.tracing.kernel_copies import underlying_bytes
from pararev_hw.tracing.neurons import spiking_modules
from pararev_hw.tracing.recorder import Fresh, OpSignature
from pararev_hw.tracing.tape import Tape, TapeOp
from pararev_hw.types import (
    Edge,
    Instruction,
    Op,
    OpType,
    Program,
    Role,
    StepMemory,
    Storage,
    Task,
)
from pararev_hw.types.graph import task_id

GRANULARITIES = ("op", "module", "block")


@dataclass(frozen=True, slots=True)
class Built:
    op_types: tuple[OpType, ...]
    ops: tuple[Op, ...]
    storages: tuple[Storage, ...]
    tasks: tuple[Task, ...]
    edges: tuple[Edge, ...]
    memory: StepMemory


@dataclass(frozen=True, slots=True)
class Followed:
    """For each line of a tape those that it must follow, and the data that flows between lines."""

    after: tuple[tuple[int, ...], ...]
    flows: tuple[Flow, ...]


def followed(tape: Tape) -> Followed:
    """What must follow what on a tape."""
    after, flows = dependencies(_accesses(tape.lines, tape.entries))
    return Followed(_waiting(after, tape.waits) if tape.waits else after, flows)


def build(tape: Tape, order: Followed | None = None) -> Built:
    """The step on a tape as data; `order` is what `followed` gave for it, if it was asked."""
    lines, entries = tape.lines, tape.entries
    order = order or followed(tape)
    after, flows = order.after, order.flows
    members = _members(tape, after)
    groups, group_of = each_alone(members) if tape.granularity == "op" else group(members)
    types, type_of = _op_types(tape, tape.neurons)
    ops = tuple(
        [
            Op(t, line.home.module or "", line.home.phase, *_touched(line, entries[line.entry]), follow)
            for line, t, follow in zip(lines, type_of, after, strict=True)
        ]
    )
    storages = _storages(tape, types, ops)
    neurons = tape.neurons | spiking_modules(types, ops, storages)
    if neurons != tape.neurons:
        types, type_of = _op_types(tape, neurons)
        ops = tuple([replace(op, type=t) for op, t in zip(ops, type_of, strict=True)])
    return Built(
        op_types=types,
        ops=ops,
        storages=storages,
        tasks=_tasks(groups, ops, types),
        edges=_edges(after, flows, group_of),
        memory=_memory(storages, len(ops)),
    )


def program_of(tape: Tape) -> Program:
    """The step on a tape as something that runs."""
    return Program(
        calls=tuple(e.call for e in tape.entries),
        instructions=tuple(map(_instruction, tape.lines)),
        externals=tape.externals,
        constants=tape.constants,
        results=tape.results,
        signatures=_signatures(tape),
        layouts=_layouts(tape),
        python_calls=tape.python_calls,
    )


def _signatures(tape: Tape) -> tuple[str, ...]:
    """A digest per call of all that its time depends on, but for the values and where they lie."""
    layouts: dict[int, tuple[int, ...]] = {}
    for line in tape.lines:
        if line.entry not in layouts:
            layouts[line.entry] = tuple(i.meta for i in line.inputs)
    digests = []
    for k, entry in enumerate(tape.entries):
        tensors = [(*tape.metas[m][:2], str(tape.metas[m][2])) for m in layouts.get(k, ())]
        text = repr((entry.op_type.name, entry.call.args, sorted(entry.call.kwargs.items()), tensors))
        digests.append(blake2s(text.encode(), digest_size=12).hexdigest())
    return tuple(digests)


def _layouts(tape: Tape) -> dict[int, tuple[tuple[int, ...], tuple[int, ...], str]]:
    """Shape, strides and datatype of each external that an op looks at."""
    layouts = {}
    for line in tape.lines:
        for info in line.inputs:
            if info.slot in tape.externals and info.slot not in layouts:
                shape, stride, dtype, _ = tape.metas[info.meta]
                layouts[info.slot] = (shape, stride, str(dtype).removeprefix("torch."))
    return layouts


def _instruction(line: TapeOp) -> Instruction:
    outputs = tuple([None if o is None else o.slot for o in line.outputs])
    return Instruction(line.entry, tuple([i.slot for i in line.inputs]), outputs, line.rng)


def _waiting(after: Sequence[tuple[int, ...]], waits: Sequence[tuple[int, int]]) -> tuple[tuple[int, ...], ...]:
    """`after` with the pairs that wait for each other without data."""
    predecessors = list(after)
    for src, dst in waits:
        predecessors[dst] = tuple(sorted({*predecessors[dst], src}))
    return tuple(predecessors)


def _touched(line: TapeOp, entry: OpSignature) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Storages that the op reads and writes."""
    inputs = line.inputs
    reads = tuple(sorted({inputs[k].storage for k in entry.reads})) if entry.reads else ()
    writes = [inputs[k].storage for k in entry.writes]
    if not entry.view:
        writes += [o.storage for o, spec in zip(line.outputs, entry.outputs, strict=True) if o and type(spec) is Fresh]
    return reads, tuple(sorted(set(writes))) if len(writes) > 1 else tuple(writes)


def _accesses(lines: Sequence[TapeOp], entries: Sequence[OpSignature]) -> Iterator[Access]:
    maker: dict[int, int] = {}
    for k, line in enumerate(lines):
        entry, inputs = entries[line.entry], line.inputs
        makers = [maker[i.slot] for i in inputs if i.slot in maker]
        reads = [((i := inputs[j]).storage, i.lo, i.hi) for j in entry.reads]
        writes = [((i := inputs[j]).storage, i.lo, i.hi) for j in entry.writes]
        for out, spec in zip(line.outputs, entry.outputs, strict=True):
            if out is None or (type(spec) is int and out.slot == inputs[spec].slot):
                continue
            maker[out.slot] = k
            if type(spec) is Fresh:
                writes.append((out.storage, out.lo, out.hi))
        yield makers, reads, writes


def _members(tape: Tape, after: Sequence[tuple[int, ...]]) -> list[Member]:
    """What grouping needs to know of each line."""
    by_op = tape.granularity == "op"
    keys: dict[tuple[int, int], Key] = {}  # by home, which lines share, and by entry where that counts
    members: list[Member] = []
    for line, follow in zip(tape.lines, after, strict=True):
        home, entry = line.home, tape.entries[line.entry]
        at = id(home), line.entry if by_op else -1
        if at not in keys:
            block = f"{home.block}.{entry.op_type.name}" if by_op else home.block
            keys[at] = Key(block, home.branch, home.phase, 0 if by_op else home.call)
        members.append(Member(keys[at], follow, glue=home.glue and not by_op, view=entry.view))
    return members


def _op_types(tape: Tape, neurons: frozenset[str]) -> tuple[tuple[OpType, ...], tuple[int, ...]]:
    """The distinct op types and each line's index among them; elementwise work inside `neurons` is of their kind."""
    index: dict[OpType, int] = {}
    plain: dict[int, int] = {}
    inside: dict[int, int] = {}
    type_of_op: list[int] = []
    for line in tape.lines:
        op_type = tape.entries[line.entry].op_type
        spiking = line.home.module in neurons and op_type.kind == "elementwise"
        memo = inside if spiking else plain
        at = memo.get(line.entry)
        if at is None:
            op_type = replace(op_type, kind="neuron") if spiking else op_type
            at = memo[line.entry] = index.setdefault(op_type, len(index))
        type_of_op.append(at)
    return tuple(index), tuple(type_of_op)


def _tasks(groups: Sequence[Group], ops: Sequence[Op], types: Sequence[OpType]) -> tuple[Task, ...]:
    tasks: list[Task] = []
    for g in groups:
        op_types = [types[ops[k].type] for k in g.ops]
        tasks.append(
            Task(
                id=task_id(g.key.block, g.key.branch, g.key.phase, g.number),
                block=g.key.block,
                branch=g.key.branch,
                phase=g.key.phase,
                ops=g.ops,
                flops=sum(t.flops for t in op_types),
                vector_flops=sum(t.vector_flops or 0 for t in op_types),
                read_bytes=sum(t.read_bytes for t in op_types),
                write_bytes=sum(t.write_bytes for t in op_types),
            )
        )
    return tuple(tasks)


def _edges(after: Sequence[tuple[int, ...]], flows: Sequence[Flow], group_of: Sequence[int]) -> tuple[Edge, ...]:
    moved: dict[tuple[int, int, int], int] = {}
    for src_op, dst_op, storage, count in flows:
        src, dst = group_of[src_op], group_of[dst_op]
        if src >= 0 and src != dst:
            at = (src, dst, storage)
            moved[at] = max(moved.get(at, 0), count)
    total: dict[tuple[int, int], int] = {}
    for k, follow in enumerate(after):
        for a in follow:
            src, dst = group_of[a], group_of[k]
            if src >= 0 and dst >= 0 and src != dst:
                total.setdefault((src, dst), 0)
    for (src, dst, _), count in moved.items():
        total[src, dst] += count
    return tuple(Edge(src, dst, total[src, dst]) for src, dst in sorted(total))


_EXTERNAL_ROLES: Mapping[str, Role] = {
    "parameter": "parameter",
    "buffer": "buffer",
    "optimizer": "optimizer",
    "input": "input",
    "target": "input",
    "gradient": "gradient",
}


def _storages(tape: Tape, types: Sequence[OpType], ops: Sequence[Op]) -> tuple[Storage, ...]:
    read_later = {s for op in ops if op.phase in ("recompute", "backward") for s in op.reads}
    names = {storage: tape.externals[slot] for slot, storage in tape.storage_of_external.items()}
    born_at = _born(tape)
    workspace_bytes, least_bytes = ([of(t) for t in types] for of in (lstm_workspace_bytes, underlying_bytes))
    storages: list[Storage] = []
    for s, (nbytes, last) in enumerate(zip(tape.storage_bytes, tape.last_line, strict=True)):
        born = born_at[s]
        role: Role = "transient"
        if s in tape.gradients:
            role = "gradient"
        elif s in names:
            role = _EXTERNAL_ROLES[names[s].partition(":")[0]]
        elif born < 0:
            role = "input"
        elif ops[born].phase == "recompute":
            role = "recomputed"
        elif ops[born].phase == "backward":
            role = "cotangent"
        elif ops[born].phase == "forward" and s in read_later:
            role = "saved"
        if born >= 0:
            made_by = ops[born].type
            nbytes = max(nbytes or workspace_bytes[made_by], least_bytes[made_by])
        goes = born >= 0 or role == "gradient"  # all else that was there before the step is somebody's, who keeps it
        storages.append(Storage(nbytes, role, born, last if goes else len(ops)))
    return tuple(storages)


def _born(tape: Tape) -> list[int]:
    """The line that makes each storage, -1 for those that exist before the step."""
    born = [-1] * len(tape.storage_bytes)
    for k in range(len(tape.lines) - 1, -1, -1):
        line = tape.lines[k]
        for out, spec in zip(line.outputs, tape.entries[line.entry].outputs, strict=True):
            if out is not None and isinstance(spec, Fresh):
                born[out.storage] = k
    return born


def _memory(storages: Sequence[Storage], ops: int) -> StepMemory:
    change = [0] * (ops + 2)
    total: dict[str, int] = {}
    for s in storages:
        if s.role != "gradient" or s.freed >= ops:  # an old gradient that the step lets go is not one that it makes
            total[s.role] = total.get(s.role, 0) + s.bytes
        change[max(s.born, 0)] += s.bytes
        change[min(s.freed, ops) + 1] -= s.bytes
    live = list(accumulate(change[: max(ops, 1)]))
    peak_op = max(range(len(live)), key=lambda k: (live[k], -k))
    return StepMemory(
        peak_bytes=live[peak_op],
        saved_bytes=total.get("saved", 0),
        parameter_bytes=total.get("parameter", 0),
        buffer_bytes=total.get("buffer", 0),
        gradient_bytes=total.get("gradient", 0),
        optimizer_bytes=total.get("optimizer", 0),
        input_bytes=total.get("input", 0),
        peak_op=peak_op,
    )
