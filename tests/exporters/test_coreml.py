from __future__ import annotations

import importlib
import io
import json
import logging
import sys
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from coreml_case import assert_same, convert_one, draw, operators, run, save, traced
from mil_engine import MilEngine
from mil_evaluator import Package
from torch import Tensor
from torch.nn import functional as F

import exporters
from clue_mobile import engines
from clue_mobile.errors import ClueError
from clue_mobile.plan import Port, Program
from clue_mobile.programs import trace
from exporters import coreml as exporter
from exporters import coreml_load, coreml_ops
from pi_runtime import golden
from pi_runtime.bundle import Bundle

if TYPE_CHECKING:
    from clue_mobile.data import Dataset

aten = torch.ops.aten
SHARED = Path(__file__).parents[3] / "shared"
CIFAR_WEIGHTS = SHARED / "models" / "resnet20_cifar10.safetensors"
CIFAR_IMAGES = SHARED / "data" / "cifar10_images.zip"
PROGRAMS = ["mask", "predict", "predict_1", "saliency", "step", "teacher"]


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory, digits_weights: Path) -> Path:
    """digits_cnn with trained weights, exported for Core ML. Read only."""
    from clue_mobile import models
    from clue_mobile.export import ExportRecipe, export

    spec = models.resolve_spec("digits_cnn")
    out = tmp_path_factory.mktemp("coreml") / "digits.clue"
    recipe = ExportRecipe(target="host", runtimes=("coreml",), batch=16)
    return export(models.load(spec, digits_weights), spec, out, recipe)


# what a bundle holds


def test_the_packages_of_a_bundle(bundle: Path) -> None:
    packages = sorted(path.name for path in (bundle / "programs" / "coreml").iterdir())
    halves = ["predict_1_float16.mlpackage", "predict_float16.mlpackage"]
    assert packages == sorted([*(f"{name}.mlpackage" for name in PROGRAMS), *halves, exporter.TOGETHER])
    entries = json.loads((bundle / "manifest.json").read_text(encoding="utf-8"))["programs"]
    for name, entry in entries.items():
        assert entry["files"]["coreml"]["file"] == f"programs/coreml/{name}.mlpackage"
    reports = {name: entry["reports"]["coreml"] for name, entry in entries.items()}
    assert reports["step"] == {"minimum_system": "iOS 16, macOS 13", "functions_ios18": exporter.TOGETHER}
    assert reports["predict"]["float16"] == "predict_float16.mlpackage"
    assert [name for name in PROGRAMS if "float16" in reports[name]] == ["predict", "predict_1"]


@pytest.mark.parametrize("together", [None, exporter.TOGETHER])
def test_every_program_gives_what_eager_pytorch_gives(bundle: Path, together: str | None) -> None:
    results = golden.check(Bundle.open(bundle), MilEngine(together))
    assert {result.program for result in results} == set(PROGRAMS)
    assert [result for result in results if not result.ok] == []


def test_operating_systems_and_precisions(bundle: Path) -> None:
    folder = bundle / "programs" / "coreml"
    for name in PROGRAMS:
        package = Package(folder / f"{name}.mlpackage")
        assert package.spec.specificationVersion == 7  # iOS 16
        assert package.mil.functions["main"].opset == "CoreML6"
        assert b"fp16" not in package.spec.SerializeToString(), name
    together = Package(folder / exporter.TOGETHER)
    assert together.spec.specificationVersion == 9  # iOS 18
    assert sorted(together.functions) == PROGRAMS
    assert together.spec.description.defaultFunctionName == "predict"
    assert {function.opset for function in together.mil.functions.values()} == {"CoreML8"}


def test_coremltools_reads_what_was_written(bundle: Path) -> None:
    from coremltools.converters.mil.frontend.milproto.load import load
    from coremltools.libmodelpackage import ModelPackage

    coremltools = coreml_load.coremltools()
    for path in sorted((bundle / "programs" / "coreml").iterdir()):
        assert ModelPackage.isValid(str(path))
        with coreml_load.quiet():
            spec = coremltools.models.MLModel(str(path), skip_model_load=True).get_spec()
            # rebuilds every operator, and infers every shape anew
            read = load(spec, spec.specificationVersion, str(path / "Data" / "com.apple.CoreML" / "weights"))
        assert sorted(read.functions) == sorted(Package(path).functions)


