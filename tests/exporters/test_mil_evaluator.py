"""The evaluator refuses what it does not know: agreement with it then means something."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from coreml_case import convert_one, draw, run, traced
from mil_evaluator import Package
from mil_operators import OPERATORS, RefusedError
from torch import Tensor

MODEL = "Data/com.apple.CoreML/model.mlmodel"


def example(x: Tensor, y: Tensor) -> tuple[Tensor, ...]:
    return torch.tanh(x @ y) * torch.linspace(0, 1, 12).reshape(3, 4), x.sum(1)


INPUTS = draw(3, 2), draw(2, 4)


def changed(tmp_path: Path, change: Callable[[Any, list[Any]], None]) -> Package:
    """The example's package after `change(spec, operations)`."""
    package = convert_one(traced(example, *INPUTS), tmp_path)
    change(package.spec, package.operations())
    return package


def _operator(kind: str) -> Callable[[list[Any]], Any]:
    return lambda operations: next(each for each in operations if each.type == kind)


tanh, matmul = _operator("tanh"), _operator("matmul")


def rename(spec: Any, operations: list[Any]) -> None:
    tanh(operations).type = "tan"


def another_parameter(spec: Any, operations: list[Any]) -> None:
    tanh(operations).inputs["alpha"].CopyFrom(tanh(operations).inputs["x"])


def a_parameter_less(spec: Any, operations: list[Any]) -> None:
    del matmul(operations).inputs["transpose_y"]


def another_attribute(spec: Any, operations: list[Any]) -> None:
    tanh(operations).attributes["mode"].CopyFrom(tanh(operations).attributes["name"])


def another_shape(spec: Any, operations: list[Any]) -> None:
    tanh(operations).outputs[0].type.tensorType.dimensions[0].constant.size = 5


def another_type(spec: Any, operations: list[Any]) -> None:
    from coremltools.proto import MIL_pb2

    tanh(operations).outputs[0].type.tensorType.dataType = MIL_pb2.INT32


def a_name_twice(spec: Any, operations: list[Any]) -> None:
    tanh(operations).outputs[0].name = matmul(operations).outputs[0].name


def another_output(spec: Any, operations: list[Any]) -> None:
    spec.description.output[0].name = "logits"


def another_output_shape(spec: Any, operations: list[Any]) -> None:
    spec.description.output[0].type.multiArrayType.shape[0] = 4


def another_input_shape(spec: Any, operations: list[Any]) -> None:
    spec.description.input[0].type.multiArrayType.shape[0] = 4


CHANGES = (
    rename, another_parameter, a_parameter_less, another_attribute, another_shape, another_type, a_name_twice,
    another_output, another_output_shape, another_input_shape,
)  # fmt: skip


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
def test_what_is_unknown_or_does_not_fit_is_refused(
    change: Callable[[Any, list[Any]], None], tmp_path: Path
) -> None:
    with pytest.raises(RefusedError):
        run(changed(tmp_path, change), INPUTS)


def test_an_unchanged_program_runs(tmp_path: Path) -> None:
    found = run(changed(tmp_path, lambda spec, operations: None), INPUTS)
    for one, other in zip(found, example(*INPUTS), strict=True):
        np.testing.assert_allclose(one, other.numpy(), rtol=1e-5, atol=1e-6)


def test_inputs_must_be_those_described(tmp_path: Path) -> None:
    package = changed(tmp_path, lambda spec, operations: None)
    x, y = (each.numpy() for each in INPUTS)
    for inputs in (
        {"in0": x},
        {"in0": x, "in1": y, "in2": y},
        {"in0": x.T, "in1": y},
        {"in0": x > 0, "in1": y},
    ):
        with pytest.raises(RefusedError):
            package.run(inputs)


def test_constants_come_from_the_blob_file(tmp_path: Path) -> None:
    convert_one(traced(example, *INPUTS), tmp_path)
    path = tmp_path / "p.mlpackage" / "Data" / "com.apple.CoreML" / "weights" / "weight.bin"
    blob = path.read_bytes()
    place = blob.index(torch.linspace(0, 1, 12)[-4:].numpy().tobytes())
    path.write_bytes(blob[:place] + bytes(16) + blob[place + 16 :])
    assert not run(Package(tmp_path / "p.mlpackage"), INPUTS)[0][2].any()  # the last row is times 0 now
    path.write_bytes(blob.replace((0xDEADBEEF).to_bytes(4, "little"), bytes(4)))
    with pytest.raises(RefusedError, match="a blob of kind"):
        run(Package(tmp_path / "p.mlpackage"), INPUTS)


