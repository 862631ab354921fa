"""What the tracer uses of torch's private names is there and does what it is used for."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch.utils.checkpoint import checkpoint

from pararev_hw import torch_private as private


def test_this_torch_is_one_that_the_private_names_were_held_against() -> None:
    major, minor = (int(n) for n in torch.__version__.split(".")[:2])
    assert (2, 11) <= (major, minor) <= (2, 13)


def test_autograd_tells_which_node_runs_and_which_number_comes_next() -> None:
    seen: list[tuple[bool, int]] = []

    def hook(_: torch.Tensor) -> None:
        seen.append((private.graph_task_id() != -1, private.sequence_nr(private.autograd_node())))

    x = torch.ones(2, requires_grad=True)
    number = private.next_sequence_nr()
    y = x * 2  # its node takes this number
    y.register_hook(hook)
    y.sum().backward()
    assert private.graph_task_id() == -1
    assert seen and seen[0][0]
    assert y.grad_fn is not None
    assert private.sequence_nr(y.grad_fn) == number
    accumulate = y.grad_fn.next_functions[0][0]
    assert private.sequence_nr(accumulate) == private.NO_SEQUENCE


def test_a_fake_tensor_made_without_checks_is_like_one_made_with_them() -> None:
    device = torch.device("cpu")
    mode = private.FakeTensorMode()
    checked = private.FakeTensor(mode, torch.empty(2, 3, device="meta"), device)
    unchecked = private.as_fake(torch.empty(2, 3, device="meta"), device)
    unchecked.__dict__.update(checked.__dict__)
    assert (unchecked + unchecked).shape == (2, 3)
    assert unchecked.device == checked.device


def test_a_fake_tensor_made_beside_the_mode_is_what_the_mode_makes() -> None:
    shape, stride, device = (2, 3), (1, 2), torch.device("cpu")
    mode = private.fake_mode()
    with mode:
        of_mode = torch.nn.Parameter(torch.empty_strided(shape, stride, dtype=torch.float64))
    new = private.new_fake(mode, shape, stride, torch.float64, device)
    assert not isinstance(new, torch.nn.Parameter)
    private.mark_as_parameter(new, requires_grad=True)
    for t in (new, of_mode):
        assert isinstance(t, torch.nn.Parameter) and isinstance(t, private.FakeTensor) and t.is_leaf
        assert (t.shape, t.stride(), t.dtype, t.device, t.requires_grad) == (shape, stride, torch.float64, device, True)
        assert t.untyped_storage().nbytes() == 48 and t.fake_mode is mode
    (new * of_mode).sum().backward()
    assert new.grad is not None and new.grad.stride() == of_mode.grad.stride()


def test_gradients_that_code_asks_for_are_noticed_and_dropped() -> None:
    before, assigned, called = (torch.ones(2) for _ in range(3))
    before.requires_grad_()
    before.grad = gradient = torch.zeros(2)
    with private.newly_trainable([before]) as asked:
        assigned.requires_grad = True
        assert called.requires_grad_() is called
        (before * assigned * called).sum().backward()
        assert [*map(id, (before, assigned, called))] == list(asked)
        assert all(t.grad is not None and t.requires_grad for t in asked.values())
    assert before.grad is gradient
    assert assigned.grad is None and called.grad is None
    assert "requires_grad" not in vars(torch.Tensor) and "requires_grad_" not in vars(torch.Tensor)


def test_storages_versions_and_onednn_are_told_apart() -> None:
    x = torch.zeros(4)
    assert private.storage_key(x) == private.storage_key(x[1:]) != private.storage_key(x.clone())
    before = private.version_of(x)
    x.add_(1)
    assert private.version_of(x) == before + 1
    enabled = torch._C._get_mkldnn_enabled()
    with private.without_onednn():
        assert not torch._C._get_mkldnn_enabled()
    assert torch._C._get_mkldnn_enabled() == enabled


def test_a_scoped_library_ends_with_its_block() -> None:
    with private.scoped_library("pararev_private_test", "DEF") as library:
        library.define("twice(Tensor x) -> Tensor")
        library.impl("twice", lambda x: x * 2, "CPU")
        assert float(torch.ops.pararev_private_test.twice(torch.ones(()))) == 2


def test_calls_into_python_are_told() -> None:
    class Twice(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
            return 2 * x

        @staticmethod
        def backward(ctx: Any, grad: torch.Tensor) -> torch.Tensor:
            return 2 * grad

    apply = Twice.apply  # as many keep it, from before the watch
    calls: list[str] = []
    x = torch.ones(3, requires_grad=True)
    with private.watched_python_calls(calls.append):
        y = apply(apply(x))
        with torch.autograd.graph.saved_tensors_hooks(lambda t: t, lambda t: t):
            z = y * y  # saves it twice
        z.sum().backward()
    assert sorted(calls) == ["backwards"] * 2 + ["functions"] * 2 + ["packs"] * 2
    apply(x).sum().backward()
    assert len(calls) == 6
    assert x.grad is not None
    assert x.grad.tolist() == [34.0] * 3  # 16 x^2 and 2 x, derived at 1


def test_the_gpu_is_kept_busy_and_compiling_is_noticed_by_names_that_exist() -> None:
    assert callable(torch.cuda._sleep)
    assert isinstance(private.ever_compiled(), bool)
    assert private.autocasts_on_cpu(torch.ops.aten.mm.default)
    with torch.autocast("cpu", dtype=torch.bfloat16), private.without_cpu_autocast():
        assert torch.ops.aten.mm.default(torch.ones(2, 2), torch.ones(2, 2)).dtype is torch.float32


def test_tables_of_a_module_are_its_own() -> None:
    layer = torch.nn.BatchNorm1d(2)
    private.buffers_of(layer)["running_mean"] = torch.ones(2)
    assert torch.equal(layer.running_mean, torch.ones(2))
    assert private.parameters_of(layer)["weight"] is layer.weight
    assert isinstance(layer, private.AnyBatchNorm)
    assert isinstance(torch.nn.Dropout(), private.AnyDropout)


@pytest.fixture
def no_compiler(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A process that has not loaded torch's compiler, whatever other tests did."""
    there = vars(torch).get("_dynamo")
    monkeypatch.delitem(sys.modules, "torch._dynamo", raising=False)
    yield
    if there is not None:
        torch._dynamo = there


