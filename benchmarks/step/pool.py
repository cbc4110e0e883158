"""The parent's side of the workers: start one, ask it, stop it; a failure is a row's, never the run's."""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

from environments import python_of
from work import HERE, ROOT, Peer, Work

EXPORT_S, SETUP_S, TURN_S = 3600.0, 1800.0, 900.0


class RowError(Exception):
    """Why a peer has no figures here. status: not installed, not available, failed, wrong."""

    def __init__(self, status: str, reason: str) -> None:
        super().__init__(reason)
        self.status, self.reason = status, reason


class Process:
    """worker.py for one peer; answers come one JSON line each. What it prints goes to a log in its folder."""

    def __init__(self, cache: Path, peer: Peer, work: Work, do: str, python: Path | None = None) -> None:
        python = python or python_of(cache, peer.environment)
        if python is None:
            raise RowError(
                "not installed",
                f"no environment {peer.environment}: "
                f"python benchmarks/step/environments.py {peer.environment}",
            )
        place = work.place(peer.name)
        place.mkdir(parents=True, exist_ok=True)
        self.peer, self.log = peer, place / f"{do}.log"
        env = {**os.environ, "PYTHONPATH": str(ROOT), "TF_CPP_MIN_LOG_LEVEL": "3"}
        for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
            env[name] = str(work.threads)
        command = [str(python), str(HERE / "worker.py"), peer.name, str(work.folder), str(work.threads), do]
        with self.log.open("w", encoding="utf-8") as log:
            self.process = subprocess.Popen(
                [*command, repr(time.monotonic())],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                env=env,
                start_new_session=True,  # Ctrl-C is the parent's to handle
            )
        self._buffer = b""

    def answer(self, timeout: float) -> dict[str, Any]:
        """The next line. Raises RowError where it says so, the worker has died, or `timeout` s passed."""
        pipe = self.process.stdout
        assert pipe is not None
        deadline = time.monotonic() + timeout
        with selectors.DefaultSelector() as selector:
            selector.register(pipe, selectors.EVENT_READ)
            while b"\n" not in self._buffer:
                if not selector.select(max(0.0, deadline - time.monotonic())):
                    self.stop()
                    raise RowError("failed", f"no answer within {timeout:g} s")
                data = os.read(pipe.fileno(), 1 << 16)
                if not data:
                    code = self.process.wait()
                    raise RowError("failed", f"the process ended with {code}: {self._last_line()}")
                self._buffer += data
        line, _, self._buffer = self._buffer.partition(b"\n")
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise RowError(answer["error"], answer["reason"])
        return answer

    def ask(self, timeout: float, **command: Any) -> dict[str, Any]:
        """Send one command and wait for its answer."""
        pipe = self.process.stdin
        assert pipe is not None
        try:
            pipe.write(json.dumps(command).encode() + b"\n")
            pipe.flush()
        except BrokenPipeError:
            code = self.process.wait()
            raise RowError("failed", f"the process ended with {code}: {self._last_line()}") from None
        return self.answer(timeout)

    def cpu_s(self) -> float:
        """Processor seconds that it has used, all threads; 0 once it has ended."""
        try:
            fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            return 0.0
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def stop(self) -> None:
        """End it, with whatever it has started."""
        if self.process.poll() is None:
            with contextlib.suppress(OSError):
                os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()

    def _last_line(self) -> str:
        lines = [line for line in self.log.read_text(errors="replace").splitlines() if line.strip()]
        return lines[-1].strip()[:300] if lines else "it said nothing"


def once(
    cache: Path, peer: Peer, work: Work, do: str, timeout: float, python: Path | None = None
) -> dict[str, Any]:
    """A worker that does one thing; its answer."""
    process = Process(cache, peer, work, do, python)
    try:
        return process.answer(timeout)
    finally:
        process.stop()
