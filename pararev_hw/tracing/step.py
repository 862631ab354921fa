"""The step that is traced: a network put on fake tensors, its training step taken, everything put back afterwards."""

from __future__ import annotations

import contextlib
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook
from torch.nn.parameter import is_lazy
from torch.optim.optimizer import register_optimizer_step_post_hook, register_optimizer_step_pre_hook

from pararev_hw.errors import INTERRUPTS, BadInput, PararevError, TraceError, first_line, unknown_name
from pararev_hw.sizes import HALVES
from pararev_hw.torch_private import (
    FakeTensorMode,
    buffers_of,
    compiler_loaded_when_used,
    fake_mode,
    graph_task_id,
    mark_as_parameter,
    new_fake,
    newly_trainable,
    parameters_of,
    silent_fake_tensors,
    watched_python_calls,
)
from pararev_hw.tracing import sparse_gradients
from pararev_hw.tracing.arguments import check_arguments, left_at_none
from pararev_hw.tracing.asked_values import Question, ValueAsked, answers_on, methods_answered
from pararev_hw.tracing.cuda_dispatch import CPU_RULES, DispatchRules
from pararev_hw.tracing.fused_paths import spelt_out
from pararev_hw.tracing.how_far import StepWatch
from pararev_hw.tracing.kernel_layouts import channels_are_last, dense_strides
from pararev_hw.tracing.length_lists import lengths_by_operations
from pararev_hw.tracing.model_state import in_mode, library_constants, state_preserved
from pararev_hw.tracing.recorder import Recorder
from pararev_hw.tracing.user_optimizers import on_twins
from pararev_hw.training.step import Loop, StepOutput, run_training_step, tensors_in

DTYPES: Mapping[str, torch.dtype] = {
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
    "float64": torch.float64,
}


@dataclass(frozen=True, slots=True)
class Recorded:
    """What a recorded step left: the recorder, result slots by name, and the storages of parameter gradients; of its
    `trainable` parameters (tensors) those `without_gradient`. `resets`: state is put back between micro-batches."""

    recorder: Recorder
    results: Mapping[str, int]
    gradients: frozenset[int]
    parameters: int
    trainable: int
    without_gradient: tuple[str, ...]
    resets: bool


@dataclass(slots=True)
class _Swap:
    """Fake twins of a network's tensors, each real tensor's twin made once so that tied weights stay tied."""

    fake: FakeTensorMode
    dtype: torch.dtype | None
    channels_last: bool = False
    twins: dict[int, torch.Tensor] = field(default_factory=dict)
    originals: dict[int, torch.Tensor] = field(default_factory=dict)  # by the id of the twin

    def twin(self, tensor: torch.Tensor, trainable: bool) -> torch.Tensor:
        twin = self.twins.get(id(tensor))
        if twin is None:
            wide = self.dtype if self.dtype is not None and tensor.is_floating_point() else tensor.dtype
            device = torch.device("cpu") if tensor.device.type == "meta" else tensor.device
            twin = new_fake(self.fake, tensor.shape, self.stride(tensor), wide, device)
            if trainable:
                mark_as_parameter(twin, tensor.requires_grad)
            self.twins[id(tensor)] = twin
            self.originals[id(twin)] = tensor
        return twin

    def stride(self, tensor: torch.Tensor, contiguous: bool = False) -> tuple[int, ...]:
        """How the twin lies in memory: images and their weights channels last where that is asked for, all else as the
        tensor itself; or contiguous, unless its own channels are last."""
        if self.channels_last and tensor.dim() == 4:
            return dense_strides(tensor.shape, (1, 3, 2, 0))
        if contiguous and not channels_are_last(tensor):
            return dense_strides(tensor.shape, range(tensor.dim() - 1, -1, -1))
        return tensor.stride()


