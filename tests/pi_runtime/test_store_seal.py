from __future__ import annotations

import errno
import os
import shutil
import stat
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
import toy
from safetensors.numpy import load_file
from store_parts import add, done, forget, found_in, queue, retrain

from pi_runtime import Bundle, ClueError, Runtime, files
from pi_runtime.receipts.receipt import Make
from pi_runtime.store import Request, Store


@pytest.fixture
def bundle(own_bundle: Path) -> Bundle:
    return Bundle.open(retrain(own_bundle, 0))


@pytest.fixture
def store(bundle: Bundle, tmp_path: Path) -> Iterator[Store]:
    opened = Store(tmp_path / "store", bundle)
    add(opened, 6, 0)
    add(opened, 6, 1)
    yield opened
    opened.close()


def pieces(path: Path, new: Path) -> list[bytes]:
    """The arrays of a weights file that differ from those of `new`, cut into pieces of 32 bytes."""
    old, other = load_file(path), load_file(new)
    blobs = [old[key].tobytes() for key in old if not np.array_equal(old[key], other[key])]
    assert blobs
    return [blob[i : i + 32] for blob in blobs for i in range(0, len(blob) - 31, 32)]


def secrets(store: Store, request_id: int) -> list[bytes]:
    """What must be nowhere once a request is sealed: its pixels, their ciphertexts, hashes and keys."""
    found = [image.tobytes() for image in store.images(request_id)]
    query = "FROM request_samples AS r JOIN samples AS s ON s.id = r.sample_id"
    for row in store.database.rows(
        f"SELECT wrapped, content, sha256 {query} JOIN pixels USING (sample_id) WHERE request_id = ?",
        request_id,
    ):
        found += [row[0], row[1][12:40], row[2].encode()]
    for (key_id,) in store.database.rows(f"SELECT DISTINCT key_id {query} WHERE request_id = ?", request_id):
        found.append((store.folder / "keys" / f"{key_id:06d}.key").read_bytes())
    return found


def test_nothing_of_the_samples_and_the_old_weights_is_left(store: Store, bundle: Bundle) -> None:
    old = store.serving().path
    request_id = forget(store)
    needles = secrets(store, request_id)
    weights = pieces(old, store.serving().path)
    shutil.copy(old, store.checkpoint_path(9))  # left by who knows whom
    root = store.folder.parent  # the bundle lies there too
    for needle in (*needles[6:], *weights):
        assert found_in(root, [needle])  # the search does find them
    assert store.seal(request_id) == ()
    names = {path.name for path in store.folder.iterdir()}
    assert {"store.db", "store.db-wal", "store.db-shm"} <= names
    assert found_in(root, [*needles, *weights]) == []
    assert (store.folder / "store.db-wal").stat().st_size == 32 + 24 + 4096  # the row that says sealed
    store.close()
    assert found_in(root, [*needles, *weights]) == []


def test_what_is_kept(store: Store, bundle: Bundle) -> None:
    ids = add(store, 3, 0, seed=1)
    request_id = queue(store, 0, ids)
    done(store, request_id)
    serving = store.serving()
    assert store.seal(request_id) == ()
    row = store.request(request_id)
    assert (row.samples, row.seal_began is not None, row.sealed is not None) == (3, True, True)
    assert store.serving() == serving
    assert store.forgotten() == [0]
    assert store.counts() == {0: 6, 1: 6}
    for label in (0, 1):
        assert np.array_equal(store.images(queue(store, label)), toy.images(6, label))
    with pytest.raises(ClueError, match=f"request {request_id} has 0 of its 3 samples"):
        store.images(request_id)
    first = store.generations()[0]
    assert (first.path.exists(), first.erased is not None) == (False, True)
    with pytest.raises(ClueError, match="generation 1 was erased by sealing"):
        store.rollback(1)
    assert add(store, 3, 0, seed=1) != ids  # as new ones


def test_every_key_that_may_have_wrapped_a_sample_is_renewed(store: Store) -> None:
    request_id = queue(store, None, [1, 2])
    done(store, request_id)
    keys = [path.read_bytes() for path in (store.folder / "keys").iterdir()]
    assert len(keys) == 3
    store.seal(request_id)
    assert found_in(store.folder, keys) == []
    assert store.database.rows("SELECT label FROM keys WHERE destroyed IS NULL") == [(0,), (1,)]
    assert np.array_equal(store.images(queue(store, 0)), toy.images(6, 0)[2:])


