"""Kills, failing disks and power cuts, all real (crashes.py); benchmarks/faults does the same many times."""

from __future__ import annotations

import random
import shutil
import tempfile
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import crashes
import numpy as np
import pytest
import toy
from crashes import OPTIONS, SCALARS, Bench, Disk, Server

from pi_runtime import Bundle, ClueError, Runtime, checkpoint
from pi_runtime.store import Store

pytestmark = pytest.mark.skipif(bool(crashes.missing()), reason=crashes.missing())


@pytest.fixture(scope="module")
def bench() -> Iterator[Bench]:
    # In memory where there is such a folder: a kill leaves what was written, flushed or not.
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as name:
        folder = Path(name)
        path = toy.build(folder / "toy.clue")
        server = Server(path)
        try:
            yield Bench(folder, Bundle.open(path), server)
        finally:
            server.close()


@pytest.fixture(autouse=True)
def fresh(bench: Bench) -> None:
    bench.reset()


def test_the_shim_sees_every_kind_of_write(bench: Bench) -> None:
    seen = set(crashes.points(bench.calls, bench.store))
    for name in ("checkpoints/#.safetensors.part", "generations/#.safetensors.part"):
        assert {f"{op} {name}" for op in ("create", "write", "sync", "rename")} <= seen
    assert {
        "sync checkpoints", "sync generations", "write store.db-wal", "sync store.db-wal", "write store.db",
        "sync store.db", "unlink store.db-wal", "write cost.jsonl", "sync cost.jsonl",
    } <= seen  # fmt: skip


def test_killed_at_random_moments_the_request_ends_as_if_undisturbed(bench: Bench) -> None:
    draw = random.Random(3)
    killed = 0
    for _ in range(10):
        bench.reset()
        # Up to three kills of the same request, each at another moment.
        for _ in range(draw.randint(1, 3)):
            after = draw.uniform(0, bench.seconds)
            killed += bench.server.run("serve", bench.store, kill_after_s=after).killed
        assert bench.server.run("serve", bench.store).answer == ["done"]
        assert bench.end_state() == bench.expected
    assert killed > 0


