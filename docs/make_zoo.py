"""Write what `pararev-hw models` lists, `pararev_hw/models/zoo.json`: `python docs/make_zoo.py`.

The networks themselves need torch, which takes longer to load than the listing takes to print.
tests/models/test_zoo_listing.py makes the rows again and compares, so none can go stale.
"""

from __future__ import annotations

import json
from pathlib import Path

from pararev_hw import models

ROWS = Path(models.__file__).parent / "zoo.json"
_FIELDS = (
    "name", "family", "depth", "blocks", "channels", "timesteps", "input_shape", "event", "classes", "layout", "method"
)  # fmt: skip


def rows() -> list[dict[str, object]]:
    """A row for each network; `axes` are those of its input."""
    return [_row(models.spec(name)) for name in models.names()]


def _row(spec: models.Spec) -> dict[str, object]:
    row = {field: getattr(spec, field) for field in _FIELDS} | {"assumptions": spec.assumptions}
    ((x, _),), _ = models.batch_shapes(spec.layout, 0, 0, spec.input_shape)
    frames = "T,B" if spec.event else "B" if len(x) == len(spec.input_shape) + 1 else "B,T"
    return row | {"axes": ",".join(filter(None, (frames, ",".join(map(str, spec.input_shape)))))}


def text() -> str:
    """The file: a line for each network."""
    return "[\n" + ",\n".join(json.dumps(row) for row in rows()) + "\n]\n"


if __name__ == "__main__":
    ROWS.write_text(text(), encoding="utf-8")
