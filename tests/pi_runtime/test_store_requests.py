from __future__ import annotations

import hashlib
import itertools
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import toy
from store_parts import add, changed, done, queue

from pi_runtime import Bundle, ClueError, Runtime, weights
from pi_runtime.store import Store, TransitionError
from pi_runtime.store import database as database_module

HERE = Path(__file__).parent
STATES = ("queued", "running", "verifying", "paused", "done", "failed", "cancelled")
# Written out again from docs/runtime-contract.md.
LEGAL = {
    ("queued", "running"), ("queued", "cancelled"), ("running", "verifying"), ("running", "paused"),
    ("running", "failed"), ("running", "cancelled"), ("verifying", "paused"), ("verifying", "done"),
    ("verifying", "failed"), ("verifying", "cancelled"), ("paused", "running"), ("paused", "cancelled"),
}  # fmt: skip
# The user cancels what waits; what runs is ended by its own process.
ENDED_BY_CANCEL = {"queued", "paused"}


@pytest.fixture
def store(runtime: Runtime) -> Store:
    add(runtime.store)
    return runtime.store


def bring_to(store: Store, request_id: int, status: str) -> None:
    """Along legal transitions."""
    if status == "queued":
        return
    if status == "cancelled":
        return store.cancel(request_id)
    store.begin(request_id, store.serving().id)
    if status in ("verifying", "done"):
        store.set_status(request_id, "verifying")
    if status == "paused":
        store.pause(request_id, "stopped", {"steps": 2})
    if status in ("done", "failed"):
        store.finish(request_id, status, None, {}, [])


def move(store: Store, request_id: int, status: str) -> None:
    match status:
        case "running":
            store.begin(request_id, store.serving().id)
        case "paused":
            store.pause(request_id, "too hot", {})
        case "cancelled" if store.request(request_id).status in ENDED_BY_CANCEL:
            store.cancel(request_id)
        case "done" | "failed" | "cancelled":
            store.finish(request_id, status, None, {}, [])
        case _:
            store.set_status(request_id, status)


@pytest.mark.parametrize(("before", "after"), [*itertools.product(STATES, STATES)])
def test_every_transition(store: Store, before: str, after: str) -> None:
    request_id = queue(store)
    bring_to(store, request_id, before)
    row = store.request(request_id)
    assert row.status == before
    if (before, after) in LEGAL:
        move(store, request_id, after)
        assert store.request(request_id).status == after
    else:
        with pytest.raises(TransitionError, match=f"request {request_id} is {before}"):
            move(store, request_id, after)
        assert store.request(request_id) == row


def test_a_row_tells_what_was_asked_and_what_happened(store: Store) -> None:
    request_id = store.create_request("class", 0, 7, {"lr": 0.5}, [3, 1], {"max_seconds": 5})
    row = store.request(request_id)
    assert (row.kind, row.label, row.class_name, row.status) == ("class", 0, "cat", "queued")
    assert (row.seed, row.scalars, row.options, row.samples) == (7, {"lr": 0.5}, {"max_seconds": 5}, 2)
    assert (row.started, row.base_generation, row.evidence) == (None, None, {})
    store.begin(request_id, 1)
    store.pause(request_id, "over budget: 5 s", {"steps": 3})
    row = store.request(request_id)
    assert (row.status, row.reason, row.evidence, row.base_generation) == (
        "paused", "over budget: 5 s", {"steps": 3}, 1,
    )  # fmt: skip
    started = row.started
    store.begin(request_id, 1)
    row = store.request(request_id)
    assert (row.reason, row.started) == (None, started)
    store.finish(request_id, "failed", "it collapsed", {"steps": 4}, [{"phase": "learn", "steps": 4}])
    row = store.request(request_id)
    assert (row.reason, row.evidence, row.finished is not None) == ("it collapsed", {"steps": 4}, True)
    assert store.records() == [{"phase": "learn", "steps": 4}]
    again = store.create_request("class", 0, 8, {}, [1], {}, retry_of=request_id)
    assert store.request(again).retry_of == request_id
    assert store.request(again).as_dict()["class"] == "cat"