def test_a_package_lists_its_files(tmp_path: Path) -> None:
    convert_one(traced(example, *INPUTS), tmp_path)
    folder = tmp_path / "p.mlpackage"
    (folder / "Data" / "more").write_bytes(b"")
    with pytest.raises(RefusedError, match="files not listed"):
        Package(folder)
    (folder / "Data" / "more").unlink()
    manifest = json.loads((folder / "Manifest.json").read_text(encoding="utf-8"))
    manifest["fileFormatVersion"] = "2.0.0"
    (folder / "Manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
    with pytest.raises(RefusedError, match="format"):
        Package(folder)


ONE, TWO = np.ones((1, 2, 4, 4), np.float32), np.ones((2, 2, 3, 3), np.float32)
POOL = {
    "x": ONE, "kernel_sizes": np.array([2, 2]), "strides": np.array([2, 2]), "pad_type": "custom",
    "pad": np.array([0, 0, 0, 0]), "ceil_mode": False,
}  # fmt: skip
CONV = {
    "x": ONE, "weight": TWO, "strides": np.array([1, 1]), "pad_type": "custom", "pad": np.array([1, 1, 1, 1]),
    "dilations": np.array([1, 1]), "groups": np.int32(1),
}  # fmt: skip
PAD = {"x": ONE, "pad": np.array([1, 0]), "mode": "constant", "constant_val": 0.0}
SLICE = {"x": ONE[0, 0], "begin": np.array([0, 1]), "end": np.array([2, 4]), "stride": np.array([1, 2])}


@pytest.mark.parametrize(
    ("name", "given", "wrong"),
    [
        ("conv", CONV, {"dilations": np.array([2, 1])}),  # of weights that are no constants
        ("conv", CONV, {"pad_type": "same"}),
        ("max_pool", POOL, {"ceil_mode": True}),
        ("max_pool", POOL, {"pad": np.array([0, 0, -1, 0])}),
        ("slice_by_index", SLICE, {"begin": np.array([-1, 0])}),
        ("slice_by_index", SLICE, {"end": np.array([2, 5])}),
        ("slice_by_index", SLICE, {"stride": np.array([1, -1])}),
        ("add", {"x": ONE, "y": ONE}, {"y": ONE.astype(np.int32)}),
        ("add", {"x": ONE, "y": ONE}, {"x": ONE > 0, "y": ONE > 0}),
        ("select", {"cond": ONE > 0, "a": ONE, "b": ONE}, {"cond": ONE}),
        ("gather", {"x": ONE, "indices": np.array([1]), "axis": 1}, {"indices": np.array([2])}),
        ("gelu", {"x": ONE, "mode": "EXACT"}, {"mode": "SIGMOID_APPROXIMATION"}),
        ("cast", {"x": ONE, "dtype": "fp16"}, {"dtype": "int64"}),
        ("reshape", {"x": ONE, "shape": np.array([4, 8])}, {"shape": np.array([4, -1])}),
        ("reduce_sum", {"x": ONE, "axes": np.array([1]), "keep_dims": False}, {"axes": np.array([1, -3])}),
        ("pad", PAD, {"mode": "reflect"}),
        ("tile", {"x": ONE[0, 0], "reps": np.array([1, 2])}, {"reps": np.array([2])}),
        ("transpose", {"x": ONE[0, 0], "perm": np.array([1, 0])}, {"perm": np.array([1, 1])}),
    ],
)  # fmt: skip
def test_an_operator_is_used_as_documented(name: str, given: dict[str, Any], wrong: dict[str, Any]) -> None:
    OPERATORS[name](**given)
    with pytest.raises(RefusedError):
        OPERATORS[name](**{**given, **wrong})


def test_padding_of_pools() -> None:
    x = -np.ones((1, 1, 2, 2), np.float32)
    given = {**POOL, "x": x, "pad": np.array([1, 1, 1, 1])}
    assert (OPERATORS["max_pool"](**given) == -1).all()  # padding is no candidate
    averages = [OPERATORS["avg_pool"](**given, exclude_padding_from_average=e) for e in (False, True)]
    assert [set(a.ravel().tolist()) for a in averages] == [{-0.25}, {-1.0}]
