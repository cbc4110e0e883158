from __future__ import annotations

import os
import signal
import sqlite3
import stat
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import toy

from pi_runtime import Bundle, ClueError, Runtime
from pi_runtime.store import Store

HERE = Path(__file__).parent


@pytest.fixture
def store(runtime: Runtime) -> Store:
    return runtime.store


def test_samples_are_stored_once_for_a_label(runtime: Runtime, store: Store) -> None:
    images = toy.images(4, 0)
    first = runtime.add(images, "cat")
    more = runtime.add(np.concatenate([images[:2], toy.images(2, 1), images[:1]]), "cat")
    dogs = runtime.add(images[:1], "dog")
    assert [len(ids) for ids in (first, more, dogs)] == [4, 2, 1]
    assert store.sample_ids(0) == first + more
    assert store.sample_ids(1) == dogs


def test_a_request_keeps_the_samples_that_it_began_with(runtime: Runtime, store: Store) -> None:
    images = toy.images(6, 0)
    runtime.add(images[:4], "cat")
    request = store.create_request("class", 0, 1, {}, store.sample_ids(0)[::-1], {})
    runtime.add(images[4:], "cat")
    assert np.array_equal(store.images(request), images[3::-1])


def test_only_the_owner_can_read_it(store: Store) -> None:
    found = [store.folder, *store.folder.rglob("*")]
    assert {path.name for path in found} >= {"store.db", "store.db-wal", "lock", "generations"}
    assert [path for path in found if stat.S_IMODE(path.stat().st_mode) & 0o077] == []


def test_it_writes_ahead_and_checks_references(store: Store) -> None:
    assert store.database.rows("PRAGMA journal_mode") == [("wal",)]
    assert store.database.rows("PRAGMA synchronous") == [(2,)]  # FULL: a commit survives a power cut
    assert store.database.rows("PRAGMA foreign_keys") == [(1,)]
    with pytest.raises(ClueError, match="FOREIGN KEY"):
        store.database.execute("INSERT INTO request_samples VALUES (1, 0, 99)")
    with pytest.raises(ClueError, match="no sample 99 is stored"):
        store.create_request("class", 0, 1, {}, [99], {})
    assert store.requests() == []


def test_a_second_serving_generation_is_impossible(store: Store) -> None:
    with pytest.raises(sqlite3.IntegrityError):
        store.database.connection.execute(
            "INSERT INTO generations (file, sha256, created, serving) VALUES ('a', 'b', 'c', 1)"
        )


def test_the_weights_of_another_bundle_are_refused(runtime: Runtime, own_bundle: Path) -> None:
    def rename(manifest: dict[str, Any]) -> None:
        manifest["model"]["classes"] = ["cat", "dog", "cow"]

    other = Bundle.open(toy.edit(own_bundle, rename))
    with pytest.raises(
        ClueError, match=r"belongs to another bundle \(toy\), whose classes differ: give another --store"
    ):
        Store(runtime.store.folder, other)


def test_a_newer_store_is_refused(runtime: Runtime) -> None:
    runtime.store.database.connection.execute("PRAGMA user_version = 3")
    with pytest.raises(ClueError, match="newer runtime"):
        Store(runtime.store.folder, runtime.bundle)


def test_a_damaged_database_is_a_clear_error(opened_bundle: Bundle, tmp_path: Path) -> None:
    folder = tmp_path / "store"
    folder.mkdir()
    (folder / "store.db").write_bytes(b"no database" * 100)
    with pytest.raises(ClueError, match="file is not a database"):
        Store(folder, opened_bundle)


def test_a_folder_that_cannot_be_made_is_a_clear_error(opened_bundle: Bundle, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ClueError, match="cannot use the store"):
        Store(tmp_path / "file" / "store", opened_bundle)


def test_a_bundle_changed_after_it_was_opened_is_not_adopted(own_bundle: Path, tmp_path: Path) -> None:
    bundle = Bundle.open(own_bundle)
    path = own_bundle / "weights.safetensors"
    path.write_bytes(path.read_bytes()[:-1] + b"\0")
    with pytest.raises(ClueError, match=r"weights.safetensors was changed"):
        Store(tmp_path / "store", bundle)


