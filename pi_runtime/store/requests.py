"""The requests: rows that go from state to state (docs/runtime-contract.md), each change one transaction."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from pi_runtime.errors import ClueError
from pi_runtime.store.database import Database, now
from pi_runtime.store.samples import Samples

# From which states a request may come to a state; what is not here is illegal.
TRANSITIONS: Mapping[str, tuple[str, ...]] = {
    "running": ("queued", "paused"),
    "verifying": ("running",),
    "paused": ("running", "verifying"),
    "done": ("verifying",),
    "failed": ("running", "verifying"),
    "cancelled": ("queued", "running", "verifying", "paused"),
}
FINAL = ("done", "failed", "cancelled")
UNFINISHED = "('queued', 'running', 'verifying', 'paused')"
INTERRUPTED = "interrupted"
CANCEL_ASKED = "cancel asked"  # the reason of a running request that is to end


class TransitionError(ClueError):
    """A request was to go to a state that cannot follow the one it is in."""


@dataclass(frozen=True)
class Request:
    """A row of `requests` (contract/schema.sql); `label` and `class_name` are None for a set of samples."""

    id: int
    kind: str
    label: int | None
    class_name: str | None
    status: str
    seed: int
    scalars: Mapping[str, float]
    options: Mapping[str, Any]
    samples: int
    retry_of: int | None
    base_generation: int | None
    reason: str | None
    evidence: Mapping[str, Any]
    created: str
    started: str | None
    finished: str | None
    rolled_back: str | None
    seal_began: str | None
    sealed: str | None

    @property
    def about(self) -> str:
        """What it forgets, in words."""
        return self.class_name if self.class_name is not None else f"{self.samples} samples"

    def as_dict(self) -> dict[str, Any]:
        """The row for JSON, `class` under the column's name."""
        return {"class" if key == "class_name" else key: value for key, value in asdict(self).items()}


_COLUMNS = ", ".join("class" if name == "class_name" else name for name in Request.__dataclass_fields__)


def _request(row: Sequence[Any], database: Database) -> Request:
    values = dict(zip(Request.__dataclass_fields__, row, strict=True))
    for name in ("scalars", "options", "evidence"):
        values[name] = database.parsed(values[name] or "{}")
    return Request(**values)


