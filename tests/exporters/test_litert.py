from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from litert_case import TENSOR_TYPES, convert, draw, operators, program, read, run, traced
from torch import Tensor
from torch.nn import functional as F

import exporters
from clue_mobile import methods, models, programs
from clue_mobile.errors import ClueError
from clue_mobile.flat import FlatModel
from clue_mobile.programs import trace
from exporters import litert, litert_ops

aten = torch.ops.aten
ALL = ["mask", "predict", "predict_1", "saliency", "step", "teacher"]


@pytest.fixture(scope="module")
def digits() -> tuple[FlatModel, list[programs.Traced], bytes]:
    spec = models.resolve_spec("digits_cnn")
    model = FlatModel(models.load(spec, None, seed=0), spec)
    recipe = programs.build(model, "clue", methods.configure("clue", {}), 8)
    all_traced = programs.trace_all(recipe.programs, overrides=litert.OVERRIDES)
    return model, all_traced, convert(*all_traced)


# the file


def test_one_file_with_a_signature_for_each_program(digits: tuple[Any, list[programs.Traced], bytes]) -> None:
    _, all_traced, data = digits
    model = read(data)
    signatures = {s.signatureKey.decode(): s for s in model.signatureDefs}
    assert sorted(signatures) == ALL
    assert len(model.subgraphs) == len(ALL)
    for t in all_traced:
        signature = signatures[t.program.name]
        graph = model.subgraphs[signature.subgraphIndex]
        for maps, ports, tensors in (
            (signature.inputs, t.program.inputs, graph.inputs),
            (signature.outputs, t.program.outputs, graph.outputs),
        ):
            assert [m.name.decode() for m in maps] == [p.name for p in ports]
            assert [m.tensorIndex for m in maps] == list(tensors)
            for index, port in zip(tensors, ports, strict=True):
                tensor = graph.tensors[index]
                assert list([] if tensor.shape is None else tensor.shape) == list(port.shape)
                assert TENSOR_TYPES[tensor.type] == "FLOAT32"
                assert tensor.buffer == 0
    # the interpreter prepares the first one whichever runs
    first = next(name for name, s in signatures.items() if s.subgraphIndex == 0)
    assert first == min(all_traced, key=lambda t: t.peak_bytes).program.name


def test_builtin_operators_only_no_variables_no_other_types(digits: tuple[Any, Any, bytes]) -> None:
    data = digits[2]
    model = read(data)
    used = set(operators(data))
    assert not used & {"CUSTOM", "DELEGATE", "VAR_HANDLE", "READ_VARIABLE", "ASSIGN_VARIABLE", "CALL_ONCE"}
    assert not [name for name in used if name.startswith(("STABLEHLO", "PLACEHOLDER"))]
    assert all(not code.customCode for code in model.operatorCodes)
    assert b"Flex" not in data
    types = {TENSOR_TYPES[t.type] for graph in model.subgraphs for t in graph.tensors}
    assert types <= {"FLOAT32", "INT32", "BOOL"}
    assert not [t for graph in model.subgraphs for t in graph.tensors if t.isVariable]
    assert all(len({bytes(t.name) for t in g.tensors}) == len(g.tensors) for g in model.subgraphs)


def test_the_file_holds_constants_of_shapes_and_no_weights(digits: tuple[FlatModel, Any, bytes]) -> None:
    flat, _, data = digits
    sizes = [len(b.data) for b in read(data).buffers if b.data is not None]
    assert max(sizes) < 1024
    assert sum(sizes) < 8192
    content = flat.pack()["params"].numpy().tobytes()
    assert len(set(content[:64])) > 32  # and no zeros, which a file has anyway
    assert all(content[at : at + 64] not in data for at in range(0, len(content), 4096))
    assert b"/" + Path(__file__).name.encode() not in data
    assert b".py" not in data


def test_two_exports_are_equal_byte_for_byte(digits: tuple[Any, list[programs.Traced], bytes]) -> None:
    assert convert(*digits[1]) == digits[2]


def test_every_program_is_eager_pytorchs(digits: tuple[FlatModel, list[programs.Traced], bytes]) -> None:
    from ai_edge_litert.interpreter import Interpreter

    flat, all_traced, data = digits
    interpreter = Interpreter(model_content=data, num_threads=1)
    interpreter.allocate_tensors()
    state = flat.pack()
    for t in all_traced:
        inputs = []
        for number, port in enumerate(t.program.inputs):
            made = torch.rand(port.shape, generator=torch.Generator().manual_seed(number))
            if port.name == "mask":
                made = (made > 0.5).float()
            if port.name == "onehot":
                made = F.one_hot((made[:, 0] * port.shape[1]).long(), port.shape[1]).float()
            inputs.append(state[port.name].clone() if port.name in state else made)
        expected = t.program.fn(*inputs)
        runner = interpreter.get_signature_runner(t.program.name)
        found = runner(**{p.name: v.numpy() for p, v in zip(t.program.inputs, inputs, strict=True)})
        for port, value in zip(t.program.outputs, expected, strict=True):
            scale = float(value.abs().max()) or 1.0
            error = float(np.abs(found[port.name] - value.detach().numpy()).max()) / scale
            assert error < 3e-6, (t.program.name, port.name)


