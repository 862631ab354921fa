"""What a campaign measured, written as soon as it is there: one file of JSON lines for each part."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

MAX_FILE_BYTES = 16 << 20

Record = dict[str, Any]


class FileFull(RuntimeError):
    """A part's file has reached its bound."""


@dataclass
class Records:
    """The folder of a campaign. A run that was cut off goes on where it stopped: what is written is not done again."""

    folder: Path
    _by_part: dict[str, dict[str, Record]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)

    def path(self, part: str) -> Path:
        return self.folder / f"{part}.jsonl"

    def of(self, part: str) -> dict[str, Record]:
        """The records of a part by key, the last one where a key was tried again."""
        if part not in self._by_part:
            self._by_part[part] = {r["key"]: r for r in _lines(self.path(part))}
        return self._by_part[part]

    def is_done(self, part: str, key: str) -> bool:
        """Whether the part has a result of that key, one that failed not counted."""
        return "failed" not in self.of(part).get(key, {"failed": "never tried"})

    def write(self, part: str, key: str, **values: Any) -> None:
        """Append a record, flushed to the disk. Raises FileFull where the part's file would outgrow its bound."""
        record = {"key": key, **values}
        line = json.dumps(record, separators=(",", ":")) + "\n"
        path = self.path(part)
        size = path.stat().st_size if path.exists() else 0
        if size + len(line) > MAX_FILE_BYTES:
            raise FileFull(f"{path}: {size} bytes, at most {MAX_FILE_BYTES} are written")
        self.of(part)[key] = record
        with path.open("a", encoding="utf-8") as file:
            if size and not _ends_a_line(path):
                file.write("\n")
            file.write(line)
            file.flush()
            os.fsync(file.fileno())


def _ends_a_line(path: Path) -> bool:
    with path.open("rb") as file:
        file.seek(-1, os.SEEK_END)
        return file.read(1) == b"\n"


def _lines(path: Path) -> Iterator[Record]:
    """The records of a file; a line that was cut off is left out."""
    if not path.exists():
        return
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            record = json.loads(line)
        except ValueError:
            continue
        if isinstance(record, dict) and isinstance(record.get("key"), str):
            yield record
