"""Measuring: clocks, whole steps, and a quick look at this machine."""

from pararev_hw.measurement.clock import Clock as Clock
from pararev_hw.measurement.clock import Timing as Timing
from pararev_hw.measurement.clock import cpu_clock as cpu_clock
from pararev_hw.measurement.clock import cuda_clock as cuda_clock
from pararev_hw.measurement.clock import cuda_step_clock as cuda_step_clock
from pararev_hw.measurement.clock import measure as measure
from pararev_hw.measurement.clock import wall_clock as wall_clock
from pararev_hw.measurement.quick import cache_name as cache_name
from pararev_hw.measurement.quick import quick_cpu_device as quick_cpu_device
from pararev_hw.measurement.quick import read_cached as read_cached
from pararev_hw.measurement.quick import write_cached as write_cached
from pararev_hw.measurement.steps import MIN_STEPS as MIN_STEPS
from pararev_hw.measurement.steps import WARM_UP_STEPS as WARM_UP_STEPS
from pararev_hw.measurement.steps import collector_at_rest as collector_at_rest
from pararev_hw.measurement.steps import computing_threads as computing_threads
from pararev_hw.measurement.steps import measure_step as measure_step
from pararev_hw.measurement.steps import settle_allocator as settle_allocator
from pararev_hw.measurement.steps import step_clock as step_clock
