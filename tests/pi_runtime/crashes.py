"""Real crashes for tests: child processes on a disk that fails or with a switch that cuts their power.

`Server` keeps a Python with everything imported and the shim (crash_shim.c) in front of libc, and forks one
child for each run: starting Python and the engine for each of some hundred runs would take minutes. `Disk`
replays what the shim logged and says what a power cut would have left.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import re
import shutil
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pi_runtime import Bundle
from pi_runtime.files import sha256_file
from pi_runtime.store import Store

HERE = Path(__file__).parent
# What the shim can do at a call, and the calls that it counts (crash_shim.c).
COUNT, FAIL, FAIL_FROM, KILL_BEFORE, KILL_AFTER, KILL_WITHIN = range(6)
# The request that crashes: no early stop, checkpoints also within epochs.
SCALARS = {"check_every": 0, "epochs": 2, "inner": 3}
OPTIONS = {"checkpoint_steps": 5}
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


def points(calls: list[Call], store: Path, ops: str = ALL) -> dict[str, list[int]]:
    """The named write points, such as "sync checkpoints/#.safetensors.part", and the numbers of the calls."""
    words = {
        "c": "create",
        "w": "write",
        "t": "truncate",
        "s": "sync",
        "r": "rename",
        "u": "unlink",
        "m": "mkdir",
    }
    found: dict[str, list[int]] = {}
    for number, call in enumerate((call for call in calls if call.op in ops), 1):
        name = re.sub(r"\d+", "#", str(call.path.relative_to(store)))
        found.setdefault(f"{words[call.op]} {name}", []).append(number)
    return found


# Keys of a record that are times, temperatures or sizes of this very run.
_MEASURED = (
    "wall_s", "cpu_s", "step_ms", "load_s", "save_s", "peak_mem_bytes", "thermal_start", "thermal_end",
    "throttled", "frequency_start", "frequency_end", "energy_j", "energy_note", "sampler_cpu_s", "device",
)  # fmt: skip


def end_state(bundle: Bundle, store: Path) -> dict[str, Any]:
    """What a crash must not change: the hash of what serves, the rows, and the records without times."""
    with contextlib.closing(Store(store, bundle)) as opened:
        serving = opened.serving()
        assert sha256_file(serving.path) == serving.sha256
        rows = [
            {
                key: value
                for key, value in request.as_dict().items()
                if key not in ("created", "started", "finished")
            }
            for request in opened.requests()
        ]
        records = [
            {key: value for key, value in record.items() if key not in _MEASURED}
            for record in opened.records()
        ]
        files = sorted(str(path.relative_to(store)) for path in store.rglob("*") if path.is_file())
        generations = [(one.id, one.request_id, one.parent, one.sha256) for one in opened.generations()]
    kept = [file for file in files if not file.startswith(("store.db", "cost.jsonl", "power.jsonl", "lock"))]
    return {
        "weights": serving.sha256, "requests": rows, "records": records, "generations": generations,
        "files": kept,
    }  # fmt: skip


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


@dataclass
class Bench:
    """A server, a store with a queued request as `before`, and how it ends undisturbed.

    images: an .npy of uint8 [N, H, W, C] for a bundle other than the toy, whose plan then runs as it is.
    """

    folder: Path
    bundle: Bundle
    server: Server
    label: str = "cat"
    images: Path | None = None

    def __post_init__(self) -> None:
        self.store = self.folder / "store"
        scalars: dict[str, float] = SCALARS if self.images is None else {}
        if self.images is None:
            self.server.run("add", self.store, label=self.label, n=8)
        else:
            self.server.run("add_file", self.store, label=self.label, file=str(self.images))
        self.server.run("submit", self.store, label=self.label, scalars=scalars, options=OPTIONS)
        self.before = self.folder / "before"
        shutil.copytree(self.store, self.before)
        trace = self.folder / "trace"
        start = time.monotonic()
        undisturbed = self.server.run("serve", self.store, trace=trace)
        assert undisturbed.answer == ["done"], undisturbed
        self.seconds = time.monotonic() - start
        self.calls = read_trace(trace)
        self.expected = self.end_state()
        self.new = self.expected["weights"]
        self.reset()
        self.old = self.end_state()["weights"]
        assert self.new != self.old

    def reset(self) -> None:
        """Bring the store back to the queued request."""
        shutil.rmtree(self.store)
        shutil.copytree(self.before, self.store)

    def end_state(self) -> dict[str, Any]:
        """`end_state` of the store."""
        return end_state(self.bundle, self.store)

    @property
    def writes(self) -> int:
        """How many writes, truncations, flushes and renames the undisturbed run has."""
        return sum(call.op in WRITES for call in self.calls)

    def ends_as_undisturbed(self, mode: int = COUNT, at: int = 0, kill_after_s: float | None = None) -> bool:
        """Whether a run that is killed there, and one more, end as one alone; asserts what serves between."""
        self.reset()
        killed = self.server.run("serve", self.store, mode, at, kill_after_s=kill_after_s).killed
        assert killed or kill_after_s is not None
        self.serves_old_or_new()
        ended = self.server.run("serve", self.store)
        return ended.answer == ["done"] and self.end_state() == self.expected

    def serves_old_or_new(self) -> str:
        """The status of the request; asserts that what serves is whole and fits it."""
        state = self.end_state()
        (request,) = state["requests"]
        assert state["weights"] == (self.new if request["status"] == "done" else self.old)
        return str(request["status"])
