"""Which kernels a stock ONNX Runtime runs in float16: each node's input type, from its own profile.

    python benchmarks/precision/kernels.py PROGRAM.onnx...        (needs onnxruntime and numpy only)

`programs.py` writes the programs; on an emulated Cortex-A76: tests/aarch64/python.sh FOLDER kernels.py ...
"""

from __future__ import annotations

import collections
import json
import platform
import sys
import tempfile
from pathlib import Path

import numpy as np
import onnxruntime


def kinds(path: str) -> dict[str, dict[str, int]]:
    """How many nodes of each operator ran with which type of input, after ONNX Runtime's own changes."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    options.enable_profiling = True
    with tempfile.TemporaryDirectory() as folder:
        options.profile_file_prefix = str(Path(folder) / "profile")
        session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        rng = np.random.default_rng(0)
        session.run(
            None, {port.name: rng.random(port.shape, dtype=np.float32) for port in session.get_inputs()}
        )
        events = json.loads(Path(session.end_profiling()).read_text())
    found: dict[str, collections.Counter[str]] = collections.defaultdict(collections.Counter)
    for event in events:
        if event.get("cat") == "Node" and event["name"].endswith("_kernel_time"):
            types = [next(iter(each)) for each in event["args"]["input_type_shape"] if each]
            found[event["args"]["op_name"]][types[0] if types else "none"] += 1
    return {op: dict(found[op]) for op in sorted(found)}


for name in sys.argv[1:]:
    told = {"program": Path(name).stem, "machine": platform.machine(), "ort": onnxruntime.__version__}
    print(json.dumps({**told, "kernels": kinds(name)}))
