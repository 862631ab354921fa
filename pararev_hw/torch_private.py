"""Everything of torch that the package uses and torch does not promise: one place to look at when a release changes.

Held to torch 2.11 to 2.13 by `tests/project/test_torch_private.py`, which calls each of these;
`tests/project/test_architecture.py` finds private names of torch anywhere else.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import importlib.util
import inspect
import logging
import operator
import sys
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch._C._profiler import _ExperimentalConfig
from torch._decomp import decomposition_table, meta_table
from torch._ops import OpOverload as OpOverload
from torch._subclasses import fake_impls
from torch._subclasses.fake_tensor import DataDependentOutputException as DataDependentOutputException
from torch._subclasses.fake_tensor import DynamicOutputShapeException as DynamicOutputShapeException
from torch._subclasses.fake_tensor import FakeTensor as FakeTensor
from torch._subclasses.fake_tensor import FakeTensorMode as FakeTensorMode
from torch._subclasses.fake_tensor import UnsupportedOperatorException as UnsupportedOperatorException
from torch._subclasses.fake_tensor import torch_decomp_decompositions
from torch.library import _scoped_library as scoped_library
from torch.nn.modules.batchnorm import _BatchNorm as AnyBatchNorm
from torch.nn.modules.dropout import _DropoutNd as AnyDropout
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten as tree_flatten

__all__ = ["AnyBatchNorm", "AnyDropout", "scoped_library"]

# -1 outside the autograd engine
graph_task_id: Any = torch._C._current_graph_task_id
# the node that the engine runs
autograd_node: Any = torch._C._current_autograd_node
# the sequence number that the next node will get
next_sequence_nr: Any = torch._C._autograd._get_sequence_nr
# of the nodes that accumulate parameter gradients
NO_SEQUENCE = 2**64 - 1


def sequence_nr(node: Any) -> int:
    """The sequence number of a node of the autograd graph."""
    return int(node._sequence_nr())


def schema(function: Any) -> Any:
    """The schema of an operator, None for a function that has none."""
    return getattr(function, "_schema", None)


def uncompiled(network: Any, *, inside: bool) -> tuple[Any, bool]:
    """A network as it was before `torch.compile`, and whether it, a part or a function of its file was compiled.
    `inside`: its parts too, which changes the network, and whatever else this process compiles runs as it was written
    from then on."""
    dynamo = sys.modules.get("torch._dynamo.eval_frame")  # loaded by whoever compiles
    if dynamo is None:
        return network, False
    whole = network._orig_mod if isinstance(network, dynamo.OptimizedModule) else network
    compiled = whole is not network
    for module in list(whole.modules()) if inside else ():
        for name, child in module._modules.items():
            if isinstance(child, dynamo.OptimizedModule):
                module._modules[name] = child._orig_mod
                compiled = True
        compiled |= module._compiled_call_impl is not None
        module._compiled_call_impl = None
    if inside:
        torch.compiler.set_stance("force_eager")
    return whole, compiled or any(map(_compiled_functions, {type(m) for m in whole.modules()}))


def _compiled_functions(cls: type) -> bool:
    """Whether a class has a method, or a function beside it, that `torch.compile` wrapped."""
    forward = vars(cls).get("forward")
    beside = {} if forward is None else getattr(inspect.unwrap(forward), "__globals__", {})
    functions = (*vars(cls).values(), *beside.values())
    return any("_torchdynamo_orig_callable" in getattr(function, "__dict__", ()) for function in functions)


def as_fake(elem: torch.Tensor, device: torch.device) -> Any:
    """A fake tensor around `elem`, without the checks of its constructor."""
    return torch.Tensor._make_subclass(FakeTensor, elem, False, dispatch_device=True, device_for_backend_keys=device)


def new_fake(
    mode: FakeTensorMode, shape: Sequence[int], stride: Sequence[int], dtype: torch.dtype, device: torch.device
) -> Any:
    """A fake tensor in memory of its own, without an operation under the mode, the first of which imports sympy."""
    return FakeTensor(mode, torch.empty_strided(shape, stride, dtype=dtype, device="meta"), device)


def mark_as_parameter(tensor: Any, requires_grad: bool) -> None:
    """Make a new fake tensor a parameter, as `nn.Parameter` does beside an operation that imports DTensor."""
    tensor.requires_grad_(requires_grad)
    tensor._is_param = True


class DispatchMode(TorchDispatchMode):
    """A mode that sees every op. Torch would put a wrapper around each that keeps its compiler out, and would load the
    compiler for it; nothing is compiled while one of these looks on."""

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False


class _OfSums(DispatchMode):
    """Keeps how often the first gradient that is added to another is referred to, and its storage."""

    counts: tuple[int, int, int] | None = None

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.ops.aten.add.Tensor and not torch.is_grad_enabled() and self.counts is None:
            self.counts = references(args)
        return func(*args, **(kwargs or {}))


def references(args: Any) -> tuple[int, int, int]:
    """To the first of a call's tensors, to its storage, both from torch's own code, and to the tensor from Python."""
    of_tensor = int(args[0]._use_count())
    of_storage = int(torch._C._storage_Use_Count(args[0].untyped_storage()._cdata))
    return of_tensor, of_storage, sys.getrefcount(args[0])


@functools.cache
def references_to_summed() -> tuple[int, int, int] | None:
    """What `references` says, in a dispatch mode, of a gradient that nothing but the engine's sum holds. To be asked
    outside backward, where it takes a small one of its own."""
    with torch.inference_mode(False), torch.enable_grad():
        x = torch.zeros(2, requires_grad=True) * 1
        y = (x.sin() + x.cos()).sum()
        with _OfSums() as mode:
            y.backward()
    counts: tuple[int, int, int] | None = mode.counts
    return counts


_ATEN = torch.ops.aten
# what a mode does for these beside their kernels concerns sizes that are symbols
_VIEWS = (_ATEN.view.default, _ATEN._unsafe_view.default, _ATEN.select.int, _ATEN.slice.Tensor)
# of these a mode runs a decomposition, op by op: the device does not matter to it in single precision, nor does the
# decomposition to batch norms where the argument of this number says that it is a training step
_OF_TRAINING = {_ATEN.native_batch_norm.default: 5, _ATEN.native_batch_norm_backward.default: 7}
_DECOMPOSED = (
    _ATEN._log_softmax.default,
    _ATEN._log_softmax_backward_data.default,
    _ATEN.nll_loss_forward.default,
    _ATEN.nll_loss_backward.default,
    _ATEN.mse_loss.default,
    _ATEN.mse_loss_backward.default,
    _ATEN.gelu_backward.default,
    _ATEN.sigmoid_backward.default,
    _ATEN.tanh_backward.default,
    _ATEN.threshold_backward.default,
)
# kernels that lay out their results as the decompositions do, where that is so
_LIKE_DECOMPOSED: Mapping[Any, Callable[[Any, Any], bool]] = {
    _ATEN.addmm.default: lambda args, kwargs: args[0].dim() == 1,
    _ATEN._to_copy.default: lambda args, kwargs: kwargs.keys() == {"dtype"} and args[0].is_contiguous(),
}
_DECIDES_MORE = (
    torch.Tag.nondeterministic_seeded,
    torch.Tag.inplace_view,
    torch.Tag.dynamic_output_shape,
    torch.Tag.data_dependent_output,
)


@functools.cache
def _needs_its_kernel_alone(func: OpOverload) -> bool:
    """Whether a mode does no more for an op on tensors of one device than run its kernel for the meta device."""
    if func.namespace != "aten" or not fake_impls.has_meta(func) or any(tag in func.tags for tag in _DECIDES_MORE):
        return False
    if func.name().startswith("aten::_foreach_"):
        return True
    if func._schema.is_mutable:
        return False
    if func in (*_VIEWS, *_OF_TRAINING, *_DECOMPOSED, *_LIKE_DECOMPOSED):
        return True
    decomposed = func in decomposition_table and torch_decomp_decompositions(func)
    composed = torch._C._dispatch_has_kernel_for_dispatch_key(func.name(), "CompositeImplicitAutograd")
    alike = func in meta_table or FakeTensorMode.cpp_meta_supports_symint(FakeTensorMode, func)  # type: ignore[arg-type]
    rules = fake_impls.op_implementations_checks
    return (alike or not (decomposed or composed)) and not any(applies(func) for applies, _ in rules)


def meta_outputs(func: OpOverload, args: Sequence[Any], kwargs: Mapping[str, Any], tensors: Sequence[Any]) -> Any:
    """What a mode of fake tensors gives for an op, before it is wrapped in fake tensors, in a tenth of the time;
    NotImplemented where it may do more than run a kernel. `tensors` are those among the arguments."""
    if not tensors or "device" in kwargs or not _needs_its_kernel_alone(func):
        return NotImplemented
    device = getattr(tensors[0], "fake_device", None)
    for t in tensors:
        if type(t) is not FakeTensor or t.constant is not None or t.fake_device != device or t.dtype.is_complex:
            return NotImplemented
    single = all(t.dtype == torch.float32 or not t.is_floating_point() for t in tensors)
    if not single and (func in _OF_TRAINING or func in _DECOMPOSED):
        return NotImplemented
    if func in _OF_TRAINING and args[_OF_TRAINING[func]] is not True:
        return NotImplemented
    if func in _LIKE_DECOMPOSED and not _LIKE_DECOMPOSED[func](args, kwargs):
        return NotImplemented
    meta = {id(t): _meta_alias(t) for t in tensors}
    kernel = decomposition_table[func] if func in _DECOMPOSED else func
    if func.name().startswith("aten::_foreach_"):
        kernel = functools.partial(_one_of_each_layout, func)
    try:
        out = kernel(*_exchanged(args, meta), **{name: _exchanged(value, meta) for name, value in kwargs.items()})
    except Exception:  # the mode itself says what is wrong
        return NotImplemented
    if any(out is alias for alias in meta.values()):
        return NotImplemented
    return tuple(out) if isinstance(out, tuple) else out  # of a type without a name


def _one_of_each_layout(func: OpOverload, *args: Any, **kwargs: Any) -> Any:
    """What a kernel for lists of tensors gives, which takes them one by one: those laid out alike give the same."""
    lists = [a for a in args if isinstance(a, list | tuple)]
    if len({len(a) for a in lists}) != 1 or any(isinstance(a, list | tuple) for a in kwargs.values()):
        return func(*args, **kwargs)
    first: dict[Hashable, int] = {}
    like = [first.setdefault(tuple(map(_element_layout, row)), k) for k, row in enumerate(zip(*lists, strict=True))]
    chosen = list(first.values())
    outputs = func(*[[a[k] for k in chosen] if isinstance(a, list | tuple) else a for a in args], **kwargs)
    if outputs is None:
        return None
    output_of = dict(zip(chosen, outputs, strict=True))
    return [output_of[k] if n == k else _laid_out_like(output_of[k]) for n, k in enumerate(like)]


def _laid_out_like(output: torch.Tensor) -> torch.Tensor:
    return torch.empty_strided(output.shape, output.stride(), dtype=output.dtype, device="meta")


def _element_layout(value: Any) -> Hashable:
    """All of an element of a list that decides what a kernel gives for it."""
    if isinstance(value, torch.Tensor):
        return value.shape, value.stride(), value.dtype
    return type(value), value


def _meta_alias(tensor: torch.Tensor) -> torch.Tensor:
    """A tensor on the meta device in the memory of a fake one. Kernels that ask a fake tensor for its device load
    `torch.distributed`'s tensors, which takes as long as to trace a small network."""
    alias = torch.empty(0, dtype=tensor.dtype, device="meta")
    return alias.set_(tensor.untyped_storage(), tensor.storage_offset(), tensor.shape, tensor.stride())


