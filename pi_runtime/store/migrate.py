"""A database of an older version becomes one of this version, in one transaction, with everything kept."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from importlib import resources

from pi_runtime.errors import ClueError
from pi_runtime.store.database import Database, now
from pi_runtime.store.keys import Keys
from pi_runtime.store.samples import Samples

USER_VERSION = 2
WAIT_S = 10.0  # for an older runtime that works on the store
_TABLES = ("bundle", "samples", "requests", "request_samples", "generations", "records")


def prepare(database: Database, samples: Samples, keyring: Keys) -> None:
    """Create the tables, or bring them to this version.

    Raises ClueError for a database of a newer version, and while an older runtime works on it.
    """
    version = _version(database)
    if version > USER_VERSION:
        raise ClueError(
            f"the store {database.folder} was made by a newer runtime (version {version}): update this one"
        )
    if version == 0:
        with database.transaction():
            _create(database)
    if version == 1:
        with database.exclusive(WAIT_S, lambda: None):
            if _version(database) == 1:  # another process may have done it meanwhile
                _from_1(database, samples, keyring)


def _version(database: Database) -> int:
    return int(database.value("PRAGMA user_version"))


def _create(database: Database) -> None:
    schema = resources.files("contract").joinpath("schema.sql").read_text(encoding="utf-8")
    lines = (line.split("--")[0] for line in schema.splitlines())
    for statement in "\n".join(lines).split(";"):  # executescript would commit first
        if statement.strip():
            database.execute(statement)
    database.execute(f"PRAGMA user_version = {USER_VERSION}")


@contextlib.contextmanager
def _without_references(database: Database) -> Iterator[None]:
    """Renamed tables do not take the references to them along, and nothing checks references meanwhile."""
    try:
        database.execute("PRAGMA foreign_keys = OFF")
        database.execute("PRAGMA legacy_alter_table = ON")
        yield
    finally:
        database.execute("PRAGMA legacy_alter_table = OFF")
        database.execute("PRAGMA foreign_keys = ON")


def _from_1(database: Database, samples: Samples, keyring: Keys) -> None:
    with _without_references(database), database.transaction():
        for table in _TABLES:
            database.execute(f"ALTER TABLE {table} RENAME TO old_{table}")
        database.execute("DROP INDEX one_serving")
        _create(database)
        _copy_rows(database)
        _encrypt(database, samples, keyring)
        for table in _TABLES:
            database.execute(f"DROP TABLE old_{table}")
        broken = database.rows("PRAGMA foreign_key_check")
        if broken:
            raise ClueError(
                f"the store {database.folder} is damaged: table {broken[0][0]} refers to a missing row"
            )
    # Version 1 kept the pixels as they are: no page and no log may have them any longer.
    database.rows("PRAGMA wal_checkpoint(TRUNCATE)")
    database.execute("VACUUM")
    database.rows("PRAGMA wal_checkpoint(TRUNCATE)")


def _copy_rows(database: Database) -> None:
    dead = "status IN ('queued', 'running', 'verifying')"
    database.execute("INSERT INTO bundle SELECT key, value FROM old_bundle")
    # Each generation of version 1 was made from the one before it; what was unfinished had died.
    database.execute(
        "INSERT INTO generations (id, request_id, parent, file, sha256, created, serving) "
        "SELECT id, request_id, CASE WHEN request_id NOTNULL THEN lag(id) OVER (ORDER BY id) END, "
        "file, sha256, created, serving FROM old_generations ORDER BY id"
    )
    database.execute(
        "INSERT INTO requests (id, kind, label, class, status, seed, scalars, samples, base_generation, "
        "reason, evidence, created, finished) SELECT id, 'class', label, class, "
        f"CASE WHEN {dead} THEN 'failed' ELSE status END, seed, scalars, "
        "(SELECT count(*) FROM old_request_samples WHERE request_id = r.id), "
        "(SELECT parent FROM generations WHERE request_id = r.id), "
        f"CASE WHEN {dead} THEN 'interrupted' ELSE reason END, evidence, "
        f"created, CASE WHEN {dead} THEN ? ELSE finished END "
        "FROM old_requests AS r ORDER BY id",
        now(),
    )
    # Version 1 named files after requests: new generations come after all of these numbers.
    database.execute(
        "UPDATE sqlite_sequence SET seq = max(seq, (SELECT coalesce(max(id), 0) FROM requests)) "
        "WHERE name = 'generations'"
    )
    database.execute(
        "INSERT INTO records (id, request_id, phase, record) "
        "SELECT id, request_id, phase, record FROM old_records ORDER BY id"
    )


def _encrypt(database: Database, samples: Samples, keyring: Keys) -> None:
    for (label,) in database.rows("SELECT DISTINCT label FROM old_samples"):
        key_id = keyring.intake(label)
        wrapper = keyring.cipher(key_id)
        for sample_id, sha256, height, width, channels, pixels, added in database.stream(
            "SELECT id, sha256, height, width, channels, pixels, added FROM old_samples WHERE label = ?",
            label,
        ):
            shape = (height, width, channels)
            samples.insert(pixels, shape, sha256, label, key_id, wrapper, added, sample_id)
    database.execute("INSERT INTO request_samples SELECT * FROM old_request_samples")
    # The latest request that has a sample has its key.
    for (request_id,) in database.rows("SELECT id FROM requests ORDER BY id"):
        samples.take(request_id)
    keyring.give_up_unused()