def test_no_weight_stands_in_a_file(bundle: Path, digits_weights: Path) -> None:
    from safetensors.numpy import load_file

    data = {p: p.read_bytes() for p in (bundle / "programs" / "coreml").rglob("*") if p.is_file()}
    weights = load_file(bundle / "weights.safetensors")["params"]
    windows = [weights[i : i + 4].astype("<f4").tobytes() for i in range(0, len(weights) - 4, 7)]
    assert len(windows) > 1000
    assert [path.name for path, content in data.items() if any(w in content for w in windows)] == []
    assert max(len(content) for content in data.values()) < 200_000
    # constants of the programs, such as a factor for each of the running statistics: the weights are far more
    assert sum(len(c) for p, c in data.items() if p.name == "weight.bin") < 8192 < weights.nbytes / 2


def test_nothing_tells_where_or_when_it_was_made(bundle: Path) -> None:
    for path in (bundle / "programs" / "coreml").rglob("*"):
        content = path.read_bytes() if path.is_file() else b""
        for trace_of in (b".py", b"/tmp", str(Path.cwd()).encode(), b"conversion_date", b"site-packages"):
            assert trace_of not in content, path


def float16_against_float32(folder: Path, state: dict[str, Any], batches: Any) -> tuple[float, float]:
    """The largest difference of a logit over the largest logit, and the share of equal decisions."""
    exact, half = (Package(folder / f"predict{ending}.mlpackage") for ending in ("", "_float16"))
    assert half.inputs() == exact.inputs()
    assert half.outputs() == exact.outputs()
    wanted, found = (
        np.concatenate([package.run({**state, "x": x})["logits"] for x in batches])
        for package in (exact, half)
    )
    error = float(np.abs(found - wanted).max() / np.abs(wanted).max())
    return error, float((found.argmax(1) == wanted.argmax(1)).mean())