def record(
    model: nn.Module,
    inputs: Sequence[torch.Tensor],
    *,
    watch: StepWatch,
    loop: Loop | None,
    dtype: str = "float32",
    rules: DispatchRules = CPU_RULES,
    real_inputs: bool = False,
) -> Recorded:
    """Run one step of `model` on fake tensors and write it down. The model and its tensors are left as they were.

    `inputs` give shapes and dtypes; where they are `real_inputs`, also the answers to what the network asks its tensors
    for, as in `if x.min() < 0`. `loop` says how a training step goes, None is inference. The step is recorded
    in the steady state: optimizer state exists, and gradients do where the loop keeps them from one step to the next.
    `rules` say which device's ops it takes, and how images lie in memory. `watch` knows what the network is called, and
    hears how far its step is.
    """
    if dtype not in DTYPES:
        raise unknown_name("dtype", dtype, tuple(DTYPES))
    setting = _Setting(model, tuple(inputs), watch, loop, dtype, rules)
    traits = _Traits()
    while True:
        try:
            return _recorded(setting, traits)
        except _SparseGradients as seen:  # the optimizer's state depends on it: once more, with the right state
            traits = replace(traits, sparse=seen.parameters)
        except _StateLeft:
            if traits.resets:
                raise
            traits = replace(traits, resets=True)
        except ValueAsked:
            if traits.answers or not real_inputs or setting.has_own_step:
                raise
            traits = replace(traits, answers=answers_on(model, inputs, name=watch.name, train=loop is not None))
            if not traits.answers:
                raise


@dataclass(frozen=True, slots=True)
class _Setting:
    """A network and how its step goes."""

    model: nn.Module
    inputs: tuple[torch.Tensor, ...]
    watch: StepWatch
    loop: Loop | None
    dtype: str
    rules: DispatchRules

    @property
    def name(self) -> str:
        return self.watch.name

    @property
    def has_own_step(self) -> bool:
        """Whether the user's own function takes the training step."""
        return self.loop is not None and self.loop.step is not None


@dataclass(frozen=True, slots=True)
class _Traits:
    """What earlier tries told: the parameters whose gradients are sparse, what the network asks its tensors for
    (`answers_on`), and whether each micro-batch starts from the state that the first one starts from."""

    sparse: frozenset[str] = frozenset()
    answers: Mapping[Question, Sequence[Any]] = field(default_factory=dict)
    resets: bool = False


class _StateLeft(TraceError):
    """A micro-batch read state that the one before left, and whose graph its backward pass let go."""


class _SparseGradients(Exception):
    """An optimizer is about to take a step with gradients that its state was not made for."""

    def __init__(self, parameters: frozenset[str]) -> None:
        super().__init__(", ".join(sorted(parameters)))
        self.parameters = parameters


def _recorded(setting: _Setting, traits: _Traits) -> Recorded:
    """As `record`, of a step with these traits."""
    model, loop, rules = setting.model, setting.loop, setting.rules
    _check(setting)
    fake = fake_mode(allow_non_fake_inputs=True)
    setting.watch.begin()
    recorder = Recorder(fake, layouts=rules.cuda, watch=setting.watch)
    recorder.answers = traits.answers
    rng_state = torch.random.get_rng_state()
    swap = _Swap(fake, torch.float64 if setting.dtype == "float64" else None, rules.channels_last)
    with (
        compiler_loaded_when_used(),
        _on_fake_tensors(model, swap, loop is not None, lstm=rules.cuda),
        newly_trainable(library_constants(model)) as recorder.trained_states,
        rules.applied(),
        lengths_by_operations() if traits.answers else contextlib.nullcontext(),
        silent_fake_tensors(),
    ):
        parameters = {n: p for n, p in model.named_parameters() if p.requires_grad}
        try:
            results = _run_on_twins(setting, traits, recorder, swap, parameters)
        except (PararevError, _SparseGradients, *INTERRUPTS):
            raise
        except BaseException as error:
            # a network may raise anything; what it said, and where, is what its author needs
            raise _explained(error, setting, recorder) from error
        finally:
            torch.random.set_rng_state(rng_state)
            recorder.end()
        for n, p in parameters.items():
            info = None if p.grad is None else recorder.info(p.grad)
            if info is not None:
                results[f"gradient:{n}"] = info.slot
        grads = frozenset(recorder.storage_of_slot[s] for n, s in results.items() if n.startswith("gradient:"))
        untrained = () if loop is None else _without_gradient(recorder, parameters)
        count = sum(p.numel() for p in model.parameters())
    if not recorder.records:
        raise TraceError(f"{setting.name}: nothing ran: its forward calls no torch operation on its inputs")
    return Recorded(recorder, results, grads, count, len(parameters), untrained, traits.resets)


def _check(setting: _Setting) -> None:
    """Raises BadInput for weights without a shape, or arguments of forward without a value."""
    model, name = setting.model, setting.name
    lazy = next((n for n, t in (*model.named_parameters(), *model.named_buffers()) if is_lazy(t)), None)
    if lazy is not None:
        raise BadInput(f"{name}: {lazy} has no shape yet: run one batch through the network first, which gives it one")
    if not setting.has_own_step:
        check_arguments(model, len(setting.inputs), name)


