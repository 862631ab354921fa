"""The tiling search against every tiling that there is, played loop by loop."""

from __future__ import annotations

import itertools

import numpy as np
from hypothesis import example, given, settings
from hypothesis import strategies as st

from pararev_hw.costmodels.accelerator.products import Product, products
from pararev_hw.costmodels.accelerator.tilings import Widths, staircase, tile_sizes
from tests.helpers.hand_built_ops import conv


def played(p: Product, widths: Widths, capacity: float) -> float | None:
    """Least traffic over all tile sizes and loop orders, by walking through the tiles with a memory of one tile of each
    operand; None where none fits. Halos are counted from the rows that a tile touches."""
    best = None
    places = [(b, p.rows) for b in range(1, p.images + 1)] + [(1, y) for y in range(1, p.rows)]
    for (b, y), n, c in itertools.product(places, range(1, p.outputs + 1), range(1, p.inputs + 1)):
        images = [min(b, p.images - k) for k in range(0, p.images, b)]
        rows = [(k, min(y, p.rows - k)) for k in range(0, p.rows, y)]
        spots = list(itertools.product(images, rows))
        outs = [min(n, p.outputs - k) for k in range(0, p.outputs, n)]
        ins = [min(c, p.inputs - k) for k in range(0, p.inputs, c)]
        loops = {"p": len(spots), "n": len(outs), "c": len(ins)}
        grad = p.kind == "weight_gradient"
        touches = {
            "input": "pc",
            "second": "pn" if grad else "nc",
            "output": "nc" if grad else "pn",
        }
        in_rows = [p.in_rows if len(rows) == 1 else p.input_rows(r) for _, (_, r) in spots]

        def size(operand: str, at: dict[str, int], spots=spots, outs=outs, ins=ins, in_rows=in_rows, grad=grad) -> int:
            count, (_, height) = spots[at["p"]]
            if operand == "input":
                return count * ins[at["c"]] * in_rows[at["p"]] * p.in_columns
            place = count * height * p.columns * outs[at["n"]]
            weight = outs[at["n"]] * ins[at["c"]] * p.taps
            return (place if grad else weight) if operand == "second" else (weight if grad else place)

        room = 0.0
        first = {"p": 0, "n": 0, "c": 0}
        word = {"input": widths.input, "second": widths.second, "output": widths.sum}
        for operand, axes in touches.items():
            changes = p.groups > 1 or any(loops[a] > 1 for a in axes)
            room += size(operand, first) * word[operand] * (2 if changes else 1)
        if room > capacity:
            continue
        for order in itertools.permutations("pnc"):
            moved = 0.0
            now: dict[str, tuple[int, ...]] = {}
            seen: set[tuple[int, ...]] = set()
            for step in itertools.product(*(range(loops[a]) for a in order)):
                at = dict(zip(order, step, strict=True))
                for operand, axes in touches.items():
                    tile = tuple(at[a] for a in axes)
                    if now.get(operand) == tile:
                        continue
                    if operand != "output":
                        moved += size(operand, at) * word[operand]
                    else:
                        if tile in seen:  # a partial sum comes back, after it had left
                            moved += 2 * size(operand, at) * widths.sum
                        seen.add(tile)
                    now[operand] = tile
            moved += p.output_words / p.groups * widths.output
            best = moved if best is None else min(best, moved)
    return None if best is None else best * p.groups


shapes = st.builds(
    lambda images, inputs, outputs, size, kernel, stride, groups: {
        "images": images, "inputs": inputs * groups, "outputs": outputs * groups, "size": size, "kernel": kernel,
        "stride": stride, "padding": kernel // 2, "groups": groups,
    },
    st.integers(1, 3), st.integers(1, 4), st.integers(1, 4), st.integers(3, 5), st.sampled_from([1, 3]),
    st.sampled_from([1, 2]), st.sampled_from([1, 2]),
)  # fmt: skip


UNEVEN = {"images": 2, "inputs": 1, "outputs": 1, "size": 4, "kernel": 3, "stride": 1, "padding": 1, "groups": 1}


@settings(max_examples=25, deadline=None)
@example(UNEVEN, False, 0.875, (0.125, 1, 2, 4))  # 3 + 1 rows fetch fewer input rows than 2 + 2
@given(shapes, st.booleans(), st.floats(0.02, 1.2), st.sampled_from([(4, 4, 4, 4), (0.125, 1, 2, 4)]))
def test_the_best_tiling_is_the_best_of_all_tilings(
    shape: dict[str, int], backward: bool, part: float, bytes_: tuple[float, float, float, float]
) -> None:
    widths = Widths(*bytes_)
    for p in products(conv(**shape, backward=backward)):
        stairs = staircase(p, widths)
        capacity = part * float(stairs.room_bytes[-1])
        step = int(stairs.at(np.array([capacity]))[0])
        found = None if step < 0 else sum(
            float(x[step])
            for x in (stairs.input_bytes, stairs.second_bytes, stairs.output_read_bytes, stairs.output_write_bytes)
        )  # fmt: skip
        best = played(p, widths, capacity)
        assert (found is None) == (best is None)
        if found is not None and best is not None:
            assert abs(found - best) <= 1e-9 * best


@given(st.integers(1, 3000))
def test_tile_sizes_are_the_smallest_of_each_number_of_tiles(size: int) -> None:
    assert set(tile_sizes(size)) == {-(-size // k) for k in range(1, size + 1)}


@given(shapes, st.booleans())
def test_more_memory_never_moves_more(shape: dict[str, int], backward: bool) -> None:
    for p in products(conv(**shape, backward=backward)):
        s = staircase(p, Widths(4, 4, 4, 4))
        total = s.input_bytes + s.second_bytes + s.output_read_bytes + s.output_write_bytes
        assert np.all(np.diff(s.room_bytes) > 0) and np.all(np.diff(total) < 0)


@given(shapes, st.booleans())
def test_a_memory_that_holds_everything_moves_each_tensor_once(shape: dict[str, int], backward: bool) -> None:
    for p in products(conv(**shape, backward=backward)):
        s = staircase(p, Widths(4, 4, 4, 4))
        # a stride larger than the kernel skips rows, which a tile of few rows does not fetch
        skipped = p.kind != "input_gradient" and p.stride > p.reach
        assert s.input_bytes[-1] == 4 * p.input_words or (skipped and s.input_bytes[-1] < 4 * p.input_words)
        assert s.second_bytes[-1] == 4 * p.second_words
        assert s.output_write_bytes[-1] == 4 * p.output_words and s.output_read_bytes[-1] == 0
        groups = max(1, p.groups)
        room = 4 * (p.input_words + p.second_words + p.output_words) / groups
        assert s.room_bytes[-1] <= room * (2 if groups > 1 else 1)


@given(shapes, st.booleans())
def test_products_have_the_macs_of_their_op(shape: dict[str, int], backward: bool) -> None:
    t = conv(**shape, backward=backward)
    found = products(t)
    assert sum(p.macs for p in found) == t.macs
    assert all(p.has_loops for p in found)
