"""Reversible sequences against their textbook equations under plain autograd, and what they keep, save and wait for."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from pararev_hw.errors import BadInput
from pararev_hw.models.networks import Unit
from pararev_hw.models.neurons import IF
from pararev_hw.models.reversible import MergedSequence, Reversible, ReversibleSequence
from tests.helpers.deterministic_tensors import noise

COUPLINGS = ("revnet", "pararev")


class Smooth(nn.Module):
    """A residual function with a derivative everywhere: conv → BN → tanh, `[..., C, H, W]` both ways."""

    def __init__(self, channels: int, *, norm: bool = True, dropout: float = 0.0) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1, bias=not norm)  # before a norm it would have no effect
        self.norm = nn.BatchNorm2d(channels) if norm else nn.Identity()
        self.dropout = nn.Dropout(dropout) if dropout else nn.Identity()
        self.unused = nn.Parameter(torch.ones(1))

    def forward(self, x: Tensor) -> Tensor:
        return self.dropout(torch.tanh(self.norm(self.conv(x.flatten(0, -4))))).view(x.shape)


def build(coupling: str, pairs: int, make: Callable[[], nn.Module], **options: Any) -> Reversible:
    torch.manual_seed(pairs)
    if coupling == "merged":
        return MergedSequence(make(), [make() for _ in range(pairs - 1)], make(), **options)
    return ReversibleSequence([(make(), make()) for _ in range(pairs)], coupling=coupling, **options)


def textbook(seq: Reversible, x: Tensor) -> Tensor:
    """The equations as the papers give them."""
    x1, x2 = x.chunk(2, seq.dim)
    if isinstance(seq, MergedSequence):
        older, newer = x2, x1
        for m in (seq.first, *seq.merged, seq.last):
            older, newer = newer, older + m(newer)
        return torch.cat((older, newer), seq.dim)
    for pair in seq.blocks:
        if seq.coupling == "revnet":
            y1 = x1 + pair.f(x2)
            y2 = x2 + pair.g(y1)
        else:
            y1 = x2 + pair.f(x1)
            y2 = x1 + pair.g(y1)
        x1, x2 = y1, y2
    return torch.cat((x1, x2), seq.dim)


def gradients(function: Callable[[Tensor], Tensor], seq: nn.Module, x: Tensor) -> tuple[Tensor, list[Tensor | None]]:
    """The output, and the gradients of the input and all parameters for a fixed cotangent."""
    x = x.detach().requires_grad_()
    y = function(x)
    cotangent = noise(tuple(y.shape), 9).to(y.dtype)
    return y.detach(), list(torch.autograd.grad(y, [x, *seq.parameters()], cotangent, allow_unused=True))


def worst(found: list[Tensor | None], expected: list[Tensor | None]) -> float:
    """The largest relative error (in norm) of gradients; those that are None must be None in both."""
    assert [g is None for g in found] == [g is None for g in expected]
    pairs = [(f, e) for f, e in zip(found, expected, strict=True) if f is not None and e is not None]
    return max((float((f - e).norm() / e.norm()) for f, e in pairs), default=0.0)


@settings(max_examples=25, deadline=None)
@given(
    coupling=st.sampled_from(["revnet", "pararev", "merged"]),
    pairs=st.integers(1, 5),
    channels=st.integers(1, 3),
    lead=st.lists(st.integers(1, 3), min_size=1, max_size=2),
    size=st.tuples(st.integers(2, 4), st.integers(2, 4)),
    seed=st.integers(0, 1000),
)
def test_outputs_and_gradients_equal_plain_autograd_of_the_equations(
    coupling: str, pairs: int, channels: int, lead: list[int], size: tuple[int, int], seed: int
) -> None:
    seq = build(coupling, pairs, lambda: Smooth(channels)).double()
    x = noise((*lead, 2 * channels, *size), seed)
    y, found = gradients(seq, seq, x)
    y_expected, expected = gradients(lambda x: textbook(seq, x), seq, x)
    assert torch.equal(y, y_expected)
    assert worst(found, expected) <= 1e-11  # each pair that is reconstructed rounds once more; a wrong term is 1e-2
    seq.reversible = False
    assert worst(gradients(seq, seq, x)[1], expected) <= 1e-12


@pytest.mark.parametrize("coupling", COUPLINGS)
@pytest.mark.parametrize(("dtype", "bound"), [(torch.float64, 1e-12), (torch.float32, 1e-5)])
def test_ten_pairs_of_spiking_units_find_the_gradients_of_plain_autograd(
    coupling: str, dtype: torch.dtype, bound: float
) -> None:
    seq = build(coupling, 10, lambda: Unit(IF, 4, 4, 4)).to(dtype)
    x = 2 * noise((4, 2, 8, 6, 6), 1).to(dtype)
    y, found = gradients(seq, seq, x)
    _, expected = gradients(lambda x: textbook(seq, x), seq, x)
    assert worst(found, expected) <= bound
    x_again = seq.reconstruct(y)
    assert float((x_again - x).abs().max() / x.abs().max()) <= bound


@settings(max_examples=20, deadline=None)
@given(coupling=st.sampled_from(["revnet", "pararev", "merged"]), pairs=st.integers(1, 6), seed=st.integers(0, 1000))
def test_the_input_is_reconstructed_from_the_output(coupling: str, pairs: int, seed: int) -> None:
    seq = build(coupling, pairs, lambda: Smooth(2)).double()
    x = noise((2, 3, 4, 4, 4), seed)
    before = {k: v.clone() for k, v in seq.state_dict().items()}
    y = textbook(seq, x)
    seq.load_state_dict(before)
    torch.testing.assert_close(seq.reconstruct(y), x, rtol=0, atol=1e-12)
    assert all(torch.equal(v, before[k]) for k, v in seq.state_dict().items())


def test_the_pararev_coupling_is_a_leapfrog() -> None:
    """a[i+1] = a[i−1] + G_i(a[i]) + F_{i+1}(a[i]), b[n] = a[n−1] + G_n(a[n])."""
    seq = build("pararev", 4, lambda: Smooth(2)).double().eval()
    assert isinstance(seq, ReversibleSequence)
    x = noise((2, 4, 3, 3), 1)
    f, g = [p.f for p in seq.blocks], [p.g for p in seq.blocks]
    before, a = x[:, :2], x[:, 2:] + f[0](x[:, :2])
    for i in range(3):
        before, a = a, before + g[i](a) + f[i + 1](a)
    assert torch.equal(seq(x), torch.cat((a, before + g[3](a)), 1))


@pytest.mark.parametrize("coupling", [*COUPLINGS, "merged"])
def test_gradcheck_holds_for_input_and_parameters(coupling: str) -> None:
    seq = build(coupling, 2, lambda: Smooth(1)).double()
    weights = [p for k, p in seq.named_parameters() if "unused" not in k]
    x = noise((2, 2, 2, 3), 1).requires_grad_()
    assert torch.autograd.gradcheck(lambda x, *_: seq(x), (x, *weights))


@pytest.mark.parametrize("coupling", COUPLINGS)
def test_any_dimension_of_even_size_can_be_the_split_one(coupling: str) -> None:
    seq = build(coupling, 3, lambda: nn.Linear(3, 3), dim=1).double()
    x = noise((2, 4, 3), 1)
    y, found = gradients(seq, seq, x)
    y_expected, expected = gradients(lambda x: textbook(seq, x), seq, x)
    assert torch.equal(y, y_expected)
    assert worst(found, expected) <= 1e-12


# What it keeps


def kept(seq: nn.Module, x: Tensor) -> tuple[Tensor, list[Tensor]]:
    saved: list[Tensor] = []

    def pack(t: Tensor) -> Tensor:
        saved.append(t)
        return t

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
        y = seq(x)
    return y, saved


@pytest.mark.parametrize("coupling", [*COUPLINGS, "merged"])
@pytest.mark.parametrize("pairs", [1, 2, 7])
def test_only_the_output_is_kept(coupling: str, pairs: int) -> None:
    y, saved = kept(build(coupling, pairs, lambda: Smooth(2)), torch.zeros(2, 4, 3, 3, requires_grad=True))
    assert [t.untyped_storage().data_ptr() for t in saved] == [y.untyped_storage().data_ptr()]


# What waits for what


class Chains(TorchDispatchMode):
    """The longest chain of data dependencies, counted in operations of one kind, through storages (so also through
    views and in-place writes)."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind, self.longest, self.count = kind, 0, 0
        self.depth: dict[int, int] = {}
        self.alive: list[Tensor] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        leaves = [t for t in torch.utils._pytree.tree_leaves((args, kwargs)) if isinstance(t, Tensor)]
        counted = func.__name__.partition(".")[0] == self.kind
        depth = max((self.depth.get(t.untyped_storage()._cdata, 0) for t in leaves), default=0) + counted
        self.count += counted
        written = [t for t in torch.utils._pytree.tree_leaves(out) if isinstance(t, Tensor)]
        for t in written:
            key = t.untyped_storage()._cdata
            self.depth[key] = max(depth, self.depth.get(key, 0))
        self.alive += written
        self.longest = max(self.longest, depth)
        return out


