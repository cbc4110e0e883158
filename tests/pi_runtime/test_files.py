from __future__ import annotations

import hashlib
import stat
from pathlib import Path

import pytest
from faults import Faults

from pi_runtime.errors import ClueError
from pi_runtime.files import append_line, atomic_write, sha256_file


def names(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir()]


def test_writes_all_chunks_and_returns_the_hash(tmp_path: Path) -> None:
    path = tmp_path / "new"
    digest = atomic_write(path, [b"ab", memoryview(b"cd")])
    assert path.read_bytes() == b"abcd"
    assert digest == hashlib.sha256(b"abcd").hexdigest() == sha256_file(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert names(tmp_path) == ["new"]


def test_short_writes_are_continued(tmp_path: Path, faults: Faults) -> None:
    faults.short_writes = True
    atomic_write(tmp_path / "new", [b"x" * 1000])
    assert (tmp_path / "new").read_bytes() == b"x" * 1000


def test_never_replaces_a_file(tmp_path: Path) -> None:
    (tmp_path / "new").write_text("old")
    with pytest.raises(ClueError, match="exists already"):
        atomic_write(tmp_path / "new", [b"x"])
    assert (tmp_path / "new").read_text() == "old"


@pytest.mark.parametrize(("call", "at", "step"), [
    ("write", 1, "write"), ("write", 2, "write"), ("fsync", 1, "flush"), ("replace", 1, "rename"),
    ("fsync", 2, "flush the folder of"),
])  # fmt: skip
def test_every_failing_call_leaves_nothing(
    tmp_path: Path, faults: Faults, call: str, at: int, step: str
) -> None:
    faults.fail(call, at)
    with pytest.raises(ClueError, match=f"cannot {step} .*new: No space left on device; nothing was changed"):
        atomic_write(tmp_path / "new", [b"ab", b"cd"])
    assert names(tmp_path) == []


def test_an_error_of_the_source_leaves_nothing(tmp_path: Path) -> None:
    def chunks() -> object:
        yield b"ab"
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        atomic_write(tmp_path / "new", chunks())  # type: ignore[arg-type]
    assert names(tmp_path) == []


def test_missing_folder_is_a_clear_error(tmp_path: Path) -> None:
    with pytest.raises(ClueError, match=r"cannot create .*No such file"):
        atomic_write(tmp_path / "no" / "new", [b"x"])


@pytest.mark.parametrize(("call", "at"), [("write", 1), ("write", 2), ("fsync", 1)])
def test_a_line_that_fails_is_cut_off(tmp_path: Path, faults: Faults, call: str, at: int) -> None:
    path = tmp_path / "lines"
    append_line(path, "one")
    faults.short_writes = True
    faults.fail(call, at)
    with pytest.raises(ClueError, match="cannot append"):
        append_line(path, "two")
    append_line(path, "three")
    assert path.read_text() == "one\nthree\n"


def test_hash_of_a_missing_file_is_a_clear_error(tmp_path: Path) -> None:
    with pytest.raises(ClueError, match=r"cannot read .*gone"):
        sha256_file(tmp_path / "gone")
