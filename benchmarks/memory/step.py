"""One program file in a process of its own: its peak memory and time, as JSON on standard output.

The peak is VmHWM, reset once session and arrays are there; "before" is the resident memory at that moment.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np

from pi_runtime import device
from pi_runtime.onnx_engine import OnnxEngine


def resident() -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmRSS"))


path, runs = Path(sys.argv[1]), int(sys.argv[2])
ports = json.loads(Path(sys.argv[3]).read_text())
inputs = [SimpleNamespace(name=n, shape=tuple(s)) for n, s in ports["inputs"]]
outputs = [SimpleNamespace(name=n, shape=tuple(s)) for n, s in ports["outputs"]]
program = SimpleNamespace(name="step", inputs=inputs, outputs=outputs)
session = OnnxEngine(1).load(path, program)  # type: ignore[arg-type]
random = np.random.default_rng(0)
given = {p.name: random.random(p.shape, np.float32) * np.float32(0.1) for p in inputs}
given = {name: np.ascontiguousarray(a, np.float32) for name, a in given.items()}
given = {p.name: given[p.name].reshape(p.shape) for p in inputs}
taken = {p.name: np.ones(p.shape, np.float32) for p in outputs}
before, peak = resident(), device.PeakMemory()
cpu = []
for _ in range(runs):
    start = time.process_time()
    session.run(given, taken)
    cpu.append(time.process_time() - start)
print(json.dumps({"before": before, "peak": peak.read(), "source": peak.source, "cpu_s": min(cpu)}))