@pytest.mark.parametrize("pairs", [1, 2, 5])
@pytest.mark.parametrize(("coupling", "chain"), [("revnet", lambda n: 2 * n), ("pararev", lambda n: n + 1)])
def test_pararev_has_n_plus_1_phases_and_revnet_2n_by_data_alone(
    coupling: str, chain: Callable[[int], int], pairs: int
) -> None:
    """One convolution per unit: forward, recomputation (convolutions in backward) and gradient each count theirs."""
    seq = build(coupling, pairs, lambda: Smooth(2))
    for kind, total in (("convolution", 2 * pairs), ("convolution_backward", 2 * pairs)):
        x = torch.zeros(2, 4, 3, 3, requires_grad=True)
        with Chains("convolution") as forward:
            y = seq(x)
        assert (forward.longest, forward.count) == (chain(pairs), 2 * pairs)
        with Chains(kind) as backward:
            y.backward(torch.ones_like(y))
        assert (backward.longest, backward.count) == (chain(pairs), total)


# Side effects


@pytest.mark.parametrize("coupling", COUPLINGS)
@pytest.mark.parametrize("momentum", [0.1, None])
def test_batch_statistics_enter_the_running_averages_once_per_step(coupling: str, momentum: float | None) -> None:
    seq, plain = (build(coupling, 3, lambda: Smooth(2)).double() for _ in range(2))
    for m in (*seq.modules(), *plain.modules()):
        if isinstance(m, nn.BatchNorm2d):
            m.momentum = momentum
    for seed in range(2):
        x = noise((3, 4, 3, 3), seed).requires_grad_()
        seq(x).sum().backward()
        textbook(plain, x).sum().backward()
    for (k, found), expected in zip(seq.named_buffers(), plain.buffers(), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12, msg=k)
    norms = [m for m in seq.modules() if isinstance(m, nn.BatchNorm2d)]
    assert [int(m.num_batches_tracked) for m in norms] == [2] * len(norms)
    assert all(m.track_running_stats for m in norms)


