from __future__ import annotations

import hashlib
import json
import shutil
import sqlite3
from pathlib import Path

import numpy as np
import pytest
import toy
from safetensors.numpy import load_file
from store_parts import done, found_in, queue

from pi_runtime import Bundle, ClueError, Runtime, weights
from pi_runtime.store import Store, migrate

SCHEMA_1 = Path(__file__).parent / "data" / "schema_v1.sql"
TIME = "2026-11-0{}T10:00:00+00:00"
# What version 1 wrote: id, label, class, status, seed, scalars, reason, evidence, created, finished.
REQUESTS = [
    (1, 0, "cat", "failed", 5, '{"lr": 0.5}', "it collapsed", '{"steps": 3}', TIME.format(2), TIME.format(2)),
    (2, 0, "cat", "done", 6, '{"lr": 0.5}', None, '{"steps": 4}', TIME.format(3), TIME.format(3)),
    (3, 1, "dog", "cancelled", 7, '{"lr": 0.5}', None, "{}", TIME.format(4), TIME.format(4)),
    (4, 1, "dog", "done", 8, '{"lr": 0.5}', "told", '{"steps": 9}', TIME.format(5), TIME.format(5)),
    (5, 2, "10", "running", 9, '{"lr": 0.5}', None, None, TIME.format(6), None),
]  # fmt: skip
RECORD = {"phase": "learn", "request_id": 2, "steps": 4}


def images() -> dict[int, tuple[int, bytes]]:
    """id: (label, pixels) of the samples of the old store."""
    found = [(label, image.tobytes()) for label in range(3) for image in toy.images(4, label)]
    return dict(enumerate(found, start=1))


@pytest.fixture
def old(toy_bundle: Path, tmp_path: Path) -> Path:
    """A store as version 1 left it: weights files named after requests, pixels in the clear, no keys."""
    folder = tmp_path / "store"
    generations = folder / "generations"
    generations.mkdir(parents=True, mode=0o700)
    (folder / "store.db").touch(0o600)
    shutil.copy(toy_bundle / "weights.safetensors", generations / "000000.safetensors")
    arrays = dict(load_file(toy_bundle / "weights.safetensors"))
    names = ["000000.safetensors", "000002.safetensors", "000004.safetensors"]
    for number, name in enumerate(names[1:], start=1):
        weights.write(generations / name, {**arrays, "params": arrays["params"] + np.float32(number)})
    (folder / "cost.jsonl").write_text(json.dumps(RECORD) + "\n")
    database = sqlite3.connect(folder / "store.db", isolation_level=None)
    database.execute("PRAGMA journal_mode = WAL")
    database.executescript(SCHEMA_1.read_text())
    database.execute("PRAGMA user_version = 1")
    bundle = Bundle.open(toy_bundle)
    database.executemany("INSERT INTO bundle VALUES (?, ?)", [
        ("name", "toy"), ("weights_sha256", bundle.weights.sha256), ("classes", json.dumps(bundle.classes)),
        ("input", json.dumps(bundle.input_shape)),
    ])  # fmt: skip
    for number, (label, pixels) in images().items():
        row = (number, hashlib.sha256(pixels).hexdigest(), label, 4, 4, 1, pixels, TIME.format(1))
        database.execute("INSERT INTO samples VALUES (?, ?, ?, ?, ?, ?, ?, ?)", row)
    database.executemany(f"INSERT INTO requests VALUES ({', '.join('?' * 10)})", REQUESTS)
    for request, label, *_ in REQUESTS:
        rows = [(request, position, 4 * label + 4 - position) for position in range(4)]
        database.executemany("INSERT INTO request_samples VALUES (?, ?, ?)", rows)
    for number, (request, name) in enumerate(zip((None, 2, 4), names, strict=True), start=1):
        digest = hashlib.sha256((generations / name).read_bytes()).hexdigest()
        row = (number, request, name, digest, TIME.format(number), number == 3)
        database.execute("INSERT INTO generations VALUES (?, ?, ?, ?, ?, ?)", row)
    database.execute("INSERT INTO records VALUES (3, 2, 'learn', ?)", (json.dumps(RECORD),))
    database.close()
    return folder


