"""Sets of tasks as bytes hold what the sets hold, at the edges of bytes too."""

from hypothesis import given
from hypothesis import strategies as st

from pararev_hw.costmodels.buffers import _bits, _holds


@given(st.sets(st.integers(0, 70)))
def test_bits_hold_the_members_of_a_set_and_no_other(members: set[int]) -> None:
    bits = _bits(sum(1 << m for m in members))
    assert {k for k in range(100) if _holds(bits, k)} == members
