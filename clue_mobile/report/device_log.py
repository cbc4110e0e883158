"""What a device wrote down of its requests: a store's folder, its store.db, or a cost.jsonl alone.

Read only, and without the device runtime: a log comes from any of the three (docs/runtime-contract.md).
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from clue_mobile.errors import ClueError

WHOLE = "request"
"""The phase of the record that stands for the whole request."""
NEEDED = ("request_id", "phase", "wall_s", "steps", "status", "step_ms", "peak_mem_bytes")


@dataclass(frozen=True)
class Span:
    """A phase from one moment to another, in seconds since the epoch."""

    phase: str
    start: float
    end: float
    steps: int = 0
    step_ms: float | None = None
    peak_mem_bytes: int | None = None
    temperature: float | None = None


@dataclass(frozen=True)
class Sample:
    """A power sample: the moment, in seconds since the epoch, watts, and (amperes, volts) of each rail."""

    moment: float
    watts: float
    rails: Mapping[str, tuple[float, float]] = field(default_factory=dict)


@dataclass(frozen=True)
class LoggedRequest:
    """One request: its cost records by phase in the order of the plan, and what else is known of it.

    `class_name`, `reason` and `evidence` are known from a store alone; `spans` and `samples` where the
    runtime kept a trace.
    """

    log: str
    id: int
    records: Mapping[str, Mapping[str, Any]]
    class_name: str | None = None
    status: str = ""
    reason: str | None = None
    evidence: Mapping[str, Any] = field(default_factory=dict)
    spans: Sequence[Span] = ()
    samples: Sequence[Sample] = ()

    @property
    def name(self) -> str:
        """How tables and pictures call it."""
        forgotten = f", class {self.class_name}" if self.class_name else ""
        return f"{self.log} #{self.id}{forgotten}"

    @property
    def whole(self) -> Mapping[str, Any]:
        """The record of the whole request."""
        return self.records[WHOLE]

    @property
    def phases(self) -> dict[str, Mapping[str, Any]]:
        """The records of its phases."""
        return {name: record for name, record in self.records.items() if name != WHOLE}


def read(path: Path) -> list[LoggedRequest]:
    """The finished requests of a log, oldest first.

    A last line that was cut off is passed over. Raises ClueError for a path that is no log, or a damaged one.
    """
    if path.is_dir():
        name = path.resolve().name
        database = path / "store.db"
        if database.is_file():
            return _finish(name, path, *_from_database(database))
        if (path / "cost.jsonl").is_file():
            return _finish(name, path, _from_lines(path / "cost.jsonl"), {})
        raise ClueError(f"{path} is no store: it has neither store.db nor cost.jsonl")
    if not path.is_file():
        raise ClueError(f"no log {path}: give a store's folder, its store.db, or a cost.jsonl")
    name = path.resolve().parent.name if path.name in ("store.db", "cost.jsonl") else path.stem
    with path.open("rb") as stream:
        is_database = stream.read(16) == b"SQLite format 3\0"
    if is_database:
        return _finish(name, path.parent, *_from_database(path))
    return _finish(name, path.parent, _from_lines(path), {})


def _finish(
    name: str, folder: Path, records: Sequence[Mapping[str, Any]], rows: Mapping[int, Mapping[str, Any]]
) -> list[LoggedRequest]:
    by_request: dict[int, dict[str, Mapping[str, Any]]] = {}
    for record in records:
        by_request.setdefault(record["request_id"], {})[record["phase"]] = record
    traces = _traces(folder / "power.jsonl")
    found = []
    for number, phases in sorted(by_request.items()):
        if WHOLE not in phases:
            continue  # the records of a request are written together; this one was cut off
        row = rows.get(number, {})
        spans, samples = traces.get(number, ([], []))
        found.append(
            LoggedRequest(
                name,
                number,
                {**{key: value for key, value in phases.items() if key != WHOLE}, WHOLE: phases[WHOLE]},
                row.get("class"),
                row.get("status") or phases[WHOLE]["status"],
                row.get("reason"),
                row.get("evidence") or {},
                spans,
                samples,
            )
        )
    return found


def _from_database(path: Path) -> tuple[list[Mapping[str, Any]], dict[int, dict[str, Any]]]:
    try:
        with closing(sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True, timeout=10)) as database:
            database.row_factory = sqlite3.Row
            requests = [dict(row) for row in database.execute("SELECT * FROM requests ORDER BY id")]
            texts = [row[0] for row in database.execute("SELECT record FROM records ORDER BY id")]
        records = [_checked(json.loads(text), str(path)) for text in texts]
        for row in requests:
            row["evidence"] = json.loads(row["evidence"]) if row.get("evidence") else {}
        return records, {row["id"]: row for row in requests}
    except sqlite3.Error as error:
        raise ClueError(f"{path} is no store of clue-mobile, or it is damaged: {error}") from error
    except (ValueError, KeyError) as error:
        raise ClueError(f"{path} holds a row that is no JSON: {error}") from error


def _from_lines(path: Path) -> list[Mapping[str, Any]]:
    return [_checked(line, f"{path}, line {number}") for number, line in _lines(path)]


def _lines(path: Path) -> Iterator[tuple[int, Any]]:
    """(number, value) of each line of JSON; a last line without its end is passed over."""
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except OSError as error:
        raise ClueError(f"cannot read {path}: {error.strerror}") from error
    lines = text.split("\n")
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            yield number, json.loads(line)
        except ValueError:
            if number == len(lines):
                return
            raise ClueError(f"{path}, line {number}: not JSON") from None


def _checked(record: Any, where: str) -> Mapping[str, Any]:
    missing = NEEDED if not isinstance(record, dict) else [key for key in NEEDED if key not in record]
    if missing:
        raise ClueError(
            f"{where} is no cost record (contract/cost.schema.json): it lacks {', '.join(missing)}"
        )
    checked: Mapping[str, Any] = record
    return checked


def _traces(path: Path) -> dict[int, tuple[list[Span], list[Sample]]]:
    """By request: its spans and power samples; empty where no trace was kept."""
    found: dict[int, tuple[list[Span], list[Sample]]] = {}
    if not path.is_file():
        return found
    for number, line in _lines(path):
        try:
            spans, samples = found.setdefault(line["request_id"], ([], []))
            if line["line"] == "span":
                spans.append(
                    Span(
                        line["phase"], line["t0"], line["t1"], line.get("steps") or 0, line.get("step_ms"),
                        line.get("peak_mem_bytes"), line.get("temperature"),
                    )
                )  # fmt: skip
            elif line["line"] == "sample":
                rails = {rail: (pair[0], pair[1]) for rail, pair in line.get("rails", {}).items()}
                samples.append(Sample(line["t"], line["w"], rails))
        except (KeyError, TypeError, IndexError) as error:
            raise ClueError(f"{path}, line {number}: no line of a power trace ({error!r})") from None
    return found