def _explained(error: BaseException, setting: _Setting, recorder: Recorder) -> TraceError:
    """What the network raised, where, and what may be missing."""
    place = recorder.where_raised(error)
    absent = left_at_none(setting.model, len(setting.inputs)) if "NoneType" in str(error) else ""
    again = "backward through the graph a second time" in str(error)
    accumulates = setting.loop is not None and not setting.has_own_step and setting.loop.accumulate > 1
    kind = _StateLeft if again and accumulates else TraceError
    return kind(f"{setting.name}: {type(error).__name__} while it was traced{place}: {first_line(error)}{absent}")


def _run_on_twins(
    setting: _Setting, traits: _Traits, recorder: Recorder, swap: _Swap, parameters: Mapping[str, nn.Parameter]
) -> dict[str, int]:
    """Run the step in its steady state, with fake twins in the network; the slots of what it gave, by name."""
    model, loop, sparse = setting.model, setting.loop, traits.sparse
    batch = _fake_batch(setting, swap)
    lowered = DTYPES[setting.dtype] if setting.dtype in HALVES else None
    cast = torch.autocast(_home(model).type, lowered) if lowered is not None else contextlib.nullcontext()
    with on_twins(swap.twins) if setting.has_own_step else _no_optimizers() as others:
        chosen = None if loop is None else loop.optimizer_of(_some(parameters))
        if chosen is not None:
            unused = (RuntimeError, TraceError) if setting.has_own_step else ()
            with contextlib.suppress(*unused):  # a step of the user's own may leave it alone
                _prime(chosen, parameters, sparse, swap.fake)
        for optimizer in others:
            _prime(optimizer, parameters, sparse, swap.fake)
        in_use = [] if chosen is None else [chosen]
        if loop is not None and chosen is not None and loop.keeps_gradients:
            with _primed_alike(parameters, sparse):
                in_use = _settle(loop, model, batch, chosen, swap.fake, cast)
            for state in recorder.trained_states.values():
                state.grad = None
        _declare(recorder, model, batch, in_use, parameters)
        for twin in model.buffers():
            info, original = recorder.info(twin), swap.originals.get(id(twin))
            if info is not None and original is not None:
                recorder.remember_value(info, original)
        hooks = _hooks(recorder, model, [o for o in (chosen, *others) if o is not None])
        with _primed_alike(parameters, sparse), hooks:
            micro_batch = partial(state_preserved, model, values=False) if traits.resets else contextlib.nullcontext
            return _run(recorder, model, batch, chosen, loop, cast, micro_batch)


def _fake_batch(setting: _Setting, swap: _Swap) -> tuple[torch.Tensor, ...]:
    home = _home(setting.model)
    return tuple(
        new_fake(swap.fake, x.shape, swap.stride(x, contiguous=True), _input_dtype(x, setting.dtype), home)
        for x in setting.inputs
    )


def _without_gradient(recorder: Recorder, parameters: Mapping[str, nn.Parameter]) -> tuple[str, ...]:
    """Trainable parameters that the step gives no gradient and does not update."""
    absent = {n: info for n, p in parameters.items() if p.grad is None and (info := recorder.info(p)) is not None}
    if not absent:
        return ()
    written = {r.inputs[k].storage for r in recorder.records for k in recorder.entries[r.entry].writes}
    return tuple(n for n, info in absent.items() if info.storage not in written)


def _home(model: nn.Module) -> torch.device:
    """Where the network's parameters are; its inputs go there too."""
    return next((p.device for p in model.parameters()), torch.device("cpu"))


def _input_dtype(tensor: torch.Tensor, dtype: str) -> torch.dtype:
    return torch.float64 if dtype == "float64" and tensor.is_floating_point() else tensor.dtype


