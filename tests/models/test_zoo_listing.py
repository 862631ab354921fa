"""What `pararev-hw models` prints without torch is what the networks say of themselves."""

from __future__ import annotations

import json

from pararev_hw import models
from tests.helpers.command_line import run
from tests.project.test_docs import script


def test_the_listing_is_that_of_the_networks_today() -> None:
    zoo = script("make_zoo")
    assert zoo.ROWS.read_text(encoding="utf-8") == zoo.text(), "run python docs/make_zoo.py"


def test_every_network_is_listed_with_its_shapes() -> None:
    rows = json.loads(run("models", "--json").out)
    assert [row["name"] for row in rows] == list(models.names())
    for row in rows:
        spec = models.spec(row["name"])
        assert (tuple(row["blocks"]), tuple(row["input_shape"])) == (spec.blocks, spec.input_shape)
        assert (row["event"], row["classes"], row["method"]) == (spec.event, spec.classes, spec.method)
    lines = {line.split()[0]: line for line in run("models").out.splitlines()}
    assert " B,3,32,32 " in lines["pararevsnn37"] and " T,B,2,128,128" in lines["pararevsnn24_dvs"]