def test_the_oldest_queued_one_is_next(store: Store) -> None:
    assert store.next_queued() is None
    first, second = (store.create_request("class", 0, 1, {}, [one], {}) for one in (2, 1))
    assert store.next_queued() == first
    store.cancel(first)
    assert store.next_queued() == second


def test_one_runs_at_a_time(store: Store) -> None:
    first, second = (store.create_request("class", 0, 1, {}, [one], {}) for one in (1, 2))
    store.begin(first, 1)
    with pytest.raises(ClueError, match=f"request {first} is running: one runs at a time"):
        store.begin(second, 1)
    store.set_status(first, "verifying")
    with pytest.raises(ClueError, match="one runs at a time"):
        store.begin(second, 1)
    assert [one.status for one in store.requests()] == ["verifying", "queued"]


def test_a_running_one_is_not_cancelled_from_elsewhere(store: Store) -> None:
    request_id = queue(store)
    store.begin(request_id, 1)
    with pytest.raises(TransitionError, match="running in another process"):
        store.cancel(request_id)


@pytest.mark.parametrize(("ids", "problem"), [
    ([], "at least one sample"),
    ([1, 99], "no sample 99 is stored"),
    ([1, -1], "no sample -1 is stored"),
    ([1, 2, 1], "stands twice"),
    ([1, 7], "sample 7 has label 1, the request is about label 0"),
])  # fmt: skip
def test_samples_that_a_request_cannot_have(store: Store, ids: list[int], problem: str) -> None:
    add(store, 2, 1)
    with pytest.raises(ClueError, match=problem):
        queue(store, ids=ids)
    assert store.requests() == []
    assert store.database.rows("SELECT * FROM request_samples") == []


@pytest.mark.parametrize("status", STATES)
def test_a_sample_is_part_of_one_unfinished_request(store: Store, status: str) -> None:
    first = queue(store, ids=[1, 2])
    bring_to(store, first, status)
    if status in ("done", "failed", "cancelled"):
        assert store.images(queue(store, None, [2, 3])).shape == (2, 4, 4, 1)
        return
    with pytest.raises(ClueError, match=f"sample 2 is part of request {first}, which is {status}"):
        queue(store, None, [2, 3])
    assert queue(store, None, [3, 4])


def test_what_a_dead_process_ran_is_paused_by_who_gets_the_lock(store: Store, opened_bundle: Bundle) -> None:
    request_id = queue(store)
    for status in ("running", "verifying"):
        with store.exclusive():
            store.begin(request_id, 1)
            if status == "verifying":
                store.set_status(request_id, status)
            Store(store.folder, opened_bundle).close()  # does not get the lock
            assert store.request(request_id).status == status
        with store.exclusive():
            row = store.request(request_id)
            assert (row.status, row.reason) == ("paused", "interrupted")


def test_the_lock_can_be_taken_again_by_who_holds_it(store: Store, opened_bundle: Bundle) -> None:
    request_id = queue(store)
    with store.exclusive():
        store.begin(request_id, 1)
        with store.exclusive():
            assert store.request(request_id).status == "running"
        other = Store(store.folder, opened_bundle)
        with pytest.raises(ClueError, match="another request is running"), other.exclusive(0.1):
            pass
        other.close()


