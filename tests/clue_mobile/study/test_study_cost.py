"""The cost of requests against retraining: the arithmetic, and the whole way on the digits bundle."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from clue_mobile.cli import app
from clue_mobile.errors import ClueError
from clue_mobile.study import cost
from pi_runtime import golden
from pi_runtime.bench import Timing
from pi_runtime.bundle import Bundle
from pi_runtime.cli import main
from pi_runtime.estimate import counts
from pi_runtime.onnx_engine import OnnxEngine


def timing(
    program: str, seconds: float, joules: float | None = None, kind: str | None = "measured"
) -> Timing:
    known = joules is not None
    return Timing(
        program, 32, 10, seconds, seconds, seconds, 0.0, joules, "rapl" if known else None,
        kind if known else None,
    )  # fmt: skip


def test_the_steps_of_retraining() -> None:
    assert cost.Setting(10, 967, 30, 32).train_steps == 30 * 30  # the last incomplete batch is dropped
    assert cost.Setting(10, 20, 3, 32).train_steps == 3
    for change in ({"samples": 0}, {"train_epochs": 0}, {"train_images": -1}):
        with pytest.raises(ClueError, match="must be at least 1"):
            cost.Setting(**{"samples": 1, "train_images": 1, "train_epochs": 1, "train_batch": 1, **change})


def test_retraining_is_its_measured_step_times_its_steps() -> None:
    setting = cost.Setting(10, 100, 4, 10)
    line = cost.retrain_line([timing("predict", 9.0), timing("step", 0.5, 2.0)], setting)
    assert (line.latency.value, line.latency.how) == (0.5 * 40, "extrapolated")
    assert (line.energy.value, line.energy.how) == (2.0 * 40, "extrapolated")
    for step in (timing("step", 0.5), timing("step", 0.5, 2.0, "estimated")):
        assert cost.retrain_line([step], setting).energy.value is None  # null unless measured
    with pytest.raises(ClueError, match="have no program step"):
        cost.retrain_line([timing("predict", 1.0)], setting)


def test_a_request_is_runs_times_times_or_its_own_record(digits_bundle: Path) -> None:
    bundle = Bundle.open(digits_bundle)
    runs = counts(bundle, 40, bundle.scalars).runs
    seconds = {name: 0.001 * (at + 1) for at, name in enumerate(runs)}
    timings = [timing(name, each, 2 * each) for name, each in seconds.items()]
    line = cost.method_line(bundle, timings, 40)
    assert (line.name, line.latency.how) == ("CLUE", "extrapolated")
    assert line.latency.value == pytest.approx(sum(n * seconds[name] for name, n in runs.items()))
    assert line.energy.value == pytest.approx(2 * (line.latency.value or 0))
    assert runs["step"] == 10 * 2
    assert cost.method_line(bundle, [timing(name, 1.0) for name in runs], 40).energy.value is None
    record = {"wall_s": 3.0, "energy_j": 6.0, "energy_kind": "measured", "request_id": 7}
    whole = cost.method_line(bundle, timings, 40, record)
    assert (whole.latency, whole.energy.value) == (cost.Amount(3.0, "measured", "request 7 of the log"), 6.0)
    assert cost.method_line(bundle, timings, 40, {**record, "energy_kind": "estimated"}).energy.value is None
    with pytest.raises(ClueError, match=r"the times lack the programs .*teacher"):
        cost.method_line(bundle, timings[:1], 40)
    retrain = cost.retrain_line([timing("step", 0.5, 2.0)], cost.Setting(40, 96, 1, 32))
    table = cost.CostTable(cost.Setting(40, 96, 1, 32), {}, retrain, (whole,), "", 0.0)
    assert table.gain(whole, "latency") == pytest.approx(1.5 / 3.0)
    assert table.gain(whole, "energy") == pytest.approx(6.0 / 6.0)
    assert table.gain(cost.method_line(bundle, timings, 40, {**record, "energy_j": None}), "energy") is None


def test_the_whole_way(digits_bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    place, out = tmp_path / "train.clue", tmp_path / "out"
    words = ["cost", str(digits_bundle), "--samples", "40", "--train-images", "96", "--train-epochs", "2",
             "--threads", "1", "--power", "off", "--train-bundle", str(place)]  # fmt: skip
    done = CliRunner().invoke(app, [*words, "--seconds", "0.05", "--out", str(out), "--json"])
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    assert found == json.loads((out / "cost.json").read_text())
    retrain, clue = found["rows"]
    assert (retrain["name"], clue["name"], clue["latency_how"]) == ("Retrain", "CLUE", "extrapolated")
    assert retrain["latency_s"] == pytest.approx(6 * retrain["times"]["train"])
    assert clue["gain_latency"] == pytest.approx(retrain["latency_s"] / clue["latency_s"])
    assert {clue["energy_j"], clue["gain_energy"], retrain["energy_j"]} == {None}
    assert (out / "cost.png").stat().st_size > 5000
    assert "| Retrain |" in (out / "cost.md").read_text()

    # The step of training is what eager PyTorch computes.
    training = Bundle.open(place)
    assert training.method == "train"
    results = golden.check(training, OnnxEngine(1))
    assert {result.program for result in results} == {"predict", "predict_1", "step"}
    assert all(result.ok for result in results)

    # The same with times from the device, and a request's log.
    times = []
    for name, bundle in (("a", digits_bundle), ("b", place)):
        assert main(["bench", str(bundle), "--json", "--seconds", "0.05", "--threads", "1", "--quiet"]) == 0
        times += ["--times", str(tmp_path / f"{name}.json")]
        (tmp_path / f"{name}.json").write_text(capsys.readouterr().out)
    record = {"request_id": 1, "phase": "request", "wall_s": 0.25, "steps": 3, "status": "done",
              "step_ms": {"p50": 1.0, "p95": 2.0}, "peak_mem_bytes": 1, "energy_j": 5.0,
              "energy_kind": "estimated"}  # fmt: skip
    (tmp_path / "cost.jsonl").write_text(json.dumps(record) + "\n")
    done = CliRunner().invoke(app, [*words, *times, "--log", str(tmp_path / "cost.jsonl")])
    assert done.exit_code == 0, done.output
    assert " 0.25 " in done.stdout  # measured: no star
    assert "*: extrapolated" in done.stdout

    def fails(*more: str) -> str:
        with pytest.raises(ClueError) as caught:
            CliRunner().invoke(app, [*words, *more], catch_exceptions=False)
        return str(caught.value)

    assert "1 bundles need 2 --times" in fails(*times[:2])
    assert "has the times of another bundle" in fails(*times[2:], *times[:2])
    assert "1 bundles and 2 logs" in fails("--log", "-", "--log", "-")
    assert "is no training bundle of batch 16" in fails("--train-batch", "16")
    (tmp_path / "a.json").write_text("{}")
    assert "is not what clue-pi bench --json writes" in fails(*times)
    (tmp_path / "cost.jsonl").write_text(json.dumps({**record, "status": "failed"}) + "\n")
    assert "has no request that is done" in fails("--log", str(tmp_path / "cost.jsonl"))