class Requests:
    """Rows of `requests`, `request_samples` and `records`."""

    def __init__(self, database: Database, samples: Samples) -> None:
        self._database, self._samples = database, samples

    def create(
        self,
        kind: str,
        label: int | None,
        class_name: str | None,
        seed: int,
        scalars: Mapping[str, float],
        sample_ids: Sequence[int],
        options: Mapping[str, Any],
        retry_of: int | None,
    ) -> int:
        """A new request, queued, with its samples frozen in this order; returns its id.

        Raises ClueError when there is no sample, one is not stored, stands twice, has another class, or is
        part of an unfinished request; then nothing is changed.
        """
        if not sample_ids:
            raise ClueError("a request needs at least one sample")
        database = self._database
        with database.transaction():
            request_id = database.insert(
                "INSERT INTO requests (kind, label, class, status, seed, scalars, options, samples, "
                "retry_of, created) VALUES (?, ?, ?, 'queued', ?, ?, ?, ?, ?, ?)",
                *(kind, label, class_name, seed, json.dumps(dict(scalars), sort_keys=True)),
                *(json.dumps(dict(options), sort_keys=True), len(sample_ids), retry_of, now()),
            )
            self._freeze(request_id, sample_ids)
            self._check_samples(request_id, label)
            self._samples.take(request_id)
        return request_id

    def _freeze(self, request_id: int, sample_ids: Sequence[int]) -> None:
        if len(set(sample_ids)) < len(sample_ids):
            raise ClueError("a sample stands twice in the request: name each once")
        try:
            self._database.many(
                "INSERT INTO request_samples VALUES (?, ?, ?)",
                ((request_id, position, sample) for position, sample in enumerate(sample_ids)),
            )
        except ClueError:
            for sample in sample_ids:
                if not self._database.rows("SELECT 1 FROM samples WHERE id = ?", sample):
                    raise ClueError(
                        f"no sample {sample} is stored (clue-pi samples lists those that are)"
                    ) from None
            raise

    def _check_samples(self, request_id: int, label: int | None) -> None:
        for sample, other, status in self._database.rows(
            "SELECT mine.sample_id, requests.id, status FROM request_samples AS mine "
            "JOIN request_samples AS others ON others.sample_id = mine.sample_id "
            "JOIN requests ON requests.id = others.request_id WHERE mine.request_id = ? "
            f"AND others.request_id <> mine.request_id AND status IN {UNFINISHED} LIMIT 1",
            request_id,
        ):
            raise ClueError(
                f"sample {sample} is part of request {other}, which is {status}: "
                "let that one end, or cancel it"
            )
        if label is None:
            return
        for sample, found in self._database.rows(
            "SELECT samples.id, label FROM request_samples JOIN samples ON samples.id = sample_id "
            "WHERE request_id = ? AND label <> ? LIMIT 1",
            *(request_id, label),
        ):
            raise ClueError(f"sample {sample} has label {found}, the request is about label {label}")

    def get(self, request_id: int) -> Request:
        """One request. Raises ClueError when there is none of that id."""
        rows = self._database.rows(f"SELECT {_COLUMNS} FROM requests WHERE id = ?", request_id)
        if not rows:
            last = self._database.value("SELECT max(id) FROM requests")
            known = "there is none so far" if last is None else f"the latest is {last}"
            raise ClueError(f"no request {request_id} is stored: {known} (clue-pi requests)")
        return _request(rows[0], self._database)

    def all(self) -> list[Request]:
        """Every request, oldest first."""
        rows = self._database.rows(f"SELECT {_COLUMNS} FROM requests ORDER BY id")
        return [_request(row, self._database) for row in rows]

    def next_queued(self) -> int | None:
        """The oldest queued request."""
        number: int | None = self._database.value("SELECT min(id) FROM requests WHERE status = 'queued'")
        return number

    # --- states

    def move(self, request_id: int, status: str, **columns: object) -> None:
        """Change the state and some columns. Raises TransitionError, or ClueError for an unknown id."""
        allowed = TRANSITIONS.get(status, ())
        sets = "".join(f", {name} = ?" for name in columns)
        marks = ", ".join("?" for _ in allowed)
        with self._database.transaction():
            changed = self._database.execute(
                f"UPDATE requests SET status = ?{sets} WHERE id = ? AND status IN ({marks})",
                *(status, *columns.values(), request_id, *allowed),
            ).rowcount
            if not changed:
                found = self.get(request_id).status
                may = [to for to, before in TRANSITIONS.items() if found in before]
                after = f"it may become {', '.join(may)}" if may else "that is final"
                raise TransitionError(f"request {request_id} is {found} and cannot become {status}: {after}")

    def begin(self, request_id: int, base_generation: int) -> None:
        """Queued or paused to running."""
        with self._database.transaction():
            other = self._database.rows("SELECT id FROM requests WHERE status IN ('running', 'verifying')")
            if other and other[0][0] != request_id:
                raise ClueError(f"request {other[0][0]} is running: one runs at a time")
            self.move(request_id, "running", base_generation=base_generation, reason=None)
            self._database.execute(
                "UPDATE requests SET started = coalesce(started, ?) WHERE id = ?", now(), request_id
            )

    def pause(self, request_id: int, reason: str, evidence: Mapping[str, Any]) -> None:
        """Running or verifying to paused."""
        self.move(request_id, "paused", reason=reason, evidence=json.dumps(evidence, sort_keys=True))

    def cancel(self, request_id: int) -> None:
        """Queued or paused to cancelled; a running one ends in the process that runs it."""
        with self._database.transaction():
            if (status := self.get(request_id).status) in ("running", "verifying"):
                raise TransitionError(
                    f"request {request_id} is {status} in another process: end it there (Ctrl-C)"
                )
            self.move(request_id, "cancelled", finished=now())

    def finish(
        self,
        request_id: int,
        status: str,
        reason: str | None,
        evidence: Mapping[str, Any],
        records: Sequence[Mapping[str, Any]],
    ) -> None:
        """Running or verifying to done, failed or cancelled, with the cost records."""
        if status not in FINAL:
            raise TransitionError(f"a request does not end as {status}: it ends as {', '.join(FINAL)}")
        with self._database.transaction():
            text = json.dumps(evidence, sort_keys=True)
            self.move(request_id, status, reason=reason, evidence=text, finished=now())
            self._database.many(
                "INSERT INTO records (request_id, phase, record) VALUES (?, ?, ?)",
                [(request_id, record["phase"], json.dumps(record)) for record in records],
            )

    def samples(self, request_id: int) -> list[int]:
        """The ids of a request's samples that are still there, in the order of their positions."""
        rows = self._database.rows(
            "SELECT sample_id FROM request_samples WHERE request_id = ? ORDER BY position", request_id
        )
        return [sample for (sample,) in rows]

    def ask_cancel(self, request_id: int) -> bool:
        """Ask the process that runs a request to cancel it; False when it does not run."""
        with self._database.transaction():
            asked = self._database.execute(
                "UPDATE requests SET reason = ? WHERE id = ? AND status IN ('running', 'verifying')",
                *(CANCEL_ASKED, request_id),
            )
        return asked.rowcount == 1

    def cancel_asked(self, request_id: int) -> bool:
        """Whether somebody asked that a running request be cancelled."""
        return bool(
            self._database.rows(
                "SELECT 1 FROM requests WHERE id = ? AND reason = ?", request_id, CANCEL_ASKED
            )
        )

    def interrupted(self) -> None:
        """Pause what a process was running that is gone; only who holds the lock knows that it is.

        What was to be cancelled is cancelled.
        """
        query = "SELECT 1 FROM requests WHERE status IN ('running', 'verifying')"
        if self._database.rows(query):  # a store on a full disk can still be read
            with self._database.transaction():
                self._database.execute(
                    "UPDATE requests SET status = 'cancelled', reason = NULL, finished = ? "
                    "WHERE status IN ('running', 'verifying') AND reason = ?",
                    *(now(), CANCEL_ASKED),
                )
                self._database.execute(
                    "UPDATE requests SET status = 'paused', reason = ? "
                    "WHERE status IN ('running', 'verifying')",
                    INTERRUPTED,
                )

    def records(self) -> list[dict[str, Any]]:
        """Every cost record, oldest first."""
        rows = self._database.rows("SELECT record FROM records ORDER BY id")
        return [self._database.parsed(record) for (record,) in rows]
