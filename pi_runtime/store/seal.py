"""Sealing makes the effect of a request final: samples, keys, and the weights from before it are erased.

Every step can be done again, so an interrupted sealing is carried on from its start.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from pi_runtime import files
from pi_runtime.bundle import Bundle, erased_mark
from pi_runtime.errors import ClueError
from pi_runtime.store.database import Database, now
from pi_runtime.store.generations import Generations
from pi_runtime.store.requests import UNFINISHED, Request, Requests
from pi_runtime.store.samples import Samples

Issue = Callable[[Request, Sequence[str], Sequence[tuple[str, str]]], None]


@dataclass(frozen=True)
class SealPlan:
    """What sealing a request erases.

    `samples` of the request are still there; `class_samples` more of its class stay, `later` requests lose
    samples that they share with it. `files` are generations, checkpoints and the bundle's weights, `bytes`
    their size. `not_erased`: (path, reason) of what cannot be erased.
    """

    request: int
    samples: int
    class_samples: int
    later: tuple[int, ...]
    files: tuple[str, ...]
    bytes: int
    not_erased: tuple[tuple[str, str], ...]


class Sealing:
    """The steps; all of them need the lock."""

    def __init__(
        self,
        database: Database,
        bundle: Bundle,
        generations: Generations,
        requests: Requests,
        samples: Samples,
        remove_unnamed: Callable[[], None],
    ) -> None:
        self._database, self._generations, self._requests = database, generations, requests
        self._samples, self._remove_unnamed = samples, remove_unnamed
        self._weights = bundle.file(bundle.weights.file)

    def check(self, request_id: int) -> Request:
        """The request. Raises ClueError when it cannot be sealed."""
        request = self._requests.get(request_id)
        if request.status != "done":
            raise ClueError(f"request {request_id} is {request.status}: only one that is done can be sealed")
        if request.sealed is not None:
            raise ClueError(f"request {request_id} was sealed already ({request.sealed})")
        if request.rolled_back is not None:
            raise ClueError(
                f"request {request_id} has no effect on the serving weights: a rollback or an update took it"
            )
        shared = self._database.rows(
            f"SELECT id, status FROM requests WHERE status IN {UNFINISHED} AND id IN ({_SHARING}) LIMIT 1",
            *(request_id, request_id),
        )
        for other, status in shared:
            raise ClueError(
                f"request {other}, which is {status}, has samples of request {request_id}: "
                "let it end, or cancel it"
            )
        return request

    def plan(self, request_id: int) -> SealPlan:
        """What sealing would erase. Raises ClueError when the request cannot be sealed."""
        request = self.check(request_id)
        doomed = {generation.id for generation in self._generations.all()} - self._kept(request_id)
        found = [one.path for one in self._generations.all() if one.id in doomed and one.erased is None]
        for (other,) in self._database.rows(
            f"SELECT id FROM requests WHERE status IN {UNFINISHED} "
            "AND base_generation IN (SELECT value FROM json_each(?))",
            str(sorted(doomed)),
        ):
            path = self._database.folder / "checkpoints" / f"{other:06d}.safetensors"
            found += [path] if path.exists() else []
        refusal = self._refusal()
        if self._weights.exists() and refusal is None:
            found.append(self._weights)
        stays = 0
        if request.label is not None:
            stays = int(
                self._database.value(
                    "SELECT count(*) FROM samples WHERE label = ? AND id NOT IN "
                    "(SELECT sample_id FROM request_samples WHERE request_id = ?)",
                    *(request.label, request_id),
                )
            )
        return SealPlan(
            request=request_id,
            samples=self._samples_left(request_id),
            class_samples=stays,
            later=tuple(one for (one,) in self._database.rows(_SHARING, request_id, request_id)),
            files=tuple(str(path) for path in found),
            bytes=sum(path.stat().st_size for path in found if path.exists()),
            not_erased=() if refusal is None else ((str(self._weights), refusal),),
        )

    def begin(self, request_id: int) -> None:
        """Note that a request is being sealed: from here on it is carried on."""
        self.check(request_id)
        self._database.execute(
            "UPDATE requests SET seal_began = coalesce(seal_began, ?) WHERE id = ?", now(), request_id
        )

    def begun(self) -> list[int]:
        """The requests whose sealing was interrupted."""
        rows = self._database.rows("SELECT id FROM requests WHERE seal_began NOTNULL AND sealed IS NULL")
        return [number for (number,) in rows]

    def carry_on(
        self, request_id: int, issue: Issue, tell: Callable[[str], None]
    ) -> tuple[tuple[str, str], ...]:
        """Do every step, `tell` is given each in words; returns what was not erased.

        `issue` is called in the last transaction with what was erased and what was not. Raises ClueError when
        a step fails (disk full, another process reads the database); then it can be carried on.
        """
        tell("erasing samples and keys")
        self._erase_rows(request_id)
        tell("erasing weights and checkpoints")
        self._remove_unnamed()
        not_erased = self._erase_bundle()
        tell("clearing the database and its log")
        self._vacuum()
        request = self._requests.get(request_id)
        with self._database.transaction():
            self._database.execute("UPDATE requests SET sealed = ? WHERE id = ?", now(), request_id)
            issue(request, self._erased(request), not_erased)
        return not_erased

    # --- steps

    def _kept(self, request_id: int) -> set[int]:
        return self._generations.family(self._generations.of_request(request_id))

    def _samples_left(self, request_id: int) -> int:
        query = "SELECT count(*) FROM request_samples WHERE request_id = ?"
        return int(self._database.value(query, request_id))

    def _erase_rows(self, request_id: int) -> None:
        """Samples, keys and file names, in one transaction; files that are named no longer go afterwards."""
        kept = str(sorted(self._kept(request_id)))
        database = self._database
        with database.transaction():
            database.execute(
                "UPDATE generations SET file = NULL, erased = ?, erased_for = ? WHERE file NOTNULL "
                "AND id NOT IN (SELECT value FROM json_each(?))",
                *(now(), request_id, kept),
            )
            if not self._samples_left(request_id):
                return
            database.execute("PRAGMA defer_foreign_keys = ON")
            mine = "IN (SELECT sample_id FROM request_samples WHERE request_id = ?)"
            for statement in (
                f"DELETE FROM pixels WHERE sample_id {mine}",
                f"DELETE FROM samples WHERE id {mine}",
                f"DELETE FROM request_samples WHERE sample_id {mine}",
            ):
                database.execute(statement, request_id)
            self._samples.renew_keys()

    def _refusal(self) -> str | None:
        """Why the bundle's weights cannot be erased."""
        if not self._weights.exists():
            return None
        for path in (self._weights, self._weights.parent):
            if not os.access(path, os.W_OK):
                return f"{path.name} is not writable"
        return None

    def _erase_bundle(self) -> tuple[tuple[str, str], ...]:
        """Erase the bundle's weights; an empty file tells later opens that this is why they are missing."""
        mark = erased_mark(self._weights)
        try:
            if self._weights.exists():
                # Under the other name first: a bundle whose weights are half overwritten could not be opened.
                os.replace(self._weights, mark)  # noqa: PTH105
                files.sync_folder(mark.parent)
            if mark.exists() and mark.stat().st_size:
                files.overwrite(mark)
        except (OSError, ClueError) as error:
            reason = error.strerror if isinstance(error, OSError) else str(error)
            return ((str(self._weights), str(reason)),)
        return ()

    def _vacuum(self) -> None:
        """No page and no log keeps anything that was deleted."""
        for statement in ("PRAGMA wal_checkpoint(TRUNCATE)", "VACUUM", "PRAGMA wal_checkpoint(TRUNCATE)"):
            found = self._database.rows(statement)
            if found and found[0][0]:
                raise ClueError(
                    f"another process reads {self._database.folder}: seal again when it has ended"
                )

    def _erased(self, request: Request) -> list[str]:
        rows = self._database.rows("SELECT id FROM generations WHERE erased_for = ?", request.id)
        erased = [f"{request.samples} samples and their keys"]
        erased += [f"weights of generation {number}" for (number,) in rows]
        if erased_mark(self._weights).exists() and not self._weights.exists():
            erased.append("weights of the bundle")
        return erased


_SHARING = (
    "SELECT DISTINCT others.request_id FROM request_samples AS mine JOIN request_samples AS others "
    "ON others.sample_id = mine.sample_id WHERE mine.request_id = ? AND others.request_id <> ?"
)
