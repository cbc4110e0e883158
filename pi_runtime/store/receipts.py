"""The receipts: a row and a file each, numbered from 1 and chained by SHA-256."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from pi_runtime import files
from pi_runtime.store.database import Database
from pi_runtime.store.requests import Request

Make = Callable[[str, int], str]
"""Given the SHA-256 of the receipt before (64 zeros for the first) and the number: the canonical JSON."""


class Issuer(Protocol):
    """Makes the receipts of what the store does itself; weights are named by their SHA-256."""

    def forget(
        self,
        request: Request,
        *,
        scalars: Mapping[str, float],
        before: str,
        after: str,
        generation: str,
        evidence: Mapping[str, Any],
        record: Mapping[str, Any],
    ) -> Make:
        """A request is done; `generation` is the file of the weights before."""
        ...

    def rollback(self, *, before: str, after: str, requests: Sequence[int], classes: Sequence[str]) -> Make:
        """`requests` lost their effect; `classes` are no longer forgotten."""
        ...

    def seal(
        self,
        request: Request,
        *,
        serving: str,
        erased: Sequence[str],
        not_erased: Sequence[tuple[str, str]],
    ) -> Make:
        """What was erased, in words and paths; what could not be, with the reason."""
        ...

    def adopt(self, *, before: str, after: str, policy: str, classes: Sequence[str]) -> Make:
        """A new bundle's weights serve and bring `classes` back."""
        ...


class Receipts:
    """Rows of `receipts` and `receipts/ID.json`."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self.folder = database.folder / "receipts"

    def add(self, kind: str, request_id: int | None, make: Make) -> int:
        """Make and insert the next receipt; returns its number. `write_files` writes its file after that."""
        with self._database.transaction():
            rows = self._database.rows("SELECT id, receipt FROM receipts ORDER BY id DESC LIMIT 1")
            number, previous = (rows[0][0] + 1, _sha256(rows[0][1])) if rows else (1, "0" * 64)
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
