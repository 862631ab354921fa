"""The most bytes that were alive at once while a step really ran: every tensor's storage, from birth to death.

Counted where tensors are made, on whichever lane, and where Python's last reference to a storage goes. What a kernel
allocates and frees inside itself is not seen.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Iterable

import torch

from pararev_hw.torch_private import storage_key


class LiveBytes:
    """Live bytes of the tensors that it was shown, and the most there were at once."""

    def __init__(self, there_before: Iterable[torch.Tensor] = ()) -> None:
        self.live_bytes = self.peak_bytes = 0
        self._refs: dict[int, weakref.ref[torch.UntypedStorage]] = {}
        self._lock = threading.RLock()  # a tensor may die while another is noted
        for tensor in there_before:
            self(tensor)

    def __call__(self, tensor: torch.Tensor) -> None:
        if tensor.layout is not torch.strided:
            return  # it looks at the memory of its parts, which were shown
        storage = tensor.untyped_storage()
        key, size = storage_key(tensor), storage.nbytes()
        with self._lock:
            if key in self._refs:
                return
            self._refs[key] = weakref.ref(storage, lambda _: self._freed(key, size))
            self.live_bytes += size
            self.peak_bytes = max(self.peak_bytes, self.live_bytes)

    def _freed(self, key: int, size: int) -> None:
        with self._lock:
            self.live_bytes -= size
            del self._refs[key]
