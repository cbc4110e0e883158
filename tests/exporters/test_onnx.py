from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

import exporters
from clue_mobile.errors import ClueError
from clue_mobile.plan import Port, Program
from clue_mobile.programs import Traced, trace
from exporters import base, onnx_external, onnx_in_place, onnx_ops
from exporters import onnx as exporter

aten = torch.ops.aten


def traced(fn: Callable[..., tuple[Tensor, ...]], *shapes: Sequence[int]) -> Traced:
    """`fn` as a program of carries."""
    examples = [torch.full(tuple(shape), 0.5) for shape in shapes]
    inputs = tuple(Port(f"in{i}", "carry", tuple(t.shape), "v") for i, t in enumerate(examples))
    outputs = tuple(Port(f"out{i}", "carry", tuple(t.shape), "v") for i, t in enumerate(fn(*examples)))
    return trace(Program("p", 1, inputs, outputs, fn))


def run(data: bytes, *inputs: Tensor) -> list[np.ndarray[Any, Any]]:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(data, options, ["CPUExecutionProvider"])
    names = [port.name for port in session.get_inputs()]
    return list(session.run(None, {n: t.numpy() for n, t in zip(names, inputs, strict=True)}))


def model_bytes(program: Traced) -> bytes:
    (data,) = exporter.convert_program(program).values()
    return data


