"""Files that must survive a power cut: written beside their place, flushed to the disk, then renamed."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
from collections.abc import Iterable
from pathlib import Path

from pi_runtime.errors import ClueError

Chunk = bytes | memoryview


def sha256_file(path: Path) -> str:
    """The SHA-256 of a file's content, in hex. Raises ClueError when the file cannot be read."""
    try:
        with path.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as error:
        raise ClueError(f"cannot read {path}: {error.strerror}") from error


def _write_all(descriptor: int, chunk: Chunk) -> None:
    left = memoryview(chunk).cast("B")
    while left:
        left = left[os.write(descriptor, left) :]


def sync_folder(folder: Path) -> None:
    """Flush the names in a folder. Raises OSError."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _remove(path: Path) -> None:
    with contextlib.suppress(OSError):
        path.unlink()


def atomic_write(path: Path, chunks: Iterable[Chunk], replace: bool = False) -> str:
    """Write the chunks as the new file `path`, which then exists whole or not at all; returns their SHA-256.

    The file is readable by its owner only. Raises ClueError when `path` exists (unless `replace`: then it has
    the old content or the new one, whole) or any step fails; what was written is then removed.
    """
    if path.exists() and not replace:
        raise ClueError(f"cannot write {path}: it exists already")
    temporary = path.with_name(path.name + ".part")
    digest = hashlib.sha256()
    step = "create"
    try:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        try:
            for chunk in chunks:
                step = "write"
                _write_all(descriptor, chunk)
                digest.update(chunk)
            step = "flush"
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        step = "rename"
        os.replace(temporary, path)  # noqa: PTH105  the one call that tests make fail
        step = "flush the folder of"
        sync_folder(path.parent)
    except BaseException as error:
        _remove(temporary)
        if not replace:
            _remove(path)
        if isinstance(error, OSError):
            raise ClueError(f"cannot {step} {path}: {error.strerror}; nothing was changed") from error
        raise
    return digest.hexdigest()


def erase(path: Path) -> None:
    """Overwrite a file with zeros, flush it and remove it; one that is not there is fine.

    Spare blocks of flash storage may keep the old content. A link is removed, not what it leads to. Raises
    ClueError when a step fails; done again, it goes on.
    """
    try:
        try:
            descriptor = os.open(path, os.O_WRONLY | os.O_NOFOLLOW)
        except FileNotFoundError:
            return
        except OSError as error:
            if error.errno != errno.ELOOP:
                raise
        else:
            try:
                _overwrite(descriptor)
            finally:
                os.close(descriptor)
        path.unlink(missing_ok=True)
        sync_folder(path.parent)
    except OSError as error:
        raise ClueError(f"cannot erase {path}: {error.strerror}") from error


def overwrite(path: Path) -> None:
    """Overwrite a file with zeros, flush it and cut it to nothing. Raises OSError."""
    descriptor = os.open(path, os.O_WRONLY | os.O_NOFOLLOW)
    try:
        _overwrite(descriptor)
        os.ftruncate(descriptor, 0)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _overwrite(descriptor: int) -> None:
    left = os.fstat(descriptor).st_size
    zeros = bytes(min(left, 1 << 20))
    while left > 0:
        left -= os.write(descriptor, zeros[:left])
    os.fsync(descriptor)


def append_line(path: Path, line: str) -> None:
    """Append a line (or some, joined) and flush it; what fails half way is cut off again. Raises ClueError.

    A line that a power cut left unfinished stays one of its own.
    """
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
        try:
            before = os.fstat(descriptor).st_size
            try:
                unfinished = before > 0 and os.pread(descriptor, 1, before - 1) != b"\n"
                _write_all(descriptor, b"\n" * unfinished + line.encode() + b"\n")
                os.fsync(descriptor)
            except OSError:
                with contextlib.suppress(OSError):
                    os.ftruncate(descriptor, before)
                raise
        finally:
            os.close(descriptor)
    except OSError as error:
        raise ClueError(f"cannot append to {path}: {error.strerror}") from error
