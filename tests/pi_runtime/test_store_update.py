from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import toy
from safetensors.numpy import load_file
from store_parts import add, done, forget, queue, retrain
from test_store_seal import Issuer

from pi_runtime import Bundle, ClueError, Runtime
from pi_runtime.store import Store


@pytest.fixture
def store(own_bundle: Path, tmp_path: Path) -> Iterator[Store]:
    """A store of the bundle before the update, closed by the tests that open it with another one."""
    opened = Store(tmp_path / "store", Bundle.open(own_bundle))
    for label in range(3):
        add(opened, 4, label)
    yield opened
    opened.close()


@pytest.fixture
def updated(own_bundle: Path) -> Bundle:
    """The same bundle with newly trained weights, under its own root."""
    root = shutil.copytree(own_bundle, own_bundle.with_name("new.clue"))
    return Bundle.open(retrain(root, 1))


def reopen(store: Store, bundle: Bundle, policy: str = "refuse") -> Store:
    store.close()
    return Store(store.folder, bundle, policy, Issuer())


def test_an_update_is_adopted_when_nothing_is_forgotten(store: Store, updated: Bundle) -> None:
    forget(store)
    store.rollback(1)
    new = reopen(store, updated)
    serving = new.serving()
    assert (serving.id, serving.parent, serving.request_id) == (3, None, None)
    assert serving.sha256 == updated.weights.sha256
    assert load_file(serving.path).keys() == load_file(updated.root / "weights.safetensors").keys()
    assert new.receipts() == []
    again = reopen(new, updated)
    assert len(again.generations()) == 3
    again.close()


def test_what_was_forgotten_is_refused_by_name(store: Store, updated: Bundle, own_bundle: Path) -> None:
    forget(store, 1)
    forget(store, 0)
    done(store, queue(store, None, [9, 10]))
    with pytest.raises(
        ClueError, match=r"bring back what was forgotten \(dog, cat, 2 samples\): give --policy"
    ):
        reopen(store, updated)
    old = Store(store.folder, Bundle.open(own_bundle))
    assert (old.forgotten(), old.serving().id) == ([1, 0], 4)
    assert sorted(path.name for path in (store.folder / "generations").iterdir()) == [
        f"00000{n}.safetensors" for n in range(1, 5)
    ]
    old.close()


def test_serve_has_the_class_back(store: Store, updated: Bundle) -> None:
    request_id = forget(store)
    before = store.serving().sha256
    new = reopen(store, updated, "serve")
    assert new.forgotten() == []
    assert new.request(request_id).rolled_back is not None
    assert new.serving().sha256 == updated.weights.sha256
    assert isinstance(new.issuer, Issuer)
    assert new.issuer.calls == [("adopt", before, updated.weights.sha256, "serve", ["cat"])]
    assert len(list((new.folder / "receipts").iterdir())) == len(new.receipts()) > 0
    with pytest.raises(ClueError, match="has no effect on the serving weights"):
        new.seal(request_id)
    new.rollback(2)
    assert new.forgotten() == [0]
    new.close()


def test_pending_forgets_it_again(store: Store, updated: Bundle) -> None:
    first, some = forget(store), queue(store, None, [6, 9])
    done(store, some)
    images = store.images(first)
    new = reopen(store, updated, "pending")
    assert [one.status for one in new.requests()] == ["done", "done", "queued", "queued"]
    again, samples = new.requests()[2:]
    assert (again.kind, again.label, again.samples, again.retry_of) == ("class", 0, 4, first)
    assert (samples.kind, samples.label, samples.samples, samples.retry_of) == ("samples", None, 2, some)
    assert np.array_equal(new.images(again.id), images)
    assert new.forgotten() == [0]  # until it is done
    assert new.next_queued() == again.id
    done(new, again.id)
    assert new.forgotten() == [0]
    assert new.serving().parent == 4
    new.close()


def test_pending_that_is_cancelled_has_the_class_back(store: Store, updated: Bundle) -> None:
    forget(store)
    new = reopen(store, updated, "pending")
    new.cancel(2)
    assert new.forgotten() == []
    new.close()


def test_pending_with_sealed_samples_takes_those_of_the_class_that_are_there(
    store: Store, updated: Bundle, own_bundle: Path
) -> None:
    forget(store)
    store.seal(1)
    with pytest.raises(
        ClueError, match=r"cat \(request 1\) cannot be forgotten again, its samples are erased"
    ):
        reopen(store, updated, "pending")
    old = Store(store.folder, Bundle.open(own_bundle))
    ids = add(old, 3, 0, seed=4)
    new = reopen(old, updated, "pending")
    (again,) = (one for one in new.requests() if one.status == "queued")
    assert new.labels(again.id).tolist() == [0] * len(ids)
    new.close()


def test_a_bundle_exported_again_with_the_same_weights_is_no_update(store: Store, own_bundle: Path) -> None:
    forget(store)
    bundle = Bundle.open(toy.edit(own_bundle, lambda manifest: manifest.update(name="toy again")))
    new = reopen(store, bundle)
    assert [one.id for one in new.generations()] == [1, 2]
    stored = dict(new.database.rows("SELECT key, value FROM bundle"))
    assert (stored["name"], stored["manifest_sha256"]) == ("toy again", bundle.sha256)
    assert json.loads(stored["classes"]) == list(toy.CLASSES)
    new.close()


def test_an_update_waits_for_a_running_request(store: Store, updated: Bundle) -> None:
    with store.exclusive(), pytest.raises(ClueError, match="another request is running"):
        Store(store.folder, updated)
    assert store.serving().id == 1


def test_an_update_on_a_full_disk_changes_nothing(store: Store, updated: Bundle, faults: Any) -> None:
    forget(store)
    serving = store.serving()
    for call in ("write", "fsync", "replace"):
        faults.fail(call, 1)
        with pytest.raises(ClueError, match="No space left"):
            Store(store.folder, updated, "serve")
        assert store.serving() == serving
        assert len(list((store.folder / "generations").iterdir())) == 2
    Store(store.folder, updated, "serve").close()
    assert store.serving().id == 3


def test_an_unknown_policy(own_bundle: Path, tmp_path: Path) -> None:
    with pytest.raises(ClueError, match="unknown policy 'serv': did you mean 'serve'"):
        Runtime.open(own_bundle, tmp_path / "store", threads=1, policy="serv")


def test_json_of_another_runtime_is_the_same_bundle(store: Store, own_bundle: Path) -> None:
    """Its spaces and escapes may differ, its values may not."""
    rows = dict(store.database.rows("SELECT key, value FROM bundle"))
    with store.database.transaction():
        for key in ("classes", "input"):
            text = json.dumps(json.loads(rows[key]), separators=(",", ":"), ensure_ascii=False)
            store.database.connection.execute("UPDATE bundle SET value = ? WHERE key = ?", (text, key))
    again = reopen(store, Bundle.open(own_bundle))
    with again.database.transaction():
        again.database.connection.execute("UPDATE bundle SET value = '[\"x\"]' WHERE key = 'classes'")
    with pytest.raises(ClueError, match="whose classes differ"):
        reopen(again, Bundle.open(own_bundle))
