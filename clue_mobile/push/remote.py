"""The device's side of `clue-mobile push`: a program of its own, sent over ssh, run by the Pi's `python3 -c`.

Standard input: one line of JSON (name, folder, files [[path, sha256, bytes], ...], install), then the content
of the files that it asked for, one after the other. Standard output: one line of JSON an answer. Complete
files are kept in `.NAME.part` until all are there, so a push that broke off goes on where it was; then the
folder takes the bundle's name in one step. Only the standard library of Python 3.9 or newer.
"""

import contextlib
import ctypes
import fcntl
import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO

_EXCHANGE = 2  # RENAME_EXCHANGE of renameat2
_HERE = -100  # AT_FDCWD


class Refused(Exception):  # noqa: N818  an answer
    """What is wrong, in one sentence."""


def answer(**said: Any) -> None:
    print(json.dumps(said), flush=True)


def checked(name: str) -> str:
    """A path inside the bundle. Raises Refused for one that leads out of it."""
    parts = PurePosixPath(name).parts
    if not parts or name.startswith("/") or any(part in ("..", ".") for part in parts):
        raise Refused(f"{name!r} is no path inside a bundle")
    return name


def digest_of(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        for chunk in iter(lambda: stream.read(1 << 20), b""):
            digest.update(chunk)
    return digest.hexdigest()


def whole(path: Path, sha256: str, size: int) -> bool:
    """Whether this very file is there."""
    return (
        path.is_file() and not path.is_symlink() and path.stat().st_size == size and digest_of(path) == sha256
    )


def receive(stream: BinaryIO, path: Path, sha256: str, size: int) -> None:
    """The next `size` bytes as the file `path`, which exists when all of them are on the disk and right."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary, digest, left = path.with_name(path.name + ".incoming"), hashlib.sha256(), size
    with temporary.open("wb") as out:
        while left:
            chunk = stream.read(min(left, 1 << 18))
            if not chunk:
                raise Refused(f"the connection ended in {path.name}: push again, it goes on from there")
            digest.update(chunk)
            out.write(chunk)
            left -= len(chunk)
        out.flush()
        os.fsync(out.fileno())
    if digest.hexdigest() != sha256:
        temporary.unlink()
        raise Refused(
            f"{path.name} arrived with another SHA-256: it was changed on the way or while it was read"
        )
    os.replace(temporary, path)  # noqa: PTH105


def flush(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def swap(part: Path, target: Path) -> None:
    """`part` becomes `target`; what was there before is removed afterwards."""
    for folder in (*(path for path in part.rglob("*") if path.is_dir()), part):
        flush(folder)
    old = target.with_name(f".{target.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    if not target.exists():
        part.rename(target)
    elif _exchanged(part, target):
        part.rename(old)
    else:  # a file system that cannot exchange: for a moment there is none, never half of one
        target.rename(old)
        part.rename(target)
    flush(target.parent)
    shutil.rmtree(old, ignore_errors=True)


def _exchanged(one: Path, other: Path) -> bool:
    try:
        call = ctypes.CDLL(None).renameat2
    except (OSError, AttributeError):
        return False
    return bool(call(_HERE, os.fsencode(one), _HERE, os.fsencode(other), _EXCHANGE) == 0)


@contextlib.contextmanager
def alone(folder: Path, name: str) -> Iterator[None]:
    """One push to a bundle at a time. Raises Refused."""
    lock = os.open(folder / f".{name}.lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(lock)
        raise Refused(f"another push to {folder / name} is running: wait until it ends") from None
    try:
        yield
    finally:
        os.close(lock)


def place(order: Any, stream: BinaryIO) -> Path:
    """Receive what is missing and put the bundle in its place; returns it."""
    files = [(checked(name), str(sha256), int(size)) for name, sha256, size in order["files"]]
    name = checked(order["name"])
    if name != Path(name).name:
        raise Refused(f"{name!r} is no path inside a bundle's folder")
    folder = Path.home() / order["folder"]
    folder.mkdir(parents=True, exist_ok=True)
    with alone(folder, name):
        _receive_all(folder / name, folder / f".{name}.part", files, stream)
    return folder / name


def _receive_all(target: Path, part: Path, files: list[tuple[str, str, int]], stream: BinaryIO) -> None:
    if target.exists() and not (target / "manifest.json").is_file():
        raise Refused(f"{target} exists and is no bundle: remove it, or give another --folder")
    if target.exists() and all(whole(target / name, sha256, size) for name, sha256, size in files):
        answer(need=[], there=True)
        return
    part.mkdir(exist_ok=True)
    names = {name for name, _, _ in files}
    for path in part.rglob("*"):  # of another version of the bundle, or half a file
        if not path.is_dir() and str(path.relative_to(part)) not in names:
            path.unlink()
    need = [(name, sha256, size) for name, sha256, size in files if not whole(part / name, sha256, size)]
    missing, free = sum(size for _, _, size in need), shutil.disk_usage(part).free
    if missing + (16 << 20) > free:
        needed = (missing >> 20) + 17
        raise Refused(f"{target.parent} has {free >> 20} MiB free, the bundle needs {needed} MiB")
    answer(need=[name for name, _, _ in need], there=False)
    for name, sha256, size in need:
        receive(stream, part / name, sha256, size)
    swap(part, target)


def main() -> int:
    try:
        order = json.loads(sys.stdin.buffer.readline())
        target = place(order, sys.stdin.buffer)
        answer(placed=str(target))
        if order["install"] is not None:
            script = target / "runtime" / "install.sh"
            if not script.is_file():
                raise Refused(f"{target} has no runtime/install.sh: export it with --target pi5")
            # What the installer says is for people: it goes to standard error.
            command = ["bash", str(script), *order["install"]]
            done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=sys.stderr)
            answer(installed=done.returncode)
        return 0
    except (Refused, OSError) as error:
        with contextlib.suppress(BrokenPipeError):
            answer(error=str(error))
        return 1


if __name__ == "__main__":
    sys.exit(main())
