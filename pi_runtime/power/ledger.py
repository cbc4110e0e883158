"""Which phase used how much energy: the spans of the phases beside the samples."""

from __future__ import annotations

import time
from array import array
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pi_runtime.power import ESTIMATE, Opened, estimate
from pi_runtime.power.calibrate import Idle
from pi_runtime.power.sampler import Sampler
from pi_runtime.power.trace import FILE, Trace

REQUEST = "request"


class Ledger:
    """The energy of one request and of its phases: samples from when it is made until `close`.

    `store` is the folder that the trace is kept in and that has the idle power.
    """

    def __init__(self, opened: Opened, store: Path | None = None, request_id: int = 0) -> None:
        choice, source, self._reason = opened.choice, opened.source, opened.reason
        self._estimates = choice.name == ESTIMATE
        self._trace = None if store is None else Trace(store / FILE, request_id, at_once=source is not None)
        self._sampler = None
        self._idle: float | None = None
        self._facts: dict[str, Any] = {}
        if source is not None:
            sink = self._trace.sample if self._trace is not None else None
            self._sampler = Sampler(source, choice.hz, sink)
            idle = Idle.read(store) if store is not None else None
            if idle is not None and idle.fits(source):
                self._idle = idle.idle_w
            self._facts = {"source": source.name, "scope": source.scope, "kind": source.kind}
        elif self._estimates:
            self._facts = {"source": estimate.SOURCE, "scope": estimate.SCOPE, "kind": "estimated"}
        self._sums: dict[str, float] = {}  # of an estimate
        self._spans: dict[str, array[float]] = {}
        self._earlier: dict[str, float | None] = {}  # joules of the parts before an interruption
        self._earlier_cpu = 0.0
        self._phase, self._since = "", 0.0
        if self._trace is not None:
            self._trace.header(**self._facts, hz=self._hz, idle_w=self._idle, reason=self._reason or None)
        if self._sampler is not None:
            self._sampler.start()
        self._began = time.monotonic()
        self._ended: float | None = None

    def begin(self) -> None:
        """The request's time begins now, not when the meter was opened."""
        self._began = time.monotonic()

    def end(self) -> None:
        """The request's time ends now."""
        if self._ended is None:
            self.enter("")
            self._ended = time.monotonic()

    @property
    def _hz(self) -> float | None:
        return None if self._sampler is None else self._sampler.hz

    def enter(self, phase: str, **seen: Any) -> None:
        """A phase begins ("" for none) and the one before ends; `seen` is what the trace tells of it."""
        now = time.monotonic()
        if self._phase:
            self._spans.setdefault(self._phase, array("d")).extend((self._since, now))
            if self._trace is not None:
                self._trace.span(self._phase, self._since, now, **seen)
        self._phase, self._since = phase, now

    def add(self, phase: str, joules: float) -> None:
        """What a run of a program took, for an estimate."""
        if self._estimates:
            for name in (phase, REQUEST):
                self._sums[name] = self._sums.get(name, 0.0) + joules

    def joules(self, phase: str = REQUEST) -> float | None:
        """The energy so far; None where it is not known for every part."""
        earlier = self._earlier.get(phase, 0.0)
        here = self._here(phase)
        return None if earlier is None or here is None else earlier + here

    def here(self) -> float | None:
        """The energy of this run of the request, without earlier parts; None where it is not known."""
        return self._here(REQUEST)

    def _here(self, phase: str) -> float | None:
        if self._estimates:
            return self._sums.get(phase, 0.0)
        if self._sampler is None:
            return None
        spans = self._spans.get(phase, array("d"))
        if phase == REQUEST:
            spans = array("d", (self._began, self._ended or time.monotonic()))
        total = 0.0
        for start, end in zip(spans[::2], spans[1::2], strict=True):
            part = self._sampler.energy(start, end)
            if part is None:
                return None
            total += part
        return total

    def close(self) -> None:
        """End the sampling; what is known stays. May be called again."""
        self.end()
        if self._sampler is not None:
            self._sampler.stop()
        if self._trace is not None:
            self._trace.close()

    def record(self, phase: str) -> dict[str, Any]:
        """The energy's keys of a cost record (contract/cost.schema.json); null where not measured."""
        joules = self.joules(phase)
        known = joules is not None and joules > 0
        facts = self._facts if known else {}
        whole = phase == REQUEST and self._sampler is not None
        return {
            "energy_j": round(joules, 6) or None if known and joules is not None else None,
            "energy_source": facts.get("source"),
            "energy_scope": facts.get("scope"),
            "energy_kind": facts.get("kind"),
            "energy_note": self._note(known),
            "idle_w": self._idle if known else None,
            "sampler_hz": self._hz,
            "sampler_cpu_s": round(self._earlier_cpu + self._sampler.cpu_s, 6)
            if whole and self._sampler is not None
            else None,
        }

    def _note(self, known: bool) -> str | None:
        """Why there is no figure, or what else is to be known of it."""
        sampler = self._sampler
        parts = [] if known or not self._reason else [self._reason]
        if sampler is not None and sampler.failed:
            parts.append(f"{sampler.failed} of {sampler.failed + sampler.samples} samples failed")
            parts.append(sampler.problem)
        elif not known and not parts:
            other = "an earlier part of this request was not measured in the same way"
            parts.append(other if None in self._earlier.values() else "no samples cover it")
        if self._trace is not None and self._trace.problem:
            parts.append(self._trace.problem)
        return "; ".join(parts) or None

    def state(self) -> dict[str, Any]:
        """What is known so far as JSON, for a checkpoint; no phase may be open."""
        names = {REQUEST, *self._spans, *self._sums, *self._earlier}
        cpu = self._earlier_cpu + (self._sampler.cpu_s if self._sampler is not None else 0.0)
        return {
            "facts": self._facts,
            "joules": {name: self.joules(name) for name in sorted(names)},
            "sampler_cpu_s": cpu,
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from `state`. Parts that were measured in another way make the whole unknown."""
        same = dict(state["facts"]) == self._facts and bool(self._facts)
        self._earlier = {name: value if same else None for name, value in state["joules"].items()}
        self._earlier_cpu = float(state["sampler_cpu_s"])
