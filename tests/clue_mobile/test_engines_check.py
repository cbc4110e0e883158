"""The golden suite on every runtime: the programs of one bundle against eager PyTorch."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from clue_mobile import engines, models
from clue_mobile.engines.check import RuntimeCheck, check, runtimes_of
from clue_mobile.errors import ClueError
from clue_mobile.export import ExportRecipe, export
from clue_mobile.study.demo import HYPERPARAMETERS
from pi_runtime import golden
from pi_runtime.bundle import Bundle
from pi_runtime.golden import GoldenResult

RUNTIMES = ("onnx", "executorch", "litert", "coreml")


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory, digits_weights: Path) -> Bundle:
    """The digits model exported for all runtimes."""
    spec = models.resolve_spec("digits_cnn")
    recipe = ExportRecipe(target="ios", runtimes=RUNTIMES, hyperparameters=HYPERPARAMETERS)
    folder = tmp_path_factory.mktemp("all") / "all.clue"
    return Bundle.open(export(models.load(spec, digits_weights), spec, folder, recipe))


@pytest.fixture(scope="module")
def checks(bundle: Bundle) -> dict[str, RuntimeCheck]:
    return {each.runtime: each for each in check(bundle, threads=1)}


def test_the_bundle_has_every_program_for_every_runtime(bundle: Bundle) -> None:
    assert runtimes_of(bundle) == list(RUNTIMES)
    for program in bundle.programs.values():
        assert set(program.files) == set(RUNTIMES)


@pytest.mark.parametrize("runtime", ["onnx", "executorch", "litert"])
def test_golden_suite(checks: dict[str, RuntimeCheck], bundle: Bundle, runtime: str) -> None:
    found = checks[runtime]
    assert found.not_run is None
    assert found.version
    assert {(r.program, r.output) for r in found.results} == _outputs(bundle)
    assert [r for r in found.results if not r.ok] == []
    assert found.ok


def test_golden_suite_on_the_core_ml_evaluator(bundle: Bundle, checks: dict[str, RuntimeCheck]) -> None:
    assert checks["coreml"].not_run is not None
    assert "they run inside an app, on iOS or macOS" in checks["coreml"].not_run
    assert not checks["coreml"].ok
    sys.path.insert(0, str(Path(__file__).parents[1] / "exporters"))
    from mil_engine import MilEngine

    results = golden.check(bundle, MilEngine())
    assert {(r.program, r.output) for r in results} == _outputs(bundle)
    assert [r for r in results if not r.ok] == []


def _outputs(bundle: Bundle) -> set[tuple[str, str]]:
    return {(program.name, port.name) for program in bundle.programs.values() for port in program.outputs}


def test_a_runtime_that_is_asked_for_must_be_there(digits_bundle: Path, bundle: Bundle) -> None:
    with pytest.raises(ClueError, match="unknown runtime 'coreml'"):
        check(Bundle.open(digits_bundle), ["coreml"])
    with pytest.raises(engines.UnavailableError, match="coreml programs cannot run on this computer"):
        check(bundle, ["coreml"])


def test_a_missing_package_is_not_an_error_of_the_others(
    digits_bundle: Path, bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engines, "find_spec", lambda name: None if name == "executorch" else object())
    monkeypatch.setattr(golden, "check", lambda bundle, engine: [GoldenResult("p", "o", 0, 1, True)])
    found = {each.runtime: each for each in check(bundle)}
    assert found["onnx"].ok
    assert found["executorch"].not_run is not None
    assert "pip install 'clue-mobile[executorch]'" in found["executorch"].not_run


def test_an_unknown_runtime_lists_the_choices() -> None:
    with pytest.raises(ClueError, match="unknown runtime 'onxx': did you mean 'onnx'"):
        engines.get("onxx")