def test_fake_tensors_optimizers_and_checkpoints_do_not_load_the_compiler(no_compiler: None) -> None:
    layer = torch.nn.Linear(3, 3)
    with private.compiler_loaded_when_used():
        optimizer = torch.optim.SGD(layer.parameters(), 0.1, momentum=0.9)
        checkpoint(layer, torch.ones(2, 3), use_reentrant=False).sum().backward()
        optimizer.step()
        with private.fake_mode():
            assert (torch.ones(2, 3) @ torch.ones(3, 4)).shape == (2, 4)
        assert "torch._dynamo" in sys.modules and not private.ever_compiled()
        with pytest.raises(AttributeError):
            sys.modules["torch._dynamo"].__file__  # noqa: B018
    assert "torch._dynamo" not in sys.modules and "_dynamo" not in vars(torch)


# loads the compiler for good, so in a process of its own
COMPILED = """
import sys, torch
from pararev_hw import torch_private as private
net = torch.nn.Linear(3, 3)
net(torch.ones(2, 3)).sum().backward()
with private.compiler_loaded_when_used():
    optimizer = torch.optim.SGD(net.parameters(), 0.1)
    optimizer.step()
    assert not private.ever_compiled()
    ran = []
    compiled = torch.compile(lambda x: x + 1, backend=lambda graph, _: ran.append(graph) or graph.forward)
    assert compiled(torch.ones(2)).tolist() == [2, 2] and not ran  # as it was written
    import torch._dynamo.utils
    from torch._dynamo import convert_frame
    assert sys.modules["torch._dynamo.utils"] is torch._dynamo.utils
    assert convert_frame is sys.modules["torch._dynamo.convert_frame"]
    optimizer.step()
import torch._dynamo.config as config
assert private.ever_compiled() and torch._dynamo is sys.modules["torch._dynamo"]
assert config is torch._dynamo.config is sys.modules["torch._dynamo.config"]
assert compiled(torch.ones(2)).tolist() == [2, 2] and len(ran) == 1
optimizer.step()
"""


TRACED = """
import sys
import pararev_hw as ph
from pararev_hw import torch_private as private
ph.trace("pararevsnn21", width=0.1, batch=1)
assert not {"sympy", "torch.distributed.tensor", "torch._dynamo"}.intersection(sys.modules)
with private.compiler_loaded_when_used():
    import sympy
    import sympy.core.symbol
    from sympy import Symbol
    assert Symbol is sympy.Symbol is sympy.core.symbol.Symbol is sys.modules["sympy.core.symbol"].Symbol
    assert isinstance(sympy.Symbol("x"), sympy.Basic) and sympy.__version__ == sys.modules["sympy"].__version__
    import torch.fx.experimental.symbolic_shapes as shapes
    from torch.fx.experimental.symbolic_shapes import ShapeEnv, guard_or_false
    size = ShapeEnv().create_unbacked_symint()
    assert guard_or_false(size == 3) is shapes.guard_or_false(size == 3) is False
import sympy as after, torch
assert after.Symbol is Symbol and type(after).__module__ == "builtins"
assert torch.fx.experimental.symbolic_shapes is sys.modules["torch.fx.experimental.symbolic_shapes"]
assert torch.fx.experimental.symbolic_shapes.ShapeEnv is ShapeEnv
"""


