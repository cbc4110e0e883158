"""What a request cost: a record for each phase and one for the request, as contract/cost.schema.json says."""

from __future__ import annotations

import dataclasses
import time
from array import array
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from pi_runtime import device
from pi_runtime.bundle import Program
from pi_runtime.engine import Engine
from pi_runtime.power import Choice, estimate, open_source
from pi_runtime.power.ledger import Ledger

SCHEMA = 2


@dataclass
class _Account:
    """The sums of one phase, or of the request."""

    batch: int | None = None
    wall_s: float = 0.0
    cpu_s: float = 0.0
    load_s: float = 0.0
    save_s: float = 0.0
    steps: array[float] = field(default_factory=lambda: array("d"))
    peak: int = 0
    thermal_start: float | None = None
    thermal_end: float | None = None
    throttled: bool | None = None
    frequency_start: float | None = None
    frequency_end: float | None = None
    told: int = 0  # steps that the trace has been told of

    def enter(self) -> None:
        if not self.wall_s:
            self.thermal_start, self.frequency_start = device.temperature(), device.frequency()

    def seen(self, peak: int) -> dict[str, Any]:
        """What the trace tells of a span that ends."""
        new = self.steps[self.told :]
        self.told = len(self.steps)
        return {
            "steps": len(new),
            "step_ms": round(1000 * float(np.median(new)), 3) if new else None,
            "peak_mem_bytes": peak,
            "temperature": self.thermal_end,
            "frequency_mhz": self.frequency_end,
        }

    def state(self) -> dict[str, Any]:
        """Every sum as JSON; step times to the microsecond."""
        fields = {one.name: getattr(self, one.name) for one in dataclasses.fields(self)}
        return {**fields, "steps": [round(seconds, 6) for seconds in self.steps]}

    @staticmethod
    def restored(state: Mapping[str, Any]) -> _Account:
        return _Account(**{**state, "steps": array("d", state["steps"])})

    def leave(self, peak: int) -> None:
        self.peak = max(self.peak, peak)
        self.thermal_end, self.frequency_end = device.temperature(), device.frequency()
        now = device.throttled()
        self.throttled = now if self.throttled is None else self.throttled or bool(now)


