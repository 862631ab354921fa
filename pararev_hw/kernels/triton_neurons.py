"""A multi-step spiking neuron in one pass over T, forward and backward, as Triton kernels. One program holds a block of
neurons, whose membrane never leaves the registers.

Every intermediate is rounded to the tensors' type (`_r`), as PyTorch rounds it between its operations, so that spikes
in bfloat16 are the reference's too; a membrane fires where it reaches `FIRES`, the threshold rounded likewise,
and a soft reset takes off `TAKES`, the threshold as PyTorch rounds it there: on a CPU alone.
Formulas: see `pararev_hw.models.neurons` and `pararev_hw.models.surrogates`. `CHARGE` is one of the kinds of charging
of `pararev_hw.kernels`; `SURROGATE` 0 is ATan, 1 Sigmoid, 2 Triangle.

    backward, from the last step to the first, G_v the gradient of v_t:
    G_h = g_t σ(h_t − θ) + G_v ∂v/∂h
    ∂v/∂h = (1 − s) + (v_reset − h) σ   hard reset        1 − θ σ   soft reset        (σ = 0 here with detach_reset)
    G_x = G_h ∂h/∂x,   G_v = G_h ∂h/∂v
"""

# mypy: ignore-errors
# ruff: noqa: SIM108  (constants decide these branches while a kernel is compiled)

import triton
import triton.language as tl

BLOCK = 1024


@triton.jit
def _r(value, rounded: tl.constexpr, wide: tl.constexpr):
    if rounded == tl.bfloat16:
        # to nearest, ties to even, by hand: Triton's interpreter cuts the digits off
        bits = value.to(tl.uint32, bitcast=True)
        bits = (bits + (0x7FFF + ((bits >> 16) & 1)).to(tl.uint32)) & 0xFFFF0000
        return bits.to(tl.uint32).to(tl.float32, bitcast=True)
    return value.to(rounded).to(wide)


@triton.jit
def forward(
    x_ptr, v_ptr, rate_ptr, s_ptr, h_ptr, last_ptr, n, step,
    T: tl.constexpr, CHARGE: tl.constexpr, SOFT: tl.constexpr, HAS_V: tl.constexpr,
    FIRES: tl.constexpr, TAKES: tl.constexpr, REST: tl.constexpr, TAU: tl.constexpr, KEEP: tl.constexpr,
    ROUNDED: tl.constexpr, WIDE: tl.constexpr, SIZE: tl.constexpr,
):  # fmt: skip
    """Spikes and h `[T, n]`, v after the last step `[n]`; x has `step` elements from one time step to the next."""
    at = tl.program_id(0).to(tl.int64) * SIZE + tl.arange(0, SIZE)
    inside = at < n
    v = tl.full((SIZE,), REST, WIDE)
    if HAS_V:
        v = tl.load(v_ptr + at, mask=inside, other=0.0).to(WIDE)
    rate = tl.full((SIZE,), 0.0, WIDE)
    if CHARGE >= 3:
        rate += tl.load(rate_ptr).to(WIDE)
    for t in range(T):
        x = tl.load(x_ptr + t * step + at, mask=inside, other=0.0).to(WIDE)
        h = _charged(x, v, rate, CHARGE, REST, TAU, KEEP, ROUNDED, WIDE)
        fired = h >= FIRES
        s = tl.where(fired, 1.0, 0.0).to(WIDE)
        tl.store(s_ptr + t * n + at, s.to(ROUNDED), mask=inside)
        tl.store(h_ptr + t * n + at, h.to(ROUNDED), mask=inside)
        if SOFT:
            v = _r(h - s * TAKES, ROUNDED, WIDE)
        else:
            v = tl.where(fired, tl.full((SIZE,), REST, WIDE), h)
    tl.store(last_ptr + at, v.to(ROUNDED), mask=inside)


@triton.jit
def _charged(
    x, v, rate,
    CHARGE: tl.constexpr, REST: tl.constexpr, TAU: tl.constexpr, KEEP: tl.constexpr,
    ROUNDED: tl.constexpr, WIDE: tl.constexpr,
):  # fmt: skip
    off = v
    if REST != 0.0:
        off = _r(v - REST, ROUNDED, WIDE)
    if CHARGE == 0:
        return _r(x + v, ROUNDED, WIDE)
    if CHARGE == 1:
        return _r(v + _r(_r(x - off, ROUNDED, WIDE) / TAU, ROUNDED, WIDE), ROUNDED, WIDE)
    if CHARGE == 3:
        return _r(v + _r(_r(x - off, ROUNDED, WIDE) * rate, ROUNDED, WIDE), ROUNDED, WIDE)
    if REST != 0.0:
        if CHARGE == 2:
            gone = _r(off / TAU, ROUNDED, WIDE)
        else:
            gone = _r(off * rate, ROUNDED, WIDE)
        return _r(_r(v - gone, ROUNDED, WIDE) + x, ROUNDED, WIDE)
    if CHARGE == 2:
        return _r(_r(v * KEEP, ROUNDED, WIDE) + x, ROUNDED, WIDE)
    return _r(_r(v * _r(1.0 - rate, ROUNDED, WIDE), ROUNDED, WIDE) + x, ROUNDED, WIDE)


