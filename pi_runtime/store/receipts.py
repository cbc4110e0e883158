"""The receipts: a row and a file each, numbered from 1 and chained by SHA-256."""

from __future__ import annotations

import hashlib

from pi_runtime import files
from pi_runtime.receipts.receipt import FIRST, Make
from pi_runtime.store.database import Database


class Receipts:
    """Rows of `receipts` and `receipts/ID.json`."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self.folder = database.folder / "receipts"

    def add(self, kind: str, request_id: int | None, make: Make) -> int:
        """Make and insert the next receipt; returns its number. `write_files` writes its file after that."""
        with self._database.transaction():
            rows = self._database.rows("SELECT id, receipt FROM receipts ORDER BY id DESC LIMIT 1")
            number, previous = (rows[0][0] + 1, _sha256(rows[0][1])) if rows else (1, FIRST)
            self._database.execute(
                "INSERT INTO receipts (id, request_id, kind, receipt) VALUES (?, ?, ?, ?)",
                *(number, request_id, kind, make(previous, number)),
            )
        return int(number)

    def all(self) -> list[str]:
        """The canonical JSON of every receipt, oldest first."""
        return [text for (text,) in self._database.rows("SELECT receipt FROM receipts ORDER BY id")]

    def write_files(self) -> None:
        """Write the files that are missing. Raises ClueError; the rows are there all the same."""
        for number, text in self._database.rows("SELECT id, receipt FROM receipts ORDER BY id"):
            path = self.folder / f"{number:06d}.json"
            if not path.exists():
                files.atomic_write(path, [text.encode()])


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
