"""What each form of a convolution's products costs on this device: the candidates of a folder, timed.

The folder is written by `clue-mobile tune-kernels --bundle-only`: tiny programs, one a form, and
candidates.json, which says what each computes. The forms of a product run in turns, so that whatever else the
device does meanwhile falls on all of them alike.
"""

from __future__ import annotations

import json
import platform
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from pi_runtime import device
from pi_runtime.bundle import Golden, Port, Program
from pi_runtime.engine import Engine, Session
from pi_runtime.errors import ClueError
from pi_runtime.files import atomic_write, sha256_file
from pi_runtime.strict_json import loads

SCHEMA = 1
CANDIDATES = "candidates.json"
FEWEST_ROUNDS = 5
MOST_ROUNDS = 100
# a form this many times slower than the fastest in the first turn is out of the race: one more turn is enough
_HOPELESS = 3.0
_PAUSE_S = 0.05
_MOST_BYTES = 64 << 20


@dataclass(frozen=True)
class Candidate:
    """A product of a shape, and the file of each of its forms; flops: 2 per multiply-add."""

    product: str
    shape: str
    flops: int
    program: str
    inputs: Mapping[str, tuple[int, ...]]
    output: tuple[int, ...]
    forms: Mapping[str, Path]

    @property
    def key(self) -> str:
        """Its name in a cost table."""
        return f"{self.product} {self.shape}"


@dataclass
class Record:
    """Costs of one runtime on one machine with so many threads: key -> {"flops", "ms": {form: ms}}.

    clock: "cpu" (processor time: with one thread it is free of what else runs) or "wall".
    """

    runtime: str
    version: str
    machine: str
    threads: int
    clock: str
    kind: str = "measured"
    costs: dict[str, dict[str, Any]] = field(default_factory=dict)

    @property
    def identity(self) -> tuple[str, str, str, int, str, str]:
        """What makes two records one."""
        return self.runtime, self.version, self.machine, self.threads, self.clock, self.kind

    def to_json(self) -> dict[str, Any]:
        """As it stands in a table's file."""
        return {
            "runtime": self.runtime, "version": self.version, "machine": self.machine,
            "threads": self.threads, "clock": self.clock, "kind": self.kind,
            "costs": dict(sorted(self.costs.items())),
        }  # fmt: skip


def machine() -> str:
    """The processor's architecture and model."""
    model = ""
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines():
            if line.partition(":")[0].strip() in ("model name", "CPU part", "Model"):
                model = line.partition(":")[2].strip()
                break
    return f"{platform.machine()} {model or device.facts()['model']}".strip()


def read_candidates(folder: Path) -> tuple[str, list[Candidate]]:
    """The runtime of a folder's candidates, and these. Raises ClueError for a folder that is none, or whose
    files are not those that were written."""
    path = folder / CANDIDATES
    try:
        found = loads(path.read_bytes(), _MOST_BYTES)
        if found["schema"] != SCHEMA:
            raise ClueError(f"{path} is of schema {found['schema']}, and this runtime reads {SCHEMA}")
        candidates = []
        for entry in found["candidates"]:
            forms = {}
            for name, file in entry["forms"].items():
                forms[name] = _inside(folder, file["file"])
                if sha256_file(forms[name]) != file["sha256"]:
                    raise ClueError(f"{forms[name]} is not the file that was written: its SHA-256 differs")
            candidates.append(
                Candidate(
                    entry["product"], entry["shape"], int(entry["flops"]), entry["program"],
                    {name: tuple(map(int, shape)) for name, shape in entry["inputs"].items()},
                    tuple(map(int, entry["output"])), forms,
                )
            )  # fmt: skip
        return str(found["runtime"]), candidates
    except ClueError:
        raise
    except OSError as error:
        raise ClueError(
            f"cannot read {error.filename or path}: {error.strerror}; write the folder with clue-mobile "
            "tune-kernels --bundle-only"
        ) from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ClueError(f"{path} does not list candidates as clue-mobile tune-kernels writes them") from error


def _inside(folder: Path, name: str) -> Path:
    path = folder / name
    if Path(name).is_absolute() or ".." in Path(name).parts:
        raise ClueError(f"{folder / CANDIDATES} names {name}, which is outside of its folder")
    return path


def read_records(path: Path) -> list[Record]:
    """The records of a cost table's file. Raises ClueError where it is none."""
    try:
        found = loads(path.read_bytes(), _MOST_BYTES)
        if found["schema"] != SCHEMA:
            raise ClueError(
                f"the cost table {path} is of schema {found['schema']}; this version reads {SCHEMA}"
            )
        records = [
            Record(
                str(each["runtime"]), str(each["version"]), str(each["machine"]), int(each["threads"]),
                str(each["clock"]), str(each["kind"]),
                {
                    key: {"flops": int(entry["flops"]), "ms": {n: float(ms) for n, ms in entry["ms"].items()}}
                    for key, entry in each["costs"].items()
                },
            )
            for each in found["records"]
        ]  # fmt: skip
    except ClueError:
        raise
    except OSError as error:
        raise ClueError(f"cannot read the cost table {path}: {error.strerror}") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ClueError(f"{path} is no cost table: it must be a file that tune-kernels wrote") from error
    return records


