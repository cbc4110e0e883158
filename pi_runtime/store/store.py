"""The store as the runtime uses it: one object over its parts."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pi_runtime import files, private, trust
from pi_runtime.bundle import Bundle
from pi_runtime.errors import ClueError
from pi_runtime.receipts.issuer import Issuer
from pi_runtime.receipts.receipt import Make
from pi_runtime.store import migrate
from pi_runtime.store.database import BusyError, Database
from pi_runtime.store.generations import Generation, Generations
from pi_runtime.store.keys import Keys
from pi_runtime.store.receipts import Receipts
from pi_runtime.store.requests import UNFINISHED, Request, Requests
from pi_runtime.store.samples import Sample, Samples
from pi_runtime.store.seal import Sealing, SealPlan
from pi_runtime.store.update import BROUGHT_BACK, Update

FOLDERS = ("generations", "keys", "checkpoints", "receipts")


def _is_other(path: Path) -> bool:
    """Whether a path in the folder is none of what a process leaves that died while it made a store."""
    if path.name == trust.LIST:  # an owner may trust a publisher before there is a store
        return False
    return path.name not in FOLDERS or not path.is_dir() or any(path.iterdir())


def _prepare(folder: Path, bundle: Bundle) -> None:
    """Make the folders. Refuses one in the bundle, or with other files: a store is private and erasable."""
    if folder.resolve().is_relative_to(bundle.root.resolve()):
        raise ClueError(f"the store {folder} lies in the bundle, which is only read: choose another folder")
    if folder.is_dir() and not (folder / "store.db").exists() and any(map(_is_other, folder.iterdir())):
        raise ClueError(f"{folder} holds other files and is no store: choose an empty or a new folder")
    private.check(folder)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        for own in (folder, *(folder / name for name in FOLDERS)):
            own.mkdir(mode=0o700, exist_ok=True)
    except OSError as error:
        raise ClueError(f"cannot use the store {folder}: {error.strerror}") from error


class Store:
    """The store in `folder` for one bundle; created when it is not there.

    `policy` says what happens when the bundle's weights bring back what was forgotten: refuse, serve or
    pending. `issuer` makes the receipts of rollbacks, sealings and updates. Raises ClueError when the store
    belongs to other classes, was made by a newer runtime, or cannot be read. Use it from one thread; several
    processes may open it at once.
    """

    def __init__(
        self, folder: Path, bundle: Bundle, policy: str = "refuse", issuer: Issuer | None = None
    ) -> None:
        self.folder, self._bundle, self._policy, self.issuer = folder, bundle, policy, issuer
        _prepare(folder, bundle)
        self.database = Database(folder)
        self._keys = Keys(self.database)
        self.samples = Samples(self.database, self._keys)
        self._requests = Requests(self.database, self.samples)
        self._generations = Generations(self.database)
        self._receipts = Receipts(self.database)
        self._sealing = Sealing(
            self.database, bundle, self._generations, self._requests, self.samples, self._remove_unnamed
        )
        try:
            update = Update(self.database, bundle, self._generations, self._requests, self.samples, policy)
            self._open(update)
        except BaseException:
            self.database.close()
            raise

    def _open(self, update: Update) -> None:
        migrate.prepare(self.database, self.samples, self._keys)
        # Who runs a request keeps the lock: then there is nothing to recover, and no other weights to adopt.
        wait_s = 10.0 if update.is_new() else 0.0
        try:
            with self.exclusive(wait_s):
                update.adopt(self._adopted)
                self._write_receipts()
                # What fails here (a full disk, a reader) is tried again at the next open, or by `seal`.
                with contextlib.suppress(ClueError):
                    for request_id in self._sealing.begun():
                        self._seal(request_id, lambda step: None)
        except BusyError:
            if not update.check():
                raise
        update.check()

    def _adopted(self, lost: Sequence[Request], before: str) -> None:
        if self.issuer is not None:
            names = dict.fromkeys(one.class_name for one in lost if one.class_name is not None)
            after = self.serving().sha256
            make = self.issuer.adopt(before=before, after=after, policy=self._policy, classes=[*names])
            self.add_receipt("adopt", None, make)

    def close(self) -> None:
        """Close the database."""
        self.database.close()

    # --- the lock

    def exclusive(self, wait_s: float = 1.0) -> AbstractContextManager[None]:
        """Hold the lock for running, sealing or rolling back; the system frees it when the process dies.

        Once it is held, a request that a dead process ran is paused and the files that it left are removed.
        Raises ClueError when another holds it for `wait_s` seconds (opening a store holds it for a moment).
        """
        return self.database.exclusive(wait_s, self._recover)

    def _recover(self) -> None:
        self._requests.interrupted()
        # On a full disk the store can still be read; the next lock does it again.
        with contextlib.suppress(ClueError):
            self._remove_unnamed()
            self._receipts.write_files()

    def _remove_unnamed(self) -> None:
        """Remove what no row names: files half written, given up, or erased; needs the lock."""
        self.database.settle()
        self._keys.destroy_marked()
        self._generations.remove_unnamed(files.erase)
        # A checkpoint that goes on from erased weights holds what is left of them.
        kept = {
            self.checkpoint_path(number).name
            for (number,) in self.database.rows(
                f"SELECT id FROM requests WHERE status IN {UNFINISHED} AND NOT EXISTS "
                "(SELECT 1 FROM generations WHERE id = base_generation AND erased NOTNULL)"
            )
        }
        for path in (self.folder / "checkpoints").iterdir():
            if path.name not in kept and not path.is_dir():
                files.erase(path)
        for path in (*self.folder.glob("*.part"), *(self.folder / "receipts").glob("*.part")):
            files.erase(path)

    # --- samples

    def add(self, images: NDArray[np.uint8], label: int) -> list[int]:
        """Store images (uint8 [N, H, W, C]); returns the ids of those that were not there with this label."""
        return self.samples.add(images, label)

    def find(self, images: NDArray[np.uint8], label: int) -> list[int | None]:
        """The ids of images that are stored with this label, None for those that are not."""
        return self.samples.find(images, label)

    def sample_ids(self, label: int) -> list[int]:
        """The ids of a class's samples, oldest first."""
        return self.samples.ids(label)

    def counts(self) -> dict[int, int]:
        """How many samples each label has; labels without any are left out."""
        return self.samples.counts()

    def listed(self, label: int | None = None) -> Iterator[Sample]:
        """The samples of a label, or all, oldest first, one by one."""
        return self.samples.listed(label)

    def images(self, request_id: int) -> NDArray[np.uint8]:
        """The frozen samples of a request, uint8 [N, H, W, C], in the order of their positions."""
        channels, height, width = self._bundle.input_shape
        return self.samples.images(request_id, (height, width, channels))

    def labels(self, request_id: int) -> NDArray[np.int64]:
        """The labels of a request's samples, int64 [N], in the order of their positions."""
        return self.samples.labels(request_id)

    # --- requests

    def create_request(
        self,
        kind: str,
        label: int | None,
        seed: int,
        scalars: Mapping[str, float],
        sample_ids: Sequence[int],
        options: Mapping[str, Any],
        retry_of: int | None = None,
    ) -> int:
        """A new queued request of kind "class" (with `label`) or "samples", samples frozen; returns its id.

        Raises ClueError when there is no sample, one is not stored, stands twice, has another class, or is
        part of an unfinished request.
        """
        name = None if label is None else self._bundle.classes[label]
        return self._requests.create(kind, label, name, seed, scalars, sample_ids, options, retry_of)

    def request(self, request_id: int) -> Request:
        """One request. Raises ClueError when there is none of that id."""
        return self._requests.get(request_id)

    def requests(self) -> list[Request]:
        """Every request, oldest first."""
        return self._requests.all()

    def samples_of(self, request_id: int) -> list[int]:
        """The ids of a request's samples in the order of their positions; fewer when some were erased."""
        return self._requests.samples(request_id)

    def ask_cancel(self, request_id: int) -> bool:
        """Ask the process that runs a request to cancel it; False when it does not run."""
        return self._requests.ask_cancel(request_id)

    def cancel_asked(self, request_id: int) -> bool:
        """Whether somebody asked that a running request be cancelled."""
        return self._requests.cancel_asked(request_id)

    def next_queued(self) -> int | None:
        """The oldest queued request."""
        return self._requests.next_queued()

    def begin(self, request_id: int, base_generation: int) -> None:
        """Queued or paused to running. Raises TransitionError; ClueError when another one runs."""
        self._requests.begin(request_id, base_generation)

    def set_status(self, request_id: int, status: str) -> None:
        """Note that a running request is verifying. Raises TransitionError."""
        self._requests.move(request_id, status)

    def pause(self, request_id: int, reason: str, evidence: Mapping[str, Any]) -> None:
        """Running or verifying to paused. Raises TransitionError."""
        self._requests.pause(request_id, reason, evidence)

    def cancel(self, request_id: int) -> None:
        """Queued or paused to cancelled; its checkpoint is removed. Raises TransitionError."""
        self._requests.cancel(request_id)
        files.erase(self.checkpoint_path(request_id))

    def finish(
        self,
        request_id: int,
        status: str,
        reason: str | None,
        evidence: Mapping[str, Any],
        records: Sequence[Mapping[str, Any]],
        new_sha256: str | None = None,
        receipt: Make | None = None,
    ) -> None:
        """End a request in one transaction; with `new_sha256`, its generation serves from then on.

        `receipt` makes the receipt of kind "forget" in the same transaction. Raises TransitionError, or
        ClueError when the request began with other weights than those that serve; then nothing is changed.
        """
        with self.database.transaction():
            self._requests.finish(request_id, status, reason, evidence, records)
            if new_sha256 is not None:
                base, serving = self.request(request_id).base_generation, self.serving().id
                if base != serving:
                    raise ClueError(
                        f"request {request_id} began with generation {base}, now {serving} serves: retry it"
                    )
                self._generations.insert(request_id, base, new_sha256)
            if receipt is not None:
                self._receipts.add("forget", request_id, receipt)
        # The request has ended: that these fail is no reason to say otherwise. The next lock does them again.
        self._write_receipts()
        with contextlib.suppress(ClueError):
            files.erase(self.checkpoint_path(request_id))

    def checkpoint_path(self, request_id: int) -> Path:
        """Where the checkpoint of a request lies."""
        return self.folder / "checkpoints" / f"{request_id:06d}.safetensors"

    def records(self) -> list[dict[str, Any]]:
        """Every cost record, oldest first."""
        return self._requests.records()

    # --- generations

    def generation_path(self, request_id: int) -> Path:
        """Where the weights that a request makes are to be written; needs the lock."""
        return self._generations.path(self._generations.of_request(request_id))

    def serving(self) -> Generation:
        """The generation that serves now."""
        return self._generations.serving()

    def generations(self) -> list[Generation]:
        """Every generation, oldest first."""
        return self._generations.all()

    def rollback(self, generation: int) -> list[int]:
        """Let a kept generation serve; returns the requests that lost their effect by it. Nothing is erased.

        Raises ClueError when there is none of that id, it was erased, or it serves already.
        """
        with self.exclusive():
            target, before = self._generations.get(generation), self.serving()
            if target.erased is not None:
                raise ClueError(f"generation {generation} was erased by sealing: it cannot serve again")
            if target.serving:
                raise ClueError(f"generation {generation} serves already")
            if files.sha256_file(target.path) != target.sha256:
                raise ClueError(f"weights {target.path} were changed: their SHA-256 is not the recorded one")
            effective, forgotten = self._generations.effective(), self.forgotten()
            with self.database.transaction():
                self._generations.serve(generation)
                lost = [one for one in effective if one not in self._generations.effective()]
                if self.issuer is not None:
                    back = [label for label in forgotten if label not in self.forgotten()]
                    make = self.issuer.rollback(
                        before=before.sha256,
                        after=target.sha256,
                        requests=lost,
                        classes=[self._bundle.classes[label] for label in back],
                    )
                    self.add_receipt("rollback", None, make)
            self._write_receipts()
        return lost

    def seal_plan(self, request_id: int) -> SealPlan:
        """What `seal` would erase and what it could not. Raises ClueError as `seal` does."""
        return self._sealing.plan(request_id)

    def seal(
        self, request_id: int, tell: Callable[[str], None] = lambda step: None
    ) -> tuple[tuple[str, str], ...]:
        """Make a request's effect final: erase its samples and keys, the weights before it, the bundle's own.

        `tell` is given each step in words. Returns (path, reason) of what could not be erased. Raises
        ClueError when the request is not done, has no effect, was sealed, or an unfinished request has its
        samples; and when a step fails: the rest is then done by the next open, or by calling it again.
        """
        with self.exclusive():
            self._sealing.begin(request_id)
            return self._seal(request_id, tell)

    def _seal(self, request_id: int, tell: Callable[[str], None]) -> tuple[tuple[str, str], ...]:
        def issue(request: Request, erased: Sequence[str], not_erased: Sequence[tuple[str, str]]) -> None:
            if self.issuer is not None:
                serving = self.serving().sha256
                make = self.issuer.seal(request, serving=serving, erased=erased, not_erased=not_erased)
                self.add_receipt("seal", request_id, make)

        not_erased = self._sealing.carry_on(request_id, issue, tell)
        self._write_receipts()
        return not_erased

    def forgotten(self) -> list[int]:
        """The labels that are forgotten by the serving weights, or are to be again after an update."""
        rows = self.database.rows(
            "SELECT label FROM requests WHERE label NOTNULL AND (id IN (SELECT value FROM json_each(?)) "
            f"OR json_extract(options, '$.{BROUGHT_BACK}') AND status NOT IN ('done', 'cancelled')) "
            "GROUP BY label ORDER BY min(id)",
            str(self._generations.effective()),
        )
        return [label for (label,) in rows]

    # --- receipts

    def add_receipt(self, kind: str, request_id: int | None, make: Make) -> int:
        """Add the receipt that `make(previous_sha256, number)` gives; returns its number."""
        number = self._receipts.add(kind, request_id, make)
        if not self.database.connection.in_transaction:
            self._write_receipts()
        return number

    def _write_receipts(self) -> None:
        """The rows have them: a file that cannot be written is written by the next lock."""
        with contextlib.suppress(ClueError):
            self._receipts.write_files()

    def receipts(self) -> list[str]:
        """The canonical JSON of every receipt, oldest first."""
        return self._receipts.all()
