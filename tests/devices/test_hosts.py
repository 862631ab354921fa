"""Hosts by name and file, and what a file with a slip is told."""

from pathlib import Path

import pytest

from pararev_hw.devices import host_names, load_device, load_host, with_host
from pararev_hw.errors import BadFile, BadInput, UnknownName

GOOD = """
name: desk
title: a Ryzen
figures:
  host_overhead_s: {value: 7.0e-6, source: "timed", standing: measured}
  host_factor.backward: {value: 0.5, source: "timed", standing: measured}
"""


def test_a_host_takes_the_place_of_the_devices_own(tmp_path: Path) -> None:
    path = tmp_path / "desk.yaml"
    path.write_text(GOOD)
    device = with_host(load_device("a100"), load_host(str(path)))
    assert device.value("host_overhead_s") == 7e-6
    assert device.value("host_factor.backward") == 0.5
    assert device.value("memory_bytes") == load_device("a100").value("memory_bytes")
    assert device.title == load_device("a100").title + " with host desk"
    assert device.notes[-1] == "Launched by host desk, a Ryzen: 7 us per operation, measured."


@pytest.mark.parametrize("name", ["server", "embedded", "published-a", "published-b", "published-c"])
def test_named_hosts(name: str) -> None:
    assert name in host_names()
    assert 1e-6 < load_host(name).parameters["host_overhead_s"].value < 1e-3


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (GOOD.replace("host_overhead_s", "host_overhead"), "did you mean 'host_overhead_s'"),
        (GOOD.replace("value: 7.0e-6", "value: 7.0"), "must be between 1e-07 and 0.01 s"),
        (GOOD.replace("value: 7.0e-6", "value: fast"), "figures.host_overhead_s.value"),
        (GOOD.replace("standing: measured}", "standing: guessed}", 1), "standing"),
        (GOOD.replace("name: desk", "nmae: desk"), "did you mean 'name'"),
        ("name: desk\nfigures: {}\n", "host_overhead_s"),
        ("- a list\n", "holds no host"),
    ],
)
def test_slips_in_a_host_file_are_named(tmp_path: Path, text: str, says: str) -> None:
    path = tmp_path / "desk.yaml"
    path.write_text(text)
    with pytest.raises(BadFile) as caught:
        load_host(str(path))
    assert says in str(caught.value) and "\n" not in str(caught.value) and str(path) in str(caught.value)


def test_unknown_hosts_and_devices_without_one() -> None:
    with pytest.raises(UnknownName, match="server"):
        load_host("sever")
    with pytest.raises(BadInput, match="only a GPU"):
        with_host(load_device("edge8"), load_host("server"))