def test_an_error_in_backward_leaves_the_modules_as_they_were() -> None:
    seq = build("pararev", 2, lambda: Smooth(2))
    y = seq(torch.zeros(2, 4, 3, 3, requires_grad=True))
    seq.eval()
    handle = seq.blocks[0].f.register_forward_hook(lambda *_: 1 / 0)  # type: ignore[union-attr,operator]
    with pytest.raises(ZeroDivisionError):
        y.sum().backward()
    handle.remove()
    assert not any(m.training for m in seq.modules())
    assert all(m.track_running_stats for m in seq.modules() if isinstance(m, nn.BatchNorm2d))


def test_backward_recomputes_in_the_mode_of_the_forward() -> None:
    seq = build("pararev", 2, lambda: Smooth(2)).double()
    x = noise((2, 4, 3, 3), 1)
    expected = gradients(seq, seq, x)[1]

    def switched(x: Tensor) -> Tensor:
        y = seq.train()(x)
        seq.eval()
        return y

    assert worst(gradients(switched, seq, x)[1], expected) <= 1e-12
    evaluated = gradients(seq, seq, x)[1]
    assert worst(evaluated, gradients(lambda x: textbook(seq, x), seq, x)[1]) <= 1e-12
    assert worst(evaluated, expected) > 1e-3


@pytest.mark.parametrize("coupling", COUPLINGS)
def test_dropout_draws_the_same_in_the_recomputation(coupling: str) -> None:
    seq = build(coupling, 3, lambda: Smooth(2, norm=False, dropout=0.5)).double()
    x = noise((2, 4, 3, 3), 1)
    torch.manual_seed(5)
    y, found = gradients(seq, seq, x)
    after = torch.rand(3)
    torch.manual_seed(5)
    y_expected, expected = gradients(lambda x: textbook(seq, x), seq, x)
    assert torch.equal(torch.rand(3), after), "backward must leave the generator where forward left it"
    assert worst(found, expected) <= 1e-12
    if coupling == "revnet":  # both run the units in one order
        assert torch.equal(y, y_expected)


