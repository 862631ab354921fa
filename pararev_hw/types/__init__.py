"""The nouns of the toolkit: frozen data, valid once constructed, units in field names, SI throughout.

    network --trace--> BlockGraph --cost model(Device)--> SchedulingProblem
        --scheduler--> Schedule --simulate--> Prediction

`None` means "not known", zero means zero. Nothing here imports torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pararev_hw.rooms import names_when_used

if TYPE_CHECKING:
    from pararev_hw.types.base import AXES_UNKNOWN as AXES_UNKNOWN
    from pararev_hw.types.base import CONTROL as CONTROL
    from pararev_hw.types.base import NO_GRADIENT as NO_GRADIENT
    from pararev_hw.types.base import PHASES as PHASES
    from pararev_hw.types.base import ROLES as ROLES
    from pararev_hw.types.base import SCHEMA_VERSION as SCHEMA_VERSION
    from pararev_hw.types.base import VALUES_ASKED as VALUES_ASKED
    from pararev_hw.types.base import Phase as Phase
    from pararev_hw.types.base import Provenance as Provenance
    from pararev_hw.types.base import Role as Role
    from pararev_hw.types.chip import ChipRun as ChipRun
    from pararev_hw.types.chip import MappedCore as MappedCore
    from pararev_hw.types.chip import MappedLayer as MappedLayer
    from pararev_hw.types.device import Device as Device
    from pararev_hw.types.device import DeviceParameter as DeviceParameter
    from pararev_hw.types.energy import LayerEnergy as LayerEnergy
    from pararev_hw.types.energy import ModelEnergy as ModelEnergy
    from pararev_hw.types.graph import BlockGraph as BlockGraph
    from pararev_hw.types.graph import Call as Call
    from pararev_hw.types.graph import CriticalPath as CriticalPath
    from pararev_hw.types.graph import Edge as Edge
    from pararev_hw.types.graph import Hole as Hole
    from pararev_hw.types.graph import InMemory as InMemory
    from pararev_hw.types.graph import Instruction as Instruction
    from pararev_hw.types.graph import Layer as Layer
    from pararev_hw.types.graph import LayerSpikes as LayerSpikes
    from pararev_hw.types.graph import ModuleInfo as ModuleInfo
    from pararev_hw.types.graph import NeuronSpikes as NeuronSpikes
    from pararev_hw.types.graph import Op as Op
    from pararev_hw.types.graph import OpType as OpType
    from pararev_hw.types.graph import Program as Program
    from pararev_hw.types.graph import Spikes as Spikes
    from pararev_hw.types.graph import StepMemory as StepMemory
    from pararev_hw.types.graph import Storage as Storage
    from pararev_hw.types.graph import Task as Task
    from pararev_hw.types.graph import Totals as Totals
    from pararev_hw.types.measured import Hardware as Hardware
    from pararev_hw.types.measured import MeasuredDevice as MeasuredDevice
    from pararev_hw.types.measured import OpTime as OpTime
    from pararev_hw.types.measured import ReplayedStep as ReplayedStep
    from pararev_hw.types.prediction import Comparison as Comparison
    from pararev_hw.types.prediction import ExpectedError as ExpectedError
    from pararev_hw.types.prediction import MemoryCurve as MemoryCurve
    from pararev_hw.types.prediction import Prediction as Prediction
    from pararev_hw.types.prediction import Recommendation as Recommendation
    from pararev_hw.types.prediction import RecommendationName as RecommendationName
    from pararev_hw.types.prediction import Study as Study
    from pararev_hw.types.problem import Alternative as Alternative
    from pararev_hw.types.problem import Buffer as Buffer
    from pararev_hw.types.problem import CommEdge as CommEdge
    from pararev_hw.types.problem import EnergyParts as EnergyParts
    from pararev_hw.types.problem import SchedulingProblem as SchedulingProblem
    from pararev_hw.types.problem import TaskCost as TaskCost
    from pararev_hw.types.profile import Environment as Environment
    from pararev_hw.types.profile import Estimate as Estimate
    from pararev_hw.types.profile import Fit as Fit
    from pararev_hw.types.profile import OpSample as OpSample
    from pararev_hw.types.profile import PairSample as PairSample
    from pararev_hw.types.profile import Profile as Profile
    from pararev_hw.types.profile import StepSample as StepSample
    from pararev_hw.types.schedule import Placement as Placement
    from pararev_hw.types.schedule import Schedule as Schedule
    from pararev_hw.types.sweep import LayerLimit as LayerLimit
    from pararev_hw.types.sweep import PointExplanation as PointExplanation
    from pararev_hw.types.sweep import SweepAxis as SweepAxis
    from pararev_hw.types.sweep import SweepNeighbour as SweepNeighbour
    from pararev_hw.types.sweep import SweepPoint as SweepPoint
    from pararev_hw.types.sweep import SweepResult as SweepResult
    from pararev_hw.types.sweep import WorkloadChoice as WorkloadChoice
    from pararev_hw.types.table import Table as Table
    from pararev_hw.types.validation import Accuracy as Accuracy
    from pararev_hw.types.validation import OpError as OpError
    from pararev_hw.types.validation import PaperCheck as PaperCheck
    from pararev_hw.types.validation import PaperRow as PaperRow
    from pararev_hw.types.validation import StepCost as StepCost
    from pararev_hw.types.validation import Validation as Validation
    from pararev_hw.types.validation import ValidationCase as ValidationCase
else:
    __getattr__ = names_when_used(__name__)
