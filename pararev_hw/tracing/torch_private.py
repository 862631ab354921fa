"""Everything of torch that the tracer uses and torch does not promise: one place to look at when a release changes.

Held to torch 2.11 to 2.13 by `tests/tracing/test_torch_private.py`, which calls each of these.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from torch._subclasses.fake_tensor import DataDependentOutputException as DataDependentOutputException
from torch._subclasses.fake_tensor import DynamicOutputShapeException as DynamicOutputShapeException
from torch._subclasses.fake_tensor import FakeTensor as FakeTensor
from torch._subclasses.fake_tensor import FakeTensorMode as FakeTensorMode
from torch._subclasses.fake_tensor import UnsupportedOperatorException as UnsupportedOperatorException
from torch.library import _scoped_library as scoped_library
from torch.utils._python_dispatch import TorchDispatchMode as TorchDispatchMode

__all__ = ["scoped_library"]

# -1 outside the autograd engine
graph_task_id: Any = torch._C._current_graph_task_id
# the node that the engine runs
autograd_node: Any = torch._C._current_autograd_node
# the sequence number that the next node will get
next_sequence_nr: Any = torch._C._autograd._get_sequence_nr
# of the nodes that accumulate parameter gradients
NO_SEQUENCE = 2**64 - 1


def as_fake(elem: torch.Tensor, device: torch.device) -> Any:
    """A fake tensor around `elem`, without the checks of its constructor."""
    return torch.Tensor._make_subclass(FakeTensor, elem, False, dispatch_device=True, device_for_backend_keys=device)


def storage_key(tensor: torch.Tensor) -> int:
    """A number that tells the tensor's memory from all other memory that is alive."""
    return int(tensor.untyped_storage()._cdata)


def version_of(tensor: torch.Tensor) -> int:
    """How often the tensor was changed in place."""
    return int(tensor._version)


@contextlib.contextmanager
def without_onednn() -> Iterator[None]:
    """No kernels of oneDNN; torch's own context manager warns about TF32 on machines that have none."""
    enabled = torch._C._get_mkldnn_enabled()
    torch._C._set_mkldnn_enabled(False)
    try:
        yield
    finally:
        torch._C._set_mkldnn_enabled(enabled)
