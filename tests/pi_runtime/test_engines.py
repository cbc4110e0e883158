"""Which engine runs a bundle, and that a whole request ends the same on both."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

from clue_mobile.data import Dataset
from clue_mobile.errors import ClueError
from pi_runtime import Bundle, Runtime, cli, engines
from pi_runtime.weights import WeightsFile


@pytest.fixture(scope="module")
def bundle_path(tmp_path_factory: pytest.TempPathFactory, digits_weights: Path) -> Path:
    """digits_cnn exported for pi5 with its default runtimes."""
    from clue_mobile import models
    from clue_mobile.export import ExportRecipe, export
    from clue_mobile.study.demo import HYPERPARAMETERS

    spec = models.resolve_spec("digits_cnn")
    recipe = ExportRecipe(target="pi5", hyperparameters=HYPERPARAMETERS)
    folder = tmp_path_factory.mktemp("both") / "digits.clue"
    return export(models.load(spec, digits_weights), spec, folder, recipe)


@pytest.fixture(scope="module")
def bundle(bundle_path: Path) -> Bundle:
    return Bundle.open(bundle_path)


def without(bundle: Bundle, runtime: str) -> Bundle:
    programs = {
        name: dataclasses.replace(p, files={key: f for key, f in p.files.items() if key != runtime})
        for name, p in bundle.programs.items()
    }
    return dataclasses.replace(bundle, programs=programs)


def test_the_target_gets_both_runtimes(bundle: Bundle) -> None:
    for program in bundle.programs.values():
        assert set(program.files) == {"onnx", "litert"}
        assert program.files["litert"].file == "programs/litert/programs.tflite"
    versions = json.loads((bundle.root / "manifest.json").read_text())["versions"]
    assert {"onnx", "ai-edge-litert"} <= versions.keys()
    assert (bundle.root / "runtime" / "requirements-litert.txt").is_file()


def test_the_first_engine_that_can_is_taken(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    assert engines.choose(bundle).name == "onnx"
    assert engines.choose(bundle, "litert", 1).name == "litert"
    assert engines.choose(without(bundle, "onnx"), threads=1).name == "litert"
    monkeypatch.setattr(engines, "_installed", lambda package: package != "onnxruntime")
    assert engines.choose(bundle).name == "litert"
    with pytest.raises(ClueError, match="onnxruntime is not installed, and the onnx engine needs it"):
        engines.choose(bundle, "onnx")
    monkeypatch.setattr(engines, "_installed", lambda package: False)
    with pytest.raises(ClueError, match="is installed: pip install onnxruntime or ai-edge-litert"):
        engines.choose(bundle)


def test_what_no_engine_runs_is_a_clear_error(bundle: Bundle) -> None:
    with pytest.raises(ClueError, match=r"unknown engine 'onxx': did you mean 'onnx'\?"):
        engines.choose(bundle, "onxx")
    with pytest.raises(ClueError, match="has no litert programs, only onnx: export it with --runtime litert"):
        engines.choose(without(bundle, "litert"), "litert")
    with pytest.raises(ClueError, match="has programs for none, and this runtime runs litert, onnx"):
        engines.choose(without(without(bundle, "litert"), "onnx"))


def test_an_engine_that_is_not_to_be_imported_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    assert not engines._installed("onnxruntime")
    assert engines._installed("numpy")
    assert not engines._installed("no_such_package_here")


@pytest.fixture(scope="module")
def outcomes(
    bundle_path: Path, digits_data: Dataset, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, tuple[Path, list[dict[str, object]]]]:
    """The store of each engine after add, forget and predict on the command line, and its predictions."""
    folder = tmp_path_factory.mktemp("outcomes")
    train = digits_data.train.of_class(3).take(40)
    np.savez(folder / "three.npz", x=train.images, y=np.full(len(train.images), 3))
    np.savez(folder / "test.npz", x=digits_data.test.images[:33])
    done = {}
    for engine in ("onnx", "litert"):
        store = folder / engine
        common = ["--engine", engine, "--store", str(store), "--threads", "1"]
        assert cli.main(["add", str(bundle_path), str(folder / "three.npz"), *common]) == 0
        code = cli.main(
            [
                "forget",
                str(bundle_path),
                "--label",
                "3",
                "--seed",
                "7",
                "--quiet",
                "--at-most",
                "100",
                *common,
            ]
        )
        assert code == 0
        with Runtime.open(bundle_path, store, threads=1, engine=engine) as runtime:
            logits = runtime.predict(digits_data.test.images[:33])
        done[engine] = (store, logits)
    return done  # type: ignore[return-value]


def test_a_whole_request_ends_the_same(outcomes: dict[str, tuple[Path, object]], bundle: Bundle) -> None:
    made = {}
    for engine, (store, _) in outcomes.items():
        records = [json.loads(line) for line in (store / "cost.jsonl").read_text().splitlines()]
        assert {record["runtime"]["name"] for record in records} == {engine}
        (path,) = (store / "generations").glob("000001*")
        made[engine] = {key: WeightsFile(path)[key] for key in WeightsFile(path)}
        assert records[-1]["status"] == "done"
    old = WeightsFile(bundle.file(bundle.weights.file))
    for key, weights in made["onnx"].items():
        moved = float(np.abs(weights - old[key]).max())
        assert float(np.abs(weights - made["litert"][key]).max()) < 0.02 * max(moved, 1e-6), key
    logits = {engine: np.asarray(found) for engine, (_, found) in outcomes.items()}
    scale = float(np.abs(logits["onnx"]).max())
    assert float(np.abs(logits["onnx"] - logits["litert"]).max()) < 1e-3 * scale
    assert (logits["onnx"].argmax(1) == logits["litert"].argmax(1)).all()


def test_the_commands_check_and_predict(
    bundle_path: Path, tmp_path: Path, digits_data: Dataset, capsys: pytest.CaptureFixture[str]
) -> None:
    common = ["--engine", "litert", "--store", str(tmp_path / "s"), "--threads", "1", "--json"]
    assert cli.main(["check", str(bundle_path), *common]) == 0
    found = json.loads(capsys.readouterr().out)
    assert len(found) == 10
    assert all(result["ok"] for result in found)
    np.savez(tmp_path / "x.npz", x=digits_data.test.images[:5])
    assert cli.main(["predict", str(bundle_path), str(tmp_path / "x.npz"), *common]) == 0
    assert len(json.loads(capsys.readouterr().out)) == 5
    assert cli.main(["log", str(bundle_path), "--engine", "coreml", "--store", str(tmp_path / "s")]) == 2
    assert "unknown engine 'coreml'" in capsys.readouterr().err
