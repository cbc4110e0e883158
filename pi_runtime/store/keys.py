"""The keys of the samples: files of 32 bytes outside of the database, so that they can be destroyed."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Protocol

from pi_runtime import files
from pi_runtime.errors import ClueError
from pi_runtime.store.database import Database, now

NONCE = 12


class Cipher(Protocol):
    """AES-256-GCM with one key."""

    def encrypt(self, nonce: bytes, data: bytes, associated_data: bytes) -> bytes:
        """The encrypted data and the tag."""
        ...

    def decrypt(self, nonce: bytes, data: bytes, associated_data: bytes) -> bytes:
        """The data; raises cryptography.exceptions.InvalidTag."""
        ...


def cipher(key: bytes) -> Cipher:
    """AES-256-GCM with `key`, 32 bytes."""
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    return AESGCM(key)


def new_key() -> bytes:
    """32 random bytes."""
    return os.urandom(32)


def lock(with_key: Cipher, data: bytes, about: bytes) -> bytes:
    """Nonce, encrypted data and tag; `about` (ASCII text) must be given again to unlock."""
    nonce = os.urandom(NONCE)
    return nonce + with_key.encrypt(nonce, data, about)


def unlock(with_key: Cipher, content: bytes, about: bytes) -> bytes | None:
    """What `lock` was given; None when the key is another one or anything was changed."""
    from cryptography.exceptions import InvalidTag

    try:
        return with_key.decrypt(content[:NONCE], content[NONCE:], about)
    except (InvalidTag, ValueError):  # ValueError: too short to hold a nonce
        return None


class Keys:
    """Rows of `keys` and their files. Call it inside a transaction of `database`."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self.folder = database.folder / "keys"

    def path(self, key_id: int) -> Path:
        """Where a key lies."""
        return self.folder / f"{key_id:06d}.key"

    def create(self, request_id: int | None = None, label: int | None = None) -> int:
        """A new key, of a request or of a class's intake; returns its id. Raises ClueError (disk full)."""
        key_id = self._database.insert(
            "INSERT INTO keys (request_id, label, created) VALUES (?, ?, ?)", request_id, label, now()
        )
        # Left by a process that died before it committed the row: no sample was encrypted by it.
        files.erase(self.path(key_id))
        files.atomic_write(self.path(key_id), [new_key()])
        return key_id

    def intake(self, label: int) -> int:
        """The key of new samples of a class; made when there is none."""
        rows = self._database.rows("SELECT id FROM keys WHERE label = ? AND destroyed IS NULL", label)
        return int(rows[0][0]) if rows else self.create(label=label)

    def cipher(self, key_id: int) -> Cipher:
        """The cipher of a key. Raises ClueError when its file is gone or damaged."""
        path = self.path(key_id)
        try:
            content = path.read_bytes()
        except OSError as error:
            raise ClueError(
                f"cannot read the key {path} ({error.strerror}): the samples that it encrypts cannot be read"
            ) from error
        if len(content) != 32:
            raise ClueError(f"the key {path} has {len(content)} bytes instead of 32: it is damaged")
        return cipher(content)

    def give_up_unused(self) -> None:
        """Mark the keys that no sample has any longer; `destroy_marked` removes their files later."""
        self._database.execute(
            "UPDATE keys SET destroyed = ?, label = NULL WHERE destroyed IS NULL "
            "AND NOT EXISTS (SELECT 1 FROM samples WHERE key_id = keys.id)",
            now(),
        )

    def destroy_marked(self) -> None:
        """Destroy every key file that belongs to no row, or to one that is marked as destroyed.

        It holds a transaction: another process writes the file of a new key before it commits the row.
        Raises ClueError when a file cannot be removed.
        """
        with self._database.transaction():
            live = {
                self.path(key_id).name
                for (key_id,) in self._database.rows("SELECT id FROM keys WHERE destroyed IS NULL")
            }
            for path in self.folder.iterdir():
                if path.name not in live and not path.is_dir():
                    files.erase(path)
