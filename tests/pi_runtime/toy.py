"""A real, tiny bundle for the tests: a linear classifier of 1x4x4 images and a method that nobody knows.

The method ("push") takes signed gradient steps away from the label with a decaying carry, kept near a noisy
teacher's predictions. It uses every feature of the plan: a cache, all three distributions, values that start
from weights, a file, another value and a random stream, resets, a repeat, nested batches, a bind and a stop.
`toy_numpy.Reference` is the same method in numpy.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from safetensors.numpy import save_file
from toy_numpy import (
    BATCH,
    FROZEN,
    IMPORTANCE,
    PIXELS,
    SCALARS,
    SIZE,
    Floats,
    K,
    logits,
    note,
    params,
    shrink,
    step,
)
from toy_numpy import Reference as Reference  # for the tests that import the toy
from toy_numpy import images as images

from pi_runtime import rng

CLASSES = ("cat", "dog", "10")
GOLDEN_SEED = 7


# --- the same programs as ONNX


class Graph:
    """Collects nodes; each call adds one and returns its output's name."""

    def __init__(self) -> None:
        self.nodes: list[Any] = []
        self.constants: list[Any] = []

    def constant(self, value: Any, dtype: Any = np.float32) -> str:
        name = f"constant{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.array(value, dtype), name))
        return name

    def __call__(self, op: str, *inputs: str, out: str | None = None, **attributes: Any) -> str:
        name = out or f"node{len(self.nodes)}"
        self.nodes.append(helper.make_node(op, list(inputs), [name], **attributes))
        return name

    def logits(self, x: str, batch: int, out: str | None = None) -> str:
        start, cut, end = (self.constant([i], np.int64) for i in (0, PIXELS * K, SIZE))
        w = self("Reshape", self("Slice", "params", start, cut), self.constant([PIXELS, K], np.int64))
        b = self("Slice", "params", cut, end)
        flat = self("Reshape", x, self.constant([batch, PIXELS], np.int64))
        return self("Mul", self("Add", self("MatMul", flat, w), b), "frozen", out=out)

    def save(self, path: Path, ports: dict[str, Any]) -> None:
        inputs, outputs = (
            [helper.make_tensor_value_info(p["name"], TensorProto.FLOAT, p["shape"]) for p in ports[kind]]
            for kind in ("inputs", "outputs")
        )
        graph = helper.make_graph(self.nodes, path.stem, inputs, outputs, self.constants)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
        onnx.checker.check_model(model)
        path.parent.mkdir(parents=True, exist_ok=True)
        onnx.save(model, path)


def predict_graph(batch: int) -> Graph:
    graph = Graph()
    graph.logits("x", batch, out="logits")
    return graph


def note_graph() -> Graph:
    graph = Graph()
    level = graph("Reshape", "level", graph.constant([BATCH, 1, 1, 1], np.int64))
    noisy = graph("Add", "x", graph("Mul", "noise", level))
    graph("Softmax", graph.logits(noisy, BATCH), out="teach_new", axis=1)
    return graph


def step_graph() -> Graph:
    g = Graph()
    flat = g("Reshape", "x", g.constant([BATCH, PIXELS], np.int64))
    probability = g("Softmax", g.logits("x", BATCH), axis=1)

    def gradient(error: str) -> str:
        w = g("Reshape", g("MatMul", g("Transpose", flat, perm=[1, 0]), error), g.constant([-1], np.int64))
        b = g("ReduceSum", error, g.constant([0], np.int64), keepdims=0)
        return g("Div", g("Concat", w, b, axis=0), g.constant(BATCH))

    push = g("Sign", gradient(g("Sub", probability, "onehot")))
    teacher = g("Mul", g("Add", "teach", "other"), g.constant(0.5))
    pull = gradient(g("Sub", probability, teacher))
    velocity = g("Sub", g("Add", g("Mul", "decay", "velocity"), push), pull, out="velocity_new")
    g("Add", "params", g("Mul", g("Mul", "lr", velocity), "importance"), out="params_new")
    score = g("ReduceSum", g("Mul", g("Log", probability), "onehot"), g.constant([1], np.int64), keepdims=0)
    g("Neg", g("ReduceMean", score, keepdims=0), out="loss")
    return g


def shrink_graph() -> Graph:
    g = Graph()
    g("ReduceMax", g("Abs", "velocity"), out="largest", keepdims=0)
    kick = g("Mul", "kick", g.constant(0.01))
    g("Add", g("Mul", "velocity", g.constant(0.9)), kick, out="velocity_new")
    return g


# --- the manifest


def _port(name: str, role: str, shape: list[int], binds: str | None = None) -> dict[str, Any]:
    port = {"name": name, "role": role, "shape": shape, "dtype": "float32"}
    return port | ({"binds": binds} if binds else {})


