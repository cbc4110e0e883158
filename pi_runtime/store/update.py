"""The bundle of a store: adopted when the store is made, checked at each open, replaced by an update."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence

from pi_runtime import files
from pi_runtime.bundle import Bundle, erased_mark
from pi_runtime.errors import ClueError, unknown
from pi_runtime.store.database import Database
from pi_runtime.store.generations import Generations
from pi_runtime.store.requests import Request, Requests
from pi_runtime.store.samples import Samples

POLICIES = ("refuse", "serve", "pending")
# Marks in a request's options that a new bundle made it necessary.
BROUGHT_BACK = "brought_back"


class Update:
    """Compares the store's bundle with the one that it is opened with; adopts weights. Needs the lock."""

    def __init__(
        self,
        database: Database,
        bundle: Bundle,
        generations: Generations,
        requests: Requests,
        samples: Samples,
        policy: str,
    ) -> None:
        if policy not in POLICIES:
            raise unknown("policy", policy, POLICIES)
        self._database, self._bundle, self._policy = database, bundle, policy
        self._generations, self._requests, self._samples = generations, requests, samples

    def is_new(self) -> bool:
        """Whether the store is just being made, maybe by another process."""
        return not self._database.rows("SELECT 1 FROM generations LIMIT 1")

    def _identity(self) -> dict[str, str]:
        bundle = self._bundle
        return {
            "name": bundle.name,
            "manifest_sha256": bundle.sha256,
            "weights_sha256": bundle.weights.sha256,
            "classes": json.dumps(bundle.classes),
            "input": json.dumps(bundle.input_shape),
        }

    def check(self) -> bool:
        """Whether these weights were adopted last. Raises ClueError for other classes or input."""
        stored = dict(self._database.rows("SELECT key, value FROM bundle"))
        identity = self._identity()
        for key in ("classes", "input"):
            # as values: another runtime, which may have made the store, spaces and escapes its JSON otherwise
            if key not in stored or json.loads(stored[key]) != json.loads(identity[key]):
                raise ClueError(
                    f"the store {self._database.folder} belongs to another bundle "
                    f"({stored.get('name', 'not known')}), whose {key} differ: give another --store"
                )
        return stored.get("weights_sha256") == identity["weights_sha256"]

    def adopt(self, note: Callable[[Sequence[Request], str], None]) -> None:
        """Bring the store to this bundle.

        When its weights lack the effect of requests, `note` is called in the transaction with these and the
        SHA-256 of the weights that served before. Raises ClueError as the policy says, for a
        changed or erased weights file and for a full disk; then nothing is changed.
        """
        if not self.is_new() and self.check():
            stored = dict(self._database.rows("SELECT key, value FROM bundle"))
            if stored != self._identity():  # the same weights in a bundle that was exported again
                with self._database.transaction():
                    self._write_identity()
            return
        lost = [self._requests.get(number) for number in self._generations.effective()]
        if lost and self._policy == "refuse":
            raise ClueError(
                f"the weights of {self._bundle.root} bring back what was forgotten ({_names(lost)}): give "
                "--policy pending to forget it again, --policy serve to have it back, or the bundle before"
            )
        again = [(one, self._samples_of(one)) for one in lost] if self._policy == "pending" else []
        before = self._generations.serving().sha256 if lost else ""
        digest = self._copy()
        try:
            with self._database.transaction():
                self._generations.insert(None, None, digest)
                self._write_identity()
                for request, sample_ids in again:
                    self._requests.create(
                        *(request.kind, request.label, request.class_name, request.seed, request.scalars),
                        *(sample_ids, {**request.options, BROUGHT_BACK: True}, request.id),
                    )
                if lost:
                    note(lost, before)
        except BaseException:
            files.erase(self._generations.path(self._generations.next_id()))
            raise

    def _write_identity(self) -> None:
        self._database.many("INSERT OR REPLACE INTO bundle VALUES (?, ?)", self._identity().items())

    def _copy(self) -> str:
        """Copy the bundle's weights to the place of the next generation; returns their SHA-256."""
        weights = self._bundle.weights
        source = self._bundle.file(weights.file)
        if not source.exists() and erased_mark(source).exists():
            raise ClueError(
                f"the weights of {self._bundle.root} were erased by sealing: copy the bundle again"
            )
        path = self._generations.path(self._generations.next_id())
        files.erase(path)
        try:
            with source.open("rb") as stream:
                digest = files.atomic_write(path, iter(lambda: stream.read(1 << 20), b""))
        except OSError as error:
            raise ClueError(f"cannot read {source} ({error.strerror}): copy the bundle again") from error
        if digest != weights.sha256:
            files.erase(path)
            raise ClueError(f"{source} was changed: its SHA-256 is not the manifest's; copy the bundle again")
        return digest

    def _samples_of(self, request: Request) -> list[int]:
        """The samples of a request, or of its class when they were erased. Raises ClueError for none."""
        rows = self._database.rows(
            "SELECT sample_id FROM request_samples WHERE request_id = ? ORDER BY position", request.id
        )
        if len(rows) == request.samples:
            return [sample_id for (sample_id,) in rows]
        found = [] if request.label is None else self._samples.ids(request.label)
        if not found:
            raise ClueError(
                f"{request.about} (request {request.id}) cannot be forgotten again, its samples are erased: "
                "add samples of the class with the bundle before, or give --policy serve"
            )
        return found


def _names(lost: Sequence[Request]) -> str:
    return ", ".join(dict.fromkeys(request.about for request in lost))
