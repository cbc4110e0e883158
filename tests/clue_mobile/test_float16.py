"""`predict_float16`: exported where a runtime computes in float16, checked, and measured by evaluate."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto
from tiny_models import SPEC, BatchNormNet

from clue_mobile import models
from clue_mobile.bundle.reader import Predictor
from clue_mobile.data import Dataset
from clue_mobile.errors import ClueError
from clue_mobile.export import ExportRecipe, export
from clue_mobile.study.demo import HYPERPARAMETERS
from clue_mobile.study.evaluate import evaluate_bundle
from pi_runtime import golden, weights
from pi_runtime.bundle import Bundle
from pi_runtime.onnx_engine import OnnxEngine


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory, digits_weights: Path) -> Bundle:
    spec = models.resolve_spec("digits_cnn")
    recipe = ExportRecipe(target="host", hyperparameters=HYPERPARAMETERS, float16_predict=True)
    folder = tmp_path_factory.mktemp("float16") / "half.clue"
    return Bundle.open(export(models.load(spec, digits_weights), spec, folder, recipe))


def test_it_computes_in_float16_between_float32_ports(bundle: Bundle) -> None:
    model = onnx.load(bundle.root / "programs/onnx/predict_float16.onnx")
    ports = [*model.graph.input, *model.graph.output]
    assert {port.type.tensor_type.elem_type for port in ports} == {TensorProto.FLOAT}
    inferred = onnx.shape_inference.infer_shapes(model).graph.value_info
    kinds = {value.name: value.type.tensor_type.elem_type for value in inferred}
    convolutions = [node for node in model.graph.node if node.op_type == "Conv"]
    assert convolutions
    assert {kinds[node.output[0]] for node in convolutions} == {TensorProto.FLOAT16}


def test_it_is_near_predict_and_not_equal(bundle: Bundle, digits_data: Dataset) -> None:
    engine = OnnxEngine(1)
    arrays = weights.read(bundle.file(bundle.weights.file), bundle.weights.sha256, bundle)
    state = {name: arrays[name] for name in ("params", "buffers")}
    images = digits_data.test.images
    half, single = (Predictor(bundle, engine, state, name)(images) for name in ("predict_float16", "predict"))
    error = np.abs(half - single).max() / np.abs(single).max()
    assert 0 < error < 5e-3
    assert (half.argmax(1) == single.argmax(1)).mean() > 0.99


def test_the_golden_check_has_it(bundle: Bundle) -> None:
    (result,) = [r for r in golden.check(bundle, OnnxEngine(1)) if r.program == "predict_float16"]
    assert result.ok
    assert result.tolerance == 2e-2


def test_evaluate_measures_it(bundle: Bundle, digits_data: Dataset) -> None:
    half, single = (
        evaluate_bundle(bundle, digits_data, 3, threads=1, program=name).rows[0].scores
        for name in ("predict_float16", "predict")
    )
    assert half.ta == pytest.approx(single.ta, abs=1)
    assert half.ua == pytest.approx(single.ua, abs=2)


def test_a_bundle_without_it_is_refused(digits_bundle: Path) -> None:
    opened = Bundle.open(digits_bundle)
    with pytest.raises(ClueError, match="no program predict_float16: export with --float16-predict"):
        Predictor(opened, OnnxEngine(1), {}, "predict_float16")


def test_runtimes_without_float16_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("exporters.onnx.FLOAT16", False)
    recipe = ExportRecipe(target="host", float16_predict=True)
    with pytest.raises(ClueError, match="none of the runtimes onnx computes in float16"):
        export(BatchNormNet(), SPEC, tmp_path / "t.clue", recipe)
