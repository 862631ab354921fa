"""What is written all at once, or drawn once for two widths, is what was written and drawn piece by piece."""

from __future__ import annotations

import json
import math
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from jinja2 import Environment

from pararev_hw.reports import graph_svg, svg
from pararev_hw.reports.blockgraph import graph_svgs
from pararev_hw.reports.document import dump
from pararev_hw.reports.page import Row, _breakable, _cells
from tests.helpers import hand_built_study

texts = st.text() | st.sampled_from(["}, {", "}\x01{", '"}', "a\nb", "stages.0.blocks.1.f.conv", "<&'\">"])
numbers = st.integers() | st.floats()
rows = st.lists(st.dictionaries(texts, texts | numbers | st.booleans() | st.none()))


@given(st.dictionaries(texts, rows))
def test_rows_that_are_encoded_together_read_as_each_alone(document: dict[str, list[dict[str, Any]]]) -> None:
    text = dump(document)
    assert json.loads(text) == {
        key: [{k: v if not isinstance(v, float) or math.isfinite(v) else None for k, v in row.items()} for row in rows]
        for key, rows in document.items()
    }
    lines = text.replace("\r", "").split("\n")
    assert len(lines) == (2 if not document else 3 + sum(_lines(rows) for rows in document.values()))


def _lines(rows: list[dict[str, Any]]) -> int:
    return 1 if not rows else 2 + len(rows)  # a list of rows: its key and bracket, a line each, its end


TEMPLATE = """\
{%- for words, value in row.cells -%}
<td{% if heads[loop.index0][1] %} class="num"{% elif words | length > 36 %} class="long"{% endif %}
{%- if heads[loop.index0][0] %} data-label="{{ heads[loop.index0][0] }}"{% endif %}
{%- if value is not none %} data-value="{{ value }}"{% endif %}>
{%- if loop.last and row.bar is not none %}<span class="bar" style="width: {{ "%.2f" % (6 * row.bar) }}rem"></span>
{%- endif %}{{ words | breakable }}</td>
{%- endfor -%}
"""


@given(st.lists(st.tuples(texts, st.booleans(), texts, st.none() | st.floats())), st.none() | st.floats(0, 1))
def test_cells_are_what_a_template_makes_of_them(columns: list[Any], bar: float | None) -> None:
    environment = Environment(autoescape=True)
    environment.filters["breakable"] = _breakable
    heads = [(head, numeric) for head, numeric, _, _ in columns]
    row = Row(tuple((words, value) for _, _, words, value in columns), bar=bar)
    assert _cells(row, heads) == environment.from_string(TEMPLATE).render(row=row, heads=heads)


def test_a_graph_that_is_arranged_once_is_drawn_as_one_of_that_width() -> None:
    study = hand_built_study.study((40,) * 4, 2)
    assert graph_svgs(study, (svg.WIDTH, svg.NARROW)) == (graph_svg(study), graph_svg(study, svg.NARROW))