def _run(
    recorder: Recorder,
    model: nn.Module,
    batch: tuple[torch.Tensor, ...],
    optimizer: torch.optim.Optimizer | None,
    loop: Loop | None,
    cast: contextlib.AbstractContextManager[Any],
    micro_batch: Callable[[], contextlib.AbstractContextManager[Any]],
) -> dict[str, int]:
    """Run the step under the recorder; the slots of what it gave, by name."""
    if optimizer is None or loop is None:
        with recorder, torch.no_grad(), cast:
            step_output = StepOutput(model(*batch), None)
    else:

        def target(samples: int, device: torch.device) -> torch.Tensor:
            labels = _labels(recorder.fake, samples, device)
            recorder.declare(labels, "target:0")
            return labels

        step_output = run_training_step(
            loop, model, batch, optimizer, mode=recorder, cast=cast, new_target=target, micro_batch=micro_batch
        )
    outputs = {f"output:{k}": t for k, t in enumerate(tensors_in(step_output.out))}
    if isinstance(step_output.loss, torch.Tensor):
        outputs["loss"] = step_output.loss
    return {name: info.slot for name, t in outputs.items() if (info := recorder.info(t)) is not None}


def _labels(fake: FakeTensorMode, samples: int, device: torch.device) -> torch.Tensor:
    labels: torch.Tensor = new_fake(fake, (samples,), (1,), torch.int64, device)
    return labels


def _settle(
    loop: Loop,
    model: nn.Module,
    batch: tuple[torch.Tensor, ...],
    optimizer: torch.optim.Optimizer,
    fake: FakeTensorMode,
    cast: contextlib.AbstractContextManager[Any],
) -> list[torch.optim.Optimizer]:
    """Take a step that is not written down: what it leaves in gradients is there when the next one begins.

    The optimizers that it used; the state of the given one is dropped where it was none of them.
    """
    used: dict[int, torch.optim.Optimizer] = {}
    watch = register_optimizer_step_pre_hook(lambda o, *_: used.__setitem__(id(o), o))
    try:
        with state_preserved(model, values=False):
            run_training_step(loop, model, batch, optimizer, mode=fake, cast=cast, new_target=partial(_labels, fake))
    finally:
        watch.remove()
    for p in model.parameters():
        if p.grad is not None and p.grad.layout is not torch.strided:
            p.grad = None  # what is added to a sparse gradient makes it larger at every step: none clears nothing
    if used and id(optimizer) not in used:
        optimizer.state.clear()
    return list(used.values()) if used else [optimizer]


@contextlib.contextmanager
def _no_optimizers() -> Iterator[tuple[torch.optim.Optimizer, ...]]:
    yield ()


def _some(parameters: Mapping[str, nn.Parameter]) -> list[nn.Parameter]:
    if not parameters:
        raise BadInput("the network has no trainable parameter: use --mode infer")
    return list(parameters.values())


def _prime(
    optimizer: torch.optim.Optimizer,
    parameters: Mapping[str, nn.Parameter],
    sparse: frozenset[str],
    fake: FakeTensorMode,
) -> None:
    """Take a step of the optimizer, so that its state exists."""
    if isinstance(optimizer, torch.optim.LBFGS):
        raise BadInput(
            "LBFGS takes as many passes as its losses ask for, which a trace cannot know: use another optimizer"
        )
    owned = {id(p) for group in optimizer.param_groups for p in group["params"]}
    with Recorder(fake) as recorder:  # thrown away: it is here because it is faster than fake tensors alone
        recorder.in_optimizer = True
        for n, p in parameters.items():
            if id(p) in owned:
                of_rows = n in sparse or isinstance(optimizer, torch.optim.SparseAdam)
                p.grad = sparse_gradients.one_row(p) if of_rows else torch.zeros_like(p)
        try:
            optimizer.step()
        finally:
            recorder.end()
            for p in parameters.values():
                p.grad = None
                for t in (p, *optimizer.state.get(p, {}).values()):
                    if isinstance(t, torch.Tensor):
                        t.__dict__.pop("pararev_info", None)


def _declare(
    recorder: Recorder,
    model: nn.Module,
    batch: tuple[torch.Tensor, ...],
    optimizers: Sequence[torch.optim.Optimizer],
    parameters: Mapping[str, nn.Parameter],
) -> None:
    for n, p in model.named_parameters():
        recorder.declare(p, f"parameter:{n}")
    for n, b in model.named_buffers():
        recorder.declare(b, f"buffer:{n}")
    for k, x in enumerate(batch):
        recorder.declare(x, f"input:{k}")
    for n, p in parameters.items():
        if p.grad is not None:
            recorder.declare(p.grad, f"gradient:{n}")
    for optimizer in optimizers:
        for n, p in parameters.items():
            for key, value in optimizer.state.get(p, {}).items():
                if isinstance(value, torch.Tensor):
                    if value.layout is not torch.strided:
                        raise TraceError(
                            f"with momentum the optimizer's state of {n} is sparse, and larger after every step: use "
                            "plain SGD (--optimizer sgd-plain), SparseAdam or Adagrad, or sparse=False"
                        )
                    recorder.declare(value, f"optimizer:{n}:{key}")


