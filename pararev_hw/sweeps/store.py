"""The folder of a sweep: numbered parts that appear whole, a manifest, a lock, and in the end one file of results.

    sweep.lock              held while a sweep runs here: the process that holds it
    manifest.json           what was asked: another question is not answered with these parts
    parts/part-00012.parquet    written beside, then renamed: a part that is there is whole
    results.parquet         all parts in order, one row group each; the parts go when it is there. Of many rows a
                            folder of the parts themselves, which pandas, pyarrow and Polars read like one file

A part is written once its rows are computed and never again, so whatever happens between two parts loses nothing.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq

from pararev_hw import limits
from pararev_hw.atomic import write_files
from pararev_hw.documents import parse_json, read_text
from pararev_hw.errors import BadFile, BadInput, PararevError
from pararev_hw.sweeps.arrow_arrays import arrow_array, arrow_words
from pararev_hw.sweeps.explain import FILE as POINTS
from pararev_hw.sweeps.file_watch import LOCK
from pararev_hw.sweeps.problem import Table
from pararev_hw.sweeps.sources import changed
from pararev_hw.sweeps.spec import FORMAT, Sweep
from pararev_hw.types import SweepPoint
from pararev_hw.versions import installed_version

RESULTS = "results.parquet"
CSV = "results.csv"
BASE = "base.json"
_KEY = b"pararev-hw sweep"


def schema(sweep: Sweep) -> pa.Schema:
    """Columns of results: row, parameters, derived quantities, objectives, failed (null where nothing did)."""
    words = pa.dictionary(pa.int32(), pa.string())
    fields = [pa.field("row", pa.int64())]
    for p in sweep.space.parameters:
        text = bool(p.values) and isinstance(p.values[0], str)
        fields.append(pa.field(p.name, words if text else pa.float64()))
    fields += [pa.field(name, pa.bool_() if e.truth else pa.float64()) for name, e in sweep.derived]
    fields += [pa.field(o.column, pa.float64()) for o in sweep.objectives if o.column not in {f.name for f in fields}]
    fields.append(pa.field("failed", words))
    return pa.schema(fields, metadata={_KEY: sweep.fingerprint.encode()})


def as_arrow(sweep: Sweep, start: int, table: Table) -> pa.Table:
    """The rows from `start` on, with the columns of results."""
    count = len(table["failed"])
    columns: Table = {**table, "row": np.arange(start, start + count)}
    arrays = []
    table_schema = schema(sweep)
    for field in table_schema:
        values = columns[field.name]
        if pa.types.is_dictionary(field.type):
            arrays.append(arrow_words(values, missing="" if field.name == "failed" else None))
        else:
            missing = np.isnan(values) if values.dtype.kind == "f" else None
            arrays.append(arrow_array(values.astype(field.type.to_pandas_dtype(), copy=False), missing))
    return pa.Table.from_arrays(arrays, schema=table_schema)


def encode(rows: pa.Table) -> bytes:
    """Rows as one Parquet file."""
    sink = pa.BufferOutputStream()
    with pq.ParquetWriter(sink, rows.schema, compression="zstd") as writer:
        writer.write_table(rows, row_group_size=max(1, rows.num_rows))
    return bytes(sink.getvalue())


@dataclass(slots=True)
class Store:
    """An open folder of a sweep, locked. `finished` are the parts that were there already."""

    sweep: Sweep
    folder: Path
    finished: set[int]
    complete: bool
    warnings: tuple[str, ...] = ()
    begun: bool = True  # whether the folder is this sweep's already: `begin` makes it so

    def begin(self, sources: Mapping[str, str], packages: Mapping[str, str]) -> None:
        """Make the folder this sweep's, before its first part: what another one left goes. `sources` are digests of
        the files that the rows depend on, `packages` the versions of those that the user's files use. Raises BadInput
        where a file differs from what earlier rows were made with."""
        manifest = self.folder / "manifest.json"
        recorded = dict((read_manifest(manifest) or {}).get("sources", {})) if self.begun else {}
        for name, digest in sources.items():
            if recorded.setdefault(name, digest) != digest:
                raise BadInput(_stale(self.folder, f"{name} has changed"))
        if not self.begun:
            for p in (*_leftovers(self.folder), *(self.folder / name for name in (CSV, BASE, POINTS))):
                p.unlink(missing_ok=True)  # what tells of rows goes with them, or a run that is killed would show it
            with contextlib.suppress(OSError):
                (self.folder / RESULTS).rmdir()
        place = os.path.relpath(self.sweep.folder, self.folder)
        new_manifest = _manifest(self.sweep)
        document = {
            **new_manifest,
            "versions": {**packages, **new_manifest["versions"]},
            "sources": recorded,
            "file": self.sweep.text,
            "folder": place,
            "memory_limit_bytes": self.sweep.memory_limit_bytes,
        }
        write_files(self.folder, {manifest.name: json.dumps(document, indent=2) + "\n"})
        self.begun = True

    def part(self, chunk: int) -> Path:
        return self.folder / "parts" / _part_name(chunk)

    def write(self, chunk: int, data: bytes) -> None:
        """Put a part into its place. Raises BadFile where it cannot be written: the parts before it stay."""
        if not self.begun:
            self.begin({}, {})
        at = self.part(chunk)
        with self._draft(at, at.with_suffix(".draft")) as draft:
            draft.write_bytes(data)
        self.finished.add(chunk)

    @contextlib.contextmanager
    def _draft(self, at: Path, draft: Path) -> Iterator[Path]:
        """The draft to write, which takes its place when the block ends; whatever stops it before, nothing of it stays.
        Raises BadFile where it cannot be written."""
        try:
            yield draft
            with draft.open("rb") as file:
                os.fsync(file.fileno())
            draft.replace(at)
        except OSError as error:
            if isinstance(error, PararevError):
                raise
            raise BadFile(self._cannot(at, error)) from error
        finally:
            with contextlib.suppress(OSError):
                draft.unlink()

    def _cannot(self, at: Path, error: OSError) -> str:
        finished = sum(b - a for a, b in map(self.sweep.span, self.finished))
        return (
            f"cannot write {str(at)!r}: {error.strerror or error}: make room, then run the same command again: "
            f"{finished:,} of {self.sweep.rows:,} rows are kept"
        )

    def merge(self) -> None:
        """All parts, in order, as results.parquet; then the parts go. Never more than one part is in memory. Of more
        than `limits.ONE_FILE_ROWS` the parts themselves, as they are."""
        if self.complete:
            return
        if self.sweep.rows > limits.ONE_FILE_ROWS:
            (self.folder / "parts").rename(self.folder / RESULTS)
            self.complete = True
            return
        table_schema = schema(self.sweep)
        with (
            self._draft(self.folder / RESULTS, self.folder / f".{RESULTS}.draft") as draft,
            pq.ParquetWriter(draft, table_schema, compression="zstd") as writer,
        ):
            for chunk in range(self.sweep.chunks):
                table = _sound(self.part(chunk), self.sweep, chunk)
                if isinstance(table, str):
                    raise BadFile(f"{self.part(chunk)}: {table}: run the same command again: its rows are redone")
                writer.write_table(table.cast(table_schema), row_group_size=max(1, table.num_rows))
        self.complete = True
        self.discard_parts()

    def write_csv(self) -> bool:
        """All rows as results.csv beside results.parquet; False, and nothing written, where they are too many."""
        at = self.folder / CSV
        if self.sweep.rows > limits.CSV_ROWS:
            at.unlink(missing_ok=True)
            return False
        with (
            self._draft(at, self.folder / f".{CSV}.draft") as draft,
            pa.csv.CSVWriter(draft, schema(self.sweep)) as writer,
        ):
            for table in self.tables():
                writer.write_table(table)
        return True

    def discard_parts(self) -> None:
        for part in sorted((self.folder / "parts").glob("part-*.*")):
            part.unlink()
        with contextlib.suppress(OSError):
            (self.folder / "parts").rmdir()

    def tables(self, columns: Sequence[str] | None = None) -> Iterator[pa.Table]:
        """The finished rows, a part at a time; of these columns alone where some are named."""
        for chunk in range(self.sweep.chunks):
            yield self.read_part(chunk, columns)

    def write_base(self, table: Table) -> None:
        """Keep the base device's own row, for pictures."""
        columns = {name: values.tolist()[0] for name, values in table.items()}
        numbers = {n: None if isinstance(v, float) and not math.isfinite(v) else v for n, v in columns.items()}
        write_files(self.folder, {BASE: json.dumps(numbers) + "\n"})

    def base(self) -> SweepPoint | None:
        """The base device's own row, where it is possible."""
        try:
            row = json.loads((self.folder / BASE).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
        objectives = {o.column: row.get(o.column) for o in self.sweep.objectives}
        if row.get("failed") or any(v is None for v in objectives.values()):
            return None
        parameters = {n: v for n, v in row.items() if n not in objectives and n != "failed"}
        return SweepPoint(-1, parameters, objectives)

    def read_part(self, chunk: int, columns: Sequence[str] | None = None) -> pa.Table:
        """A part that was kept, out of results.parquet where that is there already."""
        if self.complete:
            return read_results(self.folder, chunk, columns)
        with pq.ParquetFile(self.part(chunk)) as file:
            return file.read(columns)


def read_results(folder: Path, chunk: int, columns: Sequence[str] | None = None) -> pa.Table:
    """A part of finished results."""
    results = folder / RESULTS
    folded = results.is_dir()
    with pq.ParquetFile(results / _part_name(chunk) if folded else results) as file:
        return file.read_row_group(0 if folded else chunk, columns)


def _part_name(chunk: int) -> str:
    return f"part-{chunk:05d}.parquet"


@contextlib.contextmanager
def opened(sweep: Sweep, folder: Path, *, fresh: bool) -> Iterator[Store]:
    """The folder of the sweep, made where it is missing, locked until the block ends.

    Raises BadInput where another sweep runs here, or where it holds another sweep and `fresh` is not set; BadFile
    where it cannot be written or its results are damaged.
    """
    new = [p for p in (folder, *folder.parents) if not p.exists()]
    at = folder / LOCK
    locked_before = at.exists()
    try:
        (folder / "parts").mkdir(parents=True, exist_ok=True)
        lock = os.open(at, os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        raise BadFile(
            f"cannot write into {str(folder)!r}: {error.strerror}: name a folder that can be written"
        ) from error
    store = None
    try:
        _hold(lock, folder)
        try:
            store = _store(sweep, folder, fresh)
            yield store
        except OSError as error:
            if isinstance(error, PararevError):
                raise
            raise BadFile(
                f"cannot write into {str(folder)!r}: {error.strerror or error}: what is there stays"
            ) from error
        finally:
            with contextlib.suppress(OSError):
                (folder / "parts").rmdir()  # where it is empty
            os.truncate(lock, 0)
            if store is None or not store.begun:  # refused: as if it had never been asked for
                if not locked_before:
                    at.unlink(missing_ok=True)
                for p in new:
                    with contextlib.suppress(OSError):
                        p.rmdir()
    finally:
        os.close(lock)


def _hold(lock: int, folder: Path) -> None:
    """Take the lock, which the system itself releases when a process ends, however it ends."""
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        holder = os.pread(lock, 100, 0).decode(errors="replace").strip() or "another process"
        raise BadInput(f"{folder}: {holder} is sweeping into it: wait for its end, or name another folder") from None
    if not os.path.samestat(os.fstat(lock), os.stat(folder / LOCK)):  # its holder took it away meanwhile
        raise BadInput(f"{folder}: another process has just left it: run the same command again")
    os.truncate(lock, 0)
    os.pwrite(lock, f"process {os.getpid()}\n".encode(), 0)


def _store(sweep: Sweep, folder: Path, fresh: bool) -> Store:
    present = None if fresh else read_manifest(folder / "manifest.json")
    if present is None:
        if not fresh and any(p.exists() for p in _leftovers(folder)):
            raise BadInput(f"{folder}: holds results but no manifest.json: name another folder, or give --fresh")
        return Store(sweep, folder, set(), complete=False, begun=False)
    _check(present, sweep, folder)
    return _resumed(sweep, folder)


def _manifest(sweep: Sweep) -> dict[str, Any]:
    """What rows are made from, the user's files apart."""
    return {
        "format": FORMAT,
        "sweep": sweep.name,
        "fingerprint": sweep.fingerprint,
        "rows": sweep.rows,
        "chunk_rows": sweep.chunk_rows,
        "versions": {name: installed_version(name) for name in ("pararev-hw", "torch")},
    }


def _check(present: Mapping[str, Any], sweep: Sweep, folder: Path) -> None:
    """Refuse to go on with rows of another sweep, or of files or versions that have changed. Raises BadInput."""
    expected = _manifest(sweep)
    if present.get("format") != FORMAT:
        raise BadInput(f"{folder}: holds rows of another release: name another folder, or give --fresh to begin again")
    if any(present.get(key) != value for key, value in expected.items() if key != "versions"):
        raise BadInput(
            f"{folder}: holds the results of another sweep ({present.get('sweep', '?')!r}; the file or its device has "
            "changed): name another folder, or give --fresh to begin again"
        )
    versions = present.get("versions", {})
    for name in {**expected["versions"], **versions}:
        before, now = versions.get(name), installed_version(name)
        if before != now:
            raise BadInput(_stale(folder, f"{name} was {before} and is {now}"))
    difference = changed(present.get("sources", {}), folder)
    if difference is not None:
        raise BadInput(_stale(folder, difference))


def _stale(folder: Path, difference: str) -> str:
    return f"{folder}: {difference} since its rows were computed: name another folder, or give --fresh to begin again"


def _leftovers(folder: Path) -> tuple[Path, ...]:
    results = folder / RESULTS
    parts = (*results.glob("part-*.*"), *(folder / "parts").glob("part-*.*"))
    return (*(() if results.is_dir() else (results,)), *sorted(parts))


def read_manifest(path: Path) -> dict[str, Any] | None:
    """The manifest in that file, None where there is none. Raises BadFile."""
    if not path.exists():
        return None
    try:
        document = parse_json(read_text(path, limits.DEVICE_FILE_BYTES, "a sweep's manifest is JSON"), str(path))
    except BadFile:
        raise BadFile(f"{path}: is damaged: give --fresh to begin again, or name another folder") from None
    if not isinstance(document, dict) or not all(
        isinstance(document.get(k, {}), dict) for k in ("sources", "versions")
    ):
        raise BadFile(f"{path}: is no manifest of a sweep: give --fresh to begin again, or name another folder")
    return document


def _resumed(sweep: Sweep, folder: Path) -> Store:
    store = Store(sweep, folder, set(), complete=False)
    results = folder / RESULTS
    if results.exists():
        wrong = _wrong_results(results, sweep)
        if wrong:
            raise BadFile(f"{results}: {wrong}: remove it, and the same command computes what is missing")
        store.complete = True
        store.finished = set(range(sweep.chunks))
        store.discard_parts()
        return store
    warnings = []
    for chunk in range(sweep.chunks):
        part = store.part(chunk)
        if not part.exists():
            continue
        table = _sound(part, sweep, chunk)
        if isinstance(table, str):
            warnings.append(f"{part}: {table}: its rows are computed again")
            part.unlink()
        else:
            store.finished.add(chunk)
    for draft in (folder / "parts").glob("*.draft"):
        draft.unlink()
    store.warnings = tuple(warnings)
    return store


def _sound(part: Path, sweep: Sweep, chunk: int) -> pa.Table | str:
    """The rows of a part, or what is wrong with it. Raises BadFile where it cannot be read."""
    start, stop = sweep.span(chunk)
    try:
        with pq.ParquetFile(part) as file:
            table = file.read()
    except (OSError, pa.ArrowException) as error:
        if isinstance(error, FileNotFoundError):
            return "is gone"
        _check_readable(part, error)
        return "is damaged"
    if (table.schema.metadata or {}).get(_KEY) != sweep.fingerprint.encode():
        return "belongs to another sweep"
    if table.num_rows != stop - start or table["row"][0].as_py() != start:
        return f"does not hold rows {start} to {stop}"
    return table


def _wrong_results(path: Path, sweep: Sweep) -> str | None:
    if path.is_dir():
        return next((f"{_part_name(c)} {w}" for c in range(sweep.chunks) if (w := _wrong_part(path, sweep, c))), None)
    try:
        with pq.ParquetFile(path) as file:
            if (file.schema_arrow.metadata or {}).get(_KEY) != sweep.fingerprint.encode():
                return "belongs to another sweep"
            if file.metadata.num_rows != sweep.rows or file.num_row_groups != sweep.chunks:
                return f"holds {file.metadata.num_rows} rows, not {sweep.rows}"
            for k in range(file.num_row_groups):
                file.read_row_group(k)
    except (OSError, pa.ArrowException) as error:
        _check_readable(path, error)
        return "is damaged"
    return None


def _wrong_part(results: Path, sweep: Sweep, chunk: int) -> str | None:
    table = _sound(results / _part_name(chunk), sweep, chunk)
    return table if isinstance(table, str) else None


def _check_readable(path: Path, error: Exception) -> None:
    """Raises BadFile where the system, not what the file holds, is why it could not be read: the file may be sound."""
    if isinstance(error, MemoryError):
        reason = "not enough memory"
    elif isinstance(error, OSError) and error.errno is not None:
        reason = error.strerror or str(error)
    else:
        return
    raise BadFile(
        f"{path}: cannot be read ({reason}): the file is left as it is: run the same command again once it can be read"
    )


def missing(store: Store) -> Sequence[int]:
    """The chunks that are still to be computed, in order."""
    return [c for c in range(store.sweep.chunks) if c not in store.finished]
