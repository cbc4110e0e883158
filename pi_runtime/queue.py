"""Which request runs next, and serving the queue until told to stop."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pi_runtime import guards
from pi_runtime.errors import ClueError
from pi_runtime.estimate import planned_peak
from pi_runtime.forget import STOPPED, RequestResult
from pi_runtime.options import Options
from pi_runtime.request import Paused, Progress
from pi_runtime.store import BusyError, Request

if TYPE_CHECKING:
    from pi_runtime.runtime import Runtime

_SLICE_S = 0.1  # a signal is noticed this late while nothing runs
# Reasons (their beginnings) of pauses that end by themselves; over budget waits for the user.
_GOES_ON = ("interrupted", STOPPED, guards.TOO_HOT, guards.TOO_LITTLE_MEMORY)


def next_request(runtime: Runtime, refused: Collection[int] = ()) -> int | None:
    """The oldest request that is queued, or paused by what is over: a kill, a stop, heat, too little memory.

    `refused` are passed over. None when there is none.
    """
    for request in runtime.store.requests():
        if request.id in refused or request.status not in ("queued", "paused"):
            continue
        if request.status == "queued" or _goes_on(runtime, request):
            return request.id
    return None


def _goes_on(runtime: Runtime, request: Request) -> bool:
    reason = request.reason or ""
    if not reason.startswith(_GOES_ON):
        return False
    try:
        if reason.startswith(guards.TOO_HOT):
            limit = Options.of(request.options).celsius_at_most
            guards.Thermal(limit, runtime.celsius).check_start()
        if reason.startswith(guards.TOO_LITTLE_MEMORY):
            guards.check_memory(planned_peak(runtime.bundle, request.samples), guards.available_memory())
    except Paused:
        return False
    return True


@dataclass(frozen=True)
class Told:
    """How serving the queue is watched: steps of a request, each result, each problem as (id, sentence)."""

    progress: Callable[[Progress], None] | None
    result: Callable[[RequestResult], None]
    problem: Callable[[int, str], None]


def serve(
    runtime: Runtime, told: Told, stop: Callable[[], bool], watch: bool = False, poll_s: float = 1.0
) -> None:
    """Run what is queued and what can go on, one after the other; with `watch` wait for more until `stop`.

    A request that breaks or cannot go on here is told and passed over. Returns when there is nothing left
    (without `watch`) or `stop` says so: then a running request was paused at this step.
    """
    refused: set[int] = set()
    while not stop():
        # A request whose process died is running for its row until somebody gets the lock.
        request_id = next_request(runtime, refused) or _abandoned(runtime)
        if request_id is None:
            if not watch:
                return
            _wait(poll_s, stop)
            continue
        try:
            with runtime.store.exclusive():
                if next_request(runtime, refused) == request_id:  # else another process was faster
                    told.result(runtime.run(request_id, progress=told.progress, stop=stop))
        except BusyError:
            _wait(poll_s, stop)
        except ClueError as error:
            refused.add(request_id)
            told.problem(request_id, str(error))


def _abandoned(runtime: Runtime) -> int | None:
    """A request that says it runs but is found paused once the lock was tried."""
    for request in runtime.store.requests():
        if request.status in ("running", "verifying") and runtime.status(request.id) == "paused":
            return request.id
    return None


def _wait(seconds: float, stop: Callable[[], bool]) -> None:
    until = time.monotonic() + seconds
    while not stop() and time.monotonic() < until:
        time.sleep(_SLICE_S)