def test_the_life_goes_on_from_the_generation_of_the_store(own_bundle: Path, tmp_path: Path) -> None:
    images = toy.images(19, 0)
    with Runtime.open(own_bundle, tmp_path / "store", threads=1) as runtime:
        runtime.add(images, "cat")
        result = runtime.forget("cat", seed=5)
        assert result.status == "done"
        answers = runtime.predict(images).tobytes()
        runtime.store.seal(result.id)
        assert runtime.predict(images).tobytes() == answers
    assert not (own_bundle / "weights.safetensors").exists()
    with Runtime.open(own_bundle, tmp_path / "store", threads=1) as runtime:
        assert runtime.predict(images).tobytes() == answers
        assert runtime.forgotten == ["cat"]
        assert all(found.ok for found in runtime.check())
        dogs = toy.images(19, 1)
        runtime.add(dogs, "dog")
        assert runtime.forget("dog", seed=5).status == "done"
    with pytest.raises(ClueError, match=r"the weights of .*own.clue were erased by sealing: copy the bundle"):
        Runtime.open(own_bundle, tmp_path / "new", threads=1)


def test_missing_weights_without_the_mark_are_still_an_error(own_bundle: Path) -> None:
    (own_bundle / "weights.safetensors").unlink()
    with pytest.raises(ClueError, match=r"weights.safetensors is missing"):
        Bundle.open(own_bundle)