@pytest.mark.parametrize("each", [2, pytest.param(1, marks=pytest.mark.full)])
def test_killed_at_each_named_write_point_the_request_ends_as_if_undisturbed(bench: Bench, each: int) -> None:
    points = list(crashes.points(bench.calls, bench.store).items())
    for number, (name, calls) in enumerate(points[::each]):
        mode = (crashes.KILL_BEFORE, crashes.KILL_AFTER, crashes.KILL_WITHIN)[number % 3]
        at = calls[len(calls) // 2]
        assert bench.ends_as_undisturbed(mode, at), name


@pytest.mark.parametrize("each", [7, pytest.param(1, marks=pytest.mark.full)])
def test_every_write_flush_and_rename_that_fails_leaves_old_or_new_weights(bench: Bench, each: int) -> None:
    ends = []
    # A commit whose flush fails may be found complete at the next open: its files must still be there then.
    flushes = crashes.points(bench.calls, bench.store, crashes.WRITES)["sync store.db-wal"]
    for at in sorted({*range(1, bench.writes + 1, each), *flushes}):
        bench.reset()
        # Every fourth time the disk stays full, and wherever a transaction is flushed.
        mode = crashes.FAIL if at % 4 and at not in flushes else crashes.FAIL_FROM
        ended = bench.server.run("serve", bench.store, mode, at, crashes.WRITES)
        assert not ended.killed, at
        ends.append((ended.error is None, bench.serves_old_or_new()))
    # What failed was told as an error, except where only cleaning up failed.
    assert {status for told, status in ends if told} == {"done"}
    assert {"failed", "queued"} <= {status for told, status in ends if not told}


def test_after_a_power_cut_the_store_opens_and_the_request_goes_on(bench: Bench) -> None:
    disk = Disk(bench.store, bench.before)
    places = {round(i * len(bench.calls) / 14) for i in range(15)}
    for place in range(len(bench.calls) + 1):
        if place in places:
            for names_kept in (False, True):
                shutil.rmtree(bench.store)
                disk.after_power_cut(bench.store, names_kept)
                bench.serves_old_or_new()
            assert bench.server.run("serve", bench.store).answer == ["done"], place
            assert bench.end_state() == bench.expected, place
        if place < len(bench.calls):
            disk.apply(bench.calls[place])


def test_the_replay_is_the_disk(bench: Bench) -> None:
    disk = Disk(bench.store, bench.before)
    for call in bench.calls:
        disk.apply(call)
    left = bench.folder / "left"
    disk.after_power_cut(left)
    assert bench.server.run("serve", bench.store).answer == ["done"]
    assert crashes.end_state(bench.bundle, left) == bench.end_state() == bench.expected


@pytest.mark.parametrize("mode", [crashes.KILL_AFTER, crashes.FAIL])
def test_making_a_store_and_a_request_can_be_broken_off_anywhere(bench: Bench, mode: int) -> None:
    """Each third call of a new store's first steps; then the same steps go through."""
    for action, arguments in (
        ("add", {"label": "cat", "n": 8}),
        ("submit", {"label": "cat", "scalars": SCALARS, "options": OPTIONS}),
    ):
        for at in range(1, 200, 3):
            shutil.rmtree(bench.store)
            if action == "submit":
                assert bench.server.run("add", bench.store, label="cat", n=8).error is None
            ended = bench.server.run(action, bench.store, mode, at, **arguments)
            if not ended.killed and ended.error is None and at > 20:
                break
            again = bench.server.run(action, bench.store, **arguments)
            assert again.error is None or "is part of request 1" in again.error, (action, at)
        assert at > 20


def test_a_commit_of_unknown_outcome_loses_no_key(bench: Bench) -> None:
    """A commit whose flush fails is told as failed, yet the next open may find it: its keys must be there."""
    found = set()
    for at in range(1, 100):
        shutil.rmtree(bench.store)
        with Runtime.for_bundle(bench.bundle, bench.store, threads=1):
            pass
        arguments = {"label": "cat", "n": 8}
        assert bench.server.run("add_and_lock", bench.store, crashes.FAIL, at, "s", **arguments).killed
        read = bench.server.run("read", bench.store, label="cat")
        assert read.error is None, at
        found.add(read.answer)
        if at > 20:
            break
    assert found == {0, 8}


def test_another_process_predicts_through_a_swap(bench: Bench) -> None:
    """The answers change once, from the old weights to the new ones, and are never anything else."""
    images = np.concatenate([toy.images(8, label, seed=4) for label in range(3)])
    answers: list[bytes] = []
    with Runtime.for_bundle(bench.bundle, bench.store, threads=1) as runtime:
        before = runtime.predict(images).tobytes()
        done = threading.Event()

        def run() -> None:
            assert bench.server.run("serve", bench.store).answer == ["done"]
            done.set()

        thread = threading.Thread(target=run)
        thread.start()
        while not done.is_set():
            answers.append(runtime.predict(images).tobytes())
        thread.join()
        answers.append(runtime.predict(images).tobytes())
        after = answers[-1]
    assert len(answers) > 10
    assert after != before == answers[0]
    assert answers == [before] * answers.count(before) + [after] * answers.count(after)


def test_two_processes_that_serve_one_store_run_each_request_once(bench: Bench) -> None:
    """They compete for the lock; what the other did meanwhile is no problem to either."""
    with Runtime.for_bundle(bench.bundle, bench.store, threads=1) as runtime:
        runtime.add(toy.images(8, runtime.bundle.label("dog"), seed=7), "dog")
        runtime.submit("dog", seed=6, scalars=SCALARS)
    other = Server(bench.folder / "toy.clue")
    try:
        with ThreadPoolExecutor(2) as pool:
            both = [pool.submit(server.run, "serve", bench.store) for server in (bench.server, other)]
        for ended in both:
            assert ended.result().error is None
            assert ended.result().answer == ["done", "done"]
    finally:
        other.close()
    with Runtime.for_bundle(bench.bundle, bench.store, threads=1) as runtime:
        assert [one.request_id for one in runtime.store.generations()] == [None, 1, 2]
        assert len(runtime.store.receipts()) == 2


def test_a_checkpoint_that_was_damaged_is_dropped_and_the_request_begins_again(bench: Bench) -> None:
    at = crashes.points(bench.calls, bench.store)["sync generations"][0]
    assert bench.server.run("serve", bench.store, crashes.KILL_BEFORE, at).killed
    (path,) = (bench.store / "checkpoints").iterdir()
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    assert bench.server.run("serve", bench.store).answer == ["done"]
    assert bench.end_state() == bench.expected


def test_a_killed_request_is_paused_as_interrupted_and_has_its_checkpoint(bench: Bench) -> None:
    at = crashes.points(bench.calls, bench.store)["rename checkpoints/#.safetensors.part"][-1]
    assert bench.server.run("serve", bench.store, crashes.KILL_AFTER, at).killed
    store = Store(bench.store, bench.bundle)
    request = store.request(1)
    assert (request.status, request.reason) == ("paused", "interrupted")
    found = checkpoint.read(store.checkpoint_path(1), bench.bundle, request.samples)
    assert found is not None
    assert found[0].cursor > 0
    store.close()
    # Two threads would not give the same bits: refused, and it stays paused.
    with Runtime.for_bundle(bench.bundle, bench.store, threads=2) as runtime:
        with pytest.raises(ClueError, match="begun with 1 threads and this has 2: give --threads 1, or"):
            runtime.resume(1)
        assert runtime.status(1) == "paused"
