"""Runs an ONNX program on stored inputs and stores its outputs; needs numpy and onnxruntime only.

python benchmarks/precision/run_program.py PROGRAM.onnx INPUTS.npz OUTPUTS.npz
"""

from __future__ import annotations

import sys

import numpy as np
import onnxruntime

program, given, out = sys.argv[1:]
options = onnxruntime.SessionOptions()
options.intra_op_num_threads = 1
options.log_severity_level = 3
session = onnxruntime.InferenceSession(program, options, providers=["CPUExecutionProvider"])
with np.load(given) as inputs:
    feed = {port.name: inputs[port.name] for port in session.get_inputs()}
names = [port.name for port in session.get_outputs()]
np.savez(out, **dict(zip(names, session.run(names, feed), strict=True)))
