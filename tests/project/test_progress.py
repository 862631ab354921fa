"""What is told of the time that is left."""

import pytest

from pararev_hw.progress import Steps, time_left


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0.2, "0 s left"), (119.4, "119 s left"), (150, "2 min left"), (7190, "120 min left"), (10_000, "3 h left")],
)
def test_time_left_is_told_in_the_unit_that_people_use(seconds: float, words: str) -> None:
    assert time_left(seconds) == words


def test_the_rest_takes_as_long_as_the_steps_before_it_took() -> None:
    heard: list[str] = []
    now = [100.0]
    steps = Steps(heard.append, 4, lambda: now[0])
    for step_s, name in ((10, "a"), (30, "b"), (2, "c"), (0, "d")):
        steps.begin(name)
        now[0] += step_s
    # after 10 s three are left of 10 s each; after 40 s two of 20 s each; after 42 s one of 14 s
    assert heard == ["a (1 of 4)", "b (2 of 4, 30 s left)", "c (3 of 4, 40 s left)", "d (4 of 4, 14 s left)"]
