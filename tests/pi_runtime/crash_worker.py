"""The process that crashes: started by crashes.Server with the shim in LD_PRELOAD; one forked child a job."""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime  # noqa: F401  imported once, for all children
import safetensors.numpy  # noqa: F401  the same
import toy
from cryptography.hazmat.primitives.ciphers.aead import AESGCM  # noqa: F401  the same

import pi_runtime.onnx_engine  # noqa: F401  the same
from pi_runtime import Bundle, ClueError, Runtime
from pi_runtime.options import Options
from pi_runtime.queue import Told, serve

SEED = 6


def _serve(runtime: Runtime, **_: Any) -> list[str]:
    """Run everything that is queued or was interrupted; the states of all requests."""
    problems: list[str] = []
    told = Told(None, lambda result: None, lambda request_id, sentence: problems.append(sentence))
    serve(runtime, told, lambda: False)
    if problems:
        raise ClueError("; ".join(problems))
    return [request.status for request in runtime.store.requests()]


def _add(runtime: Runtime, label: str, n: int) -> int:
    return len(runtime.add(toy.images(n, runtime.bundle.label(label)), label))


def _add_file(runtime: Runtime, label: str, file: str) -> int:
    return len(runtime.add(np.load(file, allow_pickle=False), label))


def _add_and_lock(runtime: Runtime, label: str, n: int) -> None:
    """Go on after a call that failed, then die without closing the database."""
    with contextlib.suppress(ClueError):
        _add(runtime, label, n)
    with runtime.store.exclusive():
        pass
    os.kill(os.getpid(), signal.SIGKILL)


def _read(runtime: Runtime, label: str) -> int:
    """How many samples of the class can be read, as a request does it."""
    if not runtime.store.counts():
        return 0
    return len(runtime.store.images(runtime.submit(label, seed=SEED)))


def _submit(runtime: Runtime, label: str, scalars: dict[str, float], options: dict[str, Any]) -> int:
    return runtime.submit(label, seed=SEED, scalars=scalars, options=Options.of(options))


def _open(runtime: Runtime) -> str:
    """Open the store, and predict with what serves."""
    images = np.zeros((1, *_shape(runtime)), np.uint8)
    return runtime.predict(images).tobytes().hex()


def _shape(runtime: Runtime) -> tuple[int, int, int]:
    channels, height, width = runtime.bundle.input_shape
    return height, width, channels


ACTIONS = {
    "serve": _serve,
    "add": _add,
    "add_file": _add_file,
    "add_and_lock": _add_and_lock,
    "read": _read,
    "submit": _submit,
    "open": _open,
}


def _child(bundle: Bundle, job: dict[str, Any], answers: int) -> None:
    try:
        arm = ctypes.CDLL(None).clue_arm
        arm.argtypes = (ctypes.c_char_p, ctypes.c_int, ctypes.c_long, ctypes.c_char_p, ctypes.c_char_p)
        arm(
            *(os.fsencode(job["store"]), job["mode"], job["at"]), job["calls"].encode(), job["trace"].encode()
        )
        with Runtime.for_bundle(bundle, Path(job["store"]), threads=1) as runtime:
            answer = ACTIONS[job["action"]](runtime, **job["arguments"])
        told = {"killed": False, "answer": answer, "error": None}
    except (ClueError, OSError) as error:
        told = {"killed": False, "answer": None, "error": f"{type(error).__name__}: {error}"}
    os.write(answers, json.dumps(told).encode())


def _run(bundle: Bundle, job: dict[str, Any]) -> dict[str, Any]:
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reading)
        try:
            _child(bundle, job, writing)
        finally:
            os._exit(0)
    os.close(writing)
    if job["kill_after_s"] is not None:
        time.sleep(job["kill_after_s"])
        os.kill(child, signal.SIGKILL)
    with os.fdopen(reading, "rb") as stream:
        said = stream.read()
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        assert os.WTERMSIG(status) == signal.SIGKILL, f"the child died of signal {os.WTERMSIG(status)}"
        return {"killed": True, "answer": None, "error": None}
    told: dict[str, Any] = json.loads(said)
    return told


def main() -> None:
    """Serve jobs, one JSON line each, until the input ends."""
    bundle = Bundle.open(sys.argv[1])
    for line in sys.stdin:
        print(json.dumps(_run(bundle, json.loads(line))), flush=True)


if __name__ == "__main__":
    main()