def test_weights_of_the_bundle_that_cannot_be_erased_are_told(
    store: Store, bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The rename fails as on a read-only file system: who runs the tests may be allowed everything."""
    request_id = forget(store)
    source = bundle.root / "weights.safetensors"
    before = source.read_bytes()

    replace = os.replace

    def refuse(old: Path, new: Path) -> None:
        if Path(old) == source:
            raise OSError(errno.EROFS, os.strerror(errno.EROFS))
        replace(old, new)

    monkeypatch.setattr(os, "replace", refuse)
    assert store.seal(request_id) == ((str(source), "Read-only file system"),)
    assert source.read_bytes() == before
    assert store.request(request_id).sealed is not None


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everything")
def test_a_folder_without_write_permission(store: Store, bundle: Bundle) -> None:
    request_id = forget(store)
    bundle.root.chmod(stat.S_IRUSR | stat.S_IXUSR)
    try:
        assert [path for path, _ in store.seal_plan(request_id).not_erased] == [
            str(bundle.root / "weights.safetensors")
        ]
        assert len(store.seal(request_id)) == 1
    finally:
        bundle.root.chmod(0o700)


def test_the_plan_says_what_will_go(store: Store, bundle: Bundle) -> None:
    first = forget(store)
    shared = queue(store, None, [1, 7])
    done(store, shared)
    add(store, 2, 0, seed=1)
    (store.folder / "generations" / "000001.safetensors").stat()
    plan = store.seal_plan(first)
    names = [Path(file).relative_to(store.folder.parent).as_posix() for file in plan.files]
    assert names == ["store/generations/000001.safetensors", "own.clue/weights.safetensors"]
    assert (plan.samples, plan.class_samples, plan.later, plan.not_erased) == (6, 2, (shared,), ())
    size = bundle.weights.bytes
    assert plan.bytes == 2 * size
    assert all(Path(file).exists() for file in plan.files)
    before = store.folder.joinpath("store.db").read_bytes()
    assert store.request(first).seal_began is None
    assert store.folder.joinpath("store.db").read_bytes() == before
    store.seal(first)
    assert [Path(file).exists() for file in plan.files] == [False, False]
    assert store.request(shared).samples == 2
    assert store.sample_ids(1) == [*range(7, 13)]
    assert [one.erased is None for one in store.generations()] == [False, True, True]


def test_who_cannot_be_sealed(store: Store) -> None:
    request_id = queue(store)
    with pytest.raises(ClueError, match="request 1 is queued: only one that is done"):
        store.seal(request_id)
    done(store, request_id)
    store.rollback(1)
    with pytest.raises(ClueError, match="request 1 has no effect on the serving weights"):
        store.seal(request_id)
    store.rollback(2)
    waiting = queue(store, None, [1, 8])
    with pytest.raises(ClueError, match=f"request {waiting}, which is queued, has samples of request 1"):
        store.seal(request_id)
    store.cancel(waiting)
    store.seal(request_id)
    with pytest.raises(ClueError, match="request 1 was sealed already"):
        store.seal(request_id)


def test_the_checkpoint_of_a_request_that_began_with_erased_weights_goes_too(store: Store) -> None:
    old = queue(store, 1)
    store.begin(old, 1)
    store.pause(old, "stopped", {})
    store.checkpoint_path(old).write_bytes(b"old weights")
    request_id = forget(store, 0)
    new = queue(store, None, add(store, 2, 2))
    store.begin(new, store.serving().id)
    store.pause(new, "stopped", {})
    store.checkpoint_path(new).write_bytes(b"new weights")
    assert str(store.checkpoint_path(old)) in store.seal_plan(request_id).files
    store.seal(request_id)
    assert [store.checkpoint_path(one).exists() for one in (old, new)] == [False, True]


def dies_at(place: str, calls: int, store: Path, bundle: Path, request_id: int) -> bool:
    """Seal in a process that ends at the given place as if it was killed; whether it came there."""
    process = os.fork()
    if process:
        return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) == 9
    try:
        opened = Store(store, Bundle.open(bundle))
        owner, _, name = place.rpartition(".")
        module, _, cls = owner.rpartition(".")
        target = files if owner == "pi_runtime.files" else getattr(__import__(module, fromlist=[cls]), cls)
        original, seen = getattr(target, name), [0]

        def dying(*arguments: object) -> object:
            seen[0] += 1
            return original(*arguments) if seen[0] <= calls else os._exit(9)

        setattr(target, name, dying)
        opened.seal(request_id)
    finally:
        os._exit(1)


# Each is a place between or in the middle of the steps: (what is called there, how often before).
PLACES: list[tuple[str, int]] = [
    ("pi_runtime.store.seal.Sealing._erase_rows", 0),
    ("pi_runtime.store.samples.Samples.renew_keys", 0),
    ("pi_runtime.store.keys.Keys.destroy_marked", 1),
    ("pi_runtime.files.overwrite", 0),
    ("pi_runtime.files.sync_folder", 6),
    ("pi_runtime.store.seal.Sealing._vacuum", 0),
    ("pi_runtime.store.seal.Sealing._erased", 0),
]


@pytest.mark.parametrize(("place", "calls"), PLACES)
def test_a_sealing_that_was_interrupted_is_carried_on_at_the_next_open(
    store: Store, bundle: Bundle, place: str, calls: int
) -> None:
    request_id = forget(store)
    old, new = store.generations()
    needles = [*secrets(store, request_id), *pieces(old.path, new.path)]
    store.close()  # no connection is to be in two processes
    assert dies_at(place, calls, store.folder, bundle.root, request_id)
    again = Store(store.folder, Bundle.open(bundle.root))
    assert again.request(request_id).sealed is not None
    assert again.serving().sha256 == new.sha256
    assert found_in(store.folder.parent, needles) == []
    assert again.counts() == {1: 6}
    again.close()


def test_an_open_while_the_log_is_read_can_seal_later(store: Store, bundle: Bundle) -> None:
    request_id = forget(store)
    reader = Store(store.folder, bundle)
    rows = reader.database.stream("SELECT id FROM samples")
    next(rows)
    store.database.execute("PRAGMA busy_timeout = 10")
    with pytest.raises(ClueError, match=r"reads|locked|busy"):
        store.seal(request_id)
    assert store.request(request_id).sealed is None
    assert [*rows]
    reader.close()
    assert store.seal(request_id) == ()


class Issuer:
    """Receipts as plain text."""

    def __init__(self) -> None:
        self.calls: list[tuple[object, ...]] = []

    def _make(self, *facts: object) -> Make:
        self.calls.append(facts)
        return lambda previous, number: f"{number} {facts[0]}"

    def rollback(self, *, before: str, after: str, requests: Sequence[int], classes: Sequence[str]) -> Make:
        return self._make("rollback", before, after, list(requests), list(classes))

    def seal(
        self,
        request: Request,
        *,
        serving: str,
        erased: Sequence[str],
        not_erased: Sequence[tuple[str, str]],
    ) -> Make:
        return self._make("seal", request.id, serving, list(erased), list(not_erased))

    def adopt(self, *, before: str, after: str, policy: str, classes: Sequence[str]) -> Make:
        return self._make("adopt", before, after, policy, list(classes))


def test_rollback_and_seal_leave_receipts(store: Store) -> None:
    store.issuer = issuer = Issuer()
    request_id = forget(store)
    old, new = store.generations()
    store.rollback(old.id)
    store.rollback(new.id)
    store.seal(request_id)
    assert issuer.calls == [
        ("rollback", new.sha256, old.sha256, [request_id], ["cat"]),
        ("rollback", old.sha256, new.sha256, [], []),
        ("seal", request_id, new.sha256,
         ["6 samples and their keys", "weights of generation 1", "weights of the bundle"], []),
    ]  # fmt: skip
    assert store.receipts() == ["1 rollback", "2 rollback", "3 seal"]


def test_steps_are_told(store: Store) -> None:
    told: list[str] = []
    tell: Callable[[str], None] = told.append
    store.seal(forget(store), tell)
    assert told == [
        "erasing samples and keys", "erasing weights and checkpoints", "clearing the database and its log",
    ]  # fmt: skip