@pytest.mark.skipif(not torch.__version__.startswith("2.13"), reason="other releases ask for more")
def test_a_trace_loads_no_sympy_and_a_network_that_uses_it_gets_sympy_itself() -> None:
    done = subprocess.run([sys.executable, "-c", TRACED], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_sizes_that_are_numbers_are_answered_as_torch_answers_them() -> None:
    from torch.fx.experimental import symbolic_shapes as there

    absent: Any = private._AbsentSymbols()
    sizes = [2, 3, (2, 3), [2, 3], (3, 2), (2, 3, 1), (), torch.Size([2, 3])]
    pairs = [(x, y) for x in sizes for y in sizes if isinstance(x, int) == isinstance(y, int)]
    assert [absent.sym_eq(x, y) for x, y in pairs] == [there.sym_eq(x, y) for x, y in pairs]
    for name in ("guard_or_true", "guard_or_false", "statically_known_true", "expect_true"):
        for condition in (True, False):
            assert getattr(absent, name)(condition) is getattr(there, name)(condition) is condition
    for conditions in ((True,), (True, False), (False, False, True), (True, True)):
        assert absent.sym_and(*conditions) is there.sym_and(*conditions)
        assert absent.sym_or(*conditions) is there.sym_or(*conditions)
    for size in (0, 1, 7):
        for name in ("guard_int", "is_nested_int", "has_guarding_hint"):
            # torch 2.11 has no guarding hints
            assert not hasattr(there, name) or getattr(absent, name)(size) == getattr(there, name)(size)
        assert set(absent.free_unbacked_symbols(size)) == set(there.free_unbacked_symbols(size)) == set()
    assert absent.compute_unbacked_bindings(None, (2, 3)) is there.compute_unbacked_bindings(None, (2, 3)) is None
    size = there.ShapeEnv().create_unbacked_symint()
    assert absent.free_unbacked_symbols(size) == there.free_unbacked_symbols(size) != set()
    assert absent.guard_or_true(size == 3) is True and absent.guard_or_false(size == 3) is False


@pytest.mark.slow
def test_a_network_that_compiles_gets_the_compiler_itself() -> None:
    done = subprocess.run([sys.executable, "-c", COMPILED], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_a_kernel_alone_gives_what_a_mode_of_fake_tensors_gives() -> None:
    aten = torch.ops.aten
    mode, by_kernel = private.FakeTensorMode(), 0
    with mode:
        x, y = torch.empty(2, 4, 6, 6), torch.empty(2, 4, 6, 6).to(memory_format=torch.channels_last)
        half, column, scale = torch.empty(2, 4, 6, 6, dtype=torch.bfloat16), torch.empty(4, 1, 1), torch.empty(4)
        square, labels = torch.empty(5, 5), torch.empty(5, dtype=torch.int64)
    binary, statistics = (aten.add.Tensor, aten.mul.Tensor, aten.div.Tensor), (scale, scale, scale, scale)
    norm, kinds = aten.native_batch_norm.default, (True, False)
    foreach_pairs = (aten._foreach_add.List, aten._foreach_mul.List, aten._foreach_copy_.default)
    calls: list[tuple[Any, ...]] = [
        *((op, (a, b)) for op in binary for a in (x, y) for b in (half, column)),
        *((aten.view.default, (x, [2, -1])), (aten.select.int, (y, 1, 2)), (aten.slice.Tensor, (y, 1, 1, 3))),
        *((aten.detach.default, (y,)), (aten.transpose.int, (y, 1, 2)), (aten.unbind.int, (y, 0))),
        *((aten.sum.dim_IntList, (y, [1])), (aten.cat.default, ([x, y], 1)), (aten.clone.default, (y,))),
        *((aten._foreach_add.List, ([x, column], [y, column])), (aten._foreach_add_.List, ([x], [y]))),
        *((op, ([x, y, column, x, y, x], [y, x, column, y, x, half])) for op in foreach_pairs),
        *((op, ([x, y, x, half, y],)) for op in (aten._foreach_sqrt.default, aten._foreach_neg_.default)),
        (aten._foreach_mul.ScalarList, ([x, x, x], [2.0, 3, 2.0])),
        (aten._foreach_mul.Tensor, ([y, x, y], column[0, 0, 0])),
        *((aten._foreach_norm.Scalar, ([x, y, x, column],)), (aten._foreach_add.List, ([x, x], [column, column]))),
        (aten._foreach_addcdiv_.ScalarList, ([x, y, x], [x, y, x], [x, y, x], [1.0, 2.0, 1.0])),
        *((norm, (a, *statistics, t, 0.1, 1e-5)) for a in (x, y) for t in kinds),
        *((aten.addmm.default, (b, square.mT, square)) for b in (square[0], square)),
        *((aten._log_softmax.default, (a, 1, False)) for a in (x, y)),
        *((aten._log_softmax_backward_data.default, (a, b, 1, torch.float32)) for a in (x, y) for b in (x, y)),
        *((aten.nll_loss_forward.default, (square, labels, None, k, -100)) for k in (0, 1)),
        (aten.nll_loss_backward.default, (square[0, 0], square, labels, None, 1, -100, square[0, 0])),
        *((aten.mse_loss.default, (x, y, k)) for k in (0, 1)), (aten.mse_loss_backward.default, (y, x, y, 0)),
        *((op, (a, b)) for op in (aten.sigmoid_backward.default, aten.tanh_backward.default) for a in (x, y)
          for b in (x, y)),
        *((aten.threshold_backward.default, (a, y, 0)) for a in (x, y)), (aten.gelu_backward.default, (x, y)),
        *((aten._to_copy.default, (a,), {"dtype": torch.float64}) for a in (x, half, y, square.mT)),
        (aten._unsafe_view.default, (x, [8, 36])),
    ]  # fmt: skip
    for function, args, *named in calls:
        kwargs = named[0] if named else {}
        tensors = [t for a in args for t in (a if isinstance(a, list) else [a]) if isinstance(t, torch.Tensor)]
        with torch.no_grad(), mode:
            expected = function(*args, **kwargs)
        alone = private.meta_outputs(function, args, kwargs, tensors)
        if alone is NotImplemented:
            continue
        by_kernel += 1
        assert (alone is None) == (expected is None)
        for meta, fake in zip(*(o if isinstance(o, tuple | list) else [o] for o in (alone, expected)), strict=True):
            if fake is not None:
                assert (meta.shape, meta.stride(), meta.dtype) == (fake.shape, fake.stride(), fake.dtype), function
                assert meta.storage_offset() == fake.storage_offset()
                assert meta.untyped_storage().nbytes() == fake.untyped_storage().nbytes()
    # all but batch norms that do not train, a matrix for a bias, copies of other layouts
    assert by_kernel >= len(calls) - 5
    with mode:
        elsewhere = torch.empty(2, device="meta")
    assert private.meta_outputs(aten.add.Tensor, (x, elsewhere), {}, [x, elsewhere]) is NotImplemented
    assert private.meta_outputs(aten.view.default, (x, [5]), {}, [x]) is NotImplemented  # the mode says what is wrong


_COUNTS = """
import sys, torch
from pararev_hw import torch_private
copied = dict(torch_private.flop_formulas())
assert "triton" not in sys.modules
from torch.utils.flop_counter import FlopCounterMode, flop_registry, register_flop_formula
assert copied.keys() == flop_registry.keys()
x, w = torch.zeros(2, 3, 8, 8), torch.zeros(4, 3, 3, 3)
with FlopCounterMode(display=False) as counter:
    out = torch.ops.aten.convolution.default(x, w, None, [1, 1], [0, 0], [1, 1], False, [0, 0], 1)
convolution = torch.ops.aten.convolution
arguments = (x, w, None, [1, 1], [0, 0], [1, 1], False, [0, 0], 1)
assert copied[convolution](*arguments, out_val=out) == counter.get_total_flops() == 2 * 2 * 4 * 36 * 27
register_flop_formula(torch.ops.aten.cumsum)(lambda *shapes, **_: 1)
assert torch.ops.aten.cumsum in torch_private.flop_formulas()
"""


def test_flop_formulas_are_torchs_and_those_that_users_register_without_triton() -> None:
    subprocess.run([sys.executable, "-W", "error", "-c", _COUNTS], check=True, timeout=120)


def test_a_sum_that_nothing_else_holds_is_told_from_one_that_is_kept() -> None:
    """The gradients of two uses of one tensor, the first kept by a hook or by nobody."""

    class Look(private.DispatchMode):
        def __init__(self) -> None:
            super().__init__()
            self.seen: list[bool] = []

        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            if func is torch.ops.aten.add.Tensor and not torch.is_grad_enabled():
                self.seen.append(private.references(args) == private.references_to_summed())
            return func(*args, **(kwargs or {}))

    private.references_to_summed()
    kept: list[torch.Tensor] = []
    for keep, expected in ((False, True), (True, False)):
        x = torch.ones(3, requires_grad=True) * 1
        first, second = x.sin(), x.view(3) if keep else x * 1
        if keep:
            second.register_hook(kept.append)
        with Look() as look:
            (first.cos() + second.cos()).sum().backward()
        assert look.seen == [expected]
