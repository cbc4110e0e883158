"""The generations of weights: what each was made from, which one serves, which classes that forgets."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pi_runtime.errors import ClueError
from pi_runtime.store.database import Database, now

_COLUMNS = "id, request_id, parent, file, sha256, created, erased, serving"
# The serving generation and its ancestors.
CHAIN = (
    "WITH RECURSIVE chain (id, request_id, parent) AS ("
    "SELECT id, request_id, parent FROM generations WHERE serving = 1 "
    "UNION ALL SELECT g.id, g.request_id, g.parent FROM generations AS g JOIN chain ON g.id = chain.parent) "
)


@dataclass(frozen=True)
class Generation:
    """A set of weights: `path` its file, there unless it was `erased`; `request_id` the request that made it.

    `request_id` and `parent`, the generation that it was made from, are None for weights of a bundle.
    """

    id: int
    request_id: int | None
    path: Path
    sha256: str
    created: str
    parent: int | None
    erased: str | None
    serving: bool


class Generations:
    """Rows of `generations` and their files."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self.folder = database.folder / "generations"

    def path(self, generation: int) -> Path:
        """Where a new generation of that id lies."""
        return self.folder / f"{generation:06d}.safetensors"

    def next_id(self) -> int:
        """The id of the next generation; only who holds the lock makes one."""
        rows = self._database.rows("SELECT seq FROM sqlite_sequence WHERE name = 'generations'")
        return int(rows[0][0]) + 1 if rows else 1

    def of_request(self, request_id: int) -> int:
        """The generation that a request made, or is to make."""
        rows = self._database.rows("SELECT id FROM generations WHERE request_id = ?", request_id)
        return int(rows[0][0]) if rows else self.next_id()

    def all(self) -> list[Generation]:
        """Every generation, oldest first."""
        return [
            self._generation(row)
            for row in self._database.rows(f"SELECT {_COLUMNS} FROM generations ORDER BY id")
        ]

    def get(self, generation: int) -> Generation:
        """One generation. Raises ClueError when there is none of that id."""
        rows = self._database.rows(f"SELECT {_COLUMNS} FROM generations WHERE id = ?", generation)
        if not rows:
            kept = ", ".join(str(one.id) for one in self.all() if one.erased is None)
            raise ClueError(f"there is no generation {generation}: choose one of {kept}")
        return self._generation(rows[0])

    def serving(self) -> Generation:
        """The generation that serves now."""
        rows = self._database.rows(f"SELECT {_COLUMNS} FROM generations WHERE serving = 1")
        if not rows:
            raise ClueError(
                f"the store {self._database.folder} has no weights: another process is still creating it"
            )
        return self._generation(rows[0])

    def _generation(self, row: Sequence[Any]) -> Generation:
        number, request_id, parent, file, sha256, created, erased, serving = row
        path = self.path(number) if file is None else self.folder / Path(file).name
        return Generation(number, request_id, path, sha256, created, parent, erased, bool(serving))

    def insert(self, request_id: int | None, parent: int | None, sha256: str) -> int:
        """The new generation whose file was written to the place of the next id serves; returns its id."""
        number = self.next_id()
        with self._database.transaction():
            self._database.execute("UPDATE generations SET serving = 0 WHERE serving = 1")
            self._database.execute(
                "INSERT INTO generations (id, request_id, parent, file, sha256, created, serving) "
                "VALUES (?, ?, ?, ?, ?, ?, 1)",
                *(number, request_id, parent, self.path(number).name, sha256, now()),
            )
            self.mark_rolled_back()
        return number

    def serve(self, generation: int) -> None:
        """Let a kept generation serve; inside a transaction."""
        self._database.execute("UPDATE generations SET serving = 0 WHERE serving = 1")
        self._database.execute("UPDATE generations SET serving = 1 WHERE id = ?", generation)
        self.mark_rolled_back()

    def mark_rolled_back(self) -> None:
        """`rolled_back` of every done request says whether the serving weights lack its effect."""
        effective = "id IN (SELECT request_id FROM chain WHERE request_id NOTNULL)"
        self._database.execute(
            f"{CHAIN}UPDATE requests SET rolled_back = NULL WHERE rolled_back IS NOT NULL AND {effective}"
        )
        self._database.execute(
            f"{CHAIN}UPDATE requests SET rolled_back = ? "
            f"WHERE status = 'done' AND rolled_back IS NULL AND NOT {effective}",
            now(),
        )

    def effective(self) -> list[int]:
        """The requests whose effect the serving weights have, oldest first."""
        rows = self._database.rows(
            f"{CHAIN}SELECT request_id FROM chain WHERE request_id IS NOT NULL ORDER BY request_id"
        )
        return [request_id for (request_id,) in rows]

    def family(self, generation: int) -> set[int]:
        """A generation and its descendants."""
        rows = self._database.rows(
            "WITH RECURSIVE family (id) AS (SELECT ? UNION ALL "
            "SELECT g.id FROM generations AS g JOIN family ON g.parent = family.id) SELECT id FROM family",
            generation,
        )
        return {number for (number,) in rows}

    def remove_unnamed(self, erase: Callable[[Path], None]) -> None:
        """Remove every file of the folder that no row names; only who holds the lock may."""
        known = {file for (file,) in self._database.rows("SELECT file FROM generations WHERE file NOTNULL")}
        for path in self.folder.iterdir():
            if path.name not in known and not path.is_dir():
                erase(path)
