"""Hardware-cost modelling and co-design for reversible spiking neural networks.

    import pararev_hw as ph
    graph = ph.trace("pararevsnn37", batch=8)          # or ph.trace(net, x, ph.TraceOptions(timesteps=4))
    plan = ph.schedule(graph, "h200", scheduler="heft")
    plan.predict().latency_s
    ph.report(graph, "h200", "out/")
    ph.models(), ph.devices(), ph.schedulers()         # what there is

Everything is imported when it is first asked for: `import pararev_hw` loads neither torch nor any other heavy package.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pararev_hw.api.files import load as load
    from pararev_hw.api.files import load_graph as load_graph
    from pararev_hw.api.files import save as save
    from pararev_hw.api.machines import calibrate as calibrate
    from pararev_hw.api.machines import load_device as load_device
    from pararev_hw.api.machines import measure as measure
    from pararev_hw.api.machines import validate as validate
    from pararev_hw.api.plans import execute as execute
    from pararev_hw.api.plans import load_problem as load_problem
    from pararev_hw.api.plans import parallel as parallel
    from pararev_hw.api.plans import predict as predict
    from pararev_hw.api.plans import schedule as schedule
    from pararev_hw.api.plans import schedule_problem as schedule_problem
    from pararev_hw.api.rooms import DevicesRoom, ModelsRoom, SchedulersRoom
    from pararev_hw.api.steps import trace as trace
    from pararev_hw.api.studies import Report as Report
    from pararev_hw.api.studies import SweepRun as SweepRun
    from pararev_hw.api.studies import compare as compare
    from pararev_hw.api.studies import report as report
    from pararev_hw.api.studies import sweep as sweep
    from pararev_hw.errors import BadInput as BadInput
    from pararev_hw.errors import Infeasible as Infeasible
    from pararev_hw.pipeline import Plan as Plan
    from pararev_hw.trace_options import TraceOptions as TraceOptions

    __version__: str
    devices: DevicesRoom
    models: ModelsRoom
    schedulers: SchedulersRoom

_ROOMS = ("devices", "models", "schedulers")  # packages that can be called for a table of what is in them
_PLACES = {
    "pararev_hw.api.files": ("load", "load_graph", "save"),
    "pararev_hw.api.machines": ("calibrate", "load_device", "measure", "validate"),
    "pararev_hw.trace_options": ("TraceOptions",),
    "pararev_hw.api.plans": ("execute", "load_problem", "parallel", "predict", "schedule", "schedule_problem"),
    "pararev_hw.api.steps": ("trace",),
    "pararev_hw.api.studies": ("Report", "SweepRun", "compare", "report", "sweep"),
    "pararev_hw.errors": ("BadInput", "Infeasible"),
    "pararev_hw.pipeline": ("Plan",),
}
__all__ = [
    "BadInput",
    "Infeasible",
    "Plan",
    "Report",
    "SweepRun",
    "TraceOptions",
    "calibrate",
    "compare",
    "devices",
    "execute",
    "load",
    "load_device",
    "load_graph",
    "load_problem",
    "measure",
    "models",
    "parallel",
    "predict",
    "report",
    "save",
    "schedule",
    "schedule_problem",
    "schedulers",
    "sweep",
    "trace",
    "validate",
]


if not TYPE_CHECKING:  # a type checker reports names that are not there, and need not hear of this

    def __getattr__(name: str) -> object:
        if name in _ROOMS:
            return import_module(f"pararev_hw.{name}")
        place = next((place for place, names in _PLACES.items() if name in names), None)
        if place is not None:
            return getattr(import_module(place), name)
        if name == "__version__":
            from pararev_hw.versions import installed_version

            return installed_version("pararev-hw")
        raise AttributeError(f"module 'pararev_hw' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted((*globals(), *__all__, "__version__"))