class Meter:
    """Adds up the cost of one request.

    `measure(phase)` is used around each operation. The peak memory is read and reset whenever the phase
    changes, so that each phase has its own; the request's is the largest of all. `ledger` has the energy
    (none is measured without it); `close` ends its sampling.
    """

    def __init__(self, engine: Engine, batch: int, ledger: Ledger | None = None) -> None:
        self._engine = engine
        self._ledger = ledger or Ledger(open_source(Choice("off")))
        self._memory = device.PeakMemory()
        self._phases: dict[str, _Account] = {}
        self._request = _Account(batch)
        self._request.enter()
        self._open = ""
        self._earlier = (0.0, 0.0)  # wall and processor time of the parts before an interruption
        self._start = (time.perf_counter(), time.process_time())
        self._ledger.begin()

    @property
    def steps(self) -> int:
        """How many programs were run."""
        return len(self._request.steps)

    @property
    def joules(self) -> float | None:
        """The energy of the request so far; None where it is not known."""
        return self._ledger.joules()

    def worked(self, program: Program, times: int = 1) -> None:
        """Tell that a program ran in the phase that is open, for an estimate of the energy."""
        self._ledger.add(self._open, times * estimate.of(program))

    def close(self) -> None:
        """End the sampling of power. May be called again."""
        self._ledger.close()

    @contextmanager
    def measure(self, phase: str, batch: int | None = None, step: bool = False) -> Iterator[None]:
        """Time the block as part of a phase ("" for none); `step` also counts it as a step with its time."""
        if phase != self._open:
            self._change(phase)
        account = self._phases.get(phase)
        if account is not None and account.batch is None:
            account.batch = batch
        wall, cpu = time.perf_counter(), time.process_time()
        try:
            yield
        finally:
            wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
            if step:
                self._request.steps.append(wall)
            if account is not None:
                account.wall_s += wall
                account.cpu_s += cpu
                if step:
                    account.steps.append(wall)

    def loaded(self, seconds: float, phase: str = "") -> None:
        """Count time for loading programs or weights, for the request and the phase that needs it first."""
        self._request.load_s += seconds
        if phase:
            self._phases.setdefault(phase, _Account()).load_s += seconds

    @contextmanager
    def saving(self) -> Iterator[None]:
        """Count the block as time for saving the new weights; it is part of no phase."""
        self._change("")
        start = time.perf_counter()
        try:
            yield
        finally:
            self._request.save_s += time.perf_counter() - start

    def _change(self, phase: str) -> None:
        peak = self._memory.read()
        seen: dict[str, Any] = {}
        if self._open:
            account = self._phases[self._open]
            account.leave(peak)
            seen = account.seen(peak)
        self._ledger.enter(phase, **seen)
        self._request.peak = max(self._request.peak, peak)
        self._memory.reset()
        self._open = phase
        if phase:
            self._phases.setdefault(phase, _Account()).enter()

    def records(self, request_id: int, model_sha256: str, status: str) -> list[dict[str, Any]]:
        """The records so far: the phases that began, in the order of the plan, then the request.

        `model_sha256` is the hash of the weights that the request began with, `status` done, failed or
        cancelled.
        """
        self._change("")
        self._ledger.end()
        self._close_request()
        self._ledger.close()
        common = {"request_id": request_id, "model_sha256": model_sha256, "status": status}
        entered = {phase: account for phase, account in self._phases.items() if account.wall_s}
        accounts = {**entered, "request": self._request}
        return [self._record(phase, account, common) for phase, account in accounts.items()]

    def _close_request(self) -> None:
        """Bring the request's own sums up to this moment."""
        (wall, cpu), (earlier_wall, earlier_cpu) = self._start, self._earlier
        self._request.wall_s = earlier_wall + time.perf_counter() - wall
        self._request.cpu_s = earlier_cpu + time.process_time() - cpu
        self._request.leave(self._memory.read())

    def state(self) -> dict[str, Any]:
        """The sums so far as JSON, for a checkpoint: {"request": sums, "phases": {phase: sums}, ...}."""
        open_phase = self._open
        self._change("")
        self._close_request()
        phases = {phase: account.state() for phase, account in self._phases.items()}
        energy = self._ledger.state()
        self._open = open_phase
        self._ledger.enter(open_phase)
        return {"request": self._request.state(), "phases": phases, "energy": energy}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on with the sums of `state`; call it before anything is measured.

        Raises TypeError or KeyError when these are not the sums of this version.
        """
        self._request = _Account.restored(state["request"])
        self._phases = {phase: _Account.restored(sums) for phase, sums in state["phases"].items()}
        self._earlier = (self._request.wall_s, self._request.cpu_s)
        self._ledger.restore(state["energy"])

    def _record(self, phase: str, account: _Account, common: Mapping[str, Any]) -> dict[str, Any]:
        engine = self._engine
        percentiles = np.percentile(account.steps, (50, 95)) * 1000 if account.steps else (None, None)
        p50, p95 = (None if value is None else round(float(value), 3) for value in percentiles)
        return {
            "schema": SCHEMA,
            "request_id": common["request_id"],
            "phase": phase,
            "device": device.facts(),
            "runtime": {
                "name": engine.name,
                "version": engine.version,
                "backend": engine.backend,
                "threads": engine.threads,
            },
            "model_sha256": common["model_sha256"],
            "batch": account.batch,
            "steps": len(account.steps),
            "wall_s": round(account.wall_s, 6),
            "cpu_s": round(account.cpu_s, 6),
            "step_ms": {"p50": p50, "p95": p95},
            "load_s": round(account.load_s, 6),
            "save_s": round(account.save_s, 6),
            "peak_mem_bytes": account.peak,
            "peak_mem_source": self._memory.source,
            **self._ledger.record(phase),
            "thermal_start": account.thermal_start,
            "thermal_end": account.thermal_end,
            "throttled": account.throttled,
            "frequency_start": account.frequency_start,
            "frequency_end": account.frequency_end,
            "plugged": device.plugged(),
            "status": common["status"],
        }
