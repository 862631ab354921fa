"""Ops become the same groups as with a bit set of ancestors for every group."""

from __future__ import annotations

import random

from pararev_hw.tracing.grouping import Key, Member, group
from tests.helpers.bitset_grouping import BitSetGrouping


def members(draw: random.Random) -> list[Member]:
    """Random ops: some far from what they read, some glue, some views."""
    count, reach = draw.randrange(1, 60), draw.choice((3, 8, 60))
    drawn = []
    for k in range(count):
        after = sorted({draw.randrange(max(0, k - reach), k) for _ in range(draw.randrange(4))}) if k else []
        key = Key(
            draw.choice("abc"), draw.choice(("F", "G", "")), draw.choice(("forward", "backward")), draw.randrange(2)
        )
        drawn.append(Member(key, tuple(after), draw.random() < 0.25, draw.random() < 0.15))
    return drawn


def test_groups_are_those_of_plain_bit_sets() -> None:
    split = joined = 0
    for seed in range(300):
        ops = members(random.Random(seed))
        groups, of = group(ops)
        assert (groups, of) == BitSetGrouping(ops).result()
        split += any(g.number > 1 for g in groups)
        joined += any(g.key.branch == "join" for g in groups)
    assert split > 50 and joined > 50


def test_no_group_stands_before_one_that_it_follows() -> None:
    for seed in range(300, 350):
        ops = members(random.Random(seed))
        _, of = group(ops)
        assert all(of[a] <= of[k] for k, op in enumerate(ops) for a in op.after if not op.view)
