"""A store with very many rows: nothing reads them all where it need not, and no list of them is held."""

from __future__ import annotations

import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from store_parts import add

from pi_runtime import Bundle
from pi_runtime.cli import main
from pi_runtime.store import Store


def fill(store: Store, count: int) -> None:
    """Rows as `add` makes them, but for what is encrypted: these samples are not read here."""
    (key,) = add(store, 1, 0)
    with store.database.transaction():
        store.database.execute(
            "WITH RECURSIVE n (i) AS (SELECT 2 UNION ALL SELECT i + 1 FROM n WHERE i < ?) "
            "INSERT INTO samples SELECT i, printf('%064x', i), 0, 4, 4, 1, ?, zeroblob(60), '' FROM n",
            *(count, key),
        )
        store.database.execute("INSERT INTO pixels SELECT id, zeroblob(44) FROM samples WHERE id > 1")


@contextmanager
def at_most(peak: int) -> Iterator[None]:
    """The body may not hold more bytes of Python objects than that at once."""
    tracemalloc.start()
    try:
        yield
        used = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert used <= peak


@pytest.mark.parametrize("count", [50_000, pytest.param(1_000_000, marks=pytest.mark.full)])
def test_a_store_of_that_many_samples(
    opened_bundle: Bundle, tmp_path: Path, capsys: pytest.CaptureFixture[str], count: int
) -> None:
    store = Store(tmp_path / "store", opened_bundle)
    fill(store, count)
    store.close()
    with at_most(1 << 20):
        store = Store(tmp_path / "store", opened_bundle)
        assert store.counts() == {0: count}
        assert sum(1 for _ in store.listed(0)) == count
        assert add(store, 4, 0, seed=1) == [*range(count + 1, count + 5)]
    ids = store.sample_ids(0)
    with at_most(200 * count):
        request = store.create_request("class", 0, 1, {}, ids, {})
    assert len(store.labels(request)) == count + 4
    store.cancel(request)
    with at_most(1 << 20):
        # The others keep their keys: these are not even read.
        store.create_request("samples", None, 1, {}, ids[-4:], {})
    assert store.images(request + 1).shape == (4, 4, 4, 1)
    store.close()
    command = ["samples", str(opened_bundle.root), "--store", str(tmp_path / "store"), "--threads", "1"]
    assert main(command) == 0
    assert capsys.readouterr().out == f"cat: {count + 4} samples, ids 1-{count + 4}\n"
