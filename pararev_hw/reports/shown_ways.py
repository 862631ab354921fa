"""Which ways to run a step a comparison shows of a network, and what it calls them."""

from __future__ import annotations

from pararev_hw.types import Prediction, Study

EAGER, SEQUENTIAL, FASTEST = "eager PyTorch", "sequential", "fastest"
WITHIN, WITHIN_LIMIT = "fastest within the sequential step's memory", "fastest within the limit"


def shown_ways(study: Study) -> tuple[tuple[str, Prediction], ...]:
    """The ways that a comparison shows of a network: in eager PyTorch (where the others are CUDA graphs), sequential,
    the fastest within the memory of that step, the fastest (within the limit, where one is given). None twice."""
    within = study.recommended("within_memory")
    between = () if within is None or within is study.sequential or within is study.chosen else ((WITHIN, within),)
    fastest = WITHIN_LIMIT if study.limit_given else FASTEST
    last = () if study.chosen is study.sequential or study.chosen is study.eager else ((fastest, study.chosen),)
    eager = () if study.eager is None else ((EAGER, study.eager),)
    return (*eager, (SEQUENTIAL, study.sequential), *between, *last)
