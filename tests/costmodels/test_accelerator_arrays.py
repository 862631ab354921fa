"""Arrays of processing elements against arrays that are stepped cycle by cycle, and against closed forms."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pararev_hw.costmodels.accelerator.arrays import EVENT, INPUT, OUTPUT, WEIGHT, Loops, Work, busiest_share, on_array


def loops(m: int, n: int, k: int, *, taps: int = 1, share: float = 1.0, spiking: bool = False) -> Loops:
    one = [np.array([[float(v)]]) for v in (1, m, n, k, taps, share)]
    return Loops(*one, np.array([[spiking]]))


def work(
    shape: Loops, dataflow: int, rows: int, columns: int, *, systolic: bool = False, overhead: float = 0.0,
    busiest: float | None = None,
) -> Work:  # fmt: skip
    busy = shape.share if busiest is None else np.array([[busiest]])
    return on_array(shape, dataflow, np.array([float(rows)]), np.array([float(columns)]), np.array([float(systolic)]),
                    shape.skippable, np.array([overhead]), busy)  # fmt: skip


def blocks(size: int, part: int) -> list[range]:
    return [range(k, min(k + part, size)) for k in range(0, size, part)]


def stepped_broadcast(a: np.ndarray, b: np.ndarray, dataflow: int, rows: int, columns: int) -> tuple[int, np.ndarray]:
    """`a @ b` on an array whose buses reach every PE in the same cycle: cycles taken, and the product.

    One multiply-accumulate per PE and cycle; the stationary operand is there when its tile begins.
    """
    (m, k), n = a.shape, b.shape[1]
    out, cycles = np.zeros((m, n)), 0
    along = {OUTPUT: (m, n, k), WEIGHT: (k, n, m), INPUT: (k, m, n)}[dataflow]
    for rr in blocks(along[0], rows):
        for cc in blocks(along[1], columns):
            for t in range(along[2]):
                cycles += 1
                for r in rr:  # every PE of the array, in this one cycle
                    for c in cc:
                        i, j, x = {OUTPUT: (r, c, t), WEIGHT: (t, c, r), INPUT: (c, t, r)}[dataflow]
                        out[i, j] += a[i, x] * b[x, j]
    return cycles, out


def stepped_systolic(a: np.ndarray, b: np.ndarray, rows: int, columns: int) -> tuple[int, np.ndarray]:
    """`a @ b` on a weight-stationary systolic array, register by register.

    Inputs enter row r at the left, r cycles after row 0, and move right; sums move down and leave below the last row.
    Weights of the next tile are shifted in from above, one row per cycle, while the array works, and every PE takes
    over its new weight as the first input of the new tile reaches it. A tile starts when the one before has sent in its
    last input and all rows of its own weights have been shifted in. Counted from the first input to the last sum; the
    first tile's weights are there.
    """
    (m, k), n = a.shape, b.shape[1]
    tiles = [(rr, cc) for rr in blocks(k, rows) for cc in blocks(n, columns)]
    enter: dict[int, tuple[int, int]] = {}  # cycle -> (tile, vector) that enters row 0
    start = 0
    for t in range(len(tiles)):
        for v in range(m):
            enter[start + v] = (t, v)
        start += max(m, rows)
    tag = [[None] * columns for _ in range(rows)]  # which (tile, vector) each PE works on
    sums = np.zeros((rows, columns))
    out, cycle, left = np.zeros((m, n)), 0, len(tiles) * m
    while left:
        new_tag = [[None] * columns for _ in range(rows)]
        new_sums = np.zeros((rows, columns))
        for r in range(rows):
            for c in range(columns):
                what = enter.get(cycle - r) if c == 0 else tag[r][c - 1]
                new_tag[r][c] = what
                above = sums[r - 1, c] if r else 0.0
                if what is None:
                    continue
                (rr, cc), v = tiles[what[0]], what[1]
                here = r < len(rr) and c < len(cc)
                new_sums[r, c] = above + (a[v, rr[r]] * b[rr[r], cc[c]] if here else 0.0)
        tag, sums = new_tag, new_sums
        cycle += 1
        for c in range(columns):
            if tag[rows - 1][c] is not None:
                (_, cc), v = tiles[tag[rows - 1][c][0]], tag[rows - 1][c][1]
                if c < len(cc):
                    out[v, cc[c]] += sums[rows - 1, c]
                if c == columns - 1:
                    left -= 1
    return cycle, out


sizes = st.integers(1, 9)


@settings(max_examples=60, deadline=None)
@given(sizes, sizes, sizes, st.integers(1, 4), st.integers(1, 4), st.sampled_from([OUTPUT, WEIGHT, INPUT]))
def test_array_with_buses_takes_as_many_cycles_as_one_that_is_stepped(
    m: int, n: int, k: int, rows: int, columns: int, dataflow: int
) -> None:
    rng = np.random.default_rng(0)
    a, b = rng.integers(-4, 5, (m, k)).astype(float), rng.integers(-4, 5, (k, n)).astype(float)
    cycles, out = stepped_broadcast(a, b, dataflow, rows, columns)
    assert np.array_equal(out, a @ b)  # the stepped array does compute the product
    assert work(loops(m, n, k), dataflow, rows, columns).cycles[0, 0] == cycles


@settings(max_examples=60, deadline=None)
@given(sizes, sizes, sizes, st.integers(1, 4), st.integers(1, 4))
def test_systolic_array_takes_as_many_cycles_as_one_that_is_stepped(
    m: int, n: int, k: int, rows: int, columns: int
) -> None:
    rng = np.random.default_rng(0)
    a, b = rng.integers(-4, 5, (m, k)).astype(float), rng.integers(-4, 5, (k, n)).astype(float)
    cycles, out = stepped_systolic(a, b, rows, columns)
    assert np.array_equal(out, a @ b)
    found = work(loops(m, n, k), WEIGHT, rows, columns, systolic=True).cycles[0, 0]
    # the model lets the last tile, too, wait for the weights of a tile after it
    assert found == cycles + max(0, rows - m)


@given(st.integers(1, 5), st.integers(1, 5), st.integers(1, 5), st.integers(1, 8), st.integers(1, 8))
def test_sizes_that_divide_use_every_element_in_every_cycle(a: int, b: int, c: int, rows: int, columns: int) -> None:
    for dataflow, (m, n, k) in {
        OUTPUT: (a * rows, b * columns, c),
        WEIGHT: (c, b * columns, a * rows),
        INPUT: (b * columns, c, a * rows),
    }.items():
        assert work(loops(m, n, k), dataflow, rows, columns).cycles[0, 0] == m * n * k / (rows * columns)


@given(sizes, sizes, sizes, st.integers(1, 4), st.integers(1, 4), st.integers(1, 5), st.sampled_from(range(4)))
def test_whole_multiples_of_an_array_never_take_longer(
    m: int, n: int, k: int, rows: int, columns: int, times: int, dataflow: int
) -> None:
    small, large = (work(loops(m, n, k), dataflow, r, columns).cycles[0, 0] for r in (rows, rows * times))
    assert large <= small
    wide = work(loops(m, n, k), dataflow, rows, columns * times).cycles[0, 0]
    assert wide <= small


def test_memory_accesses_of_each_dataflow() -> None:
    # m = 6, n = 5, k = 7 on 2 x 4: two column blocks of n or m, three row blocks of m, four of k
    macs = {"m": 6 * 7, "n": 5 * 7, "o": 6 * 5}
    out, weight, inp = (work(loops(6, 5, 7), d, 2, 4) for d in (OUTPUT, WEIGHT, INPUT))
    assert (out.input_reads, out.second_reads) == (macs["m"] * 2, macs["n"] * 3)
    assert (out.sum_reads, out.sum_writes) == (0, macs["o"])
    assert (weight.input_reads, weight.second_reads) == (macs["m"] * 2, macs["n"])
    assert (weight.sum_reads, weight.sum_writes) == (macs["o"] * 3, macs["o"] * 4)
    assert (inp.input_reads, inp.second_reads) == (macs["m"], macs["n"] * 2)
    assert (inp.sum_reads, inp.sum_writes) == (macs["o"] * 3, macs["o"] * 4)


@given(st.floats(0.0, 1.0), st.sampled_from([OUTPUT, WEIGHT, INPUT]))
def test_skipped_zeros_take_no_time_and_the_rest_its_overhead(share: float, dataflow: int) -> None:
    dense = work(loops(64, 16, 32), dataflow, 8, 8).cycles[0, 0]
    sparse = work(loops(64, 16, 32, share=share, spiking=True), dataflow, 8, 8, overhead=0.25).cycles[0, 0]
    least = work(loops(64, 16, 32), dataflow, 8, 8).cycles[0, 0] / {OUTPUT: 32, WEIGHT: 64, INPUT: 16}[dataflow]
    assert sparse == pytest.approx(max(dense * share * 1.25, least))


def test_an_event_reaches_its_fan_out_over_the_whole_array() -> None:
    # 10 x 6 x 6 places, 3 channels in, 20 out, 3 x 3 taps; a tenth of the inputs are spikes
    shape = loops(360, 20, 27, taps=9, share=0.1, spiking=True)
    found = work(shape, EVENT, 4, 8, overhead=2.0)
    events = 0.1 * 360 * 3
    assert found.cycles[0, 0] == pytest.approx(events * (3 * 3 + 2))  # ceil(20 / 8) x ceil(9 / 4), and the overhead
    assert found.second_reads[0, 0] == pytest.approx(0.1 * 360 * 20 * 27)  # one weight per synaptic operation


@given(st.lists(st.floats(0.0, 1.0), min_size=1, max_size=24), st.integers(1, 9), st.integers(1, 40))
def test_the_busiest_row_sets_the_pace(density: list[float], taps: int, rows: int) -> None:
    mean = float(np.mean(density))
    found = busiest_share(density, mean, taps, rows)
    line = density * taps
    tiles = [line[k : k + rows] for k in range(0, len(line), rows)]
    assert found == pytest.approx(float(np.mean([max(t) for t in tiles])), abs=1e-12)
    assert found >= mean - 1e-9 or len(line) % rows  # an incomplete tile may hold the quiet channels alone
    assert busiest_share([0.3] * 5, 0.3, taps, rows) == pytest.approx(0.3)
    assert busiest_share([], 0.3, taps, rows) == 0.3