class Noisy(nn.Module):
    """Random, and no module says so."""

    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.ones(1, dtype=torch.float64))

    def forward(self, x: Tensor) -> Tensor:
        return torch.tanh(self.w * x * torch.rand_like(x))


def test_randomness_that_no_type_shows_is_replayed_on_demand() -> None:
    x = noise((2, 4, 3, 3), 1)
    errors = []
    for preserve in (True, None):
        seq = build("revnet", 2, Noisy, preserve_rng=preserve)
        torch.manual_seed(5)
        found = gradients(seq, seq, x)[1]
        torch.manual_seed(5)
        errors.append(worst(found, gradients(lambda x, seq=seq: textbook(seq, x), seq, x)[1]))
    assert errors[0] <= 1e-12 < errors[1]


@pytest.mark.parametrize("case", ["no dropout", "evaluation", "overridden"])
def test_no_generator_state_is_taken_where_nothing_is_drawn(case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    preserve = False if case == "overridden" else None
    dropout = 0.0 if case == "no dropout" else 0.5
    seq = build("pararev", 2, lambda: Smooth(2, dropout=dropout), preserve_rng=preserve)
    seq.train(case != "evaluation")
    monkeypatch.setattr(torch, "get_rng_state", lambda: pytest.fail("took the generator's state"))
    seq(torch.zeros(2, 4, 3, 3, requires_grad=True)).sum().backward()


def test_module_hooks_fire_in_the_recomputation() -> None:
    seq = build("pararev", 2, lambda: Smooth(2))
    calls: list[str] = []
    for name, m in seq.named_modules():
        if isinstance(m, Smooth):
            m.register_forward_hook(lambda *_, name=name: calls.append(name))
    y = seq(torch.zeros(2, 4, 3, 3, requires_grad=True))
    assert calls == ["blocks.0.f", "blocks.0.g", "blocks.1.f", "blocks.1.g"]
    calls.clear()
    y.sum().backward()
    assert calls == ["blocks.1.g", "blocks.1.f", "blocks.0.g", "blocks.0.f"]


# Ways to be called


@contextmanager
def autocast(enabled: bool = True) -> Iterator[None]:
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=enabled):
        yield


