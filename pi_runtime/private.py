"""A store is its owner's alone: whose it is, who else could read or change it; checked when it is opened."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

from pi_runtime import trust
from pi_runtime.errors import ClueError

_OTHERS_WRITE = 0o022
_OTHERS_READ = 0o055


def check(folder: Path) -> None:
    """Make sure that a store, where it exists already, is private.

    What others may only read is closed to them. Raises ClueError where something belongs to another user, is
    a link or no plain file or folder, or where others may write: then what the store holds may not be its
    owner's any more.
    """
    try:
        if not folder.is_dir():
            return
        _check(folder, folder.stat())
        for path in _inside(folder):
            _check(path, path.lstat())
    except FileNotFoundError:  # another process has just finished with a temporary file
        return
    except OSError as error:
        raise ClueError(f"cannot check the store {folder}: {error.strerror}") from error


def _inside(folder: Path) -> Iterator[Path]:
    """Everything in the store; its folders have no folders of their own."""
    for path in folder.iterdir():
        if path.name == trust.LIST:  # may be the administrator's; it is checked when it is read
            continue
        yield path
        if path.is_dir() and not path.is_symlink():
            yield from path.iterdir()


def _check(path: Path, status: os.stat_result) -> None:
    mode = status.st_mode
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        raise ClueError(f"{path} in the store is a link or a special file: a store has none, remove it")
    if status.st_uid != os.geteuid():
        raise ClueError(
            f"{path} belongs to {_user(status.st_uid)}, not to {_user(os.geteuid())} who runs this: run it "
            "as that user, or give another --store"
        )
    if mode & _OTHERS_WRITE:
        raise ClueError(
            f"others may write to {path}, so the store may have been changed: give another --store, or chmod "
            "go-rwx it if you are sure"
        )
    if mode & _OTHERS_READ:
        path.chmod(0o700 if stat.S_ISDIR(mode) else 0o600)


def _user(number: int) -> str:
    import pwd

    try:
        return pwd.getpwuid(number).pw_name
    except KeyError:
        return f"user {number}"
