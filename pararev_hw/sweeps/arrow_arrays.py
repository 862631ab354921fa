"""numpy arrays as Arrow arrays and back, by their buffers: pyarrow's own ways load pandas, which takes as long as the
rows of a small sweep."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray


def arrow_array(values: NDArray[Any], missing: NDArray[np.bool_] | None = None) -> pa.Array:
    """Numbers or truth values; where `missing` says so, null."""
    valid = None if missing is None or not missing.any() else _bits(~missing)
    if values.dtype == np.bool_:
        return pa.Array.from_buffers(pa.bool_(), len(values), [valid, _bits(values)])
    contiguous = np.ascontiguousarray(values)
    return pa.Array.from_buffers(pa.from_numpy_dtype(values.dtype), len(values), [valid, pa.py_buffer(contiguous)])


def arrow_words(values: NDArray[Any], missing: str | None = None) -> pa.DictionaryArray:
    """Words as numbers and a dictionary in order of first appearance; null where the word is `missing`."""
    number: dict[str, int] = {}
    words = values.tolist()
    codes = np.array([-1 if w == missing else number.setdefault(w, len(number)) for w in words], np.int32)
    return pa.DictionaryArray.from_arrays(arrow_array(codes.clip(0), codes < 0), _strings(list(number)))


def numpy_array(column: pa.Array | pa.ChunkedArray) -> NDArray[Any]:
    """Numbers or truth values of a column; NaN where it is null."""
    array = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    span = slice(array.offset, array.offset + len(array))
    validity, data = array.buffers()
    if not len(array) or data is None:
        return np.zeros(0, array.type.to_pandas_dtype())
    is_bits = pa.types.is_boolean(array.type)
    values = _truths(data)[span] if is_bits else np.frombuffer(data, array.type.to_pandas_dtype())[span]
    return values if not array.null_count else np.where(_truths(validity)[span], values, np.nan)


def _truths(bits: pa.Buffer) -> NDArray[np.bool_]:
    return np.unpackbits(np.frombuffer(bits, np.uint8), bitorder="little").view(np.bool_)


def _strings(words: list[str]) -> pa.Array:
    encoded = [w.encode() for w in words]
    ends = np.zeros(len(words) + 1, np.int32)
    np.cumsum([len(e) for e in encoded], out=ends[1:])
    return pa.Array.from_buffers(pa.string(), len(words), [None, pa.py_buffer(ends), pa.py_buffer(b"".join(encoded))])


def _bits(truths: NDArray[np.bool_]) -> pa.Buffer:
    return pa.py_buffer(np.packbits(truths, bitorder="little"))
