"""The store's SQLite database: connection, transactions, and the lock that one process at a time holds."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import sqlite3
import time
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pi_runtime.errors import ClueError


class BusyError(ClueError):
    """Another process holds the lock of the store."""


def now() -> str:
    """The time as the store writes it: UTC, ISO 8601, seconds."""
    return datetime.now(UTC).isoformat(timespec="seconds")


class Database:
    """`store.db` in `folder`, which exists. Raises ClueError when it cannot be read.

    Use it from one thread; several processes may open it at once.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._depth = 0
        self._unsettled = False
        database = folder / "store.db"
        try:
            # SQLite gives -wal and -shm the mode of the database.
            os.close(os.open(database, os.O_RDWR | os.O_CREAT, 0o600))
        except OSError as error:
            raise ClueError(f"cannot use the store {folder}: {error.strerror}") from error
        with self.errors():
            self.connection = sqlite3.connect(database, isolation_level=None, timeout=10)
        try:
            # A database that somebody else made may hold statements of its own: none of them is carried out.
            for setting in ("trusted_schema = OFF", "cell_size_check = ON"):
                self.execute(f"PRAGMA {setting}")
            for kind, name in self.rows(
                "SELECT type, name FROM sqlite_master WHERE type NOT IN ('table', 'index')"
            ):
                raise ClueError(
                    f"the store {folder} has the {kind} {name}, which no runtime makes: do not use it"
                )
            for setting in ("journal_mode = WAL", "synchronous = FULL", "foreign_keys = ON"):
                self.execute(f"PRAGMA {setting}")
            # Deleted rows are overwritten with zeros.
            self.execute("PRAGMA secure_delete = ON").fetchall()
        except BaseException:
            self.connection.close()
            raise

    def close(self) -> None:
        """Close the connection."""
        self.connection.close()

    @contextlib.contextmanager
    def errors(self) -> Iterator[None]:
        """Turn SQLite's errors into a ClueError."""
        try:
            yield
        except (sqlite3.Error, UnicodeDecodeError) as error:  # the second of a damaged file
            raise ClueError(f"the store {self.folder} failed: {error}; nothing was changed") from error

    @contextlib.contextmanager
    def transaction(self) -> Iterator[None]:
        """All or nothing; one inside another is part of the outer one. No other process writes meanwhile."""
        if self.connection.in_transaction:
            yield
            return
        with self.errors():
            self.connection.execute("BEGIN IMMEDIATE")
            try:
                yield
                self._unsettled, before = True, self._unsettled
                self.connection.execute("COMMIT")
                self._unsettled = before
            except BaseException:
                if self.connection.in_transaction:
                    self.connection.execute("ROLLBACK")
                raise

    def settle(self) -> None:
        """After a commit that failed, make sure that it did: its pages may lie whole in the log, and the next
        process to open the database would find it done. Any write takes their place. Raises ClueError.

        To be called before a file is removed because no row names it.
        """
        if self._unsettled:
            with self.transaction():
                version = self.value("PRAGMA user_version")
                self.execute(f"PRAGMA user_version = {version}")
            self._unsettled = False

    def execute(self, statement: str, *values: object) -> sqlite3.Cursor:
        """Carry out one statement. Raises ClueError."""
        with self.errors():
            return self.connection.execute(statement, values)

    def many(self, statement: str, rows: Iterable[tuple[object, ...]]) -> None:
        """Carry out a statement for each row. Raises ClueError."""
        with self.errors():
            self.connection.executemany(statement, rows)

    def insert(self, statement: str, *values: object) -> int:
        """Insert a row; returns its id. Raises ClueError."""
        number = self.execute(statement, *values).lastrowid
        assert number is not None  # sqlite3 gives one after every insert
        return number

    def rows(self, query: str, *values: object) -> list[Any]:
        """All rows of a query. Raises ClueError."""
        with self.errors():
            return self.connection.execute(query, values).fetchall()

    def parsed(self, text: str) -> Any:
        """JSON from a row. Raises ClueError when the database is damaged."""
        try:
            return json.loads(text)
        except (ValueError, TypeError, RecursionError) as error:
            raise ClueError(f"the store {self.folder} is damaged: a row has no JSON ({error})") from error

    def value(self, query: str, *values: object) -> Any:
        """The only value of a query that gives one row."""
        ((value,),) = self.rows(query, *values)
        return value

    def stream(self, query: str, *values: object) -> Iterator[Any]:
        """The rows of a query one by one: a million of them need not fit the memory."""
        with self.errors():
            yield from self.connection.execute(query, values)

    @contextlib.contextmanager
    def exclusive(self, wait_s: float, gained: Callable[[], None]) -> Iterator[None]:
        """Hold the lock; `gained` is called once it is held. The system frees it when the process dies.

        Who holds it already may take it again. Raises BusyError when another holds it for `wait_s` seconds.
        """
        if self._depth:
            self._depth += 1
            try:
                yield
            finally:
                self._depth -= 1
            return
        descriptor = os.open(self.folder / "lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            self._wait(descriptor, time.monotonic() + wait_s)
            self._depth = 1
            try:
                gained()
                yield
            finally:
                self._depth = 0
        finally:
            os.close(descriptor)

    def _wait(self, descriptor: int, until: float) -> None:
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return
            except OSError as error:
                if time.monotonic() >= until:
                    raise BusyError(
                        f"another request is running on the store {self.folder}: wait until it ends"
                    ) from error
                time.sleep(0.02)
