"""From a model to candidates, to costs, to the forms of an exported step."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_models import SPEC, BatchNormNet, made
from torch import nn

import exporters
from clue_mobile import engines, methods, programs
from clue_mobile.errors import ClueError
from clue_mobile.export import ExportRecipe, export
from clue_mobile.flat import FlatModel
from clue_mobile.kernel_costs import candidates, table
from clue_mobile.lowering.forms import Geometry, shapes
from exporters.base import Source
from pi_runtime import Bundle, kernel_costs
from pi_runtime.bundle import Golden, Port, Program
from pi_runtime.cli import main
from pi_runtime.golden import check
from pi_runtime.kernel_costs import Record
from pi_runtime.onnx_engine import OnnxEngine

SHAPE = "n2 c4 9x7 o6 k3x3 s1x1 p1x1 d1x1 g1"


def step(model: nn.Module) -> tuple[list[programs.Program], Source]:
    flat = FlatModel(model, SPEC)
    recipe = programs.build(flat, "clue", methods.configure("clue", {}), 2)
    return [each for each in recipe.programs if each.name == "step"], Source(flat, recipe)


def record(costs: dict[str, dict[str, float]], runtime: str = "onnx", threads: int = 1) -> Record:
    entries = {key: {"flops": 1, "ms": ms} for key, ms in costs.items()}
    return Record(runtime, "1", "x86_64", threads, "cpu", "measured", entries)


def test_a_steps_products_are_found_once_each() -> None:
    found = candidates.collect(step(made(BatchNormNet))[0])
    assert len(found) == len(set(found))
    convolutions = [m for m in made(BatchNormNet).modules() if isinstance(m, nn.Conv2d)]
    forward = {each.at.kernel for each in found if each.product == "forward"}
    assert forward == {m.kernel_size for m in convolutions}
    # the input of the first layer is the image, which has no gradient
    firsts = {each.at for each in found if each.at.channels == 1}
    assert {each.product for each in found if each.at in firsts} == {"forward", "weight_gradient"}


def test_transposed_convolutions_are_left_alone() -> None:
    network = nn.Sequential(nn.ConvTranspose2d(1, 2, 2, 2), nn.Flatten(), nn.Linear(128, 3))
    assert candidates.collect(step(network)[0]) == []


@pytest.mark.parametrize("runtime", ["onnx", "litert", pytest.param("executorch", marks=pytest.mark.full)])
@pytest.mark.parametrize(
    "key",
    [
        f"forward {SHAPE}",
        f"input_gradient {SHAPE}",
        f"weight_gradient {SHAPE}",
        "input_gradient n2 c4 9x8 o5 k3x3 s2x2 p1x1 d1x1 g1",
        "weight_gradient n2 c4 7x6 o4 k3x3 s2x2 p1x1 d1x1 g4",
        "forward n2 c4 7x6 o5 k1x1 s1x1 p0x0 d1x1 g1",
    ],
)
def test_every_form_through_the_exporter(runtime: str, key: str, tmp_path: Path) -> None:
    """Equal results whichever form: each file is run by the runtime itself."""
    product, _, shape = key.partition(" ")
    at = Geometry.parse(shape)
    source = step(made(BatchNormNet))[1]
    exporter, engine = exporters.get(runtime), engines.get(runtime, 1)
    each = candidates.Product(product, at)
    notes = candidates.write(tmp_path / "c", runtime, exporter, [each], source)
    name, (found,) = kernel_costs.read_candidates(tmp_path / "c")
    assert (name, found.key, found.flops) == (runtime, key, at.flops)
    assert not [note for note in notes if runtime == "onnx"]
    operands = [
        torch.randn(s, generator=torch.Generator().manual_seed(i)) for i, s in enumerate(shapes(product, at))
    ]
    want = programs.trace(candidates._program(each), dtype=torch.float64).graph(
        *(t.double() for t in operands)
    )[0]
    inputs = {n: t.numpy() for n, t in zip(found.inputs, operands, strict=True)}
    ports = tuple(Port(n, "batch", s, n) for n, s in found.inputs.items())
    result = Port("result", "result", found.output, "")
    program = Program(found.program, 2, ports, (result,), 0, 0, {}, Golden("", 0, {}, {}, {}))
    assert "own" in found.forms
    for form, path in found.forms.items():
        outputs = {"result": np.zeros(found.output, np.float32)}
        engine.load(path, program).run(inputs, outputs)
        assert np.abs(outputs["result"] - want.numpy()).max() < 2e-5 * float(want.abs().max()), form


def test_the_candidates_of_a_device_and_what_it_measures(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    products = [candidates.Product("weight_gradient", Geometry.parse(SHAPE))]
    folder, costs = tmp_path / "candidates", tmp_path / "costs.json"
    candidates.write(folder, "onnx", exporters.get("onnx"), products, step(made(BatchNormNet))[1])
    words = ["tune-kernels", str(folder), "--out", str(costs), "--seconds", "0.01", "--quiet", "--json"]
    assert main([*words, "--dry-run"]) == 0
    assert json.loads(capsys.readouterr().out)["would_measure"][0][0] == products[0].key
    assert not costs.exists()
    assert main(words) == 0
    first = json.loads(capsys.readouterr().out)
    (ms,) = (entry["ms"] for entry in first["costs"].values())
    assert {"own", "correlation", "flat"} <= ms.keys()
    assert all(cost > 0 for cost in ms.values())
    content = costs.read_bytes()
    assert main(words) == 0  # nothing is measured twice
    assert costs.read_bytes() == content
    assert json.loads(capsys.readouterr().out) == first


def test_a_changed_candidate_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    products = [candidates.Product("forward", Geometry.parse("n2 c2 3x3 o2 k1x1 s1x1 p0x0 d1x1 g1"))]
    candidates.write(tmp_path / "c", "onnx", exporters.get("onnx"), products, step(made(BatchNormNet))[1])
    next((tmp_path / "c").glob("*.onnx")).write_bytes(b"other")
    assert main(["tune-kernels", str(tmp_path / "c"), "--out", str(tmp_path / "costs.json")]) == 2
    assert "is not the file that was written" in capsys.readouterr().err


def test_the_cheapest_form_by_more_than_the_noise() -> None:
    key = f"weight_gradient {SHAPE}"
    at = Geometry.parse(SHAPE)
    for ms, want in (
        ({"own": 2.0, "flat": 1.0, "shifts": 1.5}, "flat"),
        ({"own": 1.01, "flat": 1.0}, None),
        ({"flat": 1.0, "shifts": 0.5}, "shifts"),
        ({"own": 2.0, "sums": 1.0, "of_another_version": 0.1}, None),  # one does not fit, one is unknown
    ):
        choose = table.chooser([record({key: ms})], "onnx")
        assert choose is not None
        assert choose("weight_gradient", at) == want


def test_an_unknown_shape_takes_the_nearest_ones_form() -> None:
    choose = table.chooser(
        [
            record({f"forward {SHAPE}": {"own": 2.0, "winograd": 1.0}}),
            record({"forward n2 c64 9x7 o64 k3x3 s1x1 p1x1 d1x1 g1": {"own": 2.0, "rows": 1.0}}),
        ],
        "onnx",
    )
    assert choose is not None
    for key, want in (
        ("n2 c8 9x7 o6 k3x3 s1x1 p1x1 d1x1 g1", "winograd"),
        ("n8 c4 9x7 o6 k3x3 s1x1 p1x1 d1x1 g1", "winograd"),  # a batch counts half
        ("n2 c64 18x14 o64 k3x3 s1x1 p1x1 d1x1 g1", "rows"),
        ("n2 c64 90x70 o64 k3x3 s1x1 p1x1 d1x1 g1", None),  # too far away
        ("n2 c4 9x7 o6 k3x3 s2x2 p1x1 d1x1 g1", None),  # another class
    ):
        assert choose("forward", Geometry.parse(key)) == want, key
    assert choose("input_gradient", Geometry.parse(SHAPE)) is None


def test_all_records_of_a_runtime_count_as_much() -> None:
    """ONNX Runtime's transposed convolution gains nothing from more threads, a convolution does."""
    key, at = f"forward {SHAPE}", Geometry.parse(SHAPE)
    one = record({key: {"own": 5.0, "rows": 5.2, "batched": 9.0}})
    four = record({key: {"own": 4.0, "rows": 1.4}}, threads=4)
    for records, want in (([one], None), ([four, one], "rows"), ([one, record({}, "litert")], None)):
        choose = table.chooser(records, "onnx")
        assert choose is not None
        assert choose("forward", at) == want
    apart = table.chooser([record({key: {"rows": 1.0}}, threads=4), record({key: {"batched": 1.0}})], "onnx")
    assert apart is not None
    assert apart("forward", at) == "batched"  # nothing in common: one thread's
    none = table.chooser([record({key: {"own": 0.0, "rows": 1.0}})], "onnx")  # rounded to nothing
    assert none is not None
    assert none("forward", at) is None
    assert table.chooser([one], "coreml") is None


