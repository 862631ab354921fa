"""Names of torch's ops, as a graph's op types carry them."""

from __future__ import annotations

ALLOCATES_ONLY = frozenset({"empty", "empty_like", "empty_strided", "new_empty", "new_empty_strided"})

RECURRENT = frozenset({"_cudnn_rnn", "_cudnn_rnn_backward"})  # all layers and time steps in one op


def base_name(name: str) -> str:
    """`"aten.add_.Tensor"` -> `"add"`: no namespace, overload, or in-place mark."""
    packet = name.split(".")[1] if "." in name else name
    return packet[:-1] if packet.endswith("_") and not packet.endswith("__") else packet
