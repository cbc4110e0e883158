from __future__ import annotations

import importlib
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
import torch
from executorch.runtime import Runtime
from executorch_case import close, convert, draw, run, traced
from torch import Tensor
from torch.nn import functional as F

import exporters
from clue_mobile import engines, methods, programs
from clue_mobile.errors import ClueError
from clue_mobile.flat import FlatModel
from clue_mobile.lowering import refusal
from exporters import executorch as exporter
from exporters import executorch_pieces as pieces
from exporters.base import Source
from exporters.executorch_program import assemble

ROOT = Path(__file__).resolve().parents[2]
WHOLE = {"delegated_flops": 1.0, "partitions": 1, "portable": {}}


def mixed(x: Tensor) -> tuple[Tensor, ...]:
    """The delegate has no asinh."""
    return ((x @ x.t()).asinh().relu() @ x + x.sum(),)


# a file


def test_one_file_has_all_programs_as_methods() -> None:
    first = traced(lambda x, y: (x + y, x * y), (3,), (3,), name="first")
    second = traced(lambda x: (x.exp(),), (4, 5), name="second")
    told: list[str] = []
    converted = exporter.convert([first, second], None, told.append)  # type: ignore[arg-type]
    assert told == ["first", "second"]
    assert list(converted.files) == ["programs.pte"]
    assert converted.programs == {"first": "programs.pte", "second": "programs.pte"}
    assert converted.reports == {"first": WHOLE, "second": WHOLE}
    assert converted.notes == ()
    x, y = draw(3), draw(3, seed=1)
    close(run(converted, "first", x, y), (x + y, x * y))
    close(run(converted, "second", draw(4, 5)), (draw(4, 5).exp(),))


def test_an_input_may_be_an_output_and_a_value_two() -> None:
    def fn(x: Tensor, y: Tensor) -> tuple[Tensor, ...]:
        return x, x + y, x + y, y, torch.ones(3), (x + y).reshape(3, 1)

    x, y = draw(3), draw(3, seed=1)
    close(run(convert(traced(fn, (3,), (3,))), "p", x, y), fn(x, y), 0)


def test_an_input_that_is_not_used_stays() -> None:
    x, y = draw(3), draw(3, seed=1)
    close(run(convert(traced(lambda x, y: (y * 2,), (3,), (3,))), "p", x, y), (y * 2,), 0)


def test_scalars() -> None:
    def fn(w: Tensor, lr: Tensor) -> tuple[Tensor, ...]:
        return w - lr * w, (lr * 2).reshape(()), w.abs().mean()

    w, lr = draw(7), torch.tensor(0.25)
    close(run(convert(traced(fn, (7,), ())), "p", w, lr), fn(w, lr))


def test_two_exports_are_equal_byte_for_byte() -> None:
    def fn(x: Tensor) -> tuple[Tensor, ...]:
        return (F.softmax(x, 1) * 3, x.sum())

    assert convert(traced(fn, (3, 4))).files == convert(traced(fn, (3, 4))).files


def test_nothing_tells_where_it_was_made() -> None:
    (data,) = convert(traced(mixed, (3, 4))).files.values()
    assert b".py" not in data
    assert str(ROOT).encode() not in data


def test_a_constant_may_be_read_twice_by_kernels() -> None:
    def fn(x: Tensor) -> tuple[Tensor, ...]:
        return torch.fmod(x, torch.tensor([0.5, 0.4, 0.3, 0.2])), torch.atan2(
            x, torch.tensor([0.5, 0.4, 0.3, 0.2])
        )

    graph_module = traced(fn, (3, 4)).graph
    constant = next(n for n in graph_module.graph.nodes if n.op == "get_attr")
    with graph_module.graph.inserting_before(constant):
        twin = graph_module.graph.get_attr(str(constant.target))
    twin.meta = constant.meta
    next(iter(constant.users)).replace_input_with(constant, twin)
    file = assemble({"p": (graph_module, pieces.split(graph_module))})
    found = Runtime.get().load_program(file.buffer).load_method("p").execute([draw(3, 4)])
    close(found, fn(draw(3, 4)), 1e-6)


# what the delegate does not take


def test_the_rest_runs_on_portable_kernels_and_is_told() -> None:
    converted = convert(traced(mixed, (30, 40)))
    report = converted.reports["p"]
    assert report["partitions"] == 2
    assert report["portable"] == {"aten::asinh.out": 1}
    products, elements = 2 * (2 * 30 * 30 * 40), 900 + 1200 + 1200  # relu, sum, +
    assert report["delegated_flops"] == round((products + elements) / (products + elements + 900), 4)
    assert converted.notes == ()  # less than 5 %
    x = draw(30, 40)
    close(run(converted, "p", x), mixed(x))


