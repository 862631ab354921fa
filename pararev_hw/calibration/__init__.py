"""Measure this machine and fit a profile to it."""

from pararev_hw.calibration.session import calibrate as calibrate
from pararev_hw.calibration.session import check_device as check_device
