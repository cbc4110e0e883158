"""One forget request from its lock to its swap: run in memory, verify, write the new weights, serve them.

It goes on from its checkpoint when an earlier part of it left one (docs/runtime-contract.md).
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from pi_runtime import checkpoint, files, guards, verify, weights
from pi_runtime.budget import Budget, Joules, check_energy
from pi_runtime.bundle import Bundle
from pi_runtime.checkpoint import Identity, State
from pi_runtime.cost import Meter
from pi_runtime.engine import Engine
from pi_runtime.errors import ClueError
from pi_runtime.estimate import planned_peak
from pi_runtime.options import Options
from pi_runtime.power import AUTOMATIC, Choice, open_source
from pi_runtime.power.ledger import Ledger
from pi_runtime.receipts.receipt import Make
from pi_runtime.request import Begun, Cancelled, Job, Paused, Progress, Refused, Runner
from pi_runtime.store import Request, Store

# JSON numbers beyond 2^53 are not exact in every reader, and the seed is on record as one.
SEED_LIMIT = 1 << 53
STOPPED = "stopped"
_ASK_EACH_S = 1.0  # a look into the database for a cancellation by another process


@dataclass(frozen=True)
class RequestResult:
    """How a request ended, or that it paused.

    `status` is done, failed, cancelled or paused, `reason` why (or, when done, what else is to be told).
    `evidence`: samples, steps, epochs_run, stopped_early, metrics {phase: {metric: mean of each epoch}},
    stops and forget_accuracy_before and _after in percent, as far as the request came. `generation` is the id
    of the generation that serves afterwards, `records` the cost records (of a paused one there are none yet).
    """

    id: int
    status: str
    reason: str | None
    seed: int
    evidence: Mapping[str, Any]
    generation: int
    records: tuple[Mapping[str, Any], ...]


@dataclass(frozen=True)
class Control:
    """How a run is watched and ended from outside, all asked between operations.

    `cancel` ends the request as cancelled, `stop` pauses it as stopped; `power` is where the energy comes
    from, `joules` what the device has used (None: by `power`), `celsius` its temperature (None: the device's
    own sensor).
    """

    progress: Callable[[Progress], None] | None = None
    cancel: Callable[[], bool] | None = None
    stop: Callable[[], bool] | None = None
    joules: Joules | None = None
    celsius: Callable[[], float | None] | None = None
    power: Choice = AUTOMATIC


def check_seed(seed: int | None) -> int:
    """The seed, or a new one from the system. Raises ClueError when it is out of range."""
    if seed is None:
        return int.from_bytes(os.urandom(8), "little") % SEED_LIMIT
    if not 0 <= seed < SEED_LIMIT:
        raise ClueError(f"seed {seed} is out of range: it must be from 0 to 2^53 - 1")
    return seed


def carry_out(
    bundle: Bundle, engine: Engine, store: Store, request_id: int, control: Control = Control()
) -> RequestResult:
    """Run a queued request, or let a paused one go on.

    A failed check ends it as failed, a guard or budget pauses it; anything that breaks is raised, after it
    was noted. In every case but done the old weights go on serving. Raises ClueError when another request is
    running, this one has ended, would not go on bit-identically (it stays paused), a program fails or a file
    cannot be written.
    """
    with store.exclusive():
        request = store.request(request_id)
        if request.status not in ("queued", "paused"):
            raise ClueError(
                f"request {request_id} is {request.status}: only a queued or paused one can run; "
                f"clue-pi retry {request_id} makes a new one like it"
            )
        options = Options.of(request.options)
        served = store.serving()
        path = store.checkpoint_path(request_id)
        planned = verify.planned(request.samples, options.holdout)
        here = Identity(
            request_id,
            request.seed,
            bundle.sha256,
            served.sha256,
            engine.name,
            engine.version,
            engine.threads,
        )
        found = checkpoint.read(path, bundle, planned) if request.status == "paused" else None
        if found is not None:
            checkpoint.check(found[1], here)
        ledger = Ledger(open_source(control.power), store.folder, request_id)
        try:
            check_energy(options, control.joules or ledger.here)
            store.begin(request_id, served.id)
            begun = None if found is None else found[0]
            return _Request(bundle, engine, store, request, options, control, here, ledger).carry_out(begun)
        finally:
            ledger.close()


class _Request:
    def __init__(
        self,
        bundle: Bundle,
        engine: Engine,
        store: Store,
        request: Request,
        options: Options,
        control: Control,
        identity: Identity,
        ledger: Ledger,
    ) -> None:
        self.bundle, self.engine, self.store = bundle, engine, store
        self.request, self.options, self.control, self.identity = request, options, control, identity
        self.id = request.id
        self.meter, self.ledger = Meter(engine, bundle.batch, ledger), ledger
        self.served = store.serving()
        self.before: dict[str, Any] = {}
        self.evidence: dict[str, Any] = {"samples": request.samples, "steps": 0}
        self.runner: Runner | None = None
        self.joules = control.joules or ledger.here
        self.budget = Budget(options, self.joules)
        self.thermal = guards.Thermal(options.celsius_at_most, control.celsius)
        self.ask_next = time.monotonic()

    def carry_out(self, begun: State | None) -> RequestResult:
        try:
            digest = self._new_weights(begun)
            return self._end("done", None, digest)
        except Cancelled:
            return self._end("cancelled", None)
        except Refused as refusal:
            return self._end("failed", str(refusal))
        except Paused as pause:
            return self._pause(str(pause))
        except BaseException as error:
            # What broke matters more than that it could not be noted: the next open notes it as interrupted.
            with contextlib.suppress(ClueError):
                self._give_up(error)
            raise

    def _give_up(self, error: BaseException) -> None:
        """Note the error and remove the new weights, unless it came so late that they serve already.

        In this order: where the flush of the swap failed its transaction may still be on the disk, and then
        the weights serve after the next open. Once another transaction went through it is not.
        """
        if self.store.serving().request_id == self.id:
            return
        path = self.store.generation_path(self.id)
        status = "cancelled" if isinstance(error, KeyboardInterrupt) else "failed"
        self._end(status, str(error) or type(error).__name__)
        path.unlink(missing_ok=True)

    def _new_weights(self, begun: State | None) -> str:
        """Run, verify and write the new weights; returns their SHA-256."""
        self.thermal.check_start()
        guards.check_memory(planned_peak(self.bundle, self.request.samples), guards.available_memory())
        begun = self._restored(begun)
        start = time.perf_counter()
        old = weights.read(self.served.path, self.served.sha256, self.bundle)
        images, labels = self.store.images(self.id), self.store.labels(self.id)
        self.meter.loaded(time.perf_counter() - start)
        samples, held_out = verify.split(images, labels, self.options.holdout, self.request.seed)
        job = Job(
            samples.images,
            samples.labels,
            self.request.seed,
            self.request.scalars,
            progress=self.control.progress,
            check=self._check,
            enough=self._enough,
            save=self._save,
            save_every=self.options.checkpoint_steps or 0,
        )
        runner = self._runner(old, job, begun)
        try:
            if not self.before:
                with self.meter.measure("verify"):
                    self.before = {"forget_accuracy_before": runner.accuracy("predict")}
                self.evidence |= self.before
            runner.run()
            self.store.set_status(self.id, "verifying")
            self._verify(old, runner, held_out)
        finally:
            self._note()
        self._check()
        with self.meter.saving():
            # Arrays of the file that are no state stay as they were.
            kept = {key: old[key] for key in old if key not in runner.values.state()}
            return weights.write(self.store.generation_path(self.id), {**kept, **runner.values.state()})

    def _restored(self, begun: State | None) -> State | None:
        """Take over the sums of the earlier parts; None when they are another version's: it starts anew."""
        if begun is not None:
            try:
                self.meter.restore(begun.cost)
            except (TypeError, KeyError):
                self.meter = Meter(self.engine, self.bundle.batch, self.ledger)
                return None
            self.evidence = {**self.request.evidence, **self.evidence}
        return begun

    def _runner(self, old: weights.WeightsFile, job: Job, begun: State | None) -> Runner:
        if begun is None:
            self.runner = Runner(self.bundle, self.engine, old, job, self.meter)
            return self.runner
        evidence = dict(begun.evidence)
        self.budget = Budget(self.options, self.joules, earlier=evidence.pop("joules"))
        self.before = {"forget_accuracy_before": evidence.pop("forget_accuracy_before")}
        self.evidence |= self.before
        so_far = Begun(begun.cursor, begun.values, evidence)
        self.runner = Runner(self.bundle, self.engine, old, job, self.meter, so_far)
        return self.runner

    def _verify(self, old: Mapping[str, Any], runner: Runner, held_out: verify.Labelled) -> None:
        """Raise Refused unless the new weights may serve."""
        request = self.request
        limit = verify.accuracy_limit(self.bundle, request.kind, self.options.accuracy_at_most)
        own = [] if request.label is None else [request.label]
        checks = verify.Checks(limit, frozenset([*own, *self.store.forgotten()]), held_out)
        with self.meter.measure("verify"):
            verify.verify(self.bundle, runner, old, checks, self.evidence)

    # --- between operations

    def _check(self) -> None:
        """Raise Cancelled or Paused when the run is to end here."""
        if self.control.cancel is not None and self.control.cancel():
            raise Cancelled
        if self.control.stop is not None and self.control.stop():
            raise Paused(STOPPED)
        if time.monotonic() >= self.ask_next:
            self.ask_next = time.monotonic() + _ASK_EACH_S
            if self.store.cancel_asked(self.id):
                raise Cancelled
        self.budget.check()
        self.thermal.check()

    def _enough(self) -> bool:
        """Whether the request's own limits for stopping early are reached; at the end of an epoch."""
        if self.budget.enough_energy():
            return True
        runner, limit = self.runner, self.options.stop_accuracy
        if limit is None or runner is None:
            return False
        with self.meter.measure("verify"):
            accuracy = runner.accuracy("predict")
        epoch = runner.evidence.epochs_run - 1
        runner.evidence.stops.append({"operation": runner.cursor, "epoch": epoch, "accuracy": accuracy})
        return accuracy <= limit

    def _save(self) -> None:
        """Write the checkpoint of this moment."""
        runner = self.runner
        if runner is None or not self.before:
            return  # nothing was done yet that is worth keeping
        with self.meter.saving():
            evidence = {**runner.so_far(), **self.before, "joules": self.budget.total_joules or 0.0}
            state = State(runner.cursor, runner.values.all(), evidence, self.meter.state())
            checkpoint.write(self.store.checkpoint_path(self.id), state, self.identity, self.bundle)

    # --- ends

    def _note(self) -> None:
        """Bring the evidence up to this moment."""
        self.evidence["steps"] = self.meter.steps
        if self.runner is not None:
            self.evidence |= dataclasses.asdict(self.runner.evidence)

    def _pause(self, reason: str) -> RequestResult:
        self._save()
        self.store.pause(self.id, reason, self.evidence)
        return self._result("paused", reason, ())

    def _end(self, status: str, reason: str | None, new_sha256: str | None = None) -> RequestResult:
        records = self.meter.records(self.id, self.served.sha256, status)
        receipt = None if new_sha256 is None else self._receipt(new_sha256, records[-1])
        self.store.finish(self.id, status, reason, self.evidence, records, new_sha256, receipt)
        try:
            lines = "\n".join(json.dumps(record) for record in records)
            files.append_line(self.store.folder / "cost.jsonl", lines)
        except ClueError as error:
            # The store has the records too: no reason to take back what was done.
            reason = f"{reason}; {error}" if reason else str(error)
        return self._result(status, reason, tuple(records))

    def _receipt(self, after: str, record: Mapping[str, Any]) -> Make | None:
        issuer = self.store.issuer
        if issuer is None:
            return None
        return issuer.forget(
            self.request,
            scalars=self.request.scalars,
            before=self.served.sha256,
            after=after,
            generation=self.served.path.name,
            evidence=self.evidence,
            record=record,
        )

    def _result(
        self, status: str, reason: str | None, records: tuple[Mapping[str, Any], ...]
    ) -> RequestResult:
        generation = self.store.serving().id
        return RequestResult(self.id, status, reason, self.request.seed, self.evidence, generation, records)
