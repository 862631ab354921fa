"""A package of the toolkit that can be called for a table of what is in it: `ph.models()` beside `ph.models.create`.

The verb and the package share a name; which of the two `ph.models` is would otherwise depend on what was imported
first.
"""

from __future__ import annotations

import sys
from types import ModuleType

from pararev_hw.errors import BadInput
from pararev_hw.types.table import Table


class CallableRoom(ModuleType):
    """A module whose call is the call of its function `listing`."""

    def __call__(self, *args: object, **options: object) -> Table[object]:
        if args or options:
            raise BadInput(f"ph.{self.__name__.rpartition('.')[2]} takes nothing: it gives a table of all there are")
        table: Table[object] = self.listing()
        return table


def make_callable(name: str) -> None:
    """Let the package of that name be called for its listing."""
    sys.modules[name].__class__ = CallableRoom
