"""The kernel library, built from this checkout, and one of its operators as a program."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import helper

from exporters.onnx_clue import onnx_kernels

ROOT = Path(__file__).resolve().parents[2]
SOURCES = ROOT / "kernels"


@cache
def library() -> Path:
    """libclue_kernels.so, built once for each state of the sources; skips where that cannot be."""
    if named := os.environ.get("CLUE_KERNELS"):
        return Path(named)
    for tool in ("cmake", "g++"):
        if shutil.which(tool) is None:
            pytest.skip(f"no {tool} to build the kernel library with")
    if not Path("/usr/include/hwy/highway.h").is_file():
        pytest.skip("no Highway to build the kernel library on: apt install libhwy-dev")
    files = sorted([*SOURCES.glob("src/*"), SOURCES / "CMakeLists.txt"])
    state = hashlib.sha256(b"".join(path.read_bytes() for path in files)).hexdigest()[:16]
    folder = ROOT / ".cache" / "kernels" / state
    built = folder / "libclue_kernels.so"
    if not built.is_file():
        work = folder.with_name(f"{state}.{os.getpid()}")
        for command in (["-S", SOURCES, "-B", work], ["--build", work]):
            done = subprocess.run(["cmake", *map(str, command)], capture_output=True, text=True)
            assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
        try:
            work.rename(folder)
        except OSError:  # another process was first
            shutil.rmtree(work)
    return built


def run(
    op: str,
    inputs: list[np.ndarray[Any, Any] | None],
    outputs: list[str],
    threads: int = 1,
    **attributes: Any,
) -> list[np.ndarray[Any, Any]]:
    """The outputs of one node clue.`op` in ONNX Runtime; an output named "" is left out."""
    names = ["" if value is None else f"i{number}" for number, value in enumerate(inputs)]
    given = {name: value for name, value in zip(names, inputs, strict=True) if value is not None}
    node = helper.make_node(op, names, outputs, domain="clue", **attributes)
    graph = helper.make_graph(
        [node],
        "one",
        [helper.make_tensor_value_info(n, onnx.TensorProto.FLOAT, list(v.shape)) for n, v in given.items()],
        [helper.make_tensor_value_info(n, onnx.TensorProto.FLOAT, None) for n in outputs if n],
    )
    versions = [helper.make_opsetid("", 20), helper.make_opsetid("clue", onnx_kernels.VERSION)]
    model = helper.make_model(graph, opset_imports=versions, ir_version=9)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 4
    options.register_custom_ops_library(str(library()))
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    return list(session.run(None, given))