def write_records(path: Path, records: Sequence[Record]) -> None:
    """Replace a cost table's file, whole or not at all. Raises ClueError."""
    text = json.dumps({"schema": SCHEMA, "records": [record.to_json() for record in records]}, indent=1)
    atomic_write(path, [text.encode() + b"\n"], replace=True)


def record_of(records: list[Record], engine: Engine) -> Record:
    """The record of this engine, machine and number of threads; a new one is added where there is none."""
    clock = "cpu" if engine.threads == 1 else "wall"
    fresh = Record(engine.name, engine.version, machine(), engine.threads, clock)
    for record in records:
        if record.identity == fresh.identity:
            return record
    records.append(fresh)
    return fresh


def missing(candidates: Sequence[Candidate], record: Record) -> list[Candidate]:
    """Those of which a form has no cost yet: nothing is measured twice."""
    return [each for each in candidates if not each.forms.keys() <= _known(record, each).keys()]


def _known(record: Record, candidate: Candidate) -> Mapping[str, float]:
    entry = record.costs.get(candidate.key)
    return entry["ms"] if entry else {}


def measure(
    candidates: Sequence[Candidate],
    engine: Engine,
    record: Record,
    *,
    seconds: float = 1.0,
    save: Callable[[], None] = lambda: None,
    tell: Callable[[int, int, str], None] = lambda done, total, note: None,
) -> None:
    """Time all forms of each candidate for `seconds`, at least FEWEST_ROUNDS turns each, into `record`.

    `save` is called after each candidate, so that nothing is lost when the work is cut short. Raises
    ClueError for a time out of range or a program that fails.
    """
    if not 0 < seconds <= 600:
        raise ClueError(f"each product is timed for 0 to 600 s, not {seconds:g} s")
    for number, candidate in enumerate(candidates):
        tell(number, len(candidates), candidate.key)
        record.costs[candidate.key] = {"flops": candidate.flops, "ms": _times(candidate, engine, seconds)}
        save()
    tell(len(candidates), len(candidates), "")


def _times(candidate: Candidate, engine: Engine, seconds: float) -> dict[str, float]:
    """Median ms of each form, the fastest first."""
    clock = time.process_time if engine.threads == 1 else time.perf_counter
    ports = tuple(Port(name, "batch", shape, name) for name, shape in candidate.inputs.items())
    result = Port("result", "result", candidate.output, "")
    program = Program(
        candidate.program, candidate.output[0], ports, (result,), candidate.flops, 0, {},
        Golden("", 0, {}, {}, {}),
    )  # fmt: skip
    rng = np.random.default_rng(0)
    inputs = {port.name: rng.standard_normal(port.shape, dtype=np.float32) for port in ports}
    outputs = {"result": np.zeros(candidate.output, np.float32)}
    sessions: dict[str, Session] = {}
    taken: dict[str, list[float]] = {}

    def turn(name: str) -> float:
        if engine.threads > 1:
            # the threads of the form before wait for work by spinning: they have gone to sleep by then, and
            # this form's are woken by a run that does not count, as a step's operators before it would
            time.sleep(_PAUSE_S)
            sessions[name].run(inputs, outputs)
        start = clock()
        sessions[name].run(inputs, outputs)
        return clock() - start

    for name, path in candidate.forms.items():
        sessions[name] = engine.load(path, program)
        turn(name)
        taken[name] = [turn(name)]
    best = min(times[0] for times in taken.values())
    racing = [name for name, times in taken.items() if times[0] <= _HOPELESS * best]
    for name in taken.keys() - set(racing):
        taken[name].append(turn(name))
        del sessions[name]
    start, rounds = time.monotonic(), 1
    while rounds < MOST_ROUNDS and (rounds < FEWEST_ROUNDS or time.monotonic() - start < seconds):
        for name in racing:
            taken[name].append(turn(name))
        rounds += 1
    medians = {name: round(1000 * statistics.median(times), 4) for name, times in taken.items()}
    return dict(sorted(medians.items(), key=lambda item: item[1]))


def summary(records: Sequence[Record]) -> list[str]:
    """A line for each product: the fastest form, and how many times faster it is than the exporter's own."""
    lines = []
    for record in records:
        for key, entry in sorted(record.costs.items()):
            name, ms = min(entry["ms"].items(), key=lambda item: item[1])
            own = entry["ms"].get("own")
            rate = f"{entry['flops'] / ms / 1e6:.1f} GFLOP/s" if ms else "-"
            gain = f", {own / ms:.2f} times own" if own and ms else ""
            lines.append(f"{record.runtime} {key}: {name} {ms:.3f} ms ({rate}{gain})")
    return lines
