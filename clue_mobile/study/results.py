"""The file of results: JSON lines, one a run, flushed to the disk before the next one starts."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from clue_mobile.errors import ClueError

NAME = "results.jsonl"


class Results:
    """The rows in a folder's results.jsonl. Use `opened` to add to them."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / NAME

    def rows(self) -> list[dict[str, Any]]:
        """All rows, oldest first. A last line without its end, which a killed run leaves, is no row.

        Raises ClueError for another line that is not a JSON object.
        """
        try:
            *lines, _torn = self.path.read_bytes().split(b"\n")
        except FileNotFoundError:
            return []
        found = []
        for number, line in enumerate(lines, 1):
            try:
                row = json.loads(line)
            except ValueError:
                row = None
            if not isinstance(row, dict):
                raise ClueError(f"{self.path}: line {number} is damaged; remove it, and its run is repeated")
            found.append(row)
        return found

    def latest(self) -> dict[str, dict[str, Any]]:
        """The newest row of each cell, by key."""
        return {row["key"]: row for row in self.rows()}

    @contextlib.contextmanager
    def opened(self) -> Iterator[Results]:
        """For adding rows, which one process at a time may do. Raises ClueError while another one does."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("ab+") as self._file:
            _lock(self._file.fileno(), self.path)
            self._file.seek(0)
            whole = self._file.read()
            self._file.truncate(whole.rfind(b"\n") + 1)
            yield self

    def add(self, row: Mapping[str, Any]) -> None:
        """Append a row; it is on the disk when this returns."""
        self._file.write(json.dumps(row, allow_nan=False).encode() + b"\n")
        self._file.flush()
        os.fsync(self._file.fileno())


def _lock(descriptor: int, path: Path) -> None:
    try:
        import fcntl
    except ImportError:  # Windows: two runs in one folder are the user's to avoid
        return
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        raise ClueError(f"another run is writing {path}: wait for it, or choose another folder") from None
