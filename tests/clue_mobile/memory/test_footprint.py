"""The planned peak against what a run takes, in processes of their own: the library and both commands."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from memory_case import SPEC, Net
from typer.testing import CliRunner

from clue_mobile.cli import app
from clue_mobile.export import ExportRecipe, export
from pi_runtime.bundle import Bundle
from pi_runtime.cli import main
from pi_runtime.errors import ClueError
from pi_runtime.footprint import measure

# What the plan leaves out: what kernels work with inside, and the arena's rests; measured 1.0 to 1.3
LEAST, MOST = 0.85, 1.6


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """Programs whose intermediates are megabytes."""
    recipe = ExportRecipe(target="host", method="ga", batch=256, least_images=0, kept_at_least=0)
    return Bundle.open(export(Net(), SPEC, tmp_path_factory.mktemp("footprint") / "net.clue", recipe))


def test_the_plan_is_what_a_run_takes(bundle: Bundle) -> None:
    found = {each.program: each for each in measure(bundle, "onnx", 1)}
    assert set(found) == set(bundle.programs)
    for name in ("predict", "step"):
        measured = found[name].measured
        assert measured is not None, found[name].reason
        assert found[name].planned == bundle.programs[name].peak_bytes > 5 * 2**20
        assert LEAST <= measured / found[name].planned <= MOST, (name, measured, found[name].planned)


def test_a_program_that_cannot_run_says_why(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[3]))
    with pytest.raises(ClueError, match=r"memory of program predict could not be measured: .*threads is 100"):
        measure(bundle, "onnx", 100_000)


def test_both_commands_report_it(bundle: Bundle, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store = ["--store", str(tmp_path / "store"), "--threads", "1"]
    assert main(["check", str(bundle.root), "--memory", "--json", *store]) == 0
    found = json.loads(capsys.readouterr().out)["memory"]
    assert [row["program"] for row in found] == list(bundle.programs)
    assert all(row["measured"] > 0 for row in found)
    shown = CliRunner().invoke(app, ["check", str(bundle.root), "--memory", "--threads", "1"])
    assert shown.exit_code == 0
    assert "Planned peak" in shown.output