def test_float16_serves_nearly_as_well(bundle: Path, digits_data: Dataset) -> None:
    from safetensors.numpy import load_file

    state = load_file(bundle / "weights.safetensors")
    images = digits_data.test.images
    images = images[: len(images) // 16 * 16]
    batches = images.astype(np.float32).reshape(-1, 16, 1, 8, 8) / 255
    error, agreement = float16_against_float32(bundle / "programs" / "coreml", state, batches)
    print(f"float16 of digits_cnn, {len(images)} images: error {error:.1e}, agreement {agreement:.4f}")
    assert 0 < error < 0.005
    assert agreement >= 0.99


@pytest.mark.full
@pytest.mark.skipif(not CIFAR_WEIGHTS.is_file(), reason=f"needs {CIFAR_WEIGHTS.name} in ../shared")
def test_float16_of_a_trained_resnet20_serves_nearly_as_well(tmp_path: Path) -> None:
    from PIL import Image

    from clue_mobile import models, programs
    from clue_mobile.flat import FlatModel

    spec = models.resolve_spec("resnet20")
    model = FlatModel(models.load(spec, CIFAR_WEIGHTS), spec)
    made = trace(programs.predict_programs(model, 32)[0], overrides=exporter.OVERRIDES)
    save(exporter.convert([made], None, lambda name: None).files, tmp_path)  # type: ignore[arg-type]
    with zipfile.ZipFile(CIFAR_IMAGES) as archive:
        names = sorted(n for n in archive.namelist() if n.startswith("cifar10/test/") and n.endswith(".jpg"))
        pictures = [Image.open(io.BytesIO(archive.read(name))) for name in names[::31][:320]]
        pixels = np.stack([np.asarray(picture).transpose(2, 0, 1) for picture in pictures])
    batches = pixels.astype(np.float32).reshape(10, 32, 3, 32, 32) / 255
    vectors = {key: vector.numpy() for key, vector in model.pack().items()}
    state = {port.name: vectors[port.name] for port in made.program.inputs if port.name != "x"}
    error, agreement = float16_against_float32(tmp_path, state, batches)
    print(f"float16 of ResNet-20, {len(pixels)} images: error {error:.1e}, agreement {agreement:.4f}")
    assert 0 < error < 0.005
    assert agreement >= 0.99


@pytest.mark.full
def test_resnet20_gives_what_eager_pytorch_gives(tmp_path: Path) -> None:
    from clue_mobile import models
    from clue_mobile.export import ExportRecipe, export

    spec = models.resolve_spec("resnet20")
    recipe = ExportRecipe(target="host", runtimes=("coreml",))
    path = export(models.load(spec, None, seed=0), spec, tmp_path / "resnet.clue", recipe)
    for together in (None, exporter.TOGETHER):
        assert [each for each in golden.check(Bundle.open(path), MilEngine(together)) if not each.ok] == []


@pytest.mark.full
def test_a_transformer_gives_what_eager_pytorch_gives(tmp_path: Path) -> None:
    from clue_mobile import models
    from clue_mobile.export import ExportRecipe, export

    spec = models.resolve_spec("vit_small_patch4")
    recipe = ExportRecipe(target="host", runtimes=("coreml",), batch=4)
    path = export(models.load(spec, None, seed=0), spec, tmp_path / "vit.clue", recipe)
    assert [each for each in golden.check(Bundle.open(path), MilEngine()) if not each.ok] == []


# one program


def block(x: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    leaf = weight.detach().clone().requires_grad_()
    y = F.avg_pool2d(F.conv2d(x, leaf, padding=1).relu(), 2)
    loss = (y * y).mean()
    (gradient,) = torch.autograd.grad(loss, [leaf])
    return weight - 0.1 * gradient, loss.detach()


def test_numbers(tmp_path: Path) -> None:
    x, weight = draw(2, 3, 4, 4), draw(5, 3, 3, 3)
    assert_same(run(convert_one(traced(block, x, weight), tmp_path), [x, weight]), block(x, weight))


def test_two_exports_are_equal_byte_for_byte() -> None:
    inputs = draw(2, 3, 4, 4), draw(5, 3, 3, 3)

    def files() -> dict[str, bytes]:
        made = [traced(block, *inputs, name="predict"), traced(block, *inputs, name="step")]
        return dict(exporter.convert(made, None, lambda name: None).files)  # type: ignore[arg-type]

    first = files()
    exporter.convert([traced(lambda x: (x.exp() + 1,), draw(3))], None, lambda name: None)  # type: ignore[arg-type]
    assert files() == first
    assert b"functions_ios18" not in b"".join(first.values())


def test_an_input_may_be_an_output_and_a_value_two(tmp_path: Path) -> None:
    def fn(x: Tensor, y: Tensor) -> tuple[Tensor, ...]:
        return x, x + y, x + y, y, torch.ones(3), x.sum(), x.reshape(3, 1).reshape(3)

    x, y = draw(3), draw(3) + 1
    package = convert_one(traced(fn, x, y), tmp_path)
    assert list(package.outputs()) == [f"out{i}" for i in range(7)]
    assert_same(run(package, [x, y]), fn(x, y))


def test_a_port_may_be_called_like_an_inner_value(tmp_path: Path) -> None:
    ports = tuple(Port(name, "carry", (3,), "v") for name in ("v", "v_1", "v1", "add"))
    made = trace(Program("p", 1, ports[:2], ports[2:], lambda x, y: (x * 2 + y, x * 3)))
    x, y = draw(3), draw(3) + 1
    package = convert_one(made, tmp_path)
    assert list(package.inputs()) == ["v", "v_1"]
    assert_same(run(package, [x, y]), [2 * x + y, 3 * x])


def test_a_scalar_is_a_vector_of_one_at_the_boundary(tmp_path: Path) -> None:
    def fn(x: Tensor, rate: Tensor) -> tuple[Tensor, ...]:
        return x * rate, rate * 2, (x * x).sum(), rate.reshape(1, 1)

    x, rate = draw(2, 3), torch.tensor(0.5)
    package = convert_one(traced(fn, x, rate), tmp_path)
    assert package.inputs() == {"in0": (2, 3), "in1": (1,)}
    assert package.outputs() == {"out0": (2, 3), "out1": (1,), "out2": (1,), "out3": (1, 1)}
    assert_same(run(package, [x, rate]), fn(x, rate))


def test_a_port_stays_used_or_not(tmp_path: Path) -> None:
    package = convert_one(traced(lambda x, y: (x + 1,), draw(2, 3), draw(4)), tmp_path)
    assert package.inputs() == {"in0": (2, 3), "in1": (4,)}
    assert operators(package) == ["add", "identity"]


def test_half_precision_is_for_what_depends_on_the_images(tmp_path: Path) -> None:
    ports = Port("w", "state", (4, 4), "w"), Port("x", "batch", (2, 4), "x")
    made = trace(
        Program("predict", 2, ports, (Port("logits", "result", (2, 4)),), lambda w, x: ((x @ (w + 1)).exp(),))
    )
    package = convert_one(made, tmp_path, half=True)
    assert operators(package) == ["add", "cast", "cast", "matmul", "exp", "cast"]
    assert package.inputs() == {"w": (4, 4), "x": (2, 4)}
    w, x = draw(4, 4) / 4, draw(2, 4) / 4
    (found,) = run(package, [w, x])
    exact = (x @ (w + 1)).exp().numpy()
    assert 0 < float(np.abs(found - exact).max()) < 0.02 * float(np.abs(exact).max())
    assert np.array_equal(found, found.astype(np.float16))


def test_operators_that_the_table_lacks_are_spelled(tmp_path: Path) -> None:
    def fn(x: Tensor) -> tuple[Tensor, ...]:
        return torch.addcdiv(x, x, x.exp(), value=0.5), F.threshold(x, 0.1, 20.0)

    x = draw(3, 4)
    made = traced(fn, x)
    missing = {n.target for n in made.graph.graph.nodes if n.op == "call_function"} - coreml_ops.TABLE.keys()
    assert missing >= {aten.addcdiv.default, aten.threshold.default}
    assert_same(run(convert_one(made, tmp_path), [x]), fn(x))


def test_the_terminal_stays_quiet(
    capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    with caplog.at_level(logging.INFO):
        exporter.convert([traced(lambda x: (x + 1,), draw(3), name="predict")], None, lambda name: None)  # type: ignore[arg-type]
    assert not [record for record in caplog.records if record.name.startswith("coremltools")]
    assert tuple(capfd.readouterr()) == ("", "")


# the registry of exporters


def test_the_registry() -> None:
    assert exporters.get("coreml") is exporter
    assert exporter.versions() == {"coremltools": sys.modules["coremltools"].__version__}


def test_a_missing_package_is_named_with_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "coremltools", None)
    monkeypatch.delitem(sys.modules, "exporters.coreml")
    monkeypatch.setattr(exporters, "coreml", exporter)
    with pytest.raises(
        ClueError, match=r"needs the package coremltools: pip install 'clue-mobile\[coreml\]'"
    ):
        exporters.get("coreml")
    monkeypatch.undo()
    assert importlib.import_module("exporters.coreml") is exporter


def test_other_packages_can_be_imported_after_coremltools() -> None:
    assert not [name for name in coreml_load._UNREAD if name in sys.modules and sys.modules[name] is None]


def test_a_coremltools_without_its_writer_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    serialiser = sys.modules["coremltools"].converters.mil.backend.mil.load
    monkeypatch.setattr(serialiser, "BlobWriter", None)
    with pytest.raises(ClueError, match="coremltools cannot write models on this system: export on Linux or"):
        exporter.convert([traced(lambda x: (x + 1,), draw(3))], None, lambda name: None)  # type: ignore[arg-type]


def test_programs_cannot_run_here() -> None:
    with pytest.raises(
        ClueError, match="coreml programs cannot run on this computer: they run inside an app, on iOS"
    ):
        engines.get("coreml")


def test_files_and_names() -> None:
    made = [traced(lambda x, y: (x + y,), draw(2), draw(2), name=name) for name in ("predict", "step")]
    told: list[str] = []
    converted = exporter.convert(made, None, told.append)  # type: ignore[arg-type]
    assert told == ["predict", "step"]
    assert converted.programs == {name: f"{name}.mlpackage" for name in ("predict", "step")}
    folders = {path.split("/")[0] for path in converted.files}
    assert folders == {"predict.mlpackage", "step.mlpackage", "predict_float16.mlpackage", exporter.TOGETHER}
