from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import toy
from faults import Faults

from pi_runtime import Bundle, Runtime, files


@pytest.fixture(scope="session")
def toy_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The toy bundle, shared: tests that change it take `own_bundle`."""
    return toy.build(tmp_path_factory.mktemp("toy") / "toy.clue")


@pytest.fixture(scope="session")
def opened_bundle(toy_bundle: Path) -> Bundle:
    """The toy bundle, opened and checked once."""
    return Bundle.open(toy_bundle)


@pytest.fixture
def own_bundle(toy_bundle: Path, tmp_path: Path) -> Path:
    """A copy of the toy bundle for this test alone."""
    return Path(shutil.copytree(toy_bundle, tmp_path / "own.clue"))


@pytest.fixture
def runtime(opened_bundle: Bundle, tmp_path: Path) -> Iterator[Runtime]:
    """The toy bundle with an empty store, one thread."""
    with Runtime.for_bundle(opened_bundle, tmp_path / "store", threads=1) as opened:
        yield opened


@pytest.fixture
def faults(monkeypatch: pytest.MonkeyPatch) -> Faults:
    """The disk under the runtime's own files, which fails when it is told to."""
    disk = Faults()
    monkeypatch.setattr(files, "os", disk)
    return disk