def test_nearly_the_whole_step_is_what_xnnpack_takes(
    digits: tuple[Any, list[programs.Traced], bytes],
) -> None:
    """By the operators' names: XNNPACK has none of those on the right."""
    step = next(t for t in digits[1] if t.program.name == "step")
    names = operators(convert(step))
    left = [n for n in names if n in ("SIGN", "STRIDED_SLICE", "CONV_2D", "TRANSPOSE_CONV", "BROADCAST_TO")]
    assert len(left) <= 4  # of about 290: the first convolution, and the pooled gradient spread out
    assert names.count("TRANSPOSE") <= 12


# one program


def block(x: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    leaf = weight.detach().clone().requires_grad_()
    y = F.avg_pool2d(F.conv2d(x, leaf, padding=1).relu(), 2)
    loss = (y * y).mean()
    (gradient,) = torch.autograd.grad(loss, [leaf])
    return weight - 0.1 * gradient, loss.detach()


def test_an_input_may_be_an_output_and_a_value_two() -> None:
    def fn(x: Tensor, y: Tensor) -> tuple[Tensor, ...]:
        return x, x + y, x + y, y, torch.ones(3), x.reshape(1, 3)

    x, y = draw(3), draw(3) + 1
    found = run(convert(traced(fn, (3,), (3,))), x, y)
    assert all(np.array_equal(a, b.numpy()) for a, b in zip(found, fn(x, y), strict=True))


def test_scalars_go_in_and_out() -> None:
    def fn(x: Tensor, lr: Tensor) -> tuple[Tensor, ...]:
        return x * lr, x.sum() * lr, lr, lr + 1

    x, lr = draw(2, 3), torch.tensor(0.25)
    found = run(convert(traced(fn, (2, 3), ())), x, lr)
    assert [a.shape for a in found] == [(2, 3), (), (), ()]
    for a, b in zip(found, fn(x, lr), strict=True):
        np.testing.assert_allclose(a, b.numpy(), rtol=1e-6)


def test_an_input_that_nothing_reads_stays_a_port() -> None:
    data = convert(traced(lambda x, y: (x + 1,), (2,), (5,)))
    assert np.array_equal(run(data, torch.zeros(2), torch.zeros(5))[0], np.ones(2))


def test_programs_share_constants_and_keep_their_own_names() -> None:
    first = traced(lambda x: (x * 2.5 + 1,), (3,), name="a")
    second = traced(block, (2, 3, 4, 4), (5, 3, 3, 3), name="b")
    data = convert(first, second)
    np.testing.assert_allclose(run(data, torch.ones(3), name="a")[0], np.full(3, 3.5))
    x, weight = draw(2, 3, 4, 4), draw(5, 3, 3, 3)
    for found, expected in zip(run(data, x, weight, name="b"), block(x, weight), strict=True):
        np.testing.assert_allclose(found, expected.numpy(), rtol=1e-5, atol=1e-6)


# what cannot be converted


def test_an_operator_without_a_form_is_named() -> None:
    with pytest.raises(ClueError, match=r"program 'p' cannot become LiteRT: .*digamma"):
        convert(traced(lambda x: (torch.digamma(x),), (3,)))


def test_other_types_are_refused() -> None:
    wide = trace(program(lambda x: (x.double().sum().float(),), (3,)))
    with pytest.raises(ClueError, match=r"program 'p' cannot become LiteRT: values of type torch\.float64"):
        convert(wide)


def test_groups_of_many_channels_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    wide = traced(lambda x, w: (F.conv2d(x, w, groups=65),), (1, 130, 1, 1), (130, 2, 1, 1))
    with pytest.raises(ClueError, match="convolution with 65 groups"):
        convert(wide)


# the registry


def test_the_registry() -> None:
    assert exporters.get("litert") is litert
    assert set(litert.versions()) == {"ai-edge-litert", "flatbuffers"}
    assert all(version[0].isdigit() for version in litert.versions().values())
    assert all(op.name().startswith("aten::") for op in litert_ops.TABLE)


@pytest.mark.parametrize("package", ["ai_edge_litert", "flatbuffers"])
def test_a_missing_package_is_named_with_the_extra(monkeypatch: pytest.MonkeyPatch, package: str) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    monkeypatch.delitem(sys.modules, "exporters.litert")
    monkeypatch.delitem(sys.modules, "exporters.litert_graph")
    monkeypatch.setattr(exporters, "litert", litert)
    with pytest.raises(ClueError, match=r"ai-edge-litert: pip install 'clue-mobile\[litert\]'"):
        exporters.get("litert")
    monkeypatch.undo()
    assert importlib.import_module("exporters.litert") is litert
