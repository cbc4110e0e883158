"""The store on the device: samples, requests, generations of weights, cost records (contract/schema.sql)."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import sqlite3
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pi_runtime import files
from pi_runtime.bundle import Bundle
from pi_runtime.errors import ClueError

USER_VERSION = 1
_UNFINISHED = "('queued', 'running', 'verifying')"


@dataclass(frozen=True)
class Generation:
    """A set of weights: `path` its file, `request_id` the request that made it, None for the bundle's own."""

    id: int
    request_id: int | None
    path: Path
    sha256: str
    created: str


def now() -> str:
    """The time as the store writes it: UTC, ISO 8601, seconds."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def _check_place(folder: Path, bundle: Bundle) -> None:
    """Refuse a folder in the bundle, or one that holds other things: a store is private and erasable."""
    if folder.resolve().is_relative_to(bundle.root.resolve()):
        raise ClueError(f"the store {folder} lies in the bundle, which is only read: choose another folder")
    if folder.is_dir() and not (folder / "store.db").exists() and any(folder.iterdir()):
        raise ClueError(f"{folder} holds other files and is no store: choose an empty or a new folder")


class Store:
    """The store in `folder` for one bundle; created when it is not there.

    Raises ClueError when it belongs to other weights or classes, was made by a newer runtime, or cannot be
    read. Use it from one thread; several processes may open it at once.
    """

    def __init__(self, folder: Path, bundle: Bundle) -> None:
        self.folder, self._bundle = folder, bundle
        self._generations = folder / "generations"
        _check_place(folder, bundle)
        try:
            folder.parent.mkdir(parents=True, exist_ok=True)
            for private in (folder, self._generations):
                private.mkdir(mode=0o700, exist_ok=True)
            database = folder / "store.db"
            # SQLite gives -wal and -shm the mode of the database.
            os.close(os.open(database, os.O_RDWR | os.O_CREAT, 0o600))
        except OSError as error:
            raise ClueError(f"cannot use the store {folder}: {error.strerror}") from error
        with self._errors():
            self._db = sqlite3.connect(database, isolation_level=None, timeout=10)
        try:
            self._prepare()
        except BaseException:
            self._db.close()
            raise

    def close(self) -> None:
        """Close the database."""
        self._db.close()

    # --- opening

    def _prepare(self) -> None:
        with self._errors():
            self._db.execute("PRAGMA journal_mode = WAL")
            self._db.execute("PRAGMA synchronous = FULL")
            self._db.execute("PRAGMA foreign_keys = ON")
            (version,) = self._db.execute("PRAGMA user_version").fetchone()
        if version > USER_VERSION:
            raise ClueError(
                f"the store {self.folder} was made by a newer runtime (version {version}): update this one"
            )
        if version == 0:
            schema = resources.files("contract").joinpath("schema.sql").read_text(encoding="utf-8")
            with self._errors():
                self._db.executescript(
                    f"BEGIN IMMEDIATE; {schema}; PRAGMA user_version = {USER_VERSION}; COMMIT;"
                )
        # A running request keeps the lock: then there is nothing to recover. A store without weights is just
        # being created, maybe by another process.
        new = not self._rows("SELECT 1 FROM generations LIMIT 1")
        with contextlib.suppress(_BusyError), self.exclusive(wait_s=10.0 if new else 0.0):
            self._adopt_bundle()
            self._recover()
        self._check_bundle()

    def _identity(self) -> dict[str, str]:
        bundle = self._bundle
        return {
            "name": bundle.name,
            "weights_sha256": bundle.weights.sha256,
            "classes": json.dumps(bundle.classes),
            "input": json.dumps(bundle.input_shape),
        }

    def _adopt_bundle(self) -> None:
        """Give a new store the bundle's weights as its first generation."""
        if self._rows("SELECT 1 FROM generations LIMIT 1"):
            return
        source = self._bundle.file(self._bundle.weights.file)
        path = self._generations / "000000.safetensors"
        path.unlink(missing_ok=True)
        with source.open("rb") as stream:
            digest = files.atomic_write(path, iter(lambda: stream.read(1 << 20), b""))
        if digest != self._bundle.weights.sha256:
            path.unlink()
            raise ClueError(f"{source} was changed: its SHA-256 is not the manifest's; copy the bundle again")
        with self._transaction():
            self._db.executemany("INSERT OR REPLACE INTO bundle VALUES (?, ?)", self._identity().items())
            self._insert_generation(None, path.name, digest)

    def _check_bundle(self) -> None:
        stored = dict(self._rows("SELECT key, value FROM bundle"))
        for key, value in self._identity().items():
            if key != "name" and stored.get(key) != value:
                raise ClueError(
                    f"the store {self.folder} belongs to another bundle ({stored.get('name', 'not known')}), "
                    f"whose {key.removesuffix('_sha256')} differ: give another --store"
                )

    def _recover(self) -> None:
        """Report requests of killed processes as failed and remove the files they left; needs the lock."""
        with self._transaction():
            self._db.execute(
                f"UPDATE requests SET status = 'failed', reason = 'interrupted', finished = ? "
                f"WHERE status IN {_UNFINISHED}",
                (now(),),
            )
        known = {file for (file,) in self._rows("SELECT file FROM generations")}
        for path in self._generations.glob("[0-9]*.safetensors*"):
            if path.name not in known:
                path.unlink(missing_ok=True)

    @contextlib.contextmanager
    def exclusive(self, wait_s: float = 1.0) -> Iterator[None]:
        """Hold the lock for running a request; the system frees it when the process dies.

        Raises ClueError when another holds it for `wait_s` seconds (opening a store holds it for a moment).
        """
        until = time.monotonic() + wait_s
        descriptor = os.open(self.folder / "lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            while True:
                try:
                    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except OSError as error:
                    if time.monotonic() >= until:
                        raise _BusyError(
                            f"another request is running on the store {self.folder}: wait until it ends"
                        ) from error
                    time.sleep(0.02)
            yield
        finally:
            os.close(descriptor)

    # --- samples

    def add(self, images: NDArray[np.uint8], label: int) -> list[int]:
        """Store images (uint8 [N, H, W, C]); returns the ids of those that were not there with this label."""
        height, width, channels = images.shape[1:]
        new: list[int] = []
        with self._transaction():
            for image in images:
                pixels = image.tobytes()
                row = (hashlib.sha256(pixels).hexdigest(), label, height, width, channels, pixels, now())
                cursor = self._db.execute(
                    "INSERT OR IGNORE INTO samples (sha256, label, height, width, channels, pixels, added) "
                    "VALUES (?, ?, ?, ?, ?, ?, ?)",
                    row,
                )
                if cursor.rowcount == 1 and cursor.lastrowid is not None:
                    new.append(cursor.lastrowid)
        return new

    def sample_ids(self, label: int) -> list[int]:
        """The ids of a class's samples, oldest first."""
        return [i for (i,) in self._rows("SELECT id FROM samples WHERE label = ? ORDER BY id", label)]

    def images(self, request_id: int) -> NDArray[np.uint8]:
        """The frozen samples of a request, uint8 [N, H, W, C], in the order of their positions."""
        channels, height, width = self._bundle.input_shape
        query = "FROM request_samples JOIN samples ON samples.id = sample_id WHERE request_id = ?"
        ((count,),) = self._rows(f"SELECT count(*) {query}", request_id)
        images = np.empty((count, height, width, channels), np.uint8)
        with self._errors():
            cursor = self._db.execute(f"SELECT position, pixels {query}", (request_id,))
            for position, pixels in cursor:
                images[position] = np.frombuffer(pixels, np.uint8).reshape(height, width, channels)
        return images

    # --- requests

    def create_request(
        self, label: int, seed: int, scalars: Mapping[str, float], sample_ids: Sequence[int]
    ) -> int:
        """A new request, queued, with its samples frozen; returns its id."""
        with self._transaction():
            cursor = self._db.execute(
                "INSERT INTO requests (label, class, status, seed, scalars, created) "
                "VALUES (?, ?, 'queued', ?, ?, ?)",
                (label, self._bundle.classes[label], seed, json.dumps(scalars, sort_keys=True), now()),
            )
            request_id = cursor.lastrowid
            assert request_id is not None  # sqlite3 gives one after every insert
            self._db.executemany(
                "INSERT INTO request_samples VALUES (?, ?, ?)",
                [(request_id, position, sample) for position, sample in enumerate(sample_ids)],
            )
        return request_id

    def set_status(self, request_id: int, status: str) -> None:
        """Note that a request is running or verifying."""
        with self._transaction():
            self._db.execute("UPDATE requests SET status = ? WHERE id = ?", (status, request_id))

    def generation_path(self, request_id: int) -> Path:
        """Where the weights that a request makes are to be written."""
        return self._generations / f"{request_id:06d}.safetensors"

    def finish(
        self,
        request_id: int,
        status: str,
        reason: str | None,
        evidence: Mapping[str, Any],
        records: Sequence[Mapping[str, Any]],
        new_sha256: str | None = None,
    ) -> None:
        """End a request in one transaction; with `new_sha256`, its generation serves from then on."""
        with self._transaction():
            self._db.execute(
                "UPDATE requests SET status = ?, reason = ?, evidence = ?, finished = ? WHERE id = ?",
                (status, reason, json.dumps(evidence, sort_keys=True), now(), request_id),
            )
            self._db.executemany(
                "INSERT INTO records (request_id, phase, record) VALUES (?, ?, ?)",
                [(request_id, record["phase"], json.dumps(record)) for record in records],
            )
            if new_sha256 is not None:
                self._db.execute("UPDATE generations SET serving = 0 WHERE serving = 1")
                self._insert_generation(request_id, self.generation_path(request_id).name, new_sha256)

    def _insert_generation(self, request_id: int | None, file: str, sha256: str) -> None:
        self._db.execute(
            "INSERT INTO generations (request_id, file, sha256, created, serving) VALUES (?, ?, ?, ?, 1)",
            (request_id, file, sha256, now()),
        )

    def serving(self) -> Generation:
        """The generation that serves now."""
        rows = self._rows("SELECT id, request_id, file, sha256, created FROM generations WHERE serving = 1")
        if not rows:
            raise ClueError(f"the store {self.folder} has no weights: another process is still creating it")
        ((generation, request_id, file, sha256, created),) = rows
        return Generation(generation, request_id, self._generations / file, sha256, created)

    def forgotten(self) -> list[int]:
        """The labels of all requests that are done, in the order in which they were."""
        rows = self._rows("SELECT label FROM requests WHERE status = 'done' GROUP BY label ORDER BY min(id)")
        return [label for (label,) in rows]

    def requests(self) -> list[dict[str, Any]]:
        """Every request as a dictionary of its row, oldest first; scalars and evidence are dictionaries."""
        names = [
            "id",
            "label",
            "class",
            "status",
            "seed",
            "scalars",
            "reason",
            "evidence",
            "created",
            "finished",
        ]
        found = []
        for row in self._rows(f"SELECT {', '.join(names)} FROM requests ORDER BY id"):
            request = dict(zip(names, row, strict=True))
            request["scalars"] = json.loads(request["scalars"])
            request["evidence"] = json.loads(request["evidence"] or "{}")
            found.append(request)
        return found

    def records(self) -> list[dict[str, Any]]:
        """Every cost record, oldest first."""
        return [json.loads(record) for (record,) in self._rows("SELECT record FROM records ORDER BY id")]

    # --- SQLite

    @contextlib.contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise ClueError(f"the store {self.folder} failed: {error}; nothing was changed") from error

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[None]:
        with self._errors():
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield
                self._db.execute("COMMIT")
            except BaseException:
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")
                raise

    def _rows(self, query: str, *values: object) -> list[Any]:
        with self._errors():
            return self._db.execute(query, values).fetchall()


class _BusyError(ClueError):
    """The lock is held by another request."""
