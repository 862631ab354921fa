"""The dispatch mode that sees every aten operation of a step and writes down what it was.

Tensors are torch's fake tensors: shapes, strides, dtypes and devices without data. The first time an operation occurs
with given shapes and scalars it runs under `FakeTensorMode`; what it made is remembered, and the next time its outputs
are made directly from that memory (a fresh tensor, the mutated input, or a view at the remembered offset), which is
several times faster. Nothing here holds a tensor, so storages die as they would in eager PyTorch, and a weak reference
writes down when.
"""

from __future__ import annotations

import copy
import math
import weakref
from collections import Counter
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any

import torch
from torch.autograd.function import BackwardCFunction

from pararev_hw.errors import TraceError
from pararev_hw.torch_private import (
    NO_SEQUENCE,
    DataDependentOutputException,
    DispatchMode,
    DynamicOutputShapeException,
    FakeTensor,
    FakeTensorMode,
    OpOverload,
    UnsupportedOperatorException,
    array_of,
    as_fake,
    autograd_node,
    flop_formulas,
    graph_task_id,
    meta_outputs,
    next_sequence_nr,
    references,
    references_to_summed,
    schema,
    sequence_nr,
    storage_key,
)
from pararev_hw.tracing import formulas, sparse_gradients
from pararev_hw.tracing.asked_values import (
    ASKS,
    INDEXED,
    NONZERO,
    PACK,
    OnItsInputs,
    Question,
    ValueAsked,
    masks_of,
    shaped_by_values,
    tells_values,
)
from pararev_hw.tracing.how_far import EVERY, StepWatch
from pararev_hw.tracing.kernel_copies import copied_bytes, in_one_piece, library_copied_bytes
from pararev_hw.tracing.kernel_layouts import kernel_strides
from pararev_hw.tracing.user_line import source_line, user_line
from pararev_hw.types import Call, Hole, OpType
from pararev_hw.types.op_names import ALLOCATES_ONLY, EMBEDDING_BAGS, base_name

# Mutated although their schema does not say so: argument positions of the running statistics, if arg 5 (training).
_SILENT_MUTATIONS: Mapping[str, tuple[int, ...]] = {"native_batch_norm": (3, 4), "cudnn_batch_norm": (3, 4)}

_META = torch.device("meta")


Meta = tuple[tuple[int, ...], tuple[int, ...], torch.dtype, torch.device]  # shape, stride, dtype, device


@dataclass(slots=True)
class Info:
    """What is known of a fake tensor: its slot, interned metadata, storage, and the bytes of it that it spans."""

    slot: int
    meta: int
    storage: int
    lo: int
    hi: int


class _StorageRef(weakref.ref[Any]):
    """A weak reference that knows which storage it watches."""

    __slots__ = ("storage",)
    storage: int


@dataclass(slots=True)
class Fresh:
    """An output in new memory."""

    shape: tuple[int, ...]
    stride: tuple[int, ...]
    dtype: torch.dtype
    device: torch.device
    storage_bytes: int
    meta: int
    span: int


@dataclass(slots=True)
class Alias:
    """An output that looks at the memory of input `of`, `shift` elements further on."""

    of: int
    shift: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]
    dtype: torch.dtype
    meta: int
    span: int


@dataclass(slots=True)
class OpSignature:
    """Everything about an op that depends only on its shapes and scalars."""

    call: Call
    op_type: OpType
    reads: tuple[int, ...]  # tensor positions whose data it reads
    writes: tuple[int, ...]  # tensor positions that it mutates
    outputs: tuple[Fresh | Alias | int | None, ...]  # int: the input itself
    sequence: type[Any] | None  # tuple or list, None: a single tensor
    view: bool
    random: bool
    replayable: bool  # its outputs can be made from this entry alone


class _Sources:
    """The tensors that an op reads, by identity and by storage: an optimizer's foreach op has thousands."""

    def __init__(self, tensors: Sequence[Any]) -> None:
        self.tensors = tensors
        self._position = {id(t): k for k, t in reversed(list(enumerate(tensors)))}
        self._by_storage: dict[int, int] | None = None

    def same(self, out: object) -> int | None:
        """The first position at which an output is an input itself."""
        return self._position.get(id(out))

    def sharing(self, out: torch.Tensor) -> int | None:
        """The first position of an input whose storage an output shares."""
        if self._by_storage is None:
            self._by_storage = {storage_key(t): k for k, t in reversed(list(enumerate(self.tensors)))}
        return self._by_storage.get(storage_key(out))


@dataclass(frozen=True, slots=True)
class _Happening:
    """An op that occurs for the first time: its call, what it gave, and which of its tensors it writes and reads."""

    func: OpOverload
    args: tuple[object, ...]
    kwargs: Mapping[str, object]
    out: object
    sources: _Sources
    outputs: tuple[torch.Tensor, ...]
    writes: tuple[int, ...]
    view: bool
    reads: tuple[int, ...]

    @property
    def results(self) -> list[torch.Tensor]:
        """The tensors among its outputs."""
        return [o for o in self.outputs if isinstance(o, torch.Tensor)]


@dataclass(frozen=True, slots=True)
class Frame:
    """One call of a module: the `number`-th of its path. `caller` is the frame that it ran in, -1 outside any."""

    path: str
    number: int
    caller: int


@dataclass(slots=True)
class Record:
    """One op as it happened. `node` is the sequence number of the autograd node that ran it: -1 outside the engine, -2
    for the engine itself, adding cotangents. `recalled`: it ran in a module that the backward called."""

    entry: int
    inputs: tuple[Info, ...]
    outputs: tuple[Info | None, ...]
    frame: int  # index into Recorder.frames of the innermost running call of a module, -1 outside any
    node: int
    node_frame: int
    recalled: bool
    grad_enabled: bool
    in_optimizer: bool
    rng: int