def _exchanged(value: Any, by_id: Mapping[int, torch.Tensor]) -> Any:
    """The value with other tensors in place of those with these ids."""
    if isinstance(value, list | tuple):
        return type(value)([_exchanged(v, by_id) for v in value])
    return by_id.get(id(value), value) if isinstance(value, torch.Tensor) else value


def storage_key(tensor: torch.Tensor) -> int:
    """A number that tells the tensor's memory from all other memory that is alive."""
    return int(tensor.untyped_storage()._cdata)


def version_of(tensor: torch.Tensor) -> int:
    """How often the tensor was changed in place."""
    return int(tensor._version)


@contextlib.contextmanager
def watched_python_calls(tell: Callable[[str], None]) -> Iterator[None]:
    """Tells of each Python function that autograd calls: "functions" when a custom function is applied, "backwards"
    when its gradient is, "packs" when a hook packs a tensor that is saved (as checkpointing does)."""
    utils, backward, lists = torch._functorch.utils, torch.autograd.function.BackwardCFunction, torch._C._autograd
    unwrap, gradient, push = utils.unwrap_dead_wrappers, backward.apply, lists._push_saved_tensors_default_hooks

    def applied(args: Any) -> Any:
        tell("functions")
        return unwrap(args)

    def reversed_(self: Any, *args: Any) -> Any:
        tell("backwards")
        return gradient(self, *args)

    def pushed(pack: Callable[[torch.Tensor], Any], unpack: Callable[[Any], torch.Tensor]) -> None:
        def packed(tensor: torch.Tensor) -> Any:
            tell("packs")
            return pack(tensor)

        push(packed, unpack)

    utils.unwrap_dead_wrappers = applied
    backward.apply = reversed_  # type: ignore[method-assign]
    lists._push_saved_tensors_default_hooks = pushed  # type: ignore[assignment]
    try:
        yield
    finally:
        utils.unwrap_dead_wrappers = unwrap
        backward.apply = gradient  # type: ignore[method-assign]
        lists._push_saved_tensors_default_hooks = push


