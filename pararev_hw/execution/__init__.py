"""Runs a traced step on the lanes of a schedule: any network, backward and update included, with no code of its own."""

from pararev_hw.execution.bound_step import BoundStep as BoundStep
from pararev_hw.execution.bound_step import StepRun as StepRun
from pararev_hw.execution.bound_step import TaskRun as TaskRun
from pararev_hw.execution.bound_step import bind as bind
from pararev_hw.execution.job import Job as Job
from pararev_hw.execution.job import batches as batches
from pararev_hw.execution.job import prepare as prepare
from pararev_hw.execution.machine import check_device as check_device
from pararev_hw.execution.machine import keep_memory as keep_memory
from pararev_hw.execution.machine import lanes_here as lanes_here
from pararev_hw.execution.machine import this_machine as this_machine
from pararev_hw.execution.measured_run import Execution as Execution
from pararev_hw.execution.measured_run import document as document
from pararev_hw.execution.measured_run import execute as execute
from pararev_hw.execution.memory import LiveBytes as LiveBytes
from pararev_hw.execution.overlap import side_by_side as side_by_side
from pararev_hw.execution.program import scalars_of as scalars_of
from pararev_hw.execution.runners import LaneRunner as LaneRunner
from pararev_hw.execution.runners import LoopRunner as LoopRunner
from pararev_hw.execution.runners import difference as difference
from pararev_hw.execution.state import fresh_optimizer_state as fresh_optimizer_state
from pararev_hw.execution.state import network_state as network_state
from pararev_hw.execution.streams import LaneStreams as LaneStreams
from pararev_hw.execution.streams import make_streams as make_streams
from pararev_hw.execution.threads import LaneThreads as LaneThreads
from pararev_hw.graph.order import lane_orders as lane_orders
