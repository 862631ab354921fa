"""A traced step as straight Python: one function per task, one line per op.

A value that only one task needs is a local variable, deleted after its last use. One that another task needs lies in a
cell of each lane that needs it, and each lane empties its own cell after its last use: Python's own reference count
then frees a tensor when the last lane has let it go, and no lane has to count anything.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pararev_hw.errors import BadInput
from pararev_hw.torch_private import schema
from pararev_hw.types import BlockGraph, Call, Hole, Program

Draw = Callable[..., Any]  # (token, function, *args, **kwargs): calls the function with the draws of that token


@dataclass(frozen=True, slots=True)
class Source:
    """Python text, the names that it uses, and which op is on which line."""

    text: str
    names: Mapping[str, Any]
    op_of_line: Mapping[int, int]
    cells: tuple[int, ...]  # how many each lane has
    results: Mapping[str, tuple[int, int]]  # name -> lane and cell, or -1 and slot for what was there before


def task_name(task: int) -> str:
    """The name of a task's function in the source."""
    return f"task_{task}"


def write_source(
    graph: BlockGraph,
    program: Program,
    orders: Sequence[Sequence[int]],
    static: frozenset[int],
    varying: Mapping[int, Sequence[int]] | None = None,
    *,
    noting: bool = False,
    streams: bool = False,
    stamping: bool = False,
) -> Source:
    """The step's source for these lane orders.

    `static` slots are there all the time, as names `s<slot>`; `draw` and, for the lanes, `v<lane>` (a list of cells)
    are names to be given too. `varying[call][k]` is the place, in a list called `now`, of the k-th scalar of a call
    whose scalars change from step to step. With `noting`, each new tensor is shown to a name `note`; with
    `streams`, each that another lane reads is shown to that lane's stream, named `stream<lane>`; with `stamping`,
    `stamp` is called with the op's number after each op. Raises BadInput where
    an op needs a tensor that no op made.
    """
    return _Writer(graph, program, orders, static, varying or {}, noting, streams, stamping).source()


def scalars_of(call: Call) -> list[Any]:
    """What a call is given beside tensors, in the order in which the source meets it."""
    scalars: list[Any] = []

    def walk(value: Any) -> None:
        if isinstance(value, list | tuple):
            for v in value:
                walk(v)
        elif not isinstance(value, Hole):
            scalars.append(value)

    walk(tuple(call.args))
    walk(tuple(call.kwargs.values()))
    return scalars