def test_everything_is_kept(old: Path, opened_bundle: Bundle) -> None:
    before = {path.name: path.read_bytes() for path in (old / "generations").iterdir()}
    store = Store(old, opened_bundle)
    assert store.database.value("PRAGMA user_version") == 2
    for row, (number, label, name, status, seed, scalars, reason, evidence, created, finished) in zip(
        store.requests(), REQUESTS, strict=True
    ):
        assert (row.id, row.kind, row.label, row.class_name, row.seed) == (number, "class", label, name, seed)
        assert (row.scalars, row.evidence) == (json.loads(scalars), json.loads(evidence or "{}"))
        assert (row.created, row.samples, row.sealed, row.rolled_back) == (created, 4, None, None)
        if status == "running":  # its process died with the old runtime
            assert (row.status, row.reason, row.finished is not None) == ("failed", "interrupted", True)
        else:
            assert (row.status, row.reason, row.finished) == (status, reason, finished)
        expected = toy.images(4, label)[::-1]
        if number != 1:  # request 2 has the same samples: its key wraps them
            assert np.array_equal(store.images(number), expected)
        assert store.labels(number).tolist() == [label] * 4
    assert [(one.id, one.parent, one.request_id, one.serving) for one in store.generations()] == [
        (1, None, None, False), (2, 1, 2, False), (3, 2, 4, True),
    ]  # fmt: skip
    assert {path.name: path.read_bytes() for path in (old / "generations").iterdir()} == before
    assert store.forgotten() == [0, 1]
    assert store.records() == [RECORD]
    assert [(one.id, one.sha256, one.added) for one in store.listed()] == [
        (number, hashlib.sha256(pixels).hexdigest(), TIME.format(1))
        for number, (_, pixels) in images().items()
    ]
    assert store.add(toy.images(4, 0), 0) == []
    assert (old / "cost.jsonl").read_text() == json.dumps(RECORD) + "\n"
    assert store.database.rows("SELECT name FROM sqlite_master WHERE name LIKE 'old_%'") == []
    assert store.database.rows("PRAGMA foreign_key_check") == []
    store.close()
    again = Store(old, opened_bundle)  # and it stays so
    assert len(again.requests()) == len(REQUESTS)
    again.close()


def test_it_has_the_same_tables_as_a_new_store(old: Path, opened_bundle: Bundle, tmp_path: Path) -> None:
    query = "SELECT type, name, tbl_name, sql FROM sqlite_master WHERE sql NOTNULL ORDER BY name"
    new, migrated = Store(tmp_path / "new", opened_bundle), Store(old, opened_bundle)
    assert migrated.database.rows(query) == new.database.rows(query)
    for store in (new, migrated):
        store.close()


def test_no_pixels_are_left_in_the_clear(old: Path, opened_bundle: Bundle) -> None:
    pixels = [pixels for _, pixels in images().values()]
    assert {needle for _, needle in found_in(old, pixels)} == set(pixels)
    store = Store(old, opened_bundle)
    assert found_in(old, pixels) == []
    store.close()
    assert found_in(old, pixels) == []


def test_life_goes_on(old: Path, opened_bundle: Bundle) -> None:
    with Runtime.for_bundle(opened_bundle, old, threads=1) as runtime:
        store = runtime.store
        request = queue(store, 2)
        new = done(store, request)
        # Old files were named after requests (000002, 000004): new ones come after all of them.
        assert (new, store.serving().path.name) == (6, "000006.safetensors")
        assert store.generations()[-1].parent == 3
        assert store.rollback(2) == [4, request]
        assert store.forgotten() == [0]
        assert runtime.predict(toy.images(3, 0)).shape == (3, 3)


def test_a_migration_that_is_interrupted_is_done_again(
    old: Path, opened_bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Died(BaseException):
        pass

    def die(*_: object) -> None:
        raise Died

    before = (old / "store.db").read_bytes()
    with monkeypatch.context() as patch:
        patch.setattr("pi_runtime.store.keys.Keys.give_up_unused", die)
        with pytest.raises(Died):
            Store(old, opened_bundle)
    assert (old / "store.db").read_bytes()[64:] == before[64:]
    store = Store(old, opened_bundle)
    assert len(store.requests()) == len(REQUESTS)
    assert np.array_equal(store.images(2), toy.images(4, 0)[::-1])
    live = {
        f"{number:06d}.key"
        for (number,) in store.database.rows("SELECT id FROM keys WHERE destroyed IS NULL")
    }
    assert {path.name for path in (old / "keys").iterdir()} == live
    store.close()


def test_an_old_store_that_is_in_use_is_left_alone(
    old: Path, opened_bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    import fcntl

    monkeypatch.setattr(migrate, "WAIT_S", 0.1)
    with (old / "lock").open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(ClueError, match="another request is running"):
            Store(old, opened_bundle)
    database = sqlite3.connect(old / "store.db")
    assert database.execute("PRAGMA user_version").fetchone() == (1,)
    database.close()


def test_a_damaged_old_store_is_refused_and_stays_as_it_was(old: Path, opened_bundle: Bundle) -> None:
    database = sqlite3.connect(old / "store.db")
    database.execute("DELETE FROM samples WHERE id = 1")
    database.commit()
    database.close()
    with pytest.raises(ClueError, match="is damaged: table request_samples refers to a missing row"):
        Store(old, opened_bundle)
    database = sqlite3.connect(old / "store.db")
    assert database.execute("PRAGMA user_version").fetchone() == (1,)
    assert database.execute("SELECT count(*) FROM samples").fetchone() == (11,)
    database.close()