def test_the_lock_is_free_after_a_crash(toy_bundle: Path, store: Store) -> None:
    code = (
        "import os, sys; sys.path.insert(0, sys.argv[3])\n"
        "from pi_runtime import Runtime\n"
        "runtime = Runtime.open(sys.argv[1], sys.argv[2], threads=1)\n"
        "with runtime.store.exclusive():\n"
        "    runtime.store.begin(1, 1)\n"
        "    print('held', flush=True)\n"
        "    sys.stdin.read()\n"
    )
    queue(store)
    arguments = [sys.executable, "-c", code, str(toy_bundle), str(store.folder), str(HERE.parents[1])]
    process = subprocess.Popen(arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline() == b"held\n"
    with pytest.raises(ClueError, match="another request is running"), store.exclusive(0.0):
        pass
    process.kill()
    process.communicate()
    with store.exclusive(0.0):
        assert store.request(1).reason == "interrupted"


def test_new_weights_of_an_old_base_are_not_served(store: Store) -> None:
    first, second = (store.create_request("class", 0, 1, {}, [one], {}) for one in (1, 2))
    store.begin(first, 1)
    store.pause(first, "stopped", {})
    done(store, second)
    store.database.execute("UPDATE requests SET status = 'verifying' WHERE id = ?", first)
    with pytest.raises(ClueError, match="request 1 began with generation 1, now 2 serves"):
        store.finish(first, "done", None, {}, [], "0" * 64)
    assert store.request(first).status == "verifying"
    assert store.serving().id == 2


def test_a_receipt_is_made_in_the_same_transaction(store: Store) -> None:
    seen: list[tuple[str, int]] = []

    def make(previous: str, number: int) -> str:
        seen.append((previous, number))
        return f'{{"number":{number}}}'

    def broken(previous: str, number: int) -> str:
        raise ClueError("no key to sign with")

    request_id = queue(store)
    with store.exclusive():
        store.begin(request_id, 1)
        store.set_status(request_id, "verifying")
        digest = weights.write(store.generation_path(request_id), changed(store))
        with pytest.raises(ClueError, match="no key to sign with"):
            store.finish(request_id, "done", None, {}, [{"phase": "learn"}], digest, broken)
        assert store.request(request_id).status == "verifying"
        assert (store.serving().id, store.records()) == (1, [])
        store.finish(request_id, "done", None, {}, [], digest, make)
    assert store.add_receipt("rollback", None, make) == 2
    assert seen == [("0" * 64, 1), (hashlib.sha256(b'{"number":1}').hexdigest(), 2)]
    assert store.receipts() == ['{"number":1}', '{"number":2}']
    assert (store.folder / "receipts" / "000002.json").read_text() == '{"number":2}'
    (store.folder / "receipts" / "000001.json").unlink()
    with store.exclusive():
        assert (store.folder / "receipts" / "000001.json").read_text() == '{"number":1}'


def test_an_unknown_request(store: Store) -> None:
    with pytest.raises(ClueError, match="no request 4 is stored: there is none so far"):
        store.request(4)
    queue(store)
    with pytest.raises(ClueError, match="no request 4 is stored: the latest is 1"):
        store.begin(4, 1)


def test_a_clock_that_goes_backwards(
    own_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Clock:
        times: Iterator[datetime] = (
            datetime(2026, 1, 1, tzinfo=UTC) - timedelta(days=n) for n in range(10**6)
        )

        @staticmethod
        def now(zone: Any) -> datetime:
            return next(Clock.times)

    monkeypatch.setattr(database_module, "datetime", Clock)
    store = Store(tmp_path / "store", Bundle.open(own_bundle))
    add(store, 6, 0)
    add(store, 6, 1)
    first, second = queue(store, 0), queue(store, 1)
    assert store.next_queued() == first
    done(store, first)
    done(store, second)
    rows = store.requests()
    assert rows[0].created > rows[1].created  # the clock did go backwards
    assert [one.id for one in rows] == [first, second]
    assert store.forgotten() == [0, 1]
    store.rollback(2)
    assert store.forgotten() == [0]
    assert [one.id for one in store.generations()] == [1, 2, 3]
    store.seal(first)
    assert store.request(first).sealed is not None
    assert [one.erased is None for one in store.generations()] == [False, True, True]
    assert store.sample_ids(1) == [*range(7, 13)]
    store.close()


def test_sql_in_names_is_only_text(own_bundle: Path, tmp_path: Path) -> None:
    names = ["cat'); DROP TABLE samples; --", 'dog" OR 1=1', "%_?"]
    bundle = Bundle.open(toy.edit(own_bundle, lambda manifest: manifest["model"].update(classes=names)))
    store = Store(tmp_path / "store", bundle)
    for label in range(3):
        add(store, 3, label)
        done(store, queue(store, label))
    assert [one.class_name for one in store.requests()] == names
    assert store.forgotten() == [0, 1, 2]
    store.seal(3)
    assert store.counts() == {0: 3, 1: 3}
    store.close()
    Store(tmp_path / "store", bundle).close()
