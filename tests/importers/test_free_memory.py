"""A network that the memory does not hold is refused before it fills it."""

from __future__ import annotations

import re
import resource
from pathlib import Path

import numpy as np
import pytest
import torch

from pararev_hw.errors import BadInput, Infeasible
from pararev_hw.execution import prepare
from pararev_hw.importers import free_memory
from pararev_hw.importers.targets import resolve
from pararev_hw.sizes import parsed_bytes
from pararev_hw.trace_options import TraceOptions

MIB = 1 << 20


@pytest.fixture(autouse=True)
def little_is_free(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(free_memory, "available_bytes", lambda: 300 * MIB)


def factory(folder: Path, lines: str) -> str:
    (folder / "large.py").write_text(f"import numpy as np\nimport torch\ndef make():\n{lines}")
    return f"{folder}/large.py:make"


@pytest.mark.parametrize(
    ("lines", "tensor_bytes"),
    [
        ("    return torch.nn.Linear(1 << 15, 1 << 15), torch.empty(1, 1 << 15)", 4096 * MIB),
        ("    tensors = []\n    while True: tensors.append(torch.zeros(90 << 18))\n", 360 * MIB),  # no fourth fits
        ("    arrays = []\n    while True: arrays.append(np.zeros(90 << 18, 'f4'))\n", 300 * MIB),
    ],
)
def test_a_factory_that_asks_for_more_is_refused_with_need_and_have(
    tmp_path: Path, lines: str, tensor_bytes: int
) -> None:
    limits = resource.getrlimit(resource.RLIMIT_DATA)
    target = factory(tmp_path, lines)
    with pytest.raises(Infeasible) as refused:
        resolve(target, TraceOptions())
    sizes = re.search(r"needs more than (.+) of memory, 300 MiB are free", str(refused.value))
    assert sizes and str(refused.value).startswith(target)
    # meanwhile the process itself grows and shrinks: stacks of new threads, arenas of malloc, garbage of other tests
    assert abs(parsed_bytes(sizes[1]) - tensor_bytes) < 90 * MIB
    assert resource.getrlimit(resource.RLIMIT_DATA) == limits
    assert np.zeros(400 * MIB, "u1").size  # as before


def test_one_that_fits_is_built_and_other_errors_are_its_own(tmp_path: Path) -> None:
    fits = factory(tmp_path, "    return torch.nn.Linear(4096, 4096), torch.empty(1, 4096)")
    assert resolve(fits, TraceOptions()).batch == 1
    raises = factory(tmp_path, "    raise RuntimeError('no weights')")
    with pytest.raises(BadInput, match="no weights"):
        resolve(raises, TraceOptions())


def test_a_zoo_network_is_refused_before_its_weights_are_drawn() -> None:
    weights = sum(p.numel() for p in resolve("revsresnet37", TraceOptions(width=4.0)).network.parameters()) * 4
    assert weights > 300 * MIB
    with pytest.raises(Infeasible, match=r"revsresnet37 needs more than .* 300 MiB are free"):
        prepare("revsresnet37", TraceOptions(width=4.0, batch=1))


def test_where_the_system_does_not_tell_nothing_is_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(free_memory, "available_bytes", lambda: None)
    with free_memory.within_free_memory("net"):
        assert torch.zeros(400 * MIB, dtype=torch.uint8).numel() == 400 * MIB
