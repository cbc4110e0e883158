from __future__ import annotations

import errno
import hashlib
import json
import os
from pathlib import Path
from typing import Any

import pytest

from clue_mobile.bundle import writer
from clue_mobile.bundle.writer import BundleWriter
from clue_mobile.errors import ClueError


class Disk:
    """The functions of `os` that the writer uses; one of them fails at its k-th call."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self._name, self._left, self._error = "", 0, BaseException()

    def fail(self, name: str, at: int, error: BaseException | None = None) -> None:
        self.calls = []
        self._name, self._left = name, at
        self._error = error or OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def __getattr__(self, name: str) -> Any:
        real = getattr(os, name)
        if name not in ("write", "fsync", "rename"):
            return real

        def call(*args: Any) -> Any:
            self.calls.append(name)
            if name == self._name:
                self._left -= 1
                if not self._left:
                    raise self._error
            return real(*args)

        return call


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Disk:
    fake = Disk()
    monkeypatch.setattr(writer, "os", fake)
    return fake


def write(path: Path, content: bytes, *, replace: bool = False) -> Path:
    with BundleWriter(path, replace) as out:
        out.add("weights.safetensors", content)
        out.add("programs/onnx/step.onnx", content * 2)
        return out.commit({"files": out.rows})


def tree(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_what_is_written(tmp_path: Path) -> None:
    path = write(tmp_path / "new" / "a.clue", b"abc")
    assert path == tmp_path / "new" / "a.clue"
    found = tree(path)
    assert found.keys() == {
        "weights.safetensors", "programs/onnx/step.onnx", "manifest.json", "manifest.sha256",
    }  # fmt: skip
    assert json.loads(found["manifest.json"])["files"] == [
        {"file": "weights.safetensors", "sha256": hashlib.sha256(b"abc").hexdigest(), "bytes": 3},
        {"file": "programs/onnx/step.onnx", "sha256": hashlib.sha256(b"abcabc").hexdigest(), "bytes": 6},
    ]
    digest = hashlib.sha256(found["manifest.json"]).hexdigest()
    assert found["manifest.sha256"].decode() == f"{digest}  manifest.json\n"
    assert [p.name for p in path.parent.iterdir()] == ["a.clue"]


def test_everything_is_flushed_before_the_rename_and_the_folder_after_it(tmp_path: Path, disk: Disk) -> None:
    write(tmp_path / "a.clue", b"abc")
    # four files; the folders programs, programs/onnx and the bundle; the folder that it stands in
    assert disk.calls == ["write", "fsync"] * 4 + ["fsync"] * 3 + ["rename", "fsync"]


def test_short_writes_are_continued(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.write
    monkeypatch.setattr(os, "write", lambda descriptor, data: real(descriptor, data[:2]))
    found = tree(write(tmp_path / "a.clue", b"abcdefg"))
    monkeypatch.undo()
    assert found["weights.safetensors"] == b"abcdefg"


def test_an_existing_path_is_replaced_only_when_asked_for(tmp_path: Path) -> None:
    path = write(tmp_path / "a.clue", b"old")
    with pytest.raises(ClueError, match=r"a\.clue exists already: choose another --out, or give --force"):
        BundleWriter(path)
    write(path, b"new", replace=True)
    assert tree(path)["weights.safetensors"] == b"new"
    assert [p.name for p in tmp_path.iterdir()] == ["a.clue"]


@pytest.mark.parametrize("make", [lambda p: p.mkdir(), lambda p: p.write_text("x")], ids=["folder", "file"])
def test_what_is_no_bundle_is_never_replaced(tmp_path: Path, make: Any) -> None:
    path = tmp_path / "thesis"
    make(path)
    with pytest.raises(ClueError, match="thesis exists and is no bundle, so --force does not replace it"):
        BundleWriter(path, replace=True)
    assert path.exists()


def test_inside_a_file_is_no_place_for_a_bundle(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(ClueError, match=r"cannot create .*a\.clue"):
        write(tmp_path / "file" / "a.clue", b"abc")
    assert (tmp_path / "file").read_text() == "x"


def test_the_current_folder_by_its_short_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "a.clue", b"old")
    monkeypatch.chdir(path)
    write(Path(), b"new", replace=True)
    assert tree(path)["weights.safetensors"] == b"new"


def test_a_link_stays_one(tmp_path: Path) -> None:
    real = write(tmp_path / "real.clue", b"old")
    (tmp_path / "link.clue").symlink_to(real)
    write(tmp_path / "link.clue", b"new", replace=True)
    assert tree(real)["weights.safetensors"] == b"new"
    assert (tmp_path / "link.clue").is_symlink()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["link.clue", "real.clue"]


def test_an_error_in_between_leaves_nothing(tmp_path: Path) -> None:
    def interrupted() -> None:
        with BundleWriter(tmp_path / "a.clue") as out:
            out.add("weights.safetensors", b"abc")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert list(tmp_path.iterdir()) == []


def test_numbers_that_json_does_not_have_are_no_manifest(tmp_path: Path) -> None:
    def commit() -> None:
        with BundleWriter(tmp_path / "a.clue") as out:
            out.commit({"tolerance": float("inf")})

    with pytest.raises(ValueError, match="not JSON compliant"):
        commit()
    assert list(tmp_path.iterdir()) == []


FAULTS = [("write", k) for k in range(1, 5)] + [("fsync", k) for k in range(1, 9)] + [("rename", 1)]


@pytest.mark.parametrize(("name", "at"), FAULTS)
def test_a_failing_disk_leaves_no_half_bundle(tmp_path: Path, disk: Disk, name: str, at: int) -> None:
    disk.fail(name, at)
    with pytest.raises(ClueError, match=r"cannot write .*a\.clue: No space left on device; nothing was"):
        write(tmp_path / "a.clue", b"abc")
    assert list(tmp_path.iterdir()) == []
    write(tmp_path / "a.clue", b"abc")  # and the next one is not in its way


@pytest.mark.parametrize(("name", "at"), [*FAULTS, ("rename", 2)])
@pytest.mark.parametrize("error", [None, KeyboardInterrupt()], ids=["disk", "interrupt"])
def test_a_failing_disk_leaves_the_old_bundle(
    tmp_path: Path, disk: Disk, name: str, at: int, error: BaseException | None
) -> None:
    path = write(tmp_path / "a.clue", b"old")
    before = tree(path)
    disk.fail(name, at, error)
    with pytest.raises(ClueError if error is None else KeyboardInterrupt):
        write(path, b"new", replace=True)
    assert tree(path) == before
    assert [p.name for p in tmp_path.iterdir()] == ["a.clue"]


def test_there_are_no_more_calls_that_could_fail(tmp_path: Path, disk: Disk) -> None:
    path = write(tmp_path / "a.clue", b"old")
    first = list(disk.calls)
    disk.calls = []
    write(path, b"new", replace=True)
    for calls, faults in ((first, FAULTS), (disk.calls, [*FAULTS, ("rename", 2)])):
        for name in ("write", "fsync", "rename"):
            assert calls.count(name) == sum(fault == name for fault, _ in faults)
