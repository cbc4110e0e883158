"""Where tasks run: processes of this machine, or a Ray cluster. Both take the same tasks and give the same
outcomes, as they finish."""

from __future__ import annotations

import collections
import json
import logging
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, redirect_stdout, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

from clue_mobile.data import Dataset
from clue_mobile.errors import ClueError
from clue_mobile.models.weights import write_atomic
from clue_mobile.study.server import LATE, answered
from clue_mobile.study.tasks import Setting, Task

Outcome = dict[str, Any]
"""{"row": ...} of a task that was done; {"reason": ...} of one that was not, with "late": True where it ran
past its time limit and "traceback" where its error was unforeseen."""


class Executor(Protocol):
    """Runs tasks, each in a process of its own."""

    def run(self, tasks: Iterable[Task], seconds: float | None = None) -> Iterator[tuple[Task, Outcome]]:
        """Each task with its outcome, in the order in which they finish; a task past `seconds` is ended."""


class Processes(AbstractContextManager["Processes"]):
    """Processes of this machine, at most `jobs` at once, each with `threads` threads.

    Leaving the context, for whatever reason, ends those that still run.
    """

    def __init__(self, setting: Setting, jobs: int, threads: int) -> None:
        self.jobs = jobs
        # A session of its own: Ctrl-C reaches this process alone, which then decides.
        self._server = subprocess.Popen(
            [sys.executable, "-m", "clue_mobile.study.server"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path)), **_threads(threads)},
        )
        self._ready = False
        self._number = 0
        self._tell(setting.to_json())

    def __exit__(self, *_: object) -> None:
        assert self._server.stdin is not None
        assert self._server.stdout is not None
        with suppress(BrokenPipeError):
            self._server.stdin.close()
        self._server.wait()
        self._server.stdout.close()

    def run(self, tasks: Iterable[Task], seconds: float | None = None) -> Iterator[tuple[Task, Outcome]]:
        """See Executor. Raises ClueError where the images cannot be loaded."""
        self._wait()
        waiting, running = collections.deque(tasks), dict[int, Task]()
        while waiting or running:
            while waiting and len(running) < self.jobs:
                self._number += 1
                running[self._number] = waiting.popleft()
                told = running[self._number].to_json()
                self._tell({"id": self._number, "seconds": seconds, "task": told})
            answer = self._hear()
            yield running.pop(answer.pop("id")), answer

    def _wait(self) -> None:
        if not self._ready:
            answer = self._hear()
            if "failed" in answer:
                raise ClueError(answer["failed"])
            self._ready = True

    def _tell(self, told: dict[str, Any]) -> None:
        assert self._server.stdin is not None
        try:
            self._server.stdin.write(json.dumps(told).encode() + b"\n")
            self._server.stdin.flush()
        except BrokenPipeError:
            raise self._gone() from None

    def _hear(self) -> dict[str, Any]:
        assert self._server.stdout is not None
        line = self._server.stdout.readline()
        if not line.endswith(b"\n"):
            raise self._gone()
        answer: dict[str, Any] = json.loads(line)
        return answer

    def _gone(self) -> ClueError:
        return ClueError(
            f"the process that runs the cells ended with exit code {self._server.wait()}; what it printed "
            "stands above, and finished cells are kept"
        )


