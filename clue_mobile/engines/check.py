"""The golden check of a bundle on every runtime that it has programs for and that can run here."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from clue_mobile import engines
from clue_mobile.errors import unknown
from pi_runtime import golden
from pi_runtime.bundle import Bundle
from pi_runtime.golden import GoldenResult


@dataclass(frozen=True)
class RuntimeCheck:
    """One runtime's results, or why it was not run.

    version: the engine's. results: one for each output of each program that the runtime has. ok: it ran and
    every output is within its tolerance.
    """

    runtime: str
    version: str | None = None
    results: tuple[GoldenResult, ...] = ()
    not_run: str | None = None

    @property
    def ok(self) -> bool:
        """True where it ran and agrees."""
        return self.not_run is None and all(result.ok for result in self.results)


def runtimes_of(bundle: Bundle) -> list[str]:
    """The runtimes that the bundle has programs for, in the order of the manifest."""
    return list(dict.fromkeys(name for program in bundle.programs.values() for name in program.files))


def check(
    bundle: Bundle,
    runtimes: Sequence[str] | None = None,
    *,
    threads: int | None = None,
    progress: Callable[[str], None] = lambda runtime: None,
) -> list[RuntimeCheck]:
    """Run every program of these runtimes (default: all the bundle's) on its golden inputs.

    A runtime that the caller names must be able to run here: ClueError where it is not in the bundle or has
    no engine. Of the others one that cannot run is reported as such.
    """
    available = runtimes_of(bundle)
    for name in runtimes or ():
        if name not in available:
            raise unknown("runtime", name, available)
    found = []
    for name in runtimes or available:
        progress(name)
        try:
            engine = engines.get(name, threads)
        except engines.UnavailableError as error:
            if runtimes:
                raise
            found.append(RuntimeCheck(name, not_run=str(error)))
            continue
        found.append(RuntimeCheck(name, engine.version, tuple(golden.check(bundle, engine))))
    return found