@pytest.mark.parametrize("content", [b"{", b"[]", b'{"schema": 1, "records": [{}]}'])
def test_a_file_that_is_no_cost_table(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "costs.json"
    path.write_bytes(content)
    with pytest.raises(ClueError, match="is no cost table: it must be a file that tune-kernels wrote"):
        kernel_costs.read_records(path)


def test_an_export_with_costs(tmp_path: Path) -> None:
    """The forms are in the program, and it still does what eager PyTorch does."""
    model = made(BatchNormNet)
    found = candidates.collect(step(model)[0])
    costs = tmp_path / "costs.json"
    wanted = {"forward": "batched", "input_gradient": "folded", "weight_gradient": "shifts"}
    kernel_costs.write_records(
        costs,
        [
            record(
                {
                    each.key: {"own": 2.0, wanted[each.product]: 1.0}
                    for each in found
                    if wanted[each.product] in each.forms
                }
            )
        ],
    )
    recipe = ExportRecipe(target="host", batch=2, kernel_costs=costs)
    path = export(model, SPEC, tmp_path / "tiny.clue", recipe)
    assert all(result.ok for result in check(Bundle.open(path), OnnxEngine(1)))
    import onnx

    def operators(name: str) -> set[str]:
        return {node.op_type for node in onnx.load(path / "programs" / "onnx" / f"{name}.onnx").graph.node}

    assert "Conv" not in operators("step")
    assert "ConvTranspose" not in operators("step")


def test_costs_of_another_runtime(tmp_path: Path) -> None:
    costs = tmp_path / "costs.json"
    kernel_costs.write_records(costs, [record({}, "litert")])
    with pytest.raises(ClueError, match="has costs of litert, and the export is for onnx"):
        export(
            made(BatchNormNet),
            SPEC,
            tmp_path / "t.clue",
            ExportRecipe(target="host", batch=2, kernel_costs=costs),
        )


def test_the_defaults_are_tables(tmp_path: Path) -> None:
    for target in ("host", "pi5"):
        for each in table.defaults(target):
            assert each.costs
            for key in each.costs:
                product, _, shape = key.partition(" ")
                assert Geometry.parse(shape).key() == shape
                assert product in ("forward", "input_gradient", "weight_gradient")
    assert table.defaults("android") == []
