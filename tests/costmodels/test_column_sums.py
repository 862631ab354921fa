"""A column's sum is the same to the last bit whatever stands beside it, so that a sweep may stop anywhere."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from pararev_hw.costmodels.column_sums import column_sums


@given(st.integers(0, 2**32 - 1), st.integers(0, 40), st.integers(1, 9))
def test_a_sum_does_not_depend_on_its_neighbours(seed: int, rows: int, columns: int) -> None:
    values = np.random.default_rng(seed).lognormal(0, 5, (rows, columns))
    together = column_sums(values)
    one_by_one = [float(column_sums(np.ascontiguousarray(values[:, k : k + 1]))[0]) for k in range(columns)]
    assert together.tolist() == one_by_one
    np.testing.assert_allclose(together, values.sum(0), rtol=1e-13)