def array_of(tensor: torch.Tensor) -> Any:
    """`tensor.numpy()`, also where that method is watched."""
    return torch._C.TensorBase.numpy(tensor)


def numbers_in(tensor: torch.Tensor) -> Any:
    """`tensor.tolist()`, also where that method is watched."""
    return torch._C.TensorBase.tolist(tensor)


@contextlib.contextmanager
def newly_trainable(before: Iterable[torch.Tensor]) -> Iterator[dict[int, torch.Tensor]]:
    """Real tensors, by id, of which code asks for a gradient (`requires_grad = True`) meanwhile, and those of which it
    did `before`. What gradients they gather is dropped on exit, and those from before are put back."""
    plain: Any = torch.Tensor.requires_grad
    in_place: Any = torch.Tensor.requires_grad_
    leaves: dict[int, torch.Tensor] = {}
    gradients: list[torch.Tensor | None] = []

    def remember(tensor: torch.Tensor) -> None:
        if not isinstance(tensor, FakeTensor) and tensor.is_leaf and id(tensor) not in leaves:
            leaves[id(tensor)] = tensor
            gradients.append(tensor.grad)
            tensor.grad = None

    def assign(tensor: torch.Tensor, requires_grad: bool) -> None:
        if requires_grad:
            remember(tensor)
        plain.__set__(tensor, requires_grad)

    def call(tensor: torch.Tensor, requires_grad: bool = True) -> Any:
        if requires_grad:
            remember(tensor)
        return in_place(tensor, requires_grad)

    for tensor in before:
        remember(tensor)
    hidden: Any = torch.Tensor  # it inherits both: a definition of its own hides them
    hidden.requires_grad = property(plain.__get__, assign)
    hidden.requires_grad_ = call
    try:
        yield leaves
    finally:
        del hidden.requires_grad, hidden.requires_grad_
        for tensor, gradient in zip(leaves.values(), gradients, strict=True):
            tensor.grad = gradient


