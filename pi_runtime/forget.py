"""One forget request from its lock to its swap: run in memory, verify, write the new weights, serve them."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from pi_runtime import files, weights
from pi_runtime.bundle import Bundle
from pi_runtime.cost import Meter
from pi_runtime.engine import Engine
from pi_runtime.errors import ClueError
from pi_runtime.request import Cancelled, Job, Progress, Refused, Runner, check_state
from pi_runtime.store import Store

# JSON numbers beyond 2^53 are not exact in every reader, and the seed is on record as one.
SEED_LIMIT = 1 << 53


@dataclass(frozen=True)
class RequestResult:
    """How a request ended.

    `status` is done, failed or cancelled, `reason` why (or, when done, what else is to be told). `evidence`:
    samples, steps, epochs_run, stopped_early, metrics {phase: {metric: mean of each epoch}}, stops and
    forget_accuracy_before and _after in percent, as far as the request came. `generation` is the id of the
    generation that serves afterwards, `records` the cost records.
    """

    id: int
    status: str
    reason: str | None
    seed: int
    evidence: Mapping[str, Any]
    generation: int
    records: tuple[Mapping[str, Any], ...]


@dataclass(frozen=True)
class Order:
    """What is asked for, checked: class, seed, every scalar, the accuracy in percent to come down to."""

    label: int
    seed: int
    scalars: Mapping[str, float]
    accuracy_at_most: float
    progress: Callable[[Progress], None] | None = None
    cancel: Callable[[], bool] | None = None


def check_seed(seed: int | None) -> int:
    """The seed, or a new one from the system. Raises ClueError when it is out of range."""
    if seed is None:
        return int.from_bytes(os.urandom(8), "little") % SEED_LIMIT
    if not 0 <= seed < SEED_LIMIT:
        raise ClueError(f"seed {seed} is out of range: it must be from 0 to 2^53 - 1")
    return seed


def carry_out(bundle: Bundle, engine: Engine, store: Store, order: Order) -> RequestResult:
    """Run a request. A failed check ends it as failed; anything that breaks is raised, after it was noted.

    In every case but done the old weights go on serving. Raises ClueError when there is no sample, another
    request is running, a program fails or a file cannot be written.
    """
    with store.exclusive():
        sample_ids = store.sample_ids(order.label)
        if not sample_ids:
            raise ClueError(
                f"no samples of {bundle.classes[order.label]!r} are stored: add some first (clue-pi add)"
            )
        options = {"accuracy_at_most": order.accuracy_at_most}
        request_id = store.create_request(
            "class", order.label, order.seed, order.scalars, sample_ids, options
        )
        return _Request(bundle, engine, store, order, request_id).carry_out()


class _Request:
    def __init__(self, bundle: Bundle, engine: Engine, store: Store, order: Order, request_id: int) -> None:
        self.bundle, self.engine, self.store = bundle, engine, store
        self.order, self.id = order, request_id
        self.meter = Meter(engine, bundle.batch)
        self.served = store.serving()
        self.evidence: dict[str, Any] = {}

    def carry_out(self) -> RequestResult:
        try:
            digest = self._new_weights()
            return self._end("done", None, digest)
        except Cancelled:
            return self._end("cancelled", None)
        except Refused as refusal:
            return self._end("failed", str(refusal))
        except BaseException as error:
            # What broke matters more than that it could not be noted: the next open notes it as interrupted.
            with contextlib.suppress(ClueError):
                self._give_up(error)
            raise

    def _give_up(self, error: BaseException) -> None:
        """Remove the new weights and note the error, unless it came so late that they serve already."""
        if self.store.serving().request_id == self.id:
            return
        self.store.generation_path(self.id).unlink(missing_ok=True)
        status = "cancelled" if isinstance(error, KeyboardInterrupt) else "failed"
        self._end(status, str(error) or type(error).__name__)

    def _new_weights(self) -> str:
        """Run, verify and write the new weights; returns their SHA-256."""
        self.store.begin(self.id, self.served.id)
        start = time.perf_counter()
        old = weights.read(self.served.path, self.served.sha256, self.bundle)
        self.meter.loaded(time.perf_counter() - start)
        images = self.store.images(self.id)
        labels = self.store.labels(self.id)
        order = self.order
        job = Job(images, labels, order.seed, order.scalars, order.progress, order.cancel)
        runner = Runner(self.bundle, self.engine, old, job, self.meter)
        self.evidence = {"samples": len(images), "steps": 0}
        try:
            with self.meter.measure("verify"):
                self.evidence["forget_accuracy_before"] = runner.accuracy("predict")
            runner.run()
            self.store.set_status(self.id, "verifying")
            with self.meter.measure("verify"):
                check_state(old, runner.values.state())
                after = runner.accuracy("predict")
            self.evidence["forget_accuracy_after"] = after
        finally:
            self.evidence |= {"steps": self.meter.steps, **dataclasses.asdict(runner.evidence)}
        if after > order.accuracy_at_most:
            raise Refused(
                f"the forget accuracy is {after:.1f} %, it had to come down to {order.accuracy_at_most:.1f} %"
            )
        job.check_cancelled()
        with self.meter.saving():
            # Arrays of the file that are no state stay as they were.
            kept = {key: old[key] for key in old if key not in runner.values.state()}
            return weights.write(self.store.generation_path(self.id), {**kept, **runner.values.state()})

    def _end(self, status: str, reason: str | None, new_sha256: str | None = None) -> RequestResult:
        records = self.meter.records(self.id, self.served.sha256, status)
        self.store.finish(self.id, status, reason, self.evidence, records, new_sha256)
        try:
            for record in records:
                files.append_line(self.store.folder / "cost.jsonl", json.dumps(record))
        except ClueError as error:
            # The store has the records too: no reason to take back what was done.
            reason = f"{reason}; {error}" if reason else str(error)
        generation = self.store.serving().id
        return RequestResult(
            self.id, status, reason, self.order.seed, self.evidence, generation, tuple(records)
        )
