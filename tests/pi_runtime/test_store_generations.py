from __future__ import annotations

import pytest
from store_parts import add, done, forget, queue

from pi_runtime import ClueError, Runtime
from pi_runtime.store import Store


@pytest.fixture
def store(runtime: Runtime) -> Store:
    for label in range(3):
        add(runtime.store, 3, label)
    return runtime.store


def test_each_was_made_from_the_one_that_served(store: Store) -> None:
    forget(store, 0)
    forget(store, 1)
    store.rollback(2)
    forget(store, 2)
    found = [(one.id, one.parent, one.request_id, one.serving) for one in store.generations()]
    assert found == [(1, None, None, False), (2, 1, 1, False), (3, 2, 2, False), (4, 2, 3, True)]
    assert [one.path.name for one in store.generations()] == [f"00000{n}.safetensors" for n in range(1, 5)]
    assert store.request(3).base_generation == 2


def test_rollback_takes_the_effect_away_and_gives_it_back(store: Store) -> None:
    forget(store, 0)
    forget(store, 1)
    assert store.forgotten() == [0, 1]
    assert store.rollback(2) == [2]
    assert store.forgotten() == [0]
    assert store.rollback(1) == [1]
    assert store.forgotten() == []
    assert all(one.rolled_back is not None for one in store.requests())
    assert store.rollback(3) == []
    assert store.forgotten() == [0, 1]
    assert all(one.rolled_back is None for one in store.requests())


def test_the_weights_that_serve_are_those_of_the_generation(runtime: Runtime) -> None:
    store = runtime.store
    images = store.images(queue(store, None, add(store, 3, 0)))
    before = runtime.predict(images).tobytes()
    store.cancel(1)
    forget(store, 0)
    assert runtime.predict(images).tobytes() != before
    store.rollback(1)
    assert runtime.predict(images).tobytes() == before


def test_a_class_is_forgotten_by_requests_of_a_class_that_serve(store: Store) -> None:
    done(store, queue(store, None, [1, 2]))
    assert store.forgotten() == []
    failed = queue(store, 1)
    store.begin(failed, store.serving().id)
    store.finish(failed, "failed", "no", {}, [])
    assert store.forgotten() == []
    forget(store, 2)
    forget(store, 0)
    assert store.forgotten() == [2, 0]


def test_what_cannot_serve(store: Store) -> None:
    forget(store, 0)
    with pytest.raises(ClueError, match=r"no generation 9: choose one of 1, 2"):
        store.rollback(9)
    with pytest.raises(ClueError, match="generation 2 serves already"):
        store.rollback(2)
    first = store.generations()[0].path
    first.write_bytes(first.read_bytes()[:-1] + b"\1")
    with pytest.raises(ClueError, match="were changed"):
        store.rollback(1)
    assert store.serving().id == 2


def test_a_rollback_waits_for_the_lock(runtime: Runtime, store: Store) -> None:
    forget(store, 0)
    other = Store(store.folder, runtime.bundle)
    with other.exclusive(), pytest.raises(ClueError, match="another request is running"):
        store.rollback(1)
    other.close()
    assert store.serving().id == 2