@contextlib.contextmanager
def without_onednn() -> Iterator[None]:
    """No kernels of oneDNN; torch's own context manager warns about TF32 on machines that have none."""
    enabled = torch._C._get_mkldnn_enabled()
    torch._C._set_mkldnn_enabled(False)
    try:
        yield
    finally:
        torch._C._set_mkldnn_enabled(enabled)


@contextlib.contextmanager
def silent_fake_tensors() -> Iterator[None]:
    """Without the traceback that fake tensors log before they raise: the error itself is told in one line."""
    logger = logging.getLogger("torch._subclasses.fake_tensor")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(level)


@contextlib.contextmanager
def without_distribution_checks() -> Iterator[None]:
    """Distributions do not check their arguments, which asks for values and does no work."""
    validates = torch.distributions.Distribution._validate_args
    torch.distributions.Distribution.set_default_validate_args(False)
    try:
        yield
    finally:
        torch.distributions.Distribution.set_default_validate_args(validates)


_FLOP_COUNTER = "torch.utils.flop_counter"


def flop_formulas() -> Mapping[Any, Callable[..., int]]:
    """Torch's formulas for the operations of ops, by overload packet, with those that others have registered."""
    formulas: Mapping[Any, Callable[..., int]] = (
        sys.modules.get(_FLOP_COUNTER) or _flop_counter_without_triton()
    ).flop_registry
    return formulas