@dataclass(slots=True)
class _Writer:
    graph: BlockGraph
    program: Program
    orders: Sequence[Sequence[int]]
    static: frozenset[int]
    varying: Mapping[int, Sequence[int]]
    noting: bool
    streams: bool
    stamping: bool
    lines: list[str] = field(default_factory=list)
    names: dict[str, Any] = field(default_factory=dict)
    op_of_line: dict[int, int] = field(default_factory=dict)
    _named: dict[Any, str] = field(default_factory=dict)
    _cell: dict[tuple[int, int], int] = field(default_factory=dict)
    _last: dict[tuple[int, int], int] = field(default_factory=dict)  # lane, slot -> last op there that uses it
    _last_in_task: dict[tuple[int, int], int] = field(default_factory=dict)
    _lanes: dict[int, dict[int, None]] = field(default_factory=dict)  # slot -> lanes that use it outside its task
    _home: dict[int, tuple[int, int]] = field(default_factory=dict)  # slot -> lane and task that make it

    def source(self) -> Source:
        self._survey()
        for lane, order in enumerate(self.orders):
            for task in order:
                self._task(lane, task)
        cells = [0] * len(self.orders)
        for lane, _ in self._cell:
            cells[lane] += 1
        results = {}
        for name, slot in self.program.results.items():
            if slot in self.static:
                results[name] = (-1, slot)
            elif slot in self._home:
                home = self._home[slot][0]
                results[name] = (home, self._cell[home, slot])
            else:
                raise BadInput(f"the step's {name} is a tensor that no op made")
        return Source("\n".join(self.lines) + "\n", self.names, self.op_of_line, tuple(cells), results)

    def _survey(self) -> None:
        """Where every slot is made and used."""
        for lane, order in enumerate(self.orders):
            for task in order:
                for k in self.graph.tasks[task].ops:
                    instruction = self.program.instructions[k]
                    for slot in instruction.outputs:
                        if slot is not None and slot not in self.static and slot not in instruction.inputs:
                            self._home.setdefault(slot, (lane, task))
        for lane, order in enumerate(self.orders):
            for task in order:
                for k in self.graph.tasks[task].ops:
                    self._survey_uses(lane, task, k)
        for slot in self.program.results.values():
            if slot in self._home:
                self._lanes.setdefault(slot, {})[self._home[slot][0]] = None
        count = [0] * len(self.orders)
        for slot, lanes in self._lanes.items():
            for lane in lanes:
                self._cell[lane, slot] = count[lane]
                count[lane] += 1

    def _survey_uses(self, lane: int, task: int, k: int) -> None:
        for slot in self.program.instructions[k].inputs:
            if slot in self.static:
                continue
            home = self._home.get(slot)
            if home is None:
                function = self.program.calls[self.program.instructions[k].call].function
                raise BadInput(
                    f"op {k} ({function}) of {self.graph.model} needs a tensor that no op made (slot {slot})"
                )
            self._last[lane, slot] = k
            self._last_in_task[task, slot] = k
            if home != (lane, task):
                self._lanes.setdefault(slot, {})[lane] = None

    def _task(self, lane: int, task: int) -> None:
        self.lines.append(f"def {task_name(task)}():")
        for k in self.graph.tasks[task].ops:
            self._op(lane, task, k)
        self.lines.append("    return")

    def _op(self, lane: int, task: int, k: int) -> None:
        instruction = self.program.instructions[k]
        call = self.program.calls[instruction.call]
        tensors = [self._read(lane, task, slot) for slot in instruction.inputs]
        places = iter(self.varying.get(instruction.call, ()))
        arguments = [self._value(a, tensors, places) for a in call.args]
        arguments += [f"{n}={self._value(v, tensors, places)}" for n, v in call.kwargs.items()]
        function = self._name("f", call.function, getattr(call.function, "_op", call.function))
        if instruction.rng >= 0:
            arguments = [str(instruction.rng), function, *arguments]
            function = "draw"
        self._line(
            k, f"{self._target(call, instruction.outputs, instruction.inputs)}{function}({', '.join(arguments)})"
        )
        self._unpack(k, call, instruction.outputs, instruction.inputs)
        self._keep_and_drop(lane, task, k)
        if self.stamping:
            self._line(k, f"stamp({k})")

    def _line(self, k: int, text: str) -> None:
        self.lines.append(f"    {text}")
        self.op_of_line[len(self.lines)] = k

    def _read(self, lane: int, task: int, slot: int) -> str:
        if slot in self.static:
            return f"s{slot}"
        return f"x{slot}" if self._home[slot] == (lane, task) else f"v{lane}[{self._cell[lane, slot]}]"

    def _new(self, outputs: Sequence[int | None], inputs: Sequence[int]) -> list[int | None]:
        """Output slots, None where the result is an input itself or no tensor."""
        return [s if s is not None and s not in inputs and s not in self.static else None for s in outputs]

    def _target(self, call: Call, outputs: Sequence[int | None], inputs: Sequence[int]) -> str:
        new = self._new(outputs, inputs)
        if all(s is None for s in new):
            return ""
        return f"x{new[0]} = " if _gives_one_tensor(call.function) else "out = "

    def _unpack(self, k: int, call: Call, outputs: Sequence[int | None], inputs: Sequence[int]) -> None:
        new = self._new(outputs, inputs)
        if all(s is None for s in new) or _gives_one_tensor(call.function):
            return
        if schema(call.function) is not None or len(new) > 1:
            for place, slot in enumerate(new):
                if slot is not None:
                    self._line(k, f"x{slot} = out[{place}]")
        else:
            self._line(k, f"x{new[0]} = out[0] if isinstance(out, (list, tuple)) else out")
        self._line(k, "del out")

    def _keep_and_drop(self, lane: int, task: int, k: int) -> None:
        instruction = self.program.instructions[k]
        outputs = dict.fromkeys(s for s in self._new(instruction.outputs, instruction.inputs) if s is not None)
        for slot in outputs:
            if self.noting:
                self._line(k, f"note(x{slot})")
            for other in self._lanes.get(slot, ()):
                self._line(k, f"v{other}[{self._cell[other, slot]}] = x{slot}")
                if self.streams and other != lane:
                    self._line(k, f"lend(x{slot}, stream{other})")
        result_slots = set(self.program.results.values())
        for slot in dict.fromkeys((*instruction.inputs, *outputs)):
            if slot in self.static:
                continue
            if self._home[slot] == (lane, task):
                if self._last_in_task.get((task, slot), k) == k:
                    self._line(k, f"del x{slot}")
            elif self._last[lane, slot] == k and not (slot in result_slots and self._home[slot][0] == lane):
                self._line(k, f"v{lane}[{self._cell[lane, slot]}] = None")

    def _value(self, template: Any, tensors: Sequence[str], places: Any) -> str:
        if isinstance(template, Hole):
            return tensors[template.index]
        if isinstance(template, tuple):
            return f"({''.join(self._value(t, tensors, places) + ', ' for t in template)})"
        if isinstance(template, list):
            return f"[{', '.join(self._value(t, tensors, places) for t in template)}]"
        place = next(places, None)
        if place is not None:
            return f"now[{place}]"
        if type(template) in (int, bool, type(None)) or (type(template) is float and math.isfinite(template)):
            return repr(template)
        return self._name("k", (type(template), repr(template)), template)

    def _name(self, prefix: str, key: Any, value: Any) -> str:
        name = self._named.get((prefix, key))
        if name is None:
            name = self._named[prefix, key] = f"{prefix}{len(self._named)}"
            self.names[name] = value
        return name


def _gives_one_tensor(function: Any) -> bool:
    """Whether a function is known to give a tensor rather than a list of them."""
    signature = schema(function)
    return signature is not None and len(signature.returns) == 1 and str(signature.returns[0].type) == "Tensor"
