"""Devices: what a GPU, a CPU or an accelerator can do, each number with its source. `parameters.py` is the schema."""

from pararev_hw.devices.curves import is_measured as is_measured
from pararev_hw.devices.files import describe as describe
from pararev_hw.devices.files import device_from_dict as device_from_dict
from pararev_hw.devices.files import device_from_json as device_from_json
from pararev_hw.devices.files import device_from_yaml as device_from_yaml
from pararev_hw.devices.files import device_names as device_names
from pararev_hw.devices.files import device_to_dict as device_to_dict
from pararev_hw.devices.files import device_to_json as device_to_json
from pararev_hw.devices.files import device_to_yaml as device_to_yaml
from pararev_hw.devices.files import load_device as load_device
from pararev_hw.devices.hosts import Host as Host
from pararev_hw.devices.hosts import host_names as host_names
from pararev_hw.devices.hosts import load_host as load_host
from pararev_hw.devices.hosts import with_host as with_host
from pararev_hw.devices.parameters import PARAMETERS as PARAMETERS
from pararev_hw.devices.parameters import Quantity as Quantity
from pararev_hw.devices.parameters import needed_parameters as needed_parameters
from pararev_hw.devices.profiles import bare_device as bare_device
from pararev_hw.devices.profiles import hardware_names as hardware_names
from pararev_hw.devices.profiles import is_profile as is_profile
from pararev_hw.devices.profiles import listing as listing
from pararev_hw.devices.profiles import load_hardware as load_hardware
from pararev_hw.devices.profiles import profile_document as profile_document
from pararev_hw.devices.profiles import profile_from_json as profile_from_json
from pararev_hw.devices.profiles import profile_to_json as profile_to_json
from pararev_hw.devices.profiles import read_profile as read_profile
from pararev_hw.types.callable_room import make_callable

make_callable(__name__)  # pararev_hw.devices() is devices.listing()
