"""Arrays made from buffers are those that pyarrow makes."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from pararev_hw.sweeps.arrow_arrays import arrow_array, arrow_words, numpy_array


@settings(deadline=None)  # pyarrow's own way loads pandas first
@given(st.lists(st.none() | st.floats(allow_nan=False), max_size=40), st.integers(0, 3))
def test_floats_with_nulls(values: list[float | None], start: int) -> None:
    missing = np.array([v is None for v in values], np.bool_)
    array = arrow_array(np.array([np.nan if v is None else v for v in values], np.float64), missing)
    assert array.equals(pa.array(values, pa.float64()))
    seen = numpy_array(pa.chunked_array([array.slice(start)]))
    assert [None if np.isnan(v) else v for v in seen.tolist()] == values[start:]


@settings(deadline=None)
@given(st.lists(st.booleans(), max_size=40), st.lists(st.integers(-(2**63), 2**63 - 1), max_size=9), st.integers(0, 9))
def test_truths_and_whole_numbers(truths: list[bool], numbers: list[int], start: int) -> None:
    for values, dtype, of in ((truths, np.bool_, pa.bool_()), (numbers, np.int64, pa.int64())):
        array = arrow_array(np.array(values, dtype))
        assert array.equals(pa.array(values, of))
        assert numpy_array(array.slice(start)).tolist() == values[start:]
        assert numpy_array(pa.chunked_array([array, array])).tolist() == [*values, *values]


@settings(deadline=None)
@given(st.lists(st.sampled_from(["", "a", "é", "no room", "b" * 9]), max_size=30))
def test_words(words: list[str]) -> None:
    array = arrow_words(np.array(words, dtype=object), missing="")
    assert array.equals(pa.array([w or None for w in words], pa.string()).dictionary_encode())
    assert arrow_words(np.array(words, dtype=object)).to_pylist() == words


def test_a_table_of_them_takes_no_pandas() -> None:
    script = """
import sys
import numpy as np
import pyarrow as pa
from pararev_hw.sweeps.arrow_arrays import arrow_array, arrow_words, numpy_array
numbers = arrow_array(np.array([1.0, np.nan]), np.array([False, True]))
table = pa.table({"numbers": numbers, "words": arrow_words(np.array(["a", ""]), missing="")})
assert numpy_array(table.filter(arrow_array(np.array([True, False])))["numbers"]).tolist() == [1.0]
assert "pandas" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", script], check=True)
