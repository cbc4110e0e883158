from __future__ import annotations

import errno
import os
from pathlib import Path

import numpy as np
import pytest
import toy
from faults import Faults
from store_parts import add, done, found_in, queue

from pi_runtime import Bundle, ClueError, Runtime
from pi_runtime.store import Store


@pytest.fixture
def store(runtime: Runtime) -> Store:
    return runtime.store


def key_files(store: Store) -> set[str]:
    return {path.name for path in (store.folder / "keys").iterdir()}


def live_keys(store: Store) -> list[tuple[int, int | None, int | None]]:
    return store.database.rows("SELECT id, request_id, label FROM keys WHERE destroyed IS NULL ORDER BY id")


def test_no_file_of_the_store_has_pixels_or_keys_in_the_clear(store: Store) -> None:
    add(store, 6, 0)
    add(store, 6, 1)
    queue(store, None, [2, 8])
    pixels = [image.tobytes() for label in (0, 1) for image in toy.images(6, label)]
    assert found_in(store.folder, pixels) == []
    keys = [path.read_bytes() for path in (store.folder / "keys").iterdir()]
    assert len(set(keys)) == 3
    assert [file for file, _ in found_in(store.folder, keys) if not file.startswith("keys/")] == []


def test_samples_come_back_as_they_were(store: Store) -> None:
    add(store, 6, 0)
    add(store, 6, 1)
    request = queue(store, None, [8, 2, 11])
    expected = np.stack([toy.images(6, 1)[1], toy.images(6, 0)[1], toy.images(6, 1)[4]])
    assert np.array_equal(store.images(request), expected)
    assert store.labels(request).tolist() == [1, 0, 1]
    assert store.labels(request).dtype == np.int64


def test_an_image_is_stored_once_for_a_label_and_found_again(store: Store) -> None:
    images = toy.images(4, 0)
    assert store.add(images[[0, 1, 0]], 0) == [1, 2]
    assert store.add(images, 0) == [3, 4]
    assert store.add(images[:1], 2) == [5]
    assert store.find(images[::-1], 0) == [4, 3, 2, 1]
    assert store.find(images[:2], 2) == [5, None]
    assert store.counts() == {0: 4, 2: 1}
    assert [(one.id, one.label, one.request_id) for one in store.listed(2)] == [(5, 2, None)]
    request = queue(store)
    assert [one.request_id for one in store.listed()] == [request] * 4 + [None]


def test_a_request_of_a_class_takes_the_key_and_later_samples_get_another(store: Store) -> None:
    add(store, 4, 0)
    request = queue(store)
    assert live_keys(store) == [(1, request, None)]
    add(store, 2, 0, seed=1)
    assert live_keys(store) == [(1, request, None), (2, None, 0)]
    assert key_files(store) == {"000001.key", "000002.key"}


def test_a_request_of_some_samples_gets_a_key_of_its_own(store: Store) -> None:
    add(store, 4, 0)
    before = store.database.rows("SELECT id, wrapped FROM samples ORDER BY id")
    pixels = store.database.rows("SELECT * FROM pixels ORDER BY sample_id")
    request = queue(store, None, [2, 3])
    assert live_keys(store) == [(1, None, 0), (2, request, None)]
    assert store.database.rows("SELECT key_id FROM samples ORDER BY id") == [(1,), (2,), (2,), (1,)]
    after = store.database.rows("SELECT id, wrapped FROM samples ORDER BY id")
    assert [old != new for old, new in zip(before, after, strict=True)] == [False, True, True, False]
    assert store.database.rows("SELECT * FROM pixels ORDER BY sample_id") == pixels


def test_a_sample_of_a_request_that_ended_goes_to_the_next(store: Store) -> None:
    ids = add(store, 4, 0)
    done(store, queue(store))
    request = queue(store, None, ids[:2])
    assert np.array_equal(store.images(request), toy.images(4, 0)[:2])
    assert [key[1] for key in live_keys(store)] == [1, request]


def test_a_changed_sample_is_refused(store: Store) -> None:
    add(store, 3, 0)
    request = queue(store)
    for change in (
        "UPDATE pixels SET content = zeroblob(44) WHERE sample_id = 2",
        "UPDATE pixels SET content = x'00' WHERE sample_id = 2",
        "UPDATE pixels SET content = (SELECT content FROM pixels WHERE sample_id = 1) WHERE sample_id = 2",
        "UPDATE samples SET wrapped = (SELECT wrapped FROM samples WHERE id = 1) WHERE id = 2",
        "UPDATE samples SET label = 1 WHERE id = 2",
    ):
        store.database.execute("BEGIN")
        store.database.execute(change)
        with pytest.raises(ClueError, match=r"sample 2 of .* was changed or is damaged"):
            store.images(request)
        store.database.execute("ROLLBACK")
    assert len(store.images(request)) == 3


@pytest.mark.parametrize("content", [None, b"short"])
def test_a_missing_or_damaged_key_is_a_clear_error(store: Store, content: bytes | None) -> None:
    add(store, 3, 0)
    request = queue(store)
    path = store.folder / "keys" / "000001.key"
    path.unlink()
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ClueError, match=r"000001\.key"):
        store.images(request)


def test_a_full_disk_while_a_key_is_written_stores_nothing(runtime: Runtime, faults: Faults) -> None:
    for call in ("write", "fsync", "replace"):
        faults.fail(call, 1)
        with pytest.raises(ClueError, match=os.strerror(errno.ENOSPC)):
            runtime.add(toy.images(4, 0), "cat")
        assert runtime.store.counts() == {}
        assert live_keys(runtime.store) == []
    assert runtime.add(toy.images(4, 0), "cat") == [1, 2, 3, 4]
    assert np.array_equal(runtime.store.images(queue(runtime.store)), toy.images(4, 0))


def test_stray_files_are_removed_when_the_lock_is_free(store: Store, opened_bundle: Bundle) -> None:
    add(store, 3, 0)
    queue(store)
    strays = [
        store.folder / name
        for name in (
            "keys/000009.key", "keys/000001.key.part", "generations/000007.safetensors",
            "generations/000001.safetensors.part", "checkpoints/000005.safetensors",
            "checkpoints/000001.safetensors.part", "receipts/000001.json.part", "receipt.key.part",
        )
    ]  # fmt: skip
    kept = [store.folder / "checkpoints" / "000001.safetensors", store.folder / "keys" / "000001.key"]
    with store.exclusive():
        for path in (*strays, kept[0]):
            path.write_bytes(b"x" * 32)
        Store(store.folder, opened_bundle).close()
        assert all(path.exists() for path in strays)  # they may be of the process that holds the lock
    with store.exclusive():
        pass
    assert [path for path in strays if path.exists()] == []
    assert all(path.exists() for path in (*kept, store.serving().path))


def test_a_link_that_lies_in_the_way_is_removed_and_not_followed(store: Store, tmp_path: Path) -> None:
    other = tmp_path / "mine.txt"
    other.write_text("mine")
    link = store.folder / "generations" / "000009.safetensors"
    link.symlink_to(other)
    with store.exclusive():
        pass
    assert not link.is_symlink()
    assert other.read_text() == "mine"
