"""`clue-mobile tune-kernels`: what would be measured, what was, and what is not measured again."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from clue_mobile.cli import main

MODEL = """
from torch import nn
def small():
    return nn.Sequential(nn.Conv2d(1, 2, 3, padding=1), nn.Flatten(), nn.Linear(32, 10))
"""


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Any:
    """The command on a model of one convolution; returns its exit code and what --json printed."""
    (tmp_path / "small.py").write_text(MODEL, encoding="utf-8")
    monkeypatch.chdir(tmp_path)

    def command(*words: str) -> tuple[int, Any, str]:
        argv = ["clue-mobile", "tune-kernels", "small.py:small", "--input-shape", "1,4,4", "--batch", "2"]
        monkeypatch.setattr(sys, "argv", [*argv, "--json", *words])
        try:
            main()
            code = 0
        except SystemExit as end:
            code = int(end.code or 0)
        out, err = capsys.readouterr()
        return code, json.loads(out) if code == 0 else None, err

    return command


def test_it_measures_once(run: Any, tmp_path: Path) -> None:
    costs = tmp_path / "costs.json"
    code, found, _ = run("--out", str(costs), "--dry-run")
    assert code == 0
    assert {each["product"].split()[0] for each in found["would_measure"]} == {"forward", "weight_gradient"}
    assert not costs.exists()
    code, found, _ = run("--out", str(costs), "--seconds", "0.01")
    assert code == 0
    assert len(found["measured"]) == 2
    before = costs.read_bytes()
    assert run("--out", str(costs), "--dry-run")[1] == {"would_measure": []}
    code, found, _ = run("--out", str(costs), "--seconds", "0.01")
    assert (code, found["measured"]) == (0, [])
    assert costs.read_bytes() == before


def test_an_estimate_stands_beside_what_was_measured(run: Any, tmp_path: Path) -> None:
    costs = tmp_path / "costs.json"
    for _ in range(2):
        assert run("--out", str(costs), "--estimate", "cortex-a76")[0] == 0
        (record,) = json.loads(costs.read_bytes())["records"]
        assert (record["kind"], record["machine"], len(record["costs"])) == ("estimated", "cortex-a76", 2)


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (("--runtime", "none"), "unknown runtime"),
        (("--runtime", "coreml"), "cannot run on this computer"),
        (("--estimate", "z80"), "cortex-a76"),
        (("--seconds", "0"), "each product is timed for 0 to 600 s"),
    ],
)
def test_errors(run: Any, tmp_path: Path, words: tuple[str, ...], problem: str) -> None:
    code, _, err = run("--out", str(tmp_path / "costs.json"), *words)
    assert code == 2
    assert problem in err
    assert not (tmp_path / "costs.json").exists()
