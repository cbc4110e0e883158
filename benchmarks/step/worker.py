"""A peer in a process of its own: python worker.py PEER FOLDER THREADS DO [STARTED].

DO: `export` and `build` let it make its files (in the benchmark's environment, then in its own); `facts`
prints versions and sizes; `turns` takes commands, one JSON line each, and answers likewise; `fresh` measures
the start (STARTED: the parent's monotonic clock when it began) and the memory, and ends.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

FIRST_LOSSES = 5


def main(peer: str, folder: str, threads: str, do: str, started: str = "0") -> int:
    """Do it, and print one JSON line, or one for each command; errors too are such lines."""
    answers = os.fdopen(os.dup(1), "w", buffering=1, encoding="utf-8")
    os.dup2(2, 1)  # what frameworks print is no answer

    def say(**answer: Any) -> None:
        answers.write(json.dumps(answer) + "\n")

    from work import UnavailableError, Work, module_of

    try:
        module = module_of(peer)
        work = Work.read(Path(folder), int(threads))
        if do in ("export", "build"):
            work.place(peer).mkdir(parents=True, exist_ok=True)
            getattr(module, do)(work)
            say(done=True)
        elif do == "facts":
            from installed import size

            say(versions=module.versions(), bytes=size(module))
        elif do == "fresh":
            say(**fresh(module.setup(work), float(started)))
        else:
            turns(module.setup(work), say)
    except UnavailableError as error:
        say(error="not available", reason=str(error))
    except ImportError as error:
        say(error="not installed", reason=str(error))
    except Exception as error:
        say(error="failed", reason=" ".join(f"{type(error).__name__}: {error}".split())[:600])
        raise
    return 0


def turns(step: Callable[[], float], say: Callable[..., None]) -> None:
    """{"do": "run", "steps": k} -> seconds and losses of k steps; {"do": "end"}."""
    say(ready=True)
    for line in sys.stdin:
        command = json.loads(line)
        if command["do"] == "end":
            return
        seconds, cpu, losses = [], [], []
        for _ in range(command["steps"]):
            wall, used = time.perf_counter(), time.process_time()
            losses.append(float(step()))
            seconds.append(time.perf_counter() - wall)
            cpu.append(time.process_time() - used)
        say(seconds=seconds, cpu=cpu, losses=losses)


def fresh(step: Callable[[], float], started: float) -> dict[str, Any]:
    """The first step and some more: seconds since the parent started this process, and memory in bytes."""
    before, earlier = _status("VmRSS"), _status("VmHWM")
    source = "VmHWM, reset before the first step"
    try:
        Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")
    except OSError:
        source = "VmHWM since the start of the process"
    step()
    start_s = time.monotonic() - started
    cpu_s = time.process_time()
    for _ in range(2):
        step()
    during = _status("VmHWM")
    return {
        "start_s": start_s,
        "start_cpu_s": cpu_s,
        "peak_rss": max(earlier, during),
        "before_step": before,
        "peak_minus_before": max(0, during - before),
        "memory_source": source,
    }


def _status(key: str) -> int:
    for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines():
        if line.startswith(f"{key}:"):
            return int(line.split()[1]) * 1024
    raise RuntimeError(f"/proc/self/status has no {key}")


if __name__ == "__main__":
    raise SystemExit(main(*sys.argv[1:]))
