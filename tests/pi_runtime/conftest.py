from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import toy
from faults import Faults

from pi_runtime import Runtime, files


@pytest.fixture(scope="session")
def toy_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The toy bundle, shared: tests that change it take `own_bundle`."""
    return toy.build(tmp_path_factory.mktemp("toy") / "toy.clue")


@pytest.fixture
def own_bundle(toy_bundle: Path, tmp_path: Path) -> Path:
    """A copy of the toy bundle for this test alone."""
    return Path(shutil.copytree(toy_bundle, tmp_path / "own.clue"))


@pytest.fixture
def runtime(toy_bundle: Path, tmp_path: Path) -> Iterator[Runtime]:
    """The toy bundle open with an empty store, one thread."""
    with Runtime.open(toy_bundle, tmp_path / "store", threads=1) as opened:
        yield opened


@pytest.fixture
def faults(monkeypatch: pytest.MonkeyPatch) -> Faults:
    """The disk under the runtime's own files, which fails when it is told to."""
    disk = Faults()
    monkeypatch.setattr(files, "os", disk)
    return disk