@triton.jit
def backward(
    g_ptr, g_last_ptr, h_ptr, v_ptr, rate_ptr, dx_ptr, dv_ptr, drate_ptr, n,
    T: tl.constexpr, CHARGE: tl.constexpr, SOFT: tl.constexpr, DETACH: tl.constexpr, HAS_V: tl.constexpr,
    HAS_LAST: tl.constexpr, THRESHOLD: tl.constexpr, FIRES: tl.constexpr, TAKES: tl.constexpr, REST: tl.constexpr,
    TAU: tl.constexpr, KEEP: tl.constexpr,
    SURROGATE: tl.constexpr, A: tl.constexpr, B: tl.constexpr,
    ROUNDED: tl.constexpr, WIDE: tl.constexpr, SIZE: tl.constexpr,
):  # fmt: skip
    """Gradients of x `[T, n]`, of v before the first step `[n]` and, a part per program, of the rate."""
    at = tl.program_id(0).to(tl.int64) * SIZE + tl.arange(0, SIZE)
    inside = at < n
    rate = tl.full((SIZE,), 0.0, WIDE)
    if CHARGE >= 3:
        rate += tl.load(rate_ptr).to(WIDE)
    of_rate = tl.full((SIZE,), 0.0, WIDE)
    g_v = tl.full((SIZE,), 0.0, WIDE)
    if HAS_LAST:
        g_v = tl.load(g_last_ptr + at, mask=inside, other=0.0).to(WIDE)
    h = tl.load(h_ptr + (T - 1) * n + at, mask=inside, other=0.0).to(WIDE)
    for back in range(T):
        t = T - 1 - back
        # v and h of the step before, v at rest before the first
        before = h
        if back + 1 < T:
            before = tl.load(h_ptr + (t - 1) * n + at, mask=inside, other=0.0).to(WIDE)
            v = _after(before, SOFT, FIRES, TAKES, REST, ROUNDED, WIDE, SIZE)
        else:
            v = tl.full((SIZE,), REST, WIDE)
            if HAS_V:
                v = tl.load(v_ptr + at, mask=inside, other=0.0).to(WIDE)
        g = tl.load(g_ptr + t * n + at, mask=inside, other=0.0).to(WIDE)
        u = h - THRESHOLD
        slope = _slope(u, SURROGATE, A, B)
        s = tl.where(h >= FIRES, 1.0, 0.0).to(WIDE)
        if SOFT:
            through = tl.full((SIZE,), 1.0, WIDE)
            if not DETACH:
                through = 1.0 - THRESHOLD * slope
        else:
            through = 1.0 - s
            if not DETACH:
                through = through + (REST - h) * slope
        g_h = _r(g * slope + g_v * through, ROUNDED, WIDE)
        if CHARGE == 0:
            g_x, g_v = g_h, g_h
        elif CHARGE == 1:
            g_x, g_v = g_h / TAU, g_h * KEEP
        elif CHARGE == 2:
            g_x, g_v = g_h, g_h * KEEP
        elif CHARGE == 3:
            g_x, g_v = g_h * rate, g_h * (1.0 - rate)
            of_rate += g_h * (h - v) / rate
        else:
            g_x, g_v = g_h, g_h * (1.0 - rate)
            of_rate -= g_h * (v - REST)
        g_v = _r(g_v, ROUNDED, WIDE)
        tl.store(dx_ptr + t * n + at, _r(g_x, ROUNDED, WIDE).to(ROUNDED), mask=inside)
        h = before
    if HAS_V:
        tl.store(dv_ptr + at, g_v.to(ROUNDED), mask=inside)
    if CHARGE >= 3:
        tl.store(drate_ptr + tl.program_id(0), tl.sum(tl.where(inside, of_rate, 0.0), axis=0))


@triton.jit
def _after(
    h, SOFT: tl.constexpr, FIRES: tl.constexpr, TAKES: tl.constexpr, REST: tl.constexpr,
    ROUNDED: tl.constexpr, WIDE: tl.constexpr, SIZE: tl.constexpr,
):  # fmt: skip
    fired = h >= FIRES
    if SOFT:
        return _r(h - tl.where(fired, 1.0, 0.0).to(WIDE) * TAKES, ROUNDED, WIDE)
    return tl.where(fired, tl.full((SIZE,), REST, WIDE), h)


@triton.jit
def _slope(u, SURROGATE: tl.constexpr, A: tl.constexpr, B: tl.constexpr):
    if SURROGATE == 0:
        w = u * A
        return 1.0 / (w * w + B)
    if SURROGATE == 1:
        s = 1.0 / (1.0 + tl.exp(-(u * A)))
        return (1.0 - s) * s * A
    return tl.maximum(A - B * tl.abs(u), 0.0)
