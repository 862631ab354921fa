"""The packages that can be called, as a type checker sees them: `ph.models()` beside `ph.models.create(...)`."""

from __future__ import annotations

from types import ModuleType

from pararev_hw.devices import files, profiles
from pararev_hw.models import convert, zoo
from pararev_hw.models.spec import Spec, batch_shapes
from pararev_hw.schedulers import describe, names, options_of, run
from pararev_hw.types import Table


class ModelsRoom(ModuleType):
    """The networks: called, a table of the zoo."""

    create = staticmethod(zoo.create)
    names = staticmethod(zoo.names)
    spec = staticmethod(zoo.spec)
    batch_shapes = staticmethod(batch_shapes)
    fuse = staticmethod(convert.fuse)
    unfuse = staticmethod(convert.unfuse)
    load_published = staticmethod(convert.load_published)

    def __call__(self) -> Table[Spec]: ...


class DevicesRoom(ModuleType):
    """The devices: called, a table of what comes with the package."""

    device_names = staticmethod(files.device_names)
    load_device = staticmethod(files.load_device)
    device_from_yaml = staticmethod(files.device_from_yaml)
    device_from_json = staticmethod(files.device_from_json)
    device_to_yaml = staticmethod(files.device_to_yaml)
    device_to_json = staticmethod(files.device_to_json)
    device_to_dict = staticmethod(files.device_to_dict)
    describe = staticmethod(files.describe)
    load_hardware = staticmethod(profiles.load_hardware)
    read_profile = staticmethod(profiles.read_profile)

    def __call__(self) -> Table[str]: ...


class SchedulersRoom(ModuleType):
    """The schedulers: called, a table of them."""

    names = staticmethod(names)
    describe = staticmethod(describe)
    options_of = staticmethod(options_of)
    run = staticmethod(run)

    def __call__(self) -> Table[str]: ...