def _programs() -> dict[str, Any]:
    frozen, p = _port("frozen", "state", [1], "frozen"), _port("params", "state", [SIZE], "params")
    image = [1, 4, 4]

    def predict(batch: int) -> dict[str, Any]:
        x = _port("x", "batch", [batch, *image], "x")
        return {"batch": batch, "inputs": [p, frozen, x], "outputs": [_port("logits", "result", [batch, K])]}

    x, velocity = _port("x", "batch", [BATCH, *image], "x"), _port("velocity", "carry", [SIZE], "velocity")
    return {
        "predict": predict(BATCH),
        "predict_1": predict(1),
        "note": {
            "batch": BATCH,
            "inputs": [
                p, frozen, x,
                _port("noise", "random", [BATCH, *image], "noise"),
                _port("level", "random", [BATCH], "level"),
            ],
            "outputs": [_port("teach_new", "cache", [BATCH, K], "teach")],
        },
        "step": {
            "batch": BATCH,
            "inputs": [
                p, frozen, velocity, _port("importance", "carry", [SIZE], "importance"), x,
                _port("onehot", "batch", [BATCH, K], "onehot"), _port("teach", "cache", [BATCH, K], "teach"),
                _port("other", "random", [BATCH, K], "other"),
                _port("lr", "scalar", [], "lr"), _port("decay", "scalar", [], "decay"),
            ],
            "outputs": [
                _port("params_new", "state", [SIZE], "params"),
                _port("velocity_new", "carry", [SIZE], "velocity"), _port("loss", "metric", []),
            ],
        },
        "shrink": {
            "batch": 1,
            "inputs": [velocity, _port("kick", "carry", [SIZE], "kick")],
            "outputs": [_port("velocity_new", "carry", [SIZE], "velocity"), _port("largest", "metric", [])],
        },
    }  # fmt: skip


GRAPHS: dict[str, Callable[[], Graph]] = {
    "predict": lambda: predict_graph(BATCH),
    "predict_1": lambda: predict_graph(1),
    "note": note_graph,
    "step": step_graph,
    "shrink": shrink_graph,
}

PLAN: list[dict[str, Any]] = [
    {
        "loop": "epochs",
        "count": "epochs",
        "body": [
            {"phase": "teach", "body": [
                {"loop": "batches", "size": 4, "order": "stored", "augment": "crop_flip",
                 "body": [{"run": "note"}]},
            ]},
            {"phase": "learn", "body": [
                {"reset": ["kick"]},
                {"loop": "batches", "size": 8, "augment": "crop_flip", "body": [
                    {"loop": "batches", "size": 4, "body": [
                        {"loop": "repeat", "count": "inner", "body": [{"run": "step"}]},
                    ]},
                    {"run": "shrink"},
                    {"stop": {"program": "predict", "every": "check_every", "samples": 7,
                              "accuracy_at_most": "stop_at"}},
                ]},
            ]},
        ],
    },
    {"phase": "finish", "body": [
        {"loop": "batches", "size": 4, "body": [{"run": "step", "bind": {"lr": "lr_last"}}]},
    ]},
]  # fmt: skip