@functools.cache
def _flop_counter_without_triton() -> Any:
    """A copy of torch's flop counter. The module itself loads Triton to tell its kernels from other functions, which
    takes longer than to trace a small network."""
    name = f"{_FLOP_COUNTER}_without_triton"
    spec = importlib.util.spec_from_file_location(name, Path(torch.__file__).parent / "utils" / "flop_counter.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    logging.getLogger(name).setLevel(logging.ERROR)  # it warns that it cannot count Triton's kernels
    is_loaded = "triton" in sys.modules
    if not is_loaded:
        sys.modules["triton"] = None  # type: ignore[assignment]  # which refuses its import
    try:
        spec.loader.exec_module(module)
    finally:
        if not is_loaded:
            del sys.modules["triton"]
    return module


_COMPILER = "torch._dynamo"
_SYMBOLS = "torch.fx.experimental.symbolic_shapes"
_SYMPY = "sympy"


def ever_compiled() -> bool:
    """Whether `torch.compile` was used in this process."""
    return not isinstance(sys.modules.get(_COMPILER), (_AbsentCompiler, type(None)))


def _compiler_config() -> ModuleType:
    """The compiler's settings, without the compiler; they are its own from when it is loaded."""
    name = f"{_COMPILER}.config"
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, Path(torch.__file__).parent / "_dynamo" / "config.py")
        assert spec is not None and spec.loader is not None
        sys.modules[name] = importlib.util.module_from_spec(spec)  # it looks itself up there
        spec.loader.exec_module(sys.modules[name])
    return sys.modules[name]


class _Absent(ModuleType):
    """Stands in for a module that takes longer to load than most networks to trace. Whatever it does not answer itself
    loads the module, which then takes this one's place."""

    special_names: tuple[str, ...] = ("__path__", "__version__", "__all__")

    def __init__(self, name: str) -> None:
        super().__init__(name)
        parent, _, self.leaf = name.rpartition(".")
        self.parent = importlib.import_module(parent) if parent else None

    def install(self) -> None:
        sys.modules[self.__name__] = self
        if self.parent is not None:
            setattr(self.parent, self.leaf, self)

    def remove(self) -> None:
        if sys.modules.get(self.__name__) is self:
            del sys.modules[self.__name__]
            if self.parent is not None:
                vars(self.parent).pop(self.leaf, None)

    def loaded(self) -> Any:
        """The module itself."""
        self.remove()
        return importlib.import_module(self.__name__)

    def __getattr__(self, name: str) -> Any:
        # the others are asked of every module, by what looks for the source of code
        if name.startswith("__") and name not in self.special_names:
            raise AttributeError(name)
        return getattr(self.loaded(), name)


class _AbsentCompiler(_Absent):
    """Of torch's compiler. Fake tensors ask it for two settings, optimizers and checkpoints whether it is to leave them
    alone."""

    def __init__(self, stack: contextlib.ExitStack) -> None:
        super().__init__(_COMPILER)
        self.stack = stack
        self.config = _compiler_config()

    def graph_break(self, *_: Any, **__: Any) -> None:
        """What a compiler that does not run does about a place where it must stop."""

    def disable(self, fn: Any = None, recursive: bool = True, **options: Any) -> Any:
        """The function, for the compiler to leave alone once there is one."""
        if fn is None or recursive is not True:
            return self.loaded().disable(fn, recursive, **options)

        def call(*args: Any, **kwargs: Any) -> Any:
            if not ever_compiled():
                return fn(*args, **kwargs)
            left_alone = sys.modules[_COMPILER].disable(fn, recursive, **options)
            setattr(fn, "__dynamo_disable", left_alone)
            return left_alone(*args, **kwargs)

        return call

    def loaded(self) -> Any:
        """The compiler. What it compiles while a network is traced runs as it was written."""
        if not ever_compiled():
            super().loaded()
            self.stack.enter_context(torch.compiler.set_stance("force_eager"))
        return sys.modules[_COMPILER]


class _Expression:
    """Of which there are none while nothing has loaded sympy."""


class _AbsentSympy(_Absent):
    """Torch's promotion of types asks whether a number is an expression."""

    def __init__(self) -> None:
        super().__init__(_SYMPY)

    def __getattr__(self, name: str) -> Any:
        if name == "Basic" and sys._getframe(1).f_globals.get("__name__") == "torch._prims_common":
            return _Expression
        return super().__getattr__(name)


