"""Presets: that they fit their methods, through the command line, and what is refused."""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from clue_mobile import methods, models
from clue_mobile.cli import main
from clue_mobile.errors import ClueError
from clue_mobile.study import presets

Cli = Callable[..., tuple[int, str, str]]
NAME = next(iter(presets.load()))


@pytest.fixture
def cli(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Cli:
    def run(*words: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["clue-mobile", *map(str, words)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as end:
            main()
        captured = capsys.readouterr()
        return int(end.value.code or 0), captured.out, captured.err

    return run


@pytest.mark.parametrize("name", presets.load())
def test_a_preset_fits_its_method_and_has_evidence(name: str) -> None:
    preset = presets.get(name)
    config = methods.configure(preset.method, preset.hyperparameters)
    assert {key: getattr(config, key) for key in preset.hyperparameters} == preset.hyperparameters
    assert methods.on_device(preset.method)
    assert preset.model in models.BUILTIN
    assert preset.batch >= 2
    assert any(letter.isdigit() for letter in preset.evidence)  # figures
    assert preset.command.startswith("clue-mobile ")


def test_an_unknown_preset() -> None:
    with pytest.raises(ClueError, match=f"unknown preset '{NAME[:-1]}': did you mean .*Choices: "):
        presets.get(NAME[:-1])


def test_export_and_forget_with_a_preset(
    cli: Cli, digits_weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    preset = presets.get(NAME)
    assert NAME in " ".join(cli("export", "--help")[1].split())
    words = [
        "export",
        "--model",
        "digits_cnn",
        "--weights",
        digits_weights,
        "--preset",
        NAME,
        "--target",
        "host",
    ]
    code, _, err = cli(*words, "--method", "ga")
    assert (code, err.count("\n")) == (2, 1)
    assert f"--preset {NAME} is of the method {preset.method}: leave --method ga out" in err
    assert cli(*words[:-3], "no")[0] == 2
    assert not list(tmp_path.iterdir())

    code, out, err = cli(*words, "--set", "lr=0.5", "--out", "p.clue", "--json")
    assert code == 0, err
    method = json.loads(out)["manifest"]["method"]
    assert (method["name"], method["tuned_batch"]) == (preset.method, preset.batch)
    wanted = dataclasses.asdict(methods.configure(preset.method, preset.hyperparameters))
    assert method["hyperparameters"] == {**wanted, "lr": 0.5}  # --set has the last word
    scalars = presets.scalars_for(preset, Path("p.clue"))
    assert scalars["lr"] == preset.hyperparameters["lr"]
    assert set(scalars) == set(method["scalars"])

    forget = ["forget", "p.clue", "--data", "digits", "--forget", "3", "--seed", "0", "--json", "--preset"]
    code, out, err = cli(*forget, NAME)
    assert code == 0, err  # at the rate of 0.5 it would have diverged
    code, _, err = cli(*forget, "no")
    assert code == 2
    assert "unknown preset 'no'" in err


def test_a_bundle_of_another_method_or_form(digits_bundle: Path) -> None:
    preset = presets.get(NAME)
    with pytest.raises(
        ClueError, match=f"forgets by clue, the preset by ga: export it again with --preset {NAME}"
    ):
        presets.scalars_for(dataclasses.replace(preset, method="ga"), digits_bundle)
    other = dataclasses.replace(preset, hyperparameters={**preset.hyperparameters, "batch_norm": "batch"})
    with pytest.raises(ClueError, match=r"exported with .*: export it again"):
        presets.scalars_for(other, digits_bundle)
