"""Real crashes for tests: child processes on a disk that fails or with a switch that cuts their power.

`Server` keeps a Python with everything imported and the shim (crash_shim.c) in front of libc, and forks one
child for each run: starting Python and the engine for each of some hundred runs would take minutes. `Disk`
replays what the shim logged and says what a power cut would have left.
"""

from __future__ import annotations

import functools
import json
import os
import shutil
import struct
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
# What the shim can do at a call, and the calls that it counts (crash_shim.c).
COUNT, FAIL, FAIL_FROM, KILL_BEFORE, KILL_AFTER, KILL_WITHIN = range(6)
WRITES, ALL = "wtsr", "cwtsrum"  # write, truncate, sync, rename; and create, unlink, mkdir


@functools.cache
def shim() -> Path:
    """The shared library, built once a process; its folder goes with the process."""
    folder = tempfile.TemporaryDirectory(prefix="crash_shim")
    built = Path(folder.name) / "shim.so"
    source = HERE / "crash_shim.c"
    subprocess.run(
        ["gcc", "-O1", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC", "-o", built, source, "-ldl"],
        check=True,
    )
    _KEPT.append(folder)
    return built


_KEPT: list[tempfile.TemporaryDirectory[str]] = []


def missing() -> str:
    """Why crashes cannot be made here; empty when they can."""
    if not sys.platform.startswith("linux"):
        return "LD_PRELOAD and /proc are Linux's"
    return "" if shutil.which("gcc") else "no gcc to build the shim with"


@dataclass(frozen=True)
class Ended:
    """How a child ended: `killed` by the shim or by time, else its answer or the sentence of its error."""

    killed: bool
    answer: Any
    error: str | None


class Server:
    """Runs actions of crash_worker.py on stores of one bundle, a forked child each."""

    def __init__(self, bundle: Path) -> None:
        environment = os.environ | {
            "LD_PRELOAD": str(shim()),
            "PYTHONPATH": os.pathsep.join([str(HERE.parents[1]), str(HERE)]),
            "OMP_NUM_THREADS": "1",
        }
        self._process = subprocess.Popen(
            [sys.executable, str(HERE / "crash_worker.py"), str(bundle)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment,
        )  # fmt: skip

    def run(
        self,
        action: str,
        store: Path,
        mode: int = COUNT,
        at: int = 0,
        calls: str = ALL,
        trace: Path | None = None,
        kill_after_s: float | None = None,
        **arguments: Any,
    ) -> Ended:
        """Let a child do the action; the `at`-th of the `calls` fails or kills it, or time does."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        job = {
            "action": action, "store": str(store), "mode": mode, "at": at, "calls": calls,
            "trace": str(trace or ""), "kill_after_s": kill_after_s, "arguments": arguments,
        }  # fmt: skip
        self._process.stdin.write(json.dumps(job) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        assert line, "the crash server died"
        return Ended(**json.loads(line))

    def close(self) -> None:
        """End the server."""
        self._process.stdin.close()  # type: ignore[union-attr]
        self._process.wait(30)


@dataclass(frozen=True)
class Call:
    """A logged call: create, write, truncate, sync, rename, unlink, mkdir by its letter."""

    op: str
    path: Path
    offset: int
    data: bytes


def read_trace(path: Path) -> list[Call]:
    """The calls that the shim logged, in order."""
    return list(_calls(path.read_bytes()))


def _calls(content: bytes) -> Iterator[Call]:
    place = 0
    while place < len(content):
        op, length, offset, size = struct.unpack_from("<cIQQ", content, place)
        place += 21
        path = Path(content[place : place + length].decode())
        place += length
        yield Call(op.decode(), path, offset, content[place : place + size])
        place += size


class Disk:
    """A folder as a disk sees it: what was written, and what of it a power cut would leave.

    A file's content is safe once the file was flushed, its name once its folder was; nothing else is.
    """

    def __init__(self, root: Path, before: Path) -> None:
        self.root = root
        self._files: dict[int, bytearray] = {}
        self._safe: dict[int, bytes] = {}
        self._names: dict[Path, int | None] = {}  # None: a folder
        for path in sorted(before.rglob("*")):
            name = root / path.relative_to(before)
            self._names[name] = None if path.is_dir() else self._new(path.read_bytes())
        self._safe_names = dict(self._names)

    def _new(self, content: bytes = b"") -> int:
        number = len(self._files)
        self._files[number], self._safe[number] = bytearray(content), content
        return number

    def apply(self, call: Call) -> None:
        """Carry a logged call out."""
        number = self._names.get(call.path)
        match call.op:
            case "m":
                self._names[call.path] = None
            case "c" if number is None:
                self._names[call.path] = self._new()
            case "c":
                self._files[number] = bytearray()  # type: ignore[index]
            case "w" if number is not None:
                content = self._files[number]
                content.extend(bytes(max(0, call.offset - len(content))))
                content[call.offset : call.offset + len(call.data)] = call.data
            case "t" if number is not None:
                content = self._files[number]
                del content[call.offset :]
                content.extend(bytes(call.offset - len(content)))
            case "s" if number is not None:
                self._safe[number] = bytes(self._files[number])
            case "s":
                self._flush_folder(call.path)
            case "r":
                self._names[Path(call.data.decode())] = self._names.pop(call.path)
            case "u":
                self._names.pop(call.path, None)

    def _flush_folder(self, folder: Path) -> None:
        for names in (self._safe_names, self._names):
            for name in [name for name in names if name.parent == folder]:
                if name in self._names:
                    self._safe_names[name] = self._names[name]
                else:
                    self._safe_names.pop(name, None)

    def after_power_cut(self, target: Path, names_kept: bool = False) -> None:
        """Write what is left into the new folder `target`; with `names_kept` all names.

        Both happen: a journal may bring the names of files to the disk before what is in them.
        """
        names: Mapping[Path, int | None] = self._names if names_kept else self._safe_names
        target.mkdir(parents=True)
        for name, number in sorted(names.items()):
            path = target / name.relative_to(self.root)
            if number is None:
                path.mkdir(exist_ok=True, parents=True)
            elif path.parent.is_dir():
                path.write_bytes(self._safe[number])