class Recorder(DispatchMode):
    """Writes down the ops of everything that runs inside it.

    `layouts`: the step is one of a GPU, whose convolutions need no second word on how images lie. `watch` hears how
    many ops there are. `frames` are calls of modules; use `enter_module`/`exit_module` as forward hooks. `declare`
    names a tensor that exists before the step.
    """

    def __init__(self, fake: FakeTensorMode, *, layouts: bool = False, watch: StepWatch | None = None) -> None:
        super().__init__()
        self.fake = fake
        self._watch = watch
        self.layouts = layouts
        self.frames: list[Frame] = []
        self.entries: list[OpSignature] = []
        self.records: list[Record] = []
        self.storage_bytes: list[int] = []
        self.born: list[int] = []
        self.freed: dict[int, int] = {}
        self.storage_of_slot: list[int] = []
        self.externals: dict[int, str] = {}
        self.constants: dict[int, Any] = {}
        self.in_optimizer = False
        self.python_calls: dict[tuple[str, str], int] = {}  # by "forward" or "backward", and what was called
        self._entry_of: dict[Hashable, int] = {}
        self._ordinary: dict[int, OpOverload] = {}  # by id, which takes no hash: functions that nothing is asked of
        self._metas: dict[Meta, int] = {}
        self._alive: dict[int, _StorageRef] = {}
        self._twins: dict[torch.device, dict[str, Any]] = {}  # attributes of a fake tensor of each device
        self._calls: dict[str, int] = {}  # how often each module was called so far
        self.input_shapes: dict[str, tuple[int, ...] | None] = {}  # of each module's first call
        self.output_shapes: dict[str, tuple[int, ...] | None] = {}
        self._stack: list[int] = []
        self._raised_in = -1  # the frame from which an exception is on its way out
        self._depth_outside = 0
        self._frame_of_node: dict[int, int] = {}
        self._rng_tokens: dict[bytes, int] = {}
        self._constant_infos: dict[int, tuple[Any, Info, Any]] = {}
        self.trained_states: Mapping[int, torch.Tensor] = {}  # by id: the network's forward asks for their gradient
        self.values: dict[int, torch.Tensor] = {}  # the numbers in small storages that no input decides
        self.answers: Mapping[Question, Sequence[Any]] = {}  # to what the network asks its tensors, on its real inputs
        self.answered_at = ""  # the first line that asked for what its inputs decide
        self.optimizer_asked = False  # whether the optimizer asked its tensors for numbers that nothing tells
        self._rows_by_mask: dict[int, torch.Tensor] = {}  # by its slot: what is set in a mask on the real inputs
        self._asked: Counter[Question] = Counter()  # since its forward began
        self._sparse = False  # whether a sparse tensor was ever made
        self.merged_rows = False  # whether rows of one were added up where they are the same
        self._references_to_summed = references_to_summed()
        self._emptied: set[int] = set()  # storages that `resize_(0)` let go while tensors still look at them

    # ---- what the tracer tells us

    def enter_module(self, path: str) -> None:
        if not path:
            self._asked.clear()
        number = self._calls[path] = self._calls.get(path, 0) + 1
        caller = self._stack[-1] if self._stack else -1
        frame = Frame(path, number, caller)  # made first: a recursion without end may stop anywhere here
        self.frames.append(frame)
        self._stack.append(len(self.frames) - 1)
        self._raised_in = -1

    def exit_module(self, by_exception: bool = False) -> None:
        """Leave the module that was entered last; by an exception in backward a recomputation is broken off."""
        if not self._stack:
            return
        frame = self._stack.pop()
        if not by_exception:
            self._raised_in = -1  # a module that caught what another raised goes on
        elif self._raised_in < 0 and graph_task_id() == -1:
            self._raised_in = frame

    def declare(self, tensor: torch.Tensor, name: str) -> Info:
        """Name a fake tensor that exists before the step; again for one already known: its first name stays."""
        declared: Info | None = getattr(tensor, "pararev_info", None)
        if declared is not None:
            return declared
        info = self._adopt(tensor, self._storage_of(tensor))
        self.born[info.storage] = -1
        self.externals[info.slot] = name
        return info

    def info(self, tensor: torch.Tensor) -> Info | None:
        return getattr(tensor, "pararev_info", None)

    def end(self) -> None:
        """Nothing more will happen. What watches storages refers to this recorder: without it both go at once."""
        self._alive.clear()

    # ---- storages and slots

    def _storage_of(self, tensor: torch.Tensor) -> int:
        """A new storage id for the memory of `tensor`, watched until it dies."""
        storage = tensor.untyped_storage()
        uid = len(self.storage_bytes)
        self.storage_bytes.append(storage.nbytes())
        self.born.append(len(self.records) if self._running else -1)
        ref = _StorageRef(storage, self._on_free)
        ref.storage = uid
        self._alive[uid] = ref
        return uid

    _running = False

    def __enter__(self) -> Recorder:
        super().__enter__()
        self._running = True
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._running = False
        super().__exit__(kind, error, trace)

    def _on_free(self, ref: weakref.ref[Any]) -> None:
        if self._running and isinstance(ref, _StorageRef) and ref.storage not in self._emptied:
            self.freed[ref.storage] = len(self.records)
        # after the step nothing more is written down: what is alive then outlives it

    @property
    def metas(self) -> tuple[Meta, ...]:
        """What the numbers in `Info.meta` stand for."""
        return tuple(self._metas)

    def _meta(self, tensor: torch.Tensor) -> int:
        key = (tuple(tensor.shape), tensor.stride(), tensor.dtype, tensor.device)
        return self._metas.setdefault(key, len(self._metas))

    def _adopt(self, tensor: torch.Tensor, storage: int) -> Info:
        lo = int(tensor.storage_offset()) * tensor.element_size()
        span = _span(tensor.shape, tensor.stride(), tensor.dtype)
        info = Info(len(self.storage_of_slot), self._meta(tensor), storage, lo, lo + span)
        self.storage_of_slot.append(storage)
        tensor.pararev_info = info  # type: ignore[attr-defined]
        return info

    def _constant(self, tensor: torch.Tensor) -> Any:
        """The fake twin of a real tensor that the network's code brought along."""
        constant_info = self._constant_infos.get(id(tensor))
        if constant_info is not None:
            return constant_info[2]
        if tensor.requires_grad and tensor.is_leaf and id(tensor) not in self.trained_states:
            raise TraceError(
                f"a trainable tensor of shape {tuple(tensor.shape)} is used that is no parameter of the network"
                f"{self._where()}: register it as nn.Parameter, or reset the state that an earlier call left"
            )
        twin = self.fake.from_tensor(tensor.detach())
        info = self._adopt(twin, self._storage_of(twin))
        self.born[info.storage] = -1
        self.constants[info.slot] = tensor.detach()
        self.remember_value(info, tensor)
        self._constant_infos[id(tensor)] = (tensor, info, twin)
        return twin

    def _lifted(self, tensor: torch.Tensor) -> Any:
        """The fake twin of a literal (`torch.tensor(3.0)`), which keeps its value where that is small."""
        twin = self._run_fake(_LIFT_FRESH, (tensor,), {})
        info = self._adopt(twin, self._storage_of(twin))
        self.born[info.storage] = -1
        self.constants[info.slot] = tensor
        self.remember_value(info, tensor)
        return twin

    def remember_value(self, info: Info, tensor: torch.Tensor) -> None:
        """Keep the numbers of a tensor that is the same whatever the input, where they are few."""
        if tensor.numel() <= _FEW and tensor.device.type == "cpu" and tensor.layout is torch.strided:
            self.values[info.storage] = tensor.detach().clone(memory_format=torch.preserve_format)

    def storage_resized(self, storage: Any, nbytes: int) -> None:
        """`storage.resize_` was called, which no dispatch mode sees: at 0 bytes the memory is gone."""
        if nbytes == 0 and storage.nbytes() > 0:
            for uid, ref in self._alive.items():
                if ref() is storage:
                    self.freed[uid] = len(self.records)
                    self._emptied.add(uid)

    # ---- the ops

    def __torch_dispatch__(
        self,
        func: OpOverload,
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, object] | None = None,
    ) -> Any:
        if self._sparse or id(func) not in self._ordinary:
            if func is _PRIM_DEVICE:
                return args[0].fake_device
            if func.namespace in ("profiler", "prim"):
                return func(*args, **(kwargs or {}))
            if func is _LIFT_FRESH and not isinstance(args[0], FakeTensor):
                return self._lifted(args[0])
            if func is _SET and isinstance(args[0], FakeTensor) and isinstance(args[1], FakeTensor):
                return self._looks_elsewhere(args[0], args[1])
            if func is ASKS and (number := self._answer(args[0])) is not None:
                return number
            if func in sparse_gradients.MAKERS:
                self._sparse |= sparse_gradients.makes_sparse(func, args)
            if self._sparse and (sparse_gradients.makes_sparse(func, args) or sparse_gradients.has_sparse(args)):
                return sparse_gradients.run(self, func, args, kwargs or {})
            if func is _ADD and self._adds_in_place(args):
                func = _ADD_IN_PLACE
            elif func in _IN_PLACE and self._overwrites_own(func, args):
                func = _IN_PLACE[func]
            if func in INDEXED:
                args = self._by_rows(func, args)
            elif func not in _TOLD_APART and (tells_values(func) or shaped_by_values(func)):
                answer = None if func is ASKS else self._decided_answer(str(func))
                if answer is not None:
                    return answer if tells_values(func) else self._on_its_inputs(func, args, kwargs or {}, answer)
            elif func not in _TOLD_APART:
                self._ordinary[id(func)] = func
        tensors: list[Any] = []
        key: Hashable = _flatten(args, tensors)
        if kwargs:
            key = (key, tuple(kwargs), _flatten(tuple(kwargs.values()), tensors))
        for k, t in enumerate(tensors):
            if type(t) is not FakeTensor and not isinstance(t, FakeTensor):
                tensors[k] = self._constant(t)
                args = _replace(args, t, tensors[k])
                kwargs = {name: _replace(value, t, tensors[k]) for name, value in (kwargs or {}).items()}
        try:
            infos: tuple[Info, ...] = tuple([t.pararev_info for t in tensors])
        except AttributeError:
            infos = tuple(map(self._info_of, tensors))
        key = (id(func), key, *[i.meta for i in infos])  # an entry keeps its function
        position = self._entry_of.get(key)
        if position is None:
            return self._first_time(func, args, kwargs or {}, tensors, infos, key)
        entry = self.entries[position]
        if not entry.replayable or any(t.constant is not None for t in tensors):
            out = self._run_fake(func, args, kwargs or {})
            outcomes = self._outcomes(func, _listed(out), _Sources(tensors), infos)
            self._record(position, infos, outcomes, entry.random)
            return out
        results: list[Any] = []
        result_infos: list[Info | None] = []
        for spec in entry.outputs:
            if spec is None:
                results.append(None)
                result_infos.append(None)
            elif isinstance(spec, int):
                results.append(tensors[spec])
                result_infos.append(infos[spec])
            else:
                new = self._fresh(spec) if isinstance(spec, Fresh) else self._alias(spec, tensors, infos)
                results.append(new[0])
                result_infos.append(new[1])
        self._record(position, infos, tuple(result_infos), entry.random)
        return results[0] if entry.sequence is None else entry.sequence(results)

    def _adds_in_place(self, args: tuple[Any, ...]) -> bool:
        """Whether torch, which avoids it under a dispatch mode, would write an addition over its first tensor: a dense
        one that nothing else holds, where the autograd engine sums two gradients (torch/csrc/autograd/input_buffer.cpp)
        or `linear` adds a bias to what it multiplied (aten/src/ATen/native/Linear.cpp)."""
        if len(args) != 2 or not isinstance(args[1], torch.Tensor) or not self._held_once(args):
            return False
        first, second = args
        if first.dtype != second.dtype:
            return False
        if second.dim() == 1 < first.dim() and first.shape[-1] == second.shape[0]:
            return bool(first.is_contiguous())
        if first.shape != second.shape or torch.is_grad_enabled() or graph_task_id() == -1:
            return False
        return _dense(sorted(((n, s) for n, s in zip(first.shape, first.stride(), strict=True) if n > 1), key=_inward))

    def _overwrites_own(self, func: OpOverload, args: tuple[Any, ...]) -> bool:
        """Whether torch, which avoids it under a dispatch mode, would write over the first tensor: the formula of a
        gradient (torch/csrc/autograd/FunctionsManual.cpp) has just made it, zeros to scatter the gradient into."""
        node, info = autograd_node(), self.info(args[0])
        if node is None or info is None or torch.is_grad_enabled() or isinstance(node, BackwardCFunction):
            return False
        made_by = self.born[info.storage]
        if not 0 <= made_by < len(self.records) or self.records[made_by].node != sequence_nr(node):
            return False
        if func in _OF_LOSS:
            return bool(node.name().startswith("BinaryCrossEntropyWithLogits"))
        return "zeros" in self.entries[self.records[made_by].entry].op_type.name

    def _held_once(self, args: tuple[Any, ...]) -> bool:
        return references(args) == self._references_to_summed

    def record_view(
        self,
        func: OpOverload,
        args: tuple[object, ...],
        kwargs: Mapping[str, object],
        tensors: Sequence[torch.Tensor],
        out: Any,
        of: int,
        op_type: OpType,
    ) -> None:
        """Write down an op whose output, of a kind without memory of its own, stands for the memory of tensor `of`."""
        infos = tuple(map(self._info_of, tensors))
        source, base = tensors[of], infos[of]
        info = Info(len(self.storage_of_slot), base.meta, base.storage, base.lo, base.hi)
        self.storage_of_slot.append(base.storage)
        out.pararev_info = info
        shape, stride = tuple(source.shape), source.stride()
        spec = Alias(of, 0, shape, stride, source.dtype, base.meta, base.hi - base.lo)
        call = Call(func, _holes(args, count := [0]), {k: _holes(v, count) for k, v in kwargs.items()})
        self._write_down(OpSignature(call, op_type, (), (), (spec,), None, True, False, False), infos, (info,))

    def record_new(
        self, func: Callable[..., Any], args: tuple[object, ...], out: Any, holds: Any, op_type: OpType
    ) -> None:
        """Write down an op whose output, of a kind without memory of its own, stands for `holds` and its new memory."""
        tensors: list[torch.Tensor] = []
        _flatten(args, tensors)
        infos = tuple(map(self._info_of, tensors))
        info = out.pararev_info = self._adopt(holds, self._storage_of(holds))
        reads, call = tuple(range(len(tensors))), Call(func, _holes(args, [0]), {})
        spec = self._spec(holds, _Sources([]))
        self._write_down(OpSignature(call, op_type, reads, (), (spec,), None, False, False, False), infos, (info,))

    def record_part(self, func: OpOverload, out: Any, part: Any) -> None:
        """Write down an op that gives `part`, which lies in the memory that `out` stands for."""
        whole = self._info_of(out)
        info = self._adopt(part, whole.storage)
        shape, stride = tuple(part.shape), part.stride()
        spec = Alias(0, int(part.storage_offset()), shape, stride, part.dtype, info.meta, info.hi - info.lo)
        type_ = OpType(str(func), "view", str(part.dtype).removeprefix("torch."), (shape,), (shape,), (), 0, 0, 0, 0)
        self._write_down(
            OpSignature(Call(func, (Hole(0),), {}), type_, (), (), (spec,), None, True, False, False), (whole,), (info,)
        )

    def record_write(
        self,
        func: OpOverload,
        args: Sequence[object],
        kwargs: Mapping[str, object],
        tensors: Sequence[torch.Tensor],
        op_type: OpType,
    ) -> None:
        """Write down an op that changes its first tensor and reads the others."""
        infos = tuple(map(self._info_of, tensors))
        call = Call(func, _holes(tuple(args), count := [0]), {k: _holes(v, count) for k, v in kwargs.items()})
        reads = tuple(range(len(tensors)))
        self._write_down(OpSignature(call, op_type, reads, (0,), (0,), None, False, False, False), infos, infos[:1])

    def _write_down(self, entry: OpSignature, inputs: tuple[Info, ...], outputs: tuple[Info | None, ...]) -> None:
        self.entries.append(entry)
        self._record(len(self.entries) - 1, inputs, outputs, False, on_sparse=True)

    def _looks_elsewhere(self, tensor: Any, source: Any) -> Any:
        """`tensor.set_(source)`: from here on `tensor` is a view of `source`, and what it looked at is let go."""
        alias = self.__torch_dispatch__(_DETACH, (), (source,))
        self._run_fake(_SET, (tensor, source), {})
        tensor.pararev_info = alias.pararev_info
        return tensor

    def _number(self, tensor: torch.Tensor) -> Any:
        """The number in a tensor of one element that no input decides, None where it is not known."""
        if not isinstance(tensor, FakeTensor):
            return tensor.item()  # a real tensor that the network's code brought along
        info = getattr(tensor, "pararev_info", None)
        if info is None or info.storage not in self.values or tensor.numel() != 1:
            return None
        value = self.values[info.storage]
        place = int(tensor.storage_offset())
        flat = value.flatten()
        return flat[place].item() if tensor.dtype == value.dtype and place < flat.numel() else None

    def _answer(self, tensor: torch.Tensor) -> Any:
        """The number that the network asks a tensor for, None where nothing tells it."""
        answer = self._next_answer(str(ASKS))
        number = self._number(tensor)
        if number is None and answer is not None:
            self.answered_at = self.answered_at or self._where()
        return answer if number is None else number

    def by_method(self, name: str, tensor: torch.Tensor, method: Callable[[torch.Tensor], Any]) -> Any:
        """What a method of a tensor gives that asks for its numbers. Raises ValueAsked where nothing tells them."""
        answer = self._next_answer(name)
        if not isinstance(tensor, FakeTensor):
            return method(tensor)
        info = self.info(tensor)
        if info is not None and info.storage in self.values and self.values[info.storage].dtype == tensor.dtype:
            return method(self._whole(info).clone())
        if answer is None:
            raise ValueAsked(
                f"tensor.{name}() asks for values that exist only when the network really runs{self._where()}: "
                "compute with tensors instead, or the inputs must be real"
            )
        self.answered_at = self.answered_at or self._where()
        return copy.deepcopy(answer)

    def _next_answer(self, asked: str) -> Any:
        """That to the next question at this line of the network's code, on its real inputs; None where it is not known.

        By lines, as some functions of torch's ask real tensors alone. `asked`: the op or method that asks.
        """
        if not self.answers:
            return None
        question = source_line(), asked
        place = self._asked[question]
        self._asked[question] += 1
        answers = self.answers.get(question, ())
        return answers[place] if place < len(answers) else None

    def _decided_answer(self, asked: str) -> Any:
        """As `_next_answer`, of what the inputs decide."""
        answer = self._next_answer(asked)
        if answer is not None:
            self.answered_at = self.answered_at or self._where()
        return answer

    def _on_its_inputs(
        self,
        func: OpOverload,
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
        on_inputs: torch.Tensor | tuple[Any, ...],
    ) -> Any:
        """An op the shapes of whose outputs depend on values, written down as giving those on the real inputs.

        How many samples each time step of a packed sequence has stays a tensor with numbers: kernels read it.
        """
        tensors: list[Any] = []
        _flatten((args, tuple(kwargs.values())), tensors)
        tensors = [t if isinstance(t, FakeTensor) else self._constant(t) for t in tensors]
        outputs = on_inputs if isinstance(on_inputs, tuple) else (on_inputs,)
        lead = next((t for t in tensors if t.is_floating_point()), None)
        device = tensors[0].fake_device
        numbers = outputs[1:] if func is PACK else ()
        fakes = tuple([self._like(o, device, lead) for o in outputs[: len(outputs) - len(numbers)]])
        reads = tuple(range(len(tensors)))
        happening = _Happening(func, args, kwargs, fakes, _Sources(tensors), fakes, (), False, reads)
        infos = tuple(map(self._info_of, tensors))
        outcomes = tuple([self._adopt(f, self._storage_of(f)) for f in fakes])
        call = Call(
            OnItsInputs(func, outputs), _holes(args, count := [0]), {k: _holes(v, count) for k, v in kwargs.items()}
        )
        untold = (None,) * len(numbers)
        specs = (*[self._spec(f, _Sources([])) for f in fakes], *untold)
        sequence = tuple if isinstance(on_inputs, tuple) else None
        entry = OpSignature(call, self._op_type(happening), reads, (), specs, sequence, False, False, False)
        self._write_down(entry, infos, (*outcomes, *untold))
        return (*fakes, *numbers) if sequence else fakes[0]

    def _like(self, tensor: torch.Tensor, device: torch.device, lead: Any) -> Any:
        """A fake tensor like a real one, in the precision of the step."""
        dtype = lead.dtype if lead is not None and tensor.is_floating_point() else tensor.dtype
        elem = torch.empty_strided(tensor.shape, tensor.stride(), dtype=dtype, device=_META)
        return self._wrapped(elem, device)

    def _by_rows(self, func: OpOverload, args: tuple[Any, ...]) -> tuple[Any, ...]:
        """The arguments of an op that takes indices, each mask among them as the rows and columns that are set in it,
        which is how kernels read them (aten/src/ATen/native/IndexingUtils.h), where those are known."""
        masks = {}
        for k in masks_of(func, args):
            mask = args[1][k] if isinstance(args[1][k], FakeTensor) else self._constant(args[1][k])
            slot = self._info_of(mask).slot
            if graph_task_id() == -1 and (rows := self._decided_answer(str(NONZERO))) is not None:
                self._rows_by_mask[slot] = rows
            if slot not in self._rows_by_mask:
                return args
            masks[k] = mask
        indices: list[Any] = []
        for k, index in enumerate(args[1]):
            if k not in masks:
                indices.append(index)
                continue
            rows = self._rows_by_mask[self._info_of(masks[k]).slot]
            places = self._on_its_inputs(NONZERO, (masks[k],), {}, rows)
            indices += [self.__torch_dispatch__(_SELECT, (), (places, 1, d)) for d in range(places.shape[1])]
        return (args[0], indices, *args[2:])

    def _fresh(self, spec: Fresh) -> tuple[FakeTensor, Info]:
        elem = torch.empty_strided(spec.shape, spec.stride, dtype=spec.dtype, device=_META)
        uid = len(self.storage_bytes)
        self.storage_bytes.append(spec.storage_bytes)
        self.born.append(len(self.records))
        ref = _StorageRef(elem.untyped_storage(), self._on_free)
        ref.storage = uid
        self._alive[uid] = ref
        return self._new_fake(elem, spec.device, Info(len(self.storage_of_slot), spec.meta, uid, 0, spec.span))

    def _alias(self, spec: Alias, tensors: Sequence[FakeTensor], infos: Sequence[Info]) -> tuple[FakeTensor, Info]:
        base = tensors[spec.of]
        offset = int(base.storage_offset()) + spec.shift
        elem = torch.empty(0, dtype=spec.dtype, device=_META).set_(
            base.untyped_storage(), offset, spec.shape, spec.stride
        )
        lo = offset * spec.dtype.itemsize
        info = Info(len(self.storage_of_slot), spec.meta, infos[spec.of].storage, lo, lo + spec.span)
        return self._new_fake(elem, base.fake_device, info)

    def _new_fake(self, elem: torch.Tensor, device: torch.device, info: Info) -> tuple[FakeTensor, Info]:
        self.storage_of_slot.append(info.storage)
        t = self._wrapped(elem, device)
        t.pararev_info = info
        return t, info

    def _wrapped(self, elem: torch.Tensor, device: torch.device) -> Any:
        twin = self._twins.get(device)
        if twin is None:
            twin = self._twins[device] = dict(FakeTensor(self.fake, torch.empty(0, device=_META), device).__dict__)
        # what FakeTensor's constructor does, without its checks: half of the time of an op would go there
        t = as_fake(elem, device)
        t.__dict__.update(twin)
        return t

    def _by_meta_kernel(
        self, func: OpOverload, args: tuple[object, ...], kwargs: Mapping[str, object], tensors: Sequence[Any]
    ) -> Any:
        """What `_run_fake` gives, where that takes no more than a kernel for the meta device; else NotImplemented."""
        out = meta_outputs(func, args, kwargs, tensors)
        if out is NotImplemented or out is None:
            return out
        outputs = _listed(out)
        if any(type(o) is not torch.Tensor or o.device != _META for o in outputs):
            return NotImplemented
        wrapped = [self._wrapped(o, tensors[0].fake_device) for o in outputs]
        return type(out)(wrapped) if isinstance(out, tuple | list) else wrapped[0]

    def _info_of(self, tensor: torch.Tensor) -> Info:
        info: Info | None = getattr(tensor, "pararev_info", None)
        if info is None:  # made where no mode saw it: a constant that fake tensors carry along
            info = self._adopt(tensor, self._storage_of(tensor))
            self.born[info.storage] = -1
            constant = getattr(tensor, "constant", None)
            self.constants[info.slot] = constant if constant is not None else tensor
        return info

    def _run_fake(self, func: OpOverload, args: tuple[object, ...], kwargs: Mapping[str, object]) -> Any:
        try:
            with self.fake:
                return func(*args, **kwargs)
        except DataDependentOutputException as error:
            if func is ASKS and self.in_optimizer and isinstance(args[0], torch.Tensor) and args[0].is_floating_point():
                self.optimizer_asked = True
                return 1.0  # a scale of the update: no optimizer of torch's decides by it which ops it runs
            raise ValueAsked(
                f"{func} asks for a value that exists only when the network really runs{self._where()}: "
                "control flow must not depend on tensor values (use torch.where), or the inputs must be real"
            ) from error
        except DynamicOutputShapeException as error:
            raise ValueAsked(
                f"the shape of what {func} gives depends on tensor values{self._where()}: use a form of fixed "
                "shape, or the inputs must be real"
            ) from error
        except UnsupportedOperatorException as error:
            raise TraceError(f"{func} has no shape rule{self._where()}: register a fake implementation") from error

    def _first_time(
        self,
        func: OpOverload,
        args: tuple[object, ...],
        kwargs: Mapping[str, object],
        tensors: list[torch.Tensor],
        infos: tuple[Info, ...],
        key: Hashable,
    ) -> Any:
        out = self._by_meta_kernel(func, args, kwargs, tensors)
        if out is NotImplemented:
            out = self._run_fake(func, args, kwargs)
        base, sources = base_name(str(func)), _Sources(tensors)
        out = self._laid_out(base, sources, out)
        outputs = _listed(out)
        written_positions = _written_positions(func, args, kwargs)
        specs = tuple(self._spec(o, sources) for o in outputs)
        aliases = [s for s in specs if isinstance(s, int | Alias)]
        view = not written_positions and bool(aliases) and len(aliases) == len([s for s in specs if s is not None])
        random = torch.Tag.nondeterministic_seeded in func.tags
        # an as_strided view's offset does not move with its base; set_ and resize_ change metadata in place
        replayable = (
            base not in ("as_strided", "set", "resize", "resize_as")
            and torch.Tag.inplace_view not in func.tags
            and all(o is None or (isinstance(o, FakeTensor) and o.layout is torch.strided) for o in outputs)
            and isinstance(out, FakeTensor | tuple | list | type(None))
            and all(t.layout is torch.strided for t in tensors)
        )
        reads = tuple(k for k in range(len(tensors)) if not (k in written_positions and base in formulas.OVERWRITES))
        happening = _Happening(func, args, kwargs, out, sources, outputs, written_positions, view, reads)
        entry = OpSignature(
            call=Call(func, _holes(args, count := [0]), {k: _holes(v, count) for k, v in kwargs.items()}),
            op_type=self._op_type(happening),
            reads=() if view or base in ALLOCATES_ONLY else reads,
            writes=written_positions,
            outputs=specs,
            sequence=None if not isinstance(out, tuple | list) else type(out),
            view=view,
            random=random,
            replayable=replayable,
        )
        position = len(self.entries)
        self.entries.append(entry)
        self._entry_of[key] = position
        self._record(position, infos, self._outcomes(func, outputs, sources, infos), random)
        return out

    def _laid_out(self, base: str, sources: _Sources, out: Any) -> Any:
        """What the op of that name gives, laid out as its kernel does."""
        if isinstance(out, tuple | list):
            return type(out)([self._laid_out(base, sources, o) for o in out])
        if type(out) is not FakeTensor or out.dim() < 2 or out.layout is not torch.strided:
            return out
        if sources.same(out) is not None:
            return out
        stride = kernel_strides(base, sources.tensors, out)
        if stride == out.stride():
            return out
        elem = torch.empty_strided(out.shape, stride, dtype=out.dtype, device=_META)
        return self._wrapped(elem, out.fake_device)

    def _outcomes(
        self, func: OpOverload, outputs: tuple[torch.Tensor, ...], sources: _Sources, infos: tuple[Info, ...]
    ) -> tuple[Info | None, ...]:
        """The infos of an op's outputs. What `transpose_` and its like give is the tensor that they were given, which
        from here on looks at its memory in another way: another slot."""
        if torch.Tag.inplace_view in func.tags and sources.tensors:
            changed = sources.tensors[0]
            changed.pararev_info = self._adopt(changed, infos[0].storage)
            infos = (changed.pararev_info, *infos[1:])
        return tuple([self._outcome(o, sources, infos) for o in outputs])

    def _outcome(self, out: object, sources: _Sources, infos: tuple[Info, ...]) -> Info | None:
        """The info of an output: an input's own, one that shares an input's storage, or a new one."""
        if not isinstance(out, torch.Tensor):
            return None
        k = sources.same(out)
        if k is not None:
            return infos[k]
        k = sources.sharing(out)
        return self._adopt(out, self._storage_of(out) if k is None else infos[k].storage)

    def _spec(self, out: object, sources: _Sources) -> Fresh | Alias | int | None:
        if not isinstance(out, torch.Tensor):
            return None
        k = sources.same(out)
        if k is not None:
            return k
        shape, stride = tuple(out.shape), out.stride()
        span = _span(shape, stride, out.dtype)
        k = sources.sharing(out)
        if k is not None:
            offset = out.storage_offset() - sources.tensors[k].storage_offset()
            return Alias(k, offset, shape, stride, out.dtype, self._meta(out), span)
        nbytes = out.untyped_storage().nbytes()
        return Fresh(shape, stride, out.dtype, out.device, nbytes, self._meta(out), span)

    def _op_type(self, op: _Happening) -> OpType:
        tensors, results = op.sources.tensors, op.results
        shapes = tuple(tuple(o.shape) for o in results) or tuple(tuple(tensors[k].shape) for k in op.writes)
        inputs = tuple(tuple(t.shape) for t in tensors)
        arguments = _named_arguments(op.func, op.args, op.kwargs)
        kind, flops, vector_flops = _work(op, inputs, shapes, arguments)
        read_bytes, write_bytes = _moved_bytes(op)
        lead = results[0] if results else tensors[0] if tensors else None
        if kind in ("conv", "conv_backward"):
            arguments["scattered"] = tuple(k for k in op.reads if not in_one_piece(tensors[k])) or None
            if not self.layouts:
                arguments["channels_last"] = _positions_channels_last(tensors) or None
        arguments["copied_bytes"] = None if op.view else copied_bytes(op.func, op.args, tensors, lead) or None
        arguments["library_copied_bytes"] = library_copied_bytes(op.func, tensors) or None
        if not op.view:
            for name, several in (("layout", tensors), ("output_layout", results)):
                layouts = tuple(memory_layout(t.shape, t.stride()) for t in several)
                if any(layouts):
                    arguments[name] = layouts
        return OpType(
            name=str(op.func),
            kind=kind,
            dtype=str(lead.dtype).removeprefix("torch.") if lead is not None else "none",
            input_shapes=inputs,
            output_shapes=shapes,
            attributes=tuple(sorted((n, v) for n, v in ((n, _ints(v)) for n, v in arguments.items()) if v is not None)),
            flops=flops,
            vector_flops=vector_flops,
            read_bytes=read_bytes,
            write_bytes=write_bytes,
        )

    def _record(
        self,
        entry: int,
        inputs: tuple[Info, ...],
        outputs: tuple[Info | None, ...],
        random: bool,
        on_sparse: bool = False,
    ) -> None:
        frame = self._stack[-1] if self._stack else -1
        node, node_frame, recalled = -1, -1, False
        grad_enabled = torch.is_grad_enabled()
        if graph_task_id() == -1:
            self._depth_outside = len(self._stack)
        else:
            running = autograd_node()
            node = sequence_nr(running) if running is not None else -2
            node = -2 if node == NO_SEQUENCE else node
            node_frame = self._frame_of_node.get(node, -1)
            recalled = len(self._stack) > self._depth_outside
        # an op's node is made just before the op is dispatched, a custom function's before its forward runs
        self._frame_of_node.setdefault(next_sequence_nr() - 1, frame if frame >= 0 else node_frame)
        rng = self._rng_token() if random else -1
        if self.values or not inputs:
            self._carry_values(entry, inputs, outputs, random or on_sparse)
        self.records.append(
            Record(entry, inputs, outputs, frame, node, node_frame, recalled, grad_enabled, self.in_optimizer, rng)
        )
        if self._watch is not None and len(self.records) % EVERY == 0:
            self._watch.recorded(len(self.records), len(self.frames), len(self._calls), graph_task_id() != -1)

    def _carry_values(
        self, entry: int, inputs: tuple[Info, ...], outputs: tuple[Info | None, ...], unknown: bool
    ) -> None:
        """A number computed from such numbers alone, or from none, is one itself; one that is overwritten is none any
        more."""
        signature = self.entries[entry]
        values = self.values
        numbers = not unknown and not signature.writes and all(i.storage in values for i in inputs)
        numbers &= bool(inputs) or base_name(signature.op_type.name) in _FACTORIES
        if numbers and not signature.view and len(outputs) == 1 and outputs[0] is not None:
            spec = signature.outputs[0]
            if isinstance(spec, Fresh) and math.prod(spec.shape) <= _FEW:
                values[outputs[0].storage] = _result(signature.call, [self._whole(i) for i in inputs]).detach()
        if signature.writes:
            self._overwrite_values(signature, inputs, unknown)

    def _overwrite_values(self, signature: OpSignature, inputs: tuple[Info, ...], unknown: bool) -> None:
        """Numbers that an op changes in place: a counter goes on counting."""
        values = self.values
        written = {inputs[k].storage for k in signature.writes}
        if written.isdisjoint(values):
            return
        if unknown or not all(i.storage in values and values[i.storage].is_contiguous() for i in inputs):
            for storage in written:
                values.pop(storage, None)
            return
        for storage in written:
            values[storage] = values[storage].clone()
        _result(signature.call, [self._whole(i) for i in inputs])

    def _whole(self, info: Info) -> torch.Tensor:
        """The numbers that a tensor looks at."""
        shape, stride, dtype, _ = self.metas[info.meta]
        value = self.values[info.storage]
        return value.flatten().as_strided(shape, stride, info.lo // dtype.itemsize)

    def _rng_token(self) -> int:
        """Equal for two draws that start from the same generator state. The state then moves on, as a draw moves it."""
        state = array_of(torch.default_generator.get_state()).tobytes()
        token = self._rng_tokens.setdefault(state, len(self._rng_tokens))
        torch.default_generator.manual_seed(token + 1)
        return token

    def where_raised(self, error: BaseException) -> str:
        """The module that was running when `error` was raised, and the user's line."""
        return self._running_module() + user_line(error.__traceback__)

    def _where(self) -> str:
        """ " in module 'x' (net.py:12)": the running module and the user's line."""
        return self._running_module() + user_line()

    def _running_module(self) -> str:
        frame = self._stack[-1] if self._raised_in < 0 and self._stack else self._raised_in
        path = self.frames[frame].path if frame >= 0 else ""
        return f" in module {path!r}" if path else ""


_PRIM_DEVICE = torch.ops.prim.device.default
_LIFT_FRESH = torch.ops.aten.lift_fresh.default
_SET = torch.ops.aten.set_.source_Tensor
_SELECT = torch.ops.aten.select.int
_DETACH = torch.ops.aten.detach.default
_ADD, _ADD_IN_PLACE = torch.ops.aten.add.Tensor, torch.ops.aten.add_.Tensor
_OF_LOSS = {
    torch.ops.aten.sub.Tensor: torch.ops.aten.sub_.Tensor,
    torch.ops.aten.mul.Tensor: torch.ops.aten.mul_.Tensor,
}
_IN_PLACE = _OF_LOSS | {
    torch.ops.aten.scatter.src: torch.ops.aten.scatter_.src,
    torch.ops.aten.scatter_add.default: torch.ops.aten.scatter_add_.default,
    torch.ops.aten.index_add.default: torch.ops.aten.index_add_.default,
    torch.ops.aten.index_fill.int_Tensor: torch.ops.aten.index_fill_.int_Tensor,
    torch.ops.aten.index_put.default: torch.ops.aten._index_put_impl_.default,
    torch.ops.aten.put.default: torch.ops.aten.put_.default,
}
_TOLD_APART = frozenset({_ADD, _LIFT_FRESH, _SET, *_IN_PLACE, *INDEXED, *sparse_gradients.MAKERS})
_FACTORIES = frozenset({"ones", "zeros", "full", "scalar_tensor", "arange", "linspace", "eye"})
_FEW = 16  # elements of a constant whose numbers are kept


def _result(call: Call, tensors: Sequence[torch.Tensor]) -> Any:
    """What a call on real tensors gives."""

    def filled(value: object) -> Any:
        if isinstance(value, Hole):
            return tensors[value.index]
        if isinstance(value, list | tuple):
            return type(value)(filled(v) for v in value)
        return value

    return call.function(*filled(call.args), **{k: filled(v) for k, v in call.kwargs.items()})


def _work(
    op: _Happening,
    inputs: tuple[tuple[int, ...], ...],
    shapes: tuple[tuple[int, ...], ...],
    arguments: Mapping[str, object],
) -> tuple[str, int, int | None]:
    """Kind, flops and vector flops."""
    name = str(op.func)
    if op.view or torch.Tag.inplace_view in op.func.tags:
        return "view", 0, 0
    count = flop_formulas().get(op.func.overloadpacket)
    if count is not None:
        return formulas.matrix_kind(name) or "gemm", int(count(*op.args, **op.kwargs, out_val=op.out)), 0
    kind, vector_flops = formulas.describe(name, torch.Tag.pointwise in op.func.tags, inputs, shapes, arguments)
    return kind, formulas.product_flops(name, inputs), vector_flops


def _moved_bytes(op: _Happening) -> tuple[int, int]:
    """Bytes that it reads and writes."""
    base, tensors = base_name(str(op.func)), op.sources.tensors
    if base in ALLOCATES_ONLY:
        return 0, 0
    fresh = [o for o in op.results if op.sources.same(o) is None]
    write_bytes = 0 if op.view else sum(map(_touched_bytes, [*fresh, *(tensors[k] for k in op.writes)]))
    if base in formulas.READS_SELECTED:
        return write_bytes + sum(_touched_bytes(t) for t in tensors if not t.is_floating_point()), write_bytes
    if base in EMBEDDING_BAGS:
        rows = tensors[1].numel() * tensors[0].shape[-1] * tensors[0].element_size()
        return rows + sum(_touched_bytes(t) for t in tensors[1:]), write_bytes
    return 0 if op.view else sum(_touched_bytes(tensors[k]) for k in op.reads), write_bytes


def _flatten(value: tuple[Any, ...], tensors: list[torch.Tensor]) -> Any:
    """A hashable picture of arguments, tensors moved into `tensors`. Scalars keep their type: 1, 1.0, True differ."""
    key: list[Any] = []
    for a in value:
        if a.__class__ is FakeTensor or isinstance(a, torch.Tensor):
            tensors.append(a)
            key.append(_TENSOR)
        elif a.__class__ is list or a.__class__ is tuple or isinstance(a, list | tuple):
            key.append(_flatten(tuple(a), tensors))
        elif a.__class__ is float or a.__class__ is bool:
            key.append((a.__class__, a))
        elif isinstance(a, torch.Generator):
            key.append("generator")
        else:
            key.append(a)
    return tuple(key)


_TENSOR = object()


def _holes(value: object, count: list[int]) -> Any:
    if isinstance(value, torch.Tensor):
        count[0] += 1
        return Hole(count[0] - 1)
    if isinstance(value, list | tuple):
        return tuple(_holes(v, count) for v in value) if isinstance(value, tuple) else [_holes(v, count) for v in value]
    return None if isinstance(value, torch.Generator) else value


def _replace(value: object, old: object, new: object) -> Any:
    if value is old:
        return new
    if isinstance(value, tuple):
        return tuple(_replace(v, old, new) for v in value)
    return [_replace(v, old, new) for v in value] if isinstance(value, list) else value


def _listed(out: object) -> tuple[Any, ...]:
    return tuple(out) if isinstance(out, list | tuple) else (out,)


def _span(shape: Sequence[int], stride: Sequence[int], dtype: torch.dtype) -> int:
    """Bytes from the first to the last element, both included."""
    if any(n == 0 for n in shape):
        return 0
    return (1 + sum((n - 1) * s for n, s in zip(shape, stride, strict=True))) * dtype.itemsize


def _touched_bytes(tensor: torch.Tensor) -> int:
    """Bytes of distinct elements: a dimension that was expanded counts once."""
    if tensor.layout is not torch.strided:
        return tensor.numel() * tensor.element_size()
    count = 1
    for n, s in zip(tensor.shape, tensor.stride(), strict=True):
        count *= n if s != 0 or n == 0 else 1
    return count * tensor.element_size()


def memory_layout(shape: Sequence[int], stride: Sequence[int]) -> int:
    """How elements lie in memory: 0 densely, the last dimension innermost; 1 channels last; 2 not densely, but the last
    dimension innermost; 3 another dimension innermost; 4 expanded: one element stands for many."""
    sizes = [(n, s) for n, s in zip(shape, stride, strict=True) if n > 1]
    real = [(n, s) for n, s in sizes if s != 0]
    if len(real) < len(sizes):
        return 4
    if _dense(real):
        return 0
    if len(shape) in (4, 5) and shape[1] > 1:
        channels_last = [(shape[d], stride[d]) for d in (0, *range(2, len(shape)), 1) if shape[d] > 1]
        if _dense(channels_last):
            return 1
    return 2 if sizes[-1][1] in (0, 1) else 3


def _positions_channels_last(tensors: Sequence[torch.Tensor]) -> tuple[int, ...]:
    """Which of a convolution's tensors lie channels last."""
    return tuple(k for k, t in enumerate(tensors) if t.dim() == 4 and memory_layout(t.shape, t.stride()) == 1)


def _dense(sizes: Sequence[tuple[int, int]]) -> bool:
    """Whether dimensions (size, stride), outermost first, leave no gaps."""
    expected = 1
    for n, s in reversed(sizes):
        if s != expected:
            return False
        expected *= n
    return True


def _inward(dimension: tuple[int, int]) -> int:
    return -dimension[1]


def _written_positions(func: OpOverload, args: tuple[object, ...], kwargs: Mapping[str, object]) -> tuple[int, ...]:
    """Positions, among the op's tensors, of those that it mutates."""
    base = base_name(str(func))
    silent = _SILENT_MUTATIONS[base] if base in _SILENT_MUTATIONS and args[5] else ()
    positions: list[int] = []
    position = 0
    for k, argument in enumerate(schema(func).arguments):
        value = args[k] if k < len(args) else kwargs.get(argument.name)
        tensors: list[torch.Tensor] = []
        _flatten((value,), tensors)
        mutated = (argument.alias_info is not None and argument.alias_info.is_write) or k in silent
        if mutated:
            positions.extend(range(position, position + len(tensors)))
        position += len(tensors)
    return tuple(positions)


def _named_arguments(func: OpOverload, args: tuple[object, ...], kwargs: Mapping[str, object]) -> dict[str, object]:
    """Arguments that are no tensors, by name."""
    arguments: dict[str, object] = {}
    for k, argument in enumerate(schema(func).arguments):
        value = args[k] if k < len(args) else kwargs.get(argument.name, argument.default_value)
        tensors: list[torch.Tensor] = []
        _flatten((value,), tensors)
        if not tensors and value is not None:
            arguments[argument.name] = value
    return arguments


def _ints(value: object) -> tuple[int, ...] | None:
    """The value as a tuple of ints, None where it is something else."""
    if isinstance(value, bool | int):
        return (int(value),)
    if isinstance(value, list | tuple) and value and all(isinstance(v, bool | int) for v in value):
        return tuple(int(v) for v in value)
    return None
