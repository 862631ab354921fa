"""Names of torch's ops, as a graph's op types carry them."""

from __future__ import annotations

ALLOCATES_ONLY = frozenset({"empty", "empty_like", "empty_strided", "new_empty", "new_empty_strided"})

RECURRENT = frozenset({"_cudnn_rnn", "_cudnn_rnn_backward"})  # all layers and time steps in one op

# sums of the rows of a table that indices name: the product of a sparse 0/1 matrix with the table
EMBEDDING_BAGS = frozenset({"_embedding_bag", "_embedding_bag_forward_only"})

_PRODUCTS_ON_ADDENDS = frozenset({"addmm", "baddbmm", "addmv", "addbmm"})


def base_name(name: str) -> str:
    """`"aten.add_.Tensor"` -> `"add"`: no namespace, overload, or in-place mark."""
    packet = name.split(".")[1] if "." in name else name
    return packet[:-1] if packet.endswith("_") and not packet.endswith("__") else packet


def factors(name: str) -> tuple[int, int]:
    """Where a matrix product's two factors stand among its tensors: first, or behind what they are added to."""
    return (1, 2) if has_addend(name) else (0, 1)


def has_addend(name: str) -> bool:
    """Whether a matrix product is added to a tensor of its call."""
    return base_name(name) in _PRODUCTS_ON_ADDENDS
