"""The process that keeps PyTorch and the images ready and gives every task a process of its own.

It reads JSON lines from standard input (first the setting, then tasks: {id, seconds, task}) and answers in
JSON lines ({id, row} or {id, reason}). On Linux a task's process is forked, which costs nothing; elsewhere a
fork of PyTorch is not safe, and a fresh interpreter runs `one`. When its input ends, because
the parent closed it or died, every task is ended.
"""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

from clue_mobile.data import Dataset
from clue_mobile.errors import ClueError
from clue_mobile.study.cell import run
from clue_mobile.study.tasks import Setting, Task

LATE = "it ran past its time limit"
PATIENCE = 4.0
"""Time limits that a process may live, however little processor time it gets in them."""
FORKS = sys.platform == "linux"


@dataclass
class _Child:
    """A task's process, and what it has written."""

    number: int
    pid: int
    pipe: int
    wait: Callable[[], int]  # its exit code, or minus the signal that ended it
    seconds: float | None
    threads: int
    began: float = field(default_factory=time.monotonic)
    written: bytes = b""
    late: bool = False

    def left(self) -> float | None:
        """Seconds before which the limit is not reached.

        Processor time counts, that of one thread, so that other work on the machine does not decide what is
        ended; where a system does not tell it, the time that went by.
        """
        if self.seconds is None:
            return None
        gone = time.monotonic() - self.began
        used = _processor_seconds(self.pid)
        if used is None:
            return self.seconds - gone
        return min(self.seconds - used / self.threads, PATIENCE * self.seconds - gone)


class Server:
    """Answers on `out`, a file descriptor, what the tasks on `into` come to."""

    def __init__(self, setting: Setting, dataset: Dataset, into: int, out: int) -> None:
        self.setting, self.dataset, self.into, self.out = setting, dataset, into, out
        self.children: dict[int, _Child] = {}
        self.selector = selectors.DefaultSelector()

    def serve(self, pending: bytes) -> None:
        """Until the input ends. pending: what was read of it already."""
        self.selector.register(self.into, selectors.EVENT_READ)
        try:
            while True:
                *lines, pending = pending.split(b"\n")
                for line in lines:
                    told = json.loads(line)
                    self._start(told["id"], Task.from_json(told["task"]), told["seconds"])
                limits = [left for c in self.children.values() if (left := c.left()) is not None]
                # processor time is told in ticks of 10 ms: asking more often would only spin
                for key, _ in self.selector.select(max(0.01, min(limits)) if limits else None):
                    got = os.read(key.fd, 1 << 16)
                    if key.fd != self.into:
                        self._heard(self.children[key.fd], got)
                    elif got:
                        pending += got
                    else:
                        return
                for child in self.children.values():
                    if not child.late and (child.left() or 1) <= 0:
                        child.late, child.seconds = True, None
                        os.kill(child.pid, signal.SIGKILL)
        finally:
            for child in self.children.values():
                os.kill(child.pid, signal.SIGKILL)

    def _start(self, number: int, task: Task, seconds: float | None) -> None:
        if not FORKS:
            process = subprocess.Popen(
                [sys.executable, "-c", "from clue_mobile.study import server; server.one()"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
            )
            assert process.stdin is not None
            assert process.stdout is not None
            told = {"setting": self.setting.to_json(), "task": task.to_json()}
            process.stdin.write(json.dumps(told).encode())
            process.stdin.close()
            child = _Child(
                number, process.pid, os.dup(process.stdout.fileno()), process.wait, seconds, task.threads
            )
        else:
            reading, writing = os.pipe()
            pid = os.fork()
            if pid == 0:
                self._in_child(task, writing)
            os.close(writing)
            child = _Child(
                number,
                pid,
                reading,
                lambda: os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]),
                seconds,
                task.threads,
            )
        self.children[child.pipe] = child
        self.selector.register(child.pipe, selectors.EVENT_READ)

    def _in_child(self, task: Task, writing: int) -> NoReturn:
        try:
            os.close(self.into)
            os.dup2(os.open(os.devnull, os.O_RDWR), 0)
            os.dup2(2, 1)  # what a method prints must not get between the answers
            for pipe in self.children:
                os.close(pipe)
            answer = answered(task, self.setting, self.dataset)
            with os.fdopen(writing, "wb") as pipe_file:
                pipe_file.write(json.dumps(answer).encode())
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        os._exit(0)

    def _heard(self, child: _Child, got: bytes) -> None:
        child.written += got
        if got:
            return
        self.selector.unregister(child.pipe)
        os.close(child.pipe)
        del self.children[child.pipe]
        code = child.wait()
        answer: dict[str, Any]
        if child.late:
            answer = {"reason": LATE, "late": True}
        elif code == 0 and child.written:
            answer = json.loads(child.written)
        else:
            answer = {"reason": _end(code)}
        _write(self.out, {"id": child.number, **answer})


def answered(task: Task, setting: Setting, dataset: Dataset) -> dict[str, Any]:
    """{row} or, for an error of the method or its evaluation, {reason} with the traceback of an unforeseen
    one."""
    try:
        return {"row": run(task, setting.spec, dataset)}
    except ClueError as error:
        return {"reason": str(error)}
    except Exception as error:
        return {"reason": f"{type(error).__name__}: {error}", "traceback": traceback.format_exc()}


def _preload() -> None:
    """Import what tasks need, once for all: it takes ten times as long as a small task itself."""
    import sklearn.svm  # noqa: F401

    from clue_mobile import methods, training
    from clue_mobile.evaluate import deep

    del training, deep
    for name in methods.METHODS:
        methods.get(name)
    with contextlib.suppress(ImportError):  # what the first optimizer of a process loads
        import torch._dynamo  # noqa: F401


def _processor_seconds(pid: int) -> float | None:
    """What a process has used of its processors; None where there is no /proc, or the process has gone."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    except OSError:
        return None
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _end(code: int) -> str:
    if code < 0:
        memory = ", maybe for want of memory" if -code == signal.SIGKILL else ""
        return f"its process was ended by {signal.Signals(-code).name}{memory}"
    return f"its process ended with exit code {code}"


def _write(out: int, answer: dict[str, Any]) -> None:
    data = json.dumps(answer).encode() + b"\n"
    while data:
        data = data[os.write(out, data) :]


def one() -> None:
    """One task {setting, task} from standard input and its answer to standard output."""
    out = os.dup(1)
    os.dup2(2, 1)  # what a method prints must not get into the answer
    told = json.load(sys.stdin)
    setting = Setting.from_json(told["setting"])
    _write(out, answered(Task.from_json(told["task"]), setting, setting.load()))


def main() -> None:
    """Serve standard input. The parent alone decides about an interrupt, so SIGINT is ignored."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    out = os.dup(1)
    os.dup2(2, 1)
    pending = b""
    while b"\n" not in pending:
        got = os.read(0, 1 << 16)
        if not got:
            return
        pending += got
    line, _, pending = pending.partition(b"\n")
    setting = Setting.from_json(json.loads(line))
    try:
        dataset = setting.load()
        _preload()
    except (ClueError, ImportError) as error:
        _write(out, {"failed": str(error)})
        return
    _write(out, {"ready": True})
    with contextlib.suppress(BrokenPipeError):
        Server(setting, dataset, 0, out).serve(pending)


if __name__ == "__main__":
    main()
