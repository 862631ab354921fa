"""Hardware-cost modelling and co-design for reversible spiking neural networks.

    import pararev_hw as ph
    graph = ph.trace("pararevsnn37", batch=8)          # or ph.trace(model, inputs)
    device = ph.load_device("h200")
    plan = ph.schedule(graph, device, "heft")
    ph.predict(plan).latency_s
    ph.report(graph, device, "out/")

Everything is imported when it is first asked for: `import pararev_hw` loads neither torch nor any other heavy package.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pararev_hw.api import compare as compare
    from pararev_hw.api import load_device as load_device
    from pararev_hw.api import measure as measure
    from pararev_hw.api import parallel as parallel
    from pararev_hw.api import predict as predict
    from pararev_hw.api import report as report
    from pararev_hw.api import schedule as schedule
    from pararev_hw.api import trace as trace

__all__ = ["compare", "load_device", "measure", "parallel", "predict", "report", "schedule", "trace"]


def __getattr__(name: str) -> Any:
    if name in __all__:
        return getattr(import_module("pararev_hw.api"), name)
    raise AttributeError(f"module 'pararev_hw' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted((*globals(), *__all__))