class Ray(AbstractContextManager["Ray"]):
    """A Ray cluster: `address` "" starts one on this machine with room for `jobs`; every node needs
    clue-mobile installed. Images and weights travel to the nodes, trained weights back."""

    def __init__(
        self, setting: Setting, dataset: Dataset, jobs: int, threads: int, address: str = ""
    ) -> None:
        try:
            import ray
        except ImportError as error:
            raise ClueError("--on ray needs Ray: pip install 'clue-mobile[ray]'") from error
        self._ray, self._setting, self._threads = ray, setting, threads
        paths = os.pathsep.join(filter(None, sys.path))
        local: dict[str, Any] = {
            "num_cpus": jobs * threads,
            "include_dashboard": False,
            "object_store_memory": 256 * 2**20,
        }
        try:
            ray.init(
                address=address or "local",
                log_to_driver=False,
                logging_level=logging.ERROR,
                runtime_env={"env_vars": {"PYTHONPATH": paths, **_threads(threads)}} if not address else None,
                **({} if address else local),
            )
        except (ConnectionError, ValueError, RuntimeError) as error:
            raise ClueError(f"no Ray cluster at {address or 'this machine'}: {error}") from error
        # max_calls=1: a process of its own for each task
        self._remote = ray.remote(num_cpus=threads, max_calls=1, max_retries=0)(_on_node)
        self._dataset = ray.put(dataset)
        self._files: dict[str, Any] = {}

    def __exit__(self, *_: object) -> None:
        self._ray.shutdown()

    def run(self, tasks: Iterable[Task], seconds: float | None = None) -> Iterator[tuple[Task, Outcome]]:
        """See Executor."""
        waiting, running = collections.deque(tasks), dict[Any, tuple[Task, float]]()
        while waiting or running:
            # No more than can start, so that a limit counts from the start; asked anew, as clusters grow.
            slots = max(1, int(self._ray.cluster_resources().get("CPU", 1)) // self._threads)
            while waiting and len(running) < slots:
                task = waiting.popleft()
                running[self._submit(task)] = task, time.monotonic()
            done, _ = self._ray.wait(list(running), timeout=1.0)
            for reference in done:
                task, _began = running.pop(reference)
                yield task, self._outcome(reference, task)
            for reference, (task, began) in list(running.items()):
                if seconds is not None and time.monotonic() - began > seconds:
                    self._ray.cancel(reference, force=True)
                    del running[reference]
                    yield task, {"reason": LATE, "late": True}

    def _submit(self, task: Task) -> Any:
        files = [self._file(path) for path in (task.weights, task.retrained)]
        return self._remote.remote(self._setting, task, self._dataset, *files)

    def _file(self, path: str) -> Any:
        if path and path not in self._files:
            self._files[path] = self._ray.put((Path(path).suffix, Path(path).read_bytes()))
        return self._files.get(path)

    def _outcome(self, reference: Any, task: Task) -> Outcome:
        try:
            answer, saved = self._ray.get(reference)
        except self._ray.exceptions.RayError as error:
            return {"reason": f"Ray: {str(error).splitlines()[0]}"}
        if saved is not None:
            Path(task.save).parent.mkdir(parents=True, exist_ok=True)
            write_atomic(Path(task.save), saved)
        outcome: Outcome = answer
        return outcome


def _on_node(
    setting: Setting, task: Task, dataset: Dataset, weights: Any, retrained: Any
) -> tuple[Outcome, bytes | None]:
    """The task on whatever machine this is, with its files written beside it; and the weights it trained."""
    with tempfile.TemporaryDirectory() as folder:
        paths: dict[str, Any] = {}
        for name, file in (("weights", weights), ("retrained", retrained)):
            if file is not None:
                paths[name] = f"{folder}/{name}{file[0]}"
                Path(paths[name]).write_bytes(file[1])
        save = Path(folder) / "trained.safetensors"
        task = replace(task, **paths, save=str(save) if task.save else "")
        outcome = answered(task, setting, dataset)
        return outcome, save.read_bytes() if save.exists() else None


class Here(AbstractContextManager["Here"]):
    """This process, one task after the other: for a debugger. No time limit, and no memory of its own."""

    def __init__(self, setting: Setting, dataset: Dataset) -> None:
        self._setting, self._dataset = setting, dataset

    def __exit__(self, *_: object) -> None:
        """There is nothing to end."""

    def run(self, tasks: Iterable[Task], seconds: float | None = None) -> Iterator[tuple[Task, Outcome]]:
        """See Executor."""
        for task in tasks:
            with redirect_stdout(sys.stderr):  # a method may print, and our output may be JSON
                outcome = answered(task, self._setting, self._dataset)
            yield task, outcome


def start(on: str, setting: Setting, dataset: Dataset, jobs: int, threads: int) -> Processes | Ray | Here:
    """The executor of `--on`: processes, ray, ray:ADDRESS or here. Raises ClueError for another name."""
    if on == "processes":
        return Processes(setting, jobs, threads)
    if on == "here":
        return Here(setting, dataset)
    where, _, address = on.partition(":")
    if where == "ray":
        return Ray(setting, dataset, jobs, threads, address)
    raise ClueError(f"--on must be processes, ray, ray:ADDRESS or here, not {on!r}")


def _threads(threads: int) -> dict[str, str]:
    names: Sequence[str] = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
    return dict.fromkeys(names, str(threads))