def test_much_work_on_portable_kernels_is_a_note() -> None:
    converted = convert(traced(lambda x: (x.asinh() + 1,), (3, 4)), traced(mixed, (9, 8), name="q"))
    assert converted.reports["p"]["delegated_flops"] == 0.5
    assert converted.notes[0] == (
        "executorch: 50% of the FLOPs of program 'p' run on ExecuTorch's portable kernels, which are slow "
        "(aten::asinh.out x 1)"
    )


def test_a_condition_never_leaves_the_delegate() -> None:
    def fn(x: Tensor, y: Tensor) -> tuple[Tensor, ...]:
        above = x > y.asinh()
        below = x < 0
        return torch.where(above, x, -x), torch.where(below, x, x.asinh())

    converted = convert(traced(fn, (3, 4), (3, 4)))
    x, y = draw(3, 4), draw(3, 4, seed=1)
    close(run(converted, "p", x, y), fn(x, y))


def test_where_with_infinities_stays_outside() -> None:
    def fn(x: Tensor) -> tuple[Tensor, ...]:
        return (torch.where(x > 0, x, -torch.inf).softmax(-1),)

    converted = convert(traced(fn, (3, 40)))
    assert "aten::where.self_out" in converted.reports["p"]["portable"]
    close(run(converted, "p", draw(3, 40)), fn(draw(3, 40)))


def test_the_gradient_of_a_norm_of_zeros() -> None:
    """Padded windows of Swin v2 have zero keys, whose norm PyTorch gives the gradient 0."""

    def fn(x: Tensor) -> tuple[Tensor, ...]:
        norm = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
        return (torch.where(norm == 0, 0.0, x / norm.expand(3, 4)),)

    x = draw(3, 4)
    x[1] = 0
    converted = convert(traced(fn, (3, 4)))
    assert converted.reports["p"]["portable"] == {}
    close(run(converted, "p", x), fn(x))


def test_reshapes_alone_are_no_piece() -> None:
    assert convert(traced(lambda x: (x.reshape(12),), (3, 4))).reports["p"]["partitions"] == 0


def test_an_operator_without_a_kernel_is_named() -> None:
    with pytest.raises(
        ClueError, match="program 'p' needs the operator 'digamma', which ExecuTorch has no kernel"
    ):
        convert(traced(lambda x: (torch.digamma(x + 3),), (3,)))


def test_an_operator_that_executorch_refuses_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(refusal, "refuse_leftovers", lambda *args: None)  # it would be named there already

    @torch.library.custom_op("clue_test::twice", mutates_args=())
    def twice(x: Tensor) -> Tensor:
        return x * 2

    twice.register_fake(torch.empty_like)
    good = traced(lambda x: (x.asinh(),), (3,), name="good")
    with pytest.raises(ClueError, match=r"program 'bad' cannot become ExecuTorch: .*clue_test::twice"):
        convert(good, traced(lambda x: (twice(x),), (3,), name="bad"))


# work


def test_flops() -> None:
    graph = traced(lambda x, y: ((x @ y).relu().sum(), (x * 2).reshape(6, 4)), (4, 6), (6, 5)).graph.graph
    found = {str(n.target).split(".")[1]: pieces.work(n) for n in graph.nodes if n.op == "call_function"}
    assert found == {"mm": 240, "relu": 20, "sum": 20, "mul": 24, "reshape": 0}


# a method's programs


def test_the_programs_of_clue_are_one_piece_each() -> None:
    from clue_mobile import models

    spec = models.resolve_spec("digits_cnn")
    model = FlatModel(models.load(spec, None, seed=0), spec)
    recipe = programs.build(model, "clue", methods.configure("clue", {"saliency_batch": 16}), 8)
    traces = programs.trace_all(recipe.programs, overrides=exporter.OVERRIDES)
    converted = exporter.convert(traces, Source(model, recipe), lambda name: None)
    assert converted.reports == {each.program.name: WHOLE for each in traces}
    assert converted.notes == ()


# the registry


def test_the_registry() -> None:
    assert exporters.get("executorch") is exporter
    assert exporter.versions() == {"executorch": version("executorch")}
    assert "executorch" in engines.ENGINES


def test_a_missing_package_is_named_with_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "executorch.runtime", None)
    monkeypatch.delitem(sys.modules, "exporters.executorch")
    monkeypatch.setattr(exporters, "executorch", exporter)
    with pytest.raises(ClueError, match=r"the package executorch: pip install 'clue-mobile\[executorch\]'"):
        exporters.get("executorch")
    monkeypatch.undo()
    assert importlib.import_module("exporters.executorch") is exporter


def test_importing_the_package_loads_no_executorch() -> None:
    script = "import sys, exporters, clue_mobile.engines; print('executorch' in sys.modules)"
    found = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, cwd=ROOT, check=True
    )
    assert found.stdout.strip() == "False"


def test_patched_type_hints_are_put_back() -> None:
    from typing import get_type_hints

    from executorch.exir._serialize import _dataclass

    convert(traced(lambda x: (x + 1,), (3,)))
    hints: Any = _dataclass.get_type_hints
    assert hints is get_type_hints