def _golden(name: str, program: dict[str, Any], file: Path) -> dict[str, Any]:
    """Draws for the inputs, and the outputs of the numpy programs on them."""
    draws: dict[str, list[dict[str, Any]]] = {}
    arrays: list[Any] = []
    stored: dict[str, Floats] = {}
    for number, port in enumerate(program["inputs"]):
        length = int(np.prod(port["shape"]))
        place = (GOLDEN_SEED, 8, number, [0], (length,))
        if port["name"] in ("onehot", "teach", "other"):
            draws[port["name"]] = [{"length": length, "distribution": "cycle", "a": K}]
            flat = np.tile(np.eye(K, dtype=np.float32), (2, 1))[: length // K].reshape(-1)
        elif port["name"] == "x":
            draws["x"] = [{"length": length, "distribution": "uniform", "a": 0.25, "b": 0.75}]
            flat = rng.uniform(*place, 0.25, 0.75)[0]
        elif port["name"] == "importance":
            draws["importance"] = [{"length": length, "distribution": "bernoulli", "a": 0.5}]
            flat = (rng.uniform(*place, 0, 1)[0] < 0.5).astype(np.float32)
        elif port["name"] == "frozen":
            draws["frozen"] = [{"length": 1, "distribution": "stored"}]
            flat = stored["input.frozen"] = FROZEN
        elif port["shape"] == []:
            draws[port["name"]] = [{"length": 1, "distribution": "constant", "a": 0.125}]
            flat = np.array([0.125], np.float32)
        else:
            half = length // 2
            sizes = [(half, 0.0, 0.5), (length - half, 0.25, 1.5)]
            draws[port["name"]] = [
                {"length": size, "distribution": "normal", "a": a, "b": b} for size, a, b in sizes
            ]
            parts = [
                a + b * rng.normal(GOLDEN_SEED, 8, number, [i], (size,))[0].astype(np.float64)
                for i, (size, a, b) in enumerate(sizes)
            ]
            flat = np.concatenate(parts).astype(np.float32)
        arrays.append(flat.reshape(port["shape"]))
    functions = {"predict": logits, "predict_1": logits, "note": note, "step": step, "shrink": shrink}
    results = functions[name](*arrays)
    results = results if isinstance(results, tuple) else (results,)
    outputs = {}
    for port, result in zip(program["outputs"], results, strict=True):
        stride = 3 if port["shape"] == [SIZE] else 1
        outputs[port["name"]] = {"stride": stride, "tolerance": 1e-4}
        stored[port["name"]] = np.ascontiguousarray(np.asarray(result, np.float32).reshape(-1)[::stride])
    file.parent.mkdir(parents=True, exist_ok=True)
    save_file(stored, file)
    return {"inputs": draws, "outputs": outputs}


def manifest() -> dict[str, Any]:
    """The manifest without its files and golden entries, which `build` fills in."""
    state = {"role": "state", "storage": "float32"}
    carry = {"role": "carry", "storage": "float32", "shape": [SIZE]}
    return {
        "schema_version": 1,
        "name": "toy",
        "created": "2025-01-01T00:00:00Z",
        "target": "pi5",
        "versions": {"onnx": onnx.__version__},
        "model": {"name": "linear", "classes": list(CLASSES), "parameters": SIZE},
        "input": {"shape": [1, 4, 4], "layout": "NCHW", "range": [0, 1], "color": "L"},
        "preprocessing": {"mean": [0.0], "std": [1.0], "inside_programs": True},
        "method": {
            "name": "push",
            "needs_retain": False,
            "batch": BATCH,
            "tuned_batch": BATCH,
            "hyperparameters": {},
            "scalars": dict(SCALARS),
            "verify": {"forget_accuracy_at_most": 25, "sample_accuracy_at_most": 75},
        },
        "state": [
            {"name": "linear.weight", "shape": [PIXELS, K], "value": "params", "offset": 0,
             "kind": "parameter", "trainable": True},
            {"name": "linear.bias", "shape": [K], "value": "params", "offset": PIXELS * K,
             "kind": "parameter", "trainable": True},
            {"name": "scale", "shape": [1], "value": "frozen", "offset": 0, "kind": "parameter",
             "trainable": False},
        ],
        "values": {
            "params": state | {"shape": [SIZE], "init": {"weights": "params"}},
            "frozen": state | {"shape": [1], "init": {"weights": "frozen"}},
            "importance": carry | {"init": {"file": "extra/importance.safetensors", "key": "importance"}},
            "velocity": carry | {"init": {"zeros": True}},
            "kick": carry | {"init": {"random": "kick"}},
            "origin": carry | {"init": {"value": "params"}},
            "teach": {"role": "cache", "shape": [K], "init": {"zeros": True}, "storage": "float32"},
        },
        "randoms": {
            "noise": {"stream": 16, "distribution": "normal", "shape": [1, 4, 4]},
            "level": {"stream": 17, "distribution": "uniform", "shape": [], "low": 0.1, "high": 0.3},
            "other": {"stream": 18, "distribution": "onehot", "shape": [K], "classes": K},
            "kick": {"stream": 19, "distribution": "normal", "shape": [SIZE]},
        },
        "programs": _programs(),
        "plan": json.loads(json.dumps(PLAN)),
        "license": "Apache-2.0",
        "notices": ["a toy"],
    }  # fmt: skip


def _entry(root: Path, path: Path) -> dict[str, Any]:
    content = path.read_bytes()
    digest = hashlib.sha256(content).hexdigest()
    return {"file": str(path.relative_to(root)), "sha256": digest, "bytes": len(content)}


def seal(root: Path, content: dict[str, Any]) -> None:
    """Write the manifest and its hash."""
    text = json.dumps(content)
    (root / "manifest.json").write_text(text)
    digest = hashlib.sha256(text.encode()).hexdigest()
    (root / "manifest.sha256").write_text(f"{digest}  manifest.json\n")


def edit(root: Path, change: Callable[[dict[str, Any]], object]) -> Path:
    """Change the manifest of a built bundle and seal it again."""
    content = json.loads((root / "manifest.json").read_text())
    change(content)
    seal(root, content)
    return root


def build(root: Path) -> Path:
    """Write the bundle into the new folder `root`."""
    content = manifest()
    root.mkdir(parents=True)
    for name, program in content["programs"].items():
        path = root / "programs" / "onnx" / f"{name}.onnx"
        GRAPHS[name]().save(path, program)
        golden = root / "golden" / f"{name}.safetensors"
        parts = _golden(name, program, golden)
        entry = _entry(root, golden)
        program |= {
            "flops": 100,
            "peak_bytes": 1000,
            "files": {"onnx": _entry(root, path)},
            "golden": {
                "file": entry["file"],
                "sha256": entry["sha256"],
                "seed": GOLDEN_SEED,
                **parts,
            },
        }
    # "spare" is in no value: it must survive a request unchanged.
    save_file({"params": params(), "frozen": FROZEN, "spare": IMPORTANCE}, root / "weights.safetensors")
    (root / "extra").mkdir()
    save_file({"importance": IMPORTANCE}, root / "extra" / "importance.safetensors")
    (root / "README.md").write_text("a toy bundle\n")
    content["weights"] = _entry(root, root / "weights.safetensors")
    content["files"] = [_entry(root, path) for path in sorted(root.rglob("*")) if path.is_file()]
    seal(root, content)
    return root