def draw(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


def assert_clean(model: onnx.ModelProto) -> None:
    """Standard operators of one opset, and nothing that tells where it was made."""
    assert [(opset.domain, opset.version) for opset in model.opset_import] == [("", exporter.OPSET)]
    assert {node.domain for node in model.graph.node} == {""}
    assert not model.functions
    assert model.producer_name == "clue-mobile"
    assert {entry.key for entry in model.metadata_props} <= {onnx_in_place.KEY}
    assert not model.doc_string
    for thing in (*model.graph.node, *model.graph.input, *model.graph.output, *model.graph.initializer):
        assert not thing.metadata_props, thing.name
        assert not thing.doc_string, thing.name
    assert b".py" not in model.SerializeToString()


# what a bundle holds


def test_the_programs_of_a_bundle(digits_bundle: Path) -> None:
    paths = sorted((digits_bundle / "programs" / "onnx").iterdir())
    assert [path.stem for path in paths] == ["mask", "predict", "predict_1", "saliency", "step", "teacher"]
    for path in paths:
        model = onnx.load(path)
        onnx.checker.check_model(model, full_check=True)
        assert_clean(model)
        constants = sum(len(tensor.SerializeToString()) for tensor in model.graph.initializer)
        assert constants < 4096, path.name  # shapes, and little else
        names = [tensor.name for tensor in model.graph.initializer]
        assert len(set(names)) == len(names)
    step = onnx.load(digits_bundle / "programs" / "onnx" / "step.onnx").graph
    assert [port.name for port in step.input] == [
        "params", "buffers", "momentum", "mask", "x", "teacher", "lr",
    ]  # fmt: skip
    assert [port.name for port in step.output] == ["params_next", "momentum_next", "energy", "kl"]


# one program


def block(x: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    leaf = weight.detach().clone().requires_grad_()
    y = F.avg_pool2d(F.conv2d(x, leaf, padding=1).relu(), 2)
    loss = (y * y).mean()
    (gradient,) = torch.autograd.grad(loss, [leaf])
    return weight - 0.1 * gradient, loss.detach()


def test_numbers() -> None:
    x, weight = draw(2, 3, 4, 4), draw(5, 3, 3, 3)
    data = model_bytes(traced(block, x.shape, weight.shape))
    for found, expected in zip(run(data, x, weight), block(x, weight), strict=True):
        np.testing.assert_allclose(found, expected.numpy(), rtol=1e-5, atol=1e-6)


def test_two_exports_are_equal_byte_for_byte() -> None:
    shapes = (2, 3, 4, 4), (5, 3, 3, 3)
    assert model_bytes(traced(block, *shapes)) == model_bytes(traced(block, *shapes))


def test_an_input_may_be_an_output_and_a_value_two(caplog: pytest.LogCaptureFixture) -> None:
    def fn(x: Tensor, y: Tensor) -> tuple[Tensor, ...]:
        return x, x + y, x + y, y, torch.ones(3)

    x, y = draw(3), draw(3) + 1
    data = model_bytes(traced(fn, (3,), (3,)))
    assert not caplog.records  # a warning of a library would reach the user's terminal
    names = [port.name for port in onnx.load_from_string(data).graph.output]
    assert names == ["out0", "out1", "out2", "out3", "out4"]
    assert all(np.array_equal(a, b.numpy()) for a, b in zip(run(data, x, y), fn(x, y), strict=True))


def test_a_port_may_be_called_like_an_inner_value() -> None:
    ports = tuple(Port(name, "carry", (3,), "v") for name in ("v0", "c0", "v1", "mul"))
    program = Program("p", 1, ports[:2], ports[2:], lambda x, y: (x * 2 + y, x * 3))
    x, y = draw(3), draw(3) + 1
    sums, products = run(model_bytes(trace(program)), x, y)
    assert np.array_equal(sums, (2 * x + y).numpy())
    assert np.array_equal(products, (3 * x).numpy())


def test_what_is_not_needed_is_dropped() -> None:
    def fn(x: Tensor, y: Tensor) -> tuple[Tensor, ...]:
        x.exp()
        return ((x.reshape(6) * 2).reshape(2, 3) + (x.reshape(6) * 2).reshape(2, 3),)

    model = onnx.load_from_string(model_bytes(traced(fn, (2, 3), (4,))))
    operators = [node.op_type for node in model.graph.node]
    assert "Exp" not in operators
    assert operators.count("Mul") == 1
    assert "Identity" not in operators
    assert [port.name for port in model.graph.input] == ["in0", "in1"]  # a port stays, used or not


# operators that the table lacks


def test_pytorchs_exporter_takes_the_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    def fn(x: Tensor) -> tuple[Tensor, ...]:
        y = F.hardswish(3 * x)
        return y, x.asinh(), x, y

    for op in (aten.hardswish.default, aten.asinh.default):
        monkeypatch.delitem(onnx_ops.TABLE, op, raising=False)
    program = traced(fn, (3, 4))
    asked: list[str] = []
    by_pytorch = exporter._by_pytorch
    monkeypatch.setattr(
        exporter, "_by_pytorch", lambda *args: (asked.append(args[0].program.name), by_pytorch(*args))[1]
    )
    data = model_bytes(program)
    assert model_bytes(program) == data
    asked.pop()
    assert asked == ["p"]
    model = onnx.load_from_string(data)
    assert_clean(model)
    assert [port.name for port in model.graph.input] == ["in0"]
    assert [port.name for port in model.graph.output] == ["out0", "out1", "out2", "out3"]
    x = draw(3, 4)
    for found, expected in zip(run(data, x), fn(x), strict=True):
        np.testing.assert_allclose(found, expected.numpy(), rtol=1e-5, atol=1e-6)


def test_an_operator_that_neither_knows_is_named() -> None:
    with pytest.raises(ClueError, match=r"program 'p' cannot become ONNX: .*digamma"):
        model_bytes(traced(lambda x: (torch.digamma(x),), (3,)))


def test_operators_outside_the_standard_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    program = traced(lambda x: (x + 1,), (3,))
    tidy = exporter._tidy

    def foreign(model: Any) -> Any:
        model = tidy(model)
        model.opset_imports["com.example"] = 1
        return model

    monkeypatch.setattr(exporter, "_tidy", foreign)
    with pytest.raises(ClueError, match=r"operators outside the ONNX standard: \['com.example'\]"):
        model_bytes(program)


# the registry of exporters


def test_the_registry() -> None:
    assert exporters.get("onnx") is exporter
    assert exporter.versions() == {
        "onnx": onnx.__version__,
        "onnxscript": sys.modules["onnxscript"].__version__,
        "opset": "20",
    }
    with pytest.raises(ClueError, match="unknown runtime 'onxx': did you mean 'onnx'"):
        exporters.get("onxx")


@pytest.mark.parametrize("package", ["onnx", "onnxscript"])
def test_a_missing_package_is_named_with_the_extra(monkeypatch: pytest.MonkeyPatch, package: str) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    monkeypatch.delitem(sys.modules, "exporters.onnx")
    # the attribute of the package would be put back to the module of the failed import otherwise
    monkeypatch.setattr(exporters, "onnx", exporter)
    with pytest.raises(ClueError, match=r"onnx and onnxscript: pip install 'clue-mobile\[export\]'"):
        exporters.get("onnx")
    monkeypatch.undo()
    assert importlib.import_module("exporters.onnx") is exporter


def test_one_file_a_program() -> None:
    program = traced(lambda x, y: (x + y,), (2,), (2,))
    assert base.tensor_names(program) == (["in0", "in1"], ["out0"])
    told: list[str] = []
    converted = exporter.convert([program], None, told.append)  # type: ignore[arg-type]
    assert told == ["p"]
    assert converted.programs == {"p": "p.onnx"}
    assert converted.files == {"p.onnx": model_bytes(program)}


def test_constants_above_the_limit_go_into_a_file_of_their_own(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    table, small = draw(40, 50), draw(50)
    program = traced(lambda x: (x @ table + small,), (3, 40))
    whole = run(model_bytes(program), draw(3, 40))
    monkeypatch.setattr(onnx_external, "LIMIT", 8000)  # bytes: the table alone has as many
    converted = exporter.convert([program], None, lambda name: None)  # type: ignore[arg-type]
    assert set(converted.files) == {"p.onnx", "p.onnx.data"}
    assert len(converted.files["p.onnx.data"]) == 8000
    assert len(converted.files["p.onnx"]) < 2000
    for name, data in converted.files.items():
        (tmp_path / name).write_bytes(data)
    session = onnxruntime.InferenceSession(tmp_path / "p.onnx", providers=["CPUExecutionProvider"])
    np.testing.assert_array_equal(session.run(None, {"in0": draw(3, 40).numpy()})[0], whole[0])
    with pytest.raises(onnx.checker.ValidationError, match=r"p\.onnx\.data"):
        onnx_external.check(onnx.load_from_string(converted.files["p.onnx"]), "other.data", b"")