@contextlib.contextmanager
def _primed_alike(parameters: Mapping[str, nn.Parameter], sparse: frozenset[str]) -> Iterator[None]:
    """Raises _SparseGradients where an optimizer meets sparse gradients other than those of `sparse`."""

    def check(*_: Any) -> None:
        met = frozenset(n for n, p in parameters.items() if p.grad is not None and p.grad.layout is not torch.strided)
        if met - sparse:
            raise _SparseGradients(met | sparse)

    handle = register_optimizer_step_pre_hook(check)
    try:
        yield
    finally:
        handle.remove()


@contextlib.contextmanager
def _on_fake_tensors(model: nn.Module, swap: _Swap, train: bool, lstm: bool) -> Iterator[None]:
    """The model with fake twins for its tensors; on exit every module is as it was, hidden state included."""
    with state_preserved(model, values=False), in_mode(model, train), spelt_out(model, lstm):
        for m in model.modules():
            for n, p in parameters_of(m).items():
                if p is not None:
                    parameters_of(m)[n] = swap.twin(p, trainable=True)  # type: ignore[assignment]
            for n, b in buffers_of(m).items():
                if b is not None:
                    buffers_of(m)[n] = swap.twin(b, trainable=False)
        yield


def _shape_of_first(values: Any) -> tuple[int, ...] | None:
    """The shape of the first tensor among what a module is given or gives."""
    if isinstance(values, torch.Tensor):
        return tuple(values.shape)
    if not isinstance(values, (tuple, list)):
        return None
    return next((shape for value in values if (shape := _shape_of_first(value)) is not None), None)


@contextlib.contextmanager
def _hooks(recorder: Recorder, model: nn.Module, optimizers: Sequence[torch.optim.Optimizer]) -> Iterator[None]:
    paths = {id(m): n for n, m in model.named_modules()}

    def enter(module: nn.Module, inputs: tuple[Any, ...]) -> None:
        called("modules")
        path = paths.get(id(module))
        if path is not None:
            recorder.enter_module(path)
            recorder.input_shapes.setdefault(path, _shape_of_first(inputs))

    def leave(module: nn.Module, _: Any, outputs: Any) -> None:
        if id(module) in paths:
            recorder.exit_module(by_exception=outputs is None and sys.exc_info()[0] is not None)
            if outputs is not None:
                recorder.output_shapes.setdefault(paths[id(module)], _shape_of_first(outputs))

    def start(optimizer: torch.optim.Optimizer, *_: Any) -> None:
        if not any(optimizer is o for o in optimizers):
            raise TraceError(
                "the step updates with an optimizer that holds none of the network's parameters: make it over "
                "model.parameters(), or pass a module that holds every network of the step"
            )
        recorder.in_optimizer = True

    def stop(*_: Any) -> None:
        recorder.in_optimizer = False

    def called(hook: str) -> None:
        phase = "forward" if graph_task_id() == -1 else "backward"
        recorder.python_calls[phase, hook] = recorder.python_calls.get((phase, hook), 0) + 1

    handles = [
        register_module_forward_pre_hook(enter),
        register_module_forward_hook(leave, always_call=True),  # an exception leaves modules too
        register_optimizer_step_pre_hook(start),
        register_optimizer_step_post_hook(stop),
    ]
    try:
        with (
            watched_python_calls(called),
            _resizes_told(recorder),
            methods_answered(recorder.by_method),
            warnings.catch_warnings(),
        ):
            # where a recursion without end stops in a hook, too: torch raises the recursion's own error all the same
            warnings.filterwarnings("ignore", message="global module forward hook with")
            yield
    finally:
        for handle in handles:
            handle.remove()


@contextlib.contextmanager
def _resizes_told(recorder: Recorder) -> Iterator[None]:
    """Storages that are resized, which no dispatch mode sees, are told to the recorder."""
    resize = torch.UntypedStorage.resize_

    def resize_and_tell(storage: torch.UntypedStorage, size: int) -> Any:
        recorder.storage_resized(storage, size)
        return resize(storage, size)

    torch.UntypedStorage.resize_ = resize_and_tell  # type: ignore[method-assign,assignment]
    try:
        yield
    finally:
        torch.UntypedStorage.resize_ = resize  # type: ignore[method-assign]
