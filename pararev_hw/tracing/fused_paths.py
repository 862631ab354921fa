"""Fast paths that hide their work in one kernel, switched off while a network is traced or counted.

The encoder layer and multi-head attention call one fused kernel in inference, and an LSTM on a CPU one of oneDNN:
none of them has a formula, and spikes cannot be counted inside. The same modules then run operation by operation.
"""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator

import torch
from torch import nn

from pararev_hw.torch_private import ever_compiled, without_distribution_checks, without_onednn


@contextlib.contextmanager
def _uncompiled() -> Iterator[None]:
    """What `torch.compile` wrapped runs as it was written; nothing to do where nothing was ever compiled."""
    if not ever_compiled():
        yield
        return
    with torch.compiler.set_stance("force_eager"), warnings.catch_warnings():
        # the hooks of tracing and counting know a wrapped module from the one inside
        warnings.filterwarnings("ignore", message=r"Using `torch.compile\(module\)` when there are global hooks")
        yield


@contextlib.contextmanager
def spelt_out(model: nn.Module, lstm: bool = True) -> Iterator[None]:
    """Attention modules and LSTMs run operation by operation, unless `lstm` is False: a step that is traced for a CPU
    keeps the fused kernels, which are what runs there."""
    fast_path = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(fast_path and not lstm)
    recurrent = lstm and any(isinstance(m, nn.LSTM) or getattr(m, "runs_lstm", False) for m in model.modules())
    try:
        one_by_one = without_onednn() if recurrent else contextlib.nullcontext()
        with one_by_one, _uncompiled(), without_distribution_checks():
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fast_path)