@pytest.mark.parametrize("coupling", COUPLINGS)
def test_the_recomputation_runs_under_the_autocast_of_the_forward(coupling: str) -> None:
    seq = build(coupling, 3, lambda: Smooth(4))
    x = noise((2, 8, 5, 5), 1).float()
    inside: list[torch.dtype] = []
    for m in seq.modules():
        if isinstance(m, nn.Conv2d):
            m.register_forward_hook(lambda _, __, out: inside.append(out.dtype))

    def cast(function: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
        def call(x: Tensor) -> Tensor:
            with autocast():
                return function(x)

        return call

    found = gradients(cast(seq), seq, x)[1]
    assert inside == [torch.bfloat16] * 12, "six units, forward and recomputation"
    expected = gradients(cast(lambda x: textbook(seq, x)), seq, x)[1]
    assert worst(found, expected) < 2e-2  # bfloat16 has 8 bits
    inside.clear()

    # and the other way round: autocast around backward alone must not reach the recomputation
    x = x.requires_grad_()
    y = seq(x)
    with autocast():
        y.sum().backward()
    assert inside == [torch.float32] * 12


def test_weights_cast_without_a_graph_are_not_reused_with_one() -> None:
    seq = build("pararev", 2, lambda: Smooth(4))
    x = noise((2, 8, 5, 5), 1).float()
    with autocast():
        seq(x).sum()
        textbook(seq, x).float().sum().backward()  # would find weights without gradients in the cache
    assert all(p.grad is not None for k, p in seq.named_parameters() if "unused" not in k)


def test_without_gradients_it_is_the_plain_function() -> None:
    seq = build("pararev", 3, lambda: Smooth(2)).eval()
    x = noise((2, 4, 3, 3), 1).float()
    with torch.no_grad():
        y = seq(x)
    assert not y.requires_grad
    assert torch.equal(y, textbook(seq, x))
    for p in seq.parameters():
        p.requires_grad_(False)
    assert not seq(x).requires_grad


@pytest.mark.parametrize("coupling", COUPLINGS)
def test_strides_of_the_input_do_not_matter(coupling: str) -> None:
    seq = build(coupling, 2, lambda: Smooth(2)).double()
    x = noise((3, 5, 4, 4, 2), 1).permute(0, 4, 2, 3, 1)[:, :, ::1].transpose(1, 2)  # [3, 4, 2, 4, 5]
    assert not x.is_contiguous()
    y, found = gradients(lambda x: seq(x.transpose(1, 2)), seq, x)
    y_expected, expected = gradients(lambda x: seq(x.transpose(1, 2).contiguous()), seq, x)
    torch.testing.assert_close(y, y_expected, rtol=1e-13, atol=1e-13)
    assert worst(found, expected) <= 1e-12


@settings(max_examples=20, deadline=None)
@given(coupling=st.sampled_from(["revnet", "pararev", "merged"]), wanted=st.integers(0, 2**13 - 1))
def test_gradients_are_given_to_those_who_want_them_and_to_nobody_else(coupling: str, wanted: int) -> None:
    seq = build(coupling, 3, lambda: Smooth(1)).double()
    x = noise((2, 2, 3, 3), 1)
    leaves = [x, *(p for k, p in seq.named_parameters() if "unused" not in k)]
    for i, leaf in enumerate(leaves):
        leaf.requires_grad_(bool(wanted >> (i % 13) & 1))
    results = []
    for function in (seq, lambda x: textbook(seq, x)):
        for leaf in leaves:
            leaf.grad = None
        y = function(x)
        if y.requires_grad:
            (y * noise(tuple(y.shape), 9)).sum().backward()
        results.append([leaf.grad for leaf in leaves])
    assert worst(*results) <= 1e-12


@pytest.mark.parametrize("coupling", COUPLINGS)
def test_a_unit_in_several_places_gets_the_sum_of_its_gradients(coupling: str) -> None:
    unit = Smooth(2).double()
    seq = ReversibleSequence([(unit, unit), (unit, Smooth(2).double())], coupling=coupling)
    x = noise((2, 4, 3, 3), 1)
    assert worst(gradients(seq, seq, x)[1], gradients(lambda x: textbook(seq, x), seq, x)[1]) <= 1e-12


def test_backward_can_be_repeated_where_the_graph_is_retained() -> None:
    seq = build("pararev", 2, lambda: Smooth(2, dropout=0.5)).double()
    x = noise((2, 4, 3, 3), 1).requires_grad_()
    y = seq(x).sum()
    (once,) = torch.autograd.grad(y, x, retain_graph=True)
    (twice,) = torch.autograd.grad(y, x)
    assert torch.equal(once, twice)


class Doubling(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.cat((x, x), -1)


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: ReversibleSequence([], coupling="pararev"), "has no pairs"),
        (lambda: ReversibleSequence([(nn.Identity(), nn.Identity())], coupling="prarev"), "'revnet' or 'pararev'"),  # type: ignore[arg-type]
        (lambda: build("revnet", 1, nn.Identity)(torch.zeros(1, 3, 2, 2)), r"\(1, 3, 2, 2\) along dimension -3"),
        (lambda: build("revnet", 1, nn.Identity)(torch.zeros(2, 2)), r"\(2, 2\) along dimension -3"),
        (lambda: build("revnet", 1, Doubling)(torch.zeros(1, 2, 2, 2)), r"made \(1, 1, 2, 4\) of \(1, 1, 2, 2\)"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(make: Callable[[], Any], says: str) -> None:
    with pytest.raises(BadInput, match=says) as caught:
        make()
    assert "\n" not in str(caught.value)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("coupling", COUPLINGS)
def test_on_a_gpu_gradients_and_dropout_equal_plain_autograd(coupling: str) -> None:
    seq = build(coupling, 3, lambda: Smooth(2, dropout=0.5)).double().cuda()
    x = noise((2, 4, 3, 3), 1).cuda()

    def on_gpu(function: Callable[[Tensor], Tensor]) -> list[Tensor | None]:
        torch.manual_seed(5)
        inputs = x.detach().requires_grad_()
        y = function(inputs)
        return list(torch.autograd.grad(y.square().sum(), [inputs, *seq.parameters()], allow_unused=True))

    assert worst(on_gpu(seq), on_gpu(lambda x: textbook(seq, x))) <= 1e-11