class _AbsentSymbols(_Absent):
    """Of torch's symbolic sizes, which load sympy. Rules of shapes ask for these of sizes that are numbers."""

    special_names = ()  # it is no package

    def __init__(self) -> None:
        super().__init__(_SYMBOLS)
        for name in ("guard_or_true", "guard_or_false", "guard_size_oblivious", "statically_known_true", "expect_true"):
            setattr(self, name, functools.partial(self._decided, name))
        for name in ("_constrain_range_for_size", "guarding_hint_or_throw", "optimization_hint"):  # called of symbols
            setattr(self, name, functools.partial(self._called, name))

    def _called(self, name: str, *args: Any, **options: Any) -> Any:
        return getattr(self.loaded(), name)(*args, **options)

    def _decided(self, name: str, condition: Any, *more: Any) -> bool:
        return condition if type(condition) is bool else getattr(self.loaded(), name)(condition, *more)

    def sym_eq(self, x: Any, y: Any) -> Any:
        sizes = [*x, *y] if isinstance(x, list | tuple) and isinstance(y, list | tuple) else [x, y]
        if any(type(size) is not int for size in sizes):
            return self.loaded().sym_eq(x, y)
        return x == y if isinstance(x, int) else tuple(x) == tuple(y)

    def sym_and(self, *conditions: Any) -> Any:
        return functools.reduce(operator.and_, conditions)

    def sym_or(self, *conditions: Any) -> Any:
        return functools.reduce(operator.or_, conditions)

    def guard_int(self, size: Any) -> int:
        return size if type(size) is int else int(self.loaded().guard_int(size))

    def has_guarding_hint(self, size: Any) -> bool:
        return type(size) is int or bool(self.loaded().has_guarding_hint(size))

    def free_unbacked_symbols(self, value: Any) -> Any:
        sizes = value if isinstance(value, list | tuple) else [value]
        return set() if all(type(s) is int for s in sizes) else self.loaded().free_unbacked_symbols(value)

    def is_nested_int(self, size: Any) -> bool:
        return type(size) is not int and bool(self.loaded().is_nested_int(size))

    def compute_unbacked_bindings(self, shape_env: Any, *more: Any, **options: Any) -> Any:
        return None if shape_env is None else self.loaded().compute_unbacked_bindings(shape_env, *more, **options)


class _LoadedModules:
    """Finds parts of packages that were loaded while the import of one of them was under way."""

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        if not name.startswith((f"{_COMPILER}.", f"{_SYMPY}.")) or name not in sys.modules:
            return None
        return ModuleSpec(name, self)  # type: ignore[arg-type]

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        return sys.modules[spec.name]

    def exec_module(self, module: ModuleType) -> None:
        """It was run when it was loaded."""


_LOADED: Any = _LoadedModules()
_ABSENT: Mapping[str, Callable[[contextlib.ExitStack], _Absent]] = {
    _COMPILER: _AbsentCompiler,
    _SYMBOLS: lambda _: _AbsentSymbols(),
    _SYMPY: lambda _: _AbsentSympy(),
}


@contextlib.contextmanager
def compiler_loaded_when_used() -> Iterator[None]:
    """Fake tensors, optimizers and checkpoints do not load `torch.compile`, which takes some two seconds, unless
    something asks it to compile; what it compiles then runs as it was written. Nor do they load sympy, another half
    second, unless there are sizes that are symbols."""
    with contextlib.ExitStack() as stack:
        stack.callback(sys.meta_path.remove, _LOADED)
        sys.meta_path.insert(0, _LOADED)
        for name, absent in _ABSENT.items():
            if name not in sys.modules:
                module = absent(stack)
                stack.callback(module.remove)
                module.install()
        yield


def fake_mode(**options: Any) -> FakeTensorMode:
    """Fake tensors, made without loading `torch.compile`. They keep no table of what ops gave: the tracer has one."""
    with compiler_loaded_when_used():
        mode = FakeTensorMode(**options)
    mode.cache_enabled = False
    return mode


def autocasts_on_cpu(op: Any) -> bool:
    """Whether CPU autocast has a rule for the operator."""
    return bool(torch._C._dispatch_has_kernel_for_dispatch_key(op.name(), "AutocastCPU"))


def without_cpu_autocast() -> Any:
    """A context in which operators skip CPU autocast."""
    return torch._C._ExcludeDispatchKeyGuard(torch._C.DispatchKeySet(torch._C.DispatchKey.AutocastCPU))


def parameters_of(module: torch.nn.Module) -> dict[str, torch.nn.Parameter | None]:
    """The module's table of parameters itself: what is put in it becomes the module's."""
    return module._parameters


def buffers_of(module: torch.nn.Module) -> dict[str, torch.Tensor | None]:
    """The module's table of buffers itself: what is put in it becomes the module's."""
    return module._buffers


def profile_every_thread() -> Any:
    """The profiler's setting under which it sees threads that start later."""
    return _ExperimentalConfig(profile_all_threads=True)


def occupy_gpu(cycles: int) -> None:
    """Queue a kernel that does nothing for so many cycles, so that the host gets ahead of the device."""
    torch.cuda._sleep(cycles)
