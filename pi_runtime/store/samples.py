"""The samples: stored once for a label, encrypted, each by a key of its own that a request's key wraps."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pi_runtime.errors import ClueError
from pi_runtime.store import keys
from pi_runtime.store.database import Database, now
from pi_runtime.store.keys import Cipher, Keys


@dataclass(frozen=True)
class Sample:
    """A stored sample; `request_id` is the latest request that has it, None when none does."""

    id: int
    label: int
    sha256: str
    added: str
    request_id: int | None


def _about(what: str, sha256: str, label: int) -> bytes:
    return f"clue-{what}-v1 {sha256} {label}".encode()


class Samples:
    """Rows of `samples` and `pixels`."""

    def __init__(self, database: Database, keyring: Keys) -> None:
        self._database, self._keys = database, keyring

    def add(self, images: NDArray[np.uint8], label: int) -> list[int]:
        """Store images (uint8 [N, H, W, C]); returns the ids of those that were not there with this label."""
        new: list[int] = []
        with self._database.transaction():
            key_id, wrapper = 0, None
            for image in images:
                content = image.tobytes()
                sha256 = hashlib.sha256(content).hexdigest()
                if self._find(sha256, label) is not None:
                    continue
                if wrapper is None:
                    key_id = self._keys.intake(label)
                    wrapper = self._keys.cipher(key_id)
                new.append(self.insert(content, image.shape, sha256, label, key_id, wrapper, now()))
        return new

    def insert(
        self,
        content: bytes,
        shape: tuple[int, ...],
        sha256: str,
        label: int,
        key_id: int,
        wrapper: Cipher,
        added: str,
        sample_id: int | None = None,
    ) -> int:
        """Encrypt and insert one sample of `shape` (H, W, C); returns its id."""
        key = keys.new_key()
        sample_id = self._database.insert(
            "INSERT INTO samples (id, sha256, label, height, width, channels, key_id, wrapped, added) "
            "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
            *(sample_id, sha256, label, *shape, key_id),
            keys.lock(wrapper, key, _about("key", sha256, label)),
            added,
        )
        locked = keys.lock(keys.cipher(key), content, _about("sample", sha256, label))
        self._database.execute("INSERT INTO pixels VALUES (?, ?)", sample_id, locked)
        return sample_id

    def _find(self, sha256: str, label: int) -> int | None:
        rows = self._database.rows("SELECT id FROM samples WHERE label = ? AND sha256 = ?", label, sha256)
        return int(rows[0][0]) if rows else None

    def find(self, images: NDArray[np.uint8], label: int) -> list[int | None]:
        """The ids of images (uint8 [N, H, W, C]) that are stored with this label, None for others."""
        return [self._find(hashlib.sha256(image.tobytes()).hexdigest(), label) for image in images]

    def ids(self, label: int) -> list[int]:
        """The ids of a class's samples, oldest first."""
        rows = self._database.stream("SELECT id FROM samples WHERE label = ? ORDER BY id", label)
        return [sample_id for (sample_id,) in rows]

    def counts(self) -> dict[int, int]:
        """How many samples each label has; labels without any are left out."""
        return dict(self._database.rows("SELECT label, count(*) FROM samples GROUP BY label ORDER BY label"))

    def listed(self, label: int | None = None) -> Iterator[Sample]:
        """The samples of a label, or all, oldest first, one by one."""
        where, values = ("", ()) if label is None else ("WHERE label = ?", (label,))
        for row in self._database.stream(
            "SELECT id, label, sha256, added, (SELECT max(request_id) FROM request_samples "
            f"WHERE sample_id = samples.id) FROM samples {where} ORDER BY id",
            *values,
        ):
            yield Sample(*row)

    def images(self, request_id: int, shape: tuple[int, int, int]) -> NDArray[np.uint8]:
        """The samples of a request, uint8 [N, *shape], shape (H, W, C), in the order of their positions.

        Raises ClueError when they were erased, a key is gone or a sample was changed.
        """
        images = np.empty((self._count(request_id), *shape), np.uint8)
        wrappers: dict[int, Cipher] = {}
        for position, sample_id, sha256, label, key_id, wrapped, content in self._database.stream(
            "SELECT position, samples.id, sha256, label, key_id, wrapped, content FROM request_samples "
            "JOIN samples ON samples.id = request_samples.sample_id "
            "JOIN pixels ON pixels.sample_id = samples.id WHERE request_id = ?",
            request_id,
        ):
            if key_id not in wrappers:
                wrappers[key_id] = self._keys.cipher(key_id)
            key = keys.unlock(wrappers[key_id], wrapped, _about("key", sha256, label))
            about = _about("sample", sha256, label)
            clear = None if key is None else keys.unlock(keys.cipher(key), content, about)
            if clear is None or len(clear) != images[position].nbytes:
                raise ClueError(f"sample {sample_id} of {self._database.folder} was changed or is damaged")
            images[position] = np.frombuffer(clear, np.uint8).reshape(shape)
        return images

    def labels(self, request_id: int) -> NDArray[np.int64]:
        """The labels of a request's samples, int64 [N], in the order of their positions."""
        labels = np.empty(self._count(request_id), np.int64)
        for position, label in self._database.stream(
            "SELECT position, label FROM request_samples JOIN samples ON samples.id = sample_id "
            "WHERE request_id = ?",
            request_id,
        ):
            labels[position] = label
        return labels

    def _count(self, request_id: int) -> int:
        query = "SELECT count(*) FROM request_samples WHERE request_id = ?"
        count, asked = (
            int(self._database.value(query, request_id)),
            int(self._database.value("SELECT samples FROM requests WHERE id = ?", request_id)),
        )
        if count != asked:
            raise ClueError(f"request {request_id} has {count} of its {asked} samples: others were erased")
        return count

    # --- keys of requests

    def take(self, request_id: int) -> None:
        """Bring the samples of a new request under keys of its own; inside a transaction.

        A key all of whose samples the request has becomes its own; other samples get a new one.
        """
        database = self._database
        own: tuple[int, Cipher] | None = None
        for key_id, mine in database.rows(
            "SELECT key_id, count(*) FROM request_samples JOIN samples ON samples.id = sample_id "
            "WHERE request_id = ? GROUP BY key_id",
            request_id,
        ):
            if mine == database.value("SELECT count(*) FROM samples WHERE key_id = ?", key_id):
                database.execute(
                    "UPDATE keys SET request_id = ?, label = NULL WHERE id = ?", request_id, key_id
                )
                continue
            if own is None:
                created = self._keys.create(request_id)
                own = created, self._keys.cipher(created)
            chosen = database.rows(
                "SELECT samples.id, sha256, label, wrapped FROM request_samples "
                "JOIN samples ON samples.id = sample_id WHERE request_id = ? AND key_id = ?",
                *(request_id, key_id),
            )
            self._rewrap(chosen, self._keys.cipher(key_id), *own)

    def renew_keys(self) -> None:
        """Wrap every sample's key by a new one and mark the old ones destroyed; inside a transaction.

        A key that is in use may also have wrapped the keys of samples that are gone, in an earlier page.
        """
        database = self._database
        for key_id, request_id, label in database.rows(
            "SELECT id, request_id, label FROM keys WHERE destroyed IS NULL"
        ):
            old = self._keys.cipher(key_id)
            database.execute("UPDATE keys SET destroyed = ?, label = NULL WHERE id = ?", now(), key_id)
            new = self._keys.create(request_id, label)
            wrapper = self._keys.cipher(new)
            query = "SELECT id, sha256, label, wrapped FROM samples WHERE key_id = ? LIMIT 10000"
            while chosen := database.rows(query, key_id):
                self._rewrap(chosen, old, new, wrapper)
        self._keys.give_up_unused()

    def _rewrap(
        self, chosen: Sequence[tuple[int, str, int, bytes]], old: Cipher, key_id: int, new: Cipher
    ) -> None:
        rows = []
        for sample_id, sha256, label, wrapped in chosen:
            about = _about("key", sha256, label)
            key = keys.unlock(old, wrapped, about)
            if key is None:
                raise ClueError(f"sample {sample_id} of {self._database.folder} was changed or is damaged")
            rows.append((key_id, keys.lock(new, key, about), sample_id))
        self._database.many("UPDATE samples SET key_id = ?, wrapped = ? WHERE id = ?", rows)