def test_a_folder_with_other_files_is_left_alone(opened_bundle: Bundle, tmp_path: Path) -> None:
    other = tmp_path / "notes.txt"
    other.write_text("mine")
    mode = tmp_path.stat().st_mode
    with pytest.raises(ClueError, match="holds other files and is no store"):
        Store(tmp_path, opened_bundle)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]
    assert tmp_path.stat().st_mode == mode


def test_a_store_in_the_bundle_is_refused(opened_bundle: Bundle) -> None:
    for folder in (opened_bundle.root, opened_bundle.root / "store"):
        with pytest.raises(ClueError, match="lies in the bundle"):
            Store(folder, opened_bundle)
    assert not (opened_bundle.root / "store").exists()


def test_only_one_request_at_a_time_in_a_process(runtime: Runtime, opened_bundle: Bundle) -> None:
    runtime.add(toy.images(4, 0), "cat")
    with runtime.store.exclusive(), Runtime.for_bundle(opened_bundle, runtime.store.folder) as other:
        assert np.all(other.predict(toy.images(3, 0)).argmax(1) == 0)
        with pytest.raises(ClueError, match="another request is running"):
            other.forget("cat")
        assert other.store.requests() == []


def test_a_request_waits_while_another_process_opens_the_store(
    runtime: Runtime, opened_bundle: Bundle
) -> None:
    runtime.add(toy.images(19, 0), "cat")
    ready, release = threading.Event(), threading.Event()

    def hold() -> None:
        other = Store(runtime.store.folder, opened_bundle)
        with other.exclusive():
            ready.set()
            release.wait(5)
        other.close()

    thread = threading.Thread(target=hold)
    thread.start()
    ready.wait(5)
    threading.Timer(0.2, release.set).start()
    assert runtime.forget("cat", seed=5).status == "done"
    thread.join()


# Runs a request whose progress tells "running" and then sleeps for ever.
STUCK = """
import sys, time
sys.path.insert(0, sys.argv[3])
from pi_runtime import Runtime
def stuck(progress):
    if progress.done == 7:
        print("running", flush=True)
        time.sleep(600)
with Runtime.open(sys.argv[1], sys.argv[2], threads=1) as runtime:
    runtime.forget("cat", seed=5, progress=stuck)
"""


def test_a_second_process_is_refused_and_a_killed_one_reported(
    runtime: Runtime, opened_bundle: Bundle
) -> None:
    store = runtime.store
    runtime.add(toy.images(19, 0), "cat")
    before = runtime.serving
    arguments = [str(opened_bundle.root), str(store.folder), str(HERE.parents[1])]
    process = subprocess.Popen([sys.executable, "-c", STUCK, *arguments], stdout=subprocess.PIPE)
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == b"running\n"
        with pytest.raises(ClueError, match="another request is running"):
            runtime.forget("cat")
        # Opening beside a running request does not take it for a dead one.
        Store(store.folder, opened_bundle).close()
        assert [request.status for request in store.requests()] == ["running"]
        assert runtime.serving == before
    finally:
        os.kill(process.pid, signal.SIGKILL)
        process.communicate()
    # What a process leaves that is killed while it writes.
    for name in ("000002.safetensors", "000002.safetensors.part"):
        (before.path.parent / name).write_bytes(b"half")
    Store(store.folder, opened_bundle).close()
    (request,) = store.requests()
    assert (request.status, request.reason) == ("paused", "interrupted")
    assert [path.name for path in before.path.parent.iterdir()] == [before.path.name]
    assert runtime.serving == before
    store.cancel(request.id)
    assert runtime.forget("cat", seed=5).status == "done"


def test_two_processes_may_create_it_at_once(toy_bundle: Path, tmp_path: Path) -> None:
    code = (
        "import sys; sys.path.insert(0, sys.argv[3])\n"
        "from pi_runtime import Runtime\n"
        "Runtime.open(sys.argv[1], sys.argv[2], threads=1).close()"
    )
    arguments = [str(toy_bundle), str(tmp_path / "store"), str(HERE.parents[1])]
    processes = [subprocess.Popen([sys.executable, "-c", code, *arguments]) for _ in range(3)]
    assert [process.wait() for process in processes] == [0, 0, 0]
    with Runtime.open(toy_bundle, tmp_path / "store", threads=1) as runtime:
        assert runtime.store.database.rows("SELECT count(*) FROM generations") == [(1,)]
