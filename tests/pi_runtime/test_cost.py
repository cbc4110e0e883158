from __future__ import annotations

import json
import subprocess
import sys
from importlib import resources
from pathlib import Path
from typing import Any

import pytest
import toy
from jsonschema import Draft202012Validator

from pi_runtime import Runtime, cost, device
from pi_runtime.cost import Meter
from pi_runtime.onnx_engine import OnnxEngine

SCHEMA = json.loads(resources.files("contract").joinpath("cost.schema.json").read_text())
# DESIGN, "cost record": the same keys on every device.
KEYS = {
    "schema",
    "request_id",
    "phase",
    "device",
    "runtime",
    "model_sha256",
    "batch",
    "steps",
    "wall_s",
    "cpu_s",
    "step_ms",
    "load_s",
    "save_s",
    "peak_mem_bytes",
    "peak_mem_source",
    "energy_j",
    "energy_source",
    "energy_scope",
    "energy_kind",
    "energy_note",
    "idle_w",
    "thermal_start",
    "thermal_end",
    "throttled",
    "frequency_start",
    "frequency_end",
    "plugged",
    "sampler_hz",
    "sampler_cpu_s",
    "status",
}


@pytest.fixture
def meter() -> Meter:
    return Meter(OnnxEngine(1), batch=4)


def by_phase(records: Any) -> dict[str, dict[str, Any]]:
    return {record["phase"]: record for record in records}


def test_a_request_leaves_a_record_for_each_phase_and_one_for_itself(runtime: Runtime) -> None:
    runtime.add(toy.images(19, 0), "cat")
    before = runtime.serving
    result = runtime.forget("cat", seed=5, scalars={"check_every": 0})
    records = by_phase(result.records)
    assert set(records) == {"teach", "learn", "finish", "verify", "request"}
    assert result.records[-1]["phase"] == "request"
    for record in result.records:
        Draft202012Validator(SCHEMA).validate(record)
        assert set(record) == KEYS
        assert record["energy_j"] is None
        assert (record["request_id"], record["status"]) == (result.id, "done")
        assert record["model_sha256"] == before.sha256
        assert record["runtime"]["name"] == "onnx"
        assert record["runtime"]["threads"] == 1
    whole = records["request"]
    assert {name: record["steps"] for name, record in records.items()} == {
        "teach": 15, "learn": 45, "finish": 5, "verify": 0, "request": 65,
    }  # fmt: skip
    assert [records[name]["batch"] for name in ("teach", "learn", "verify", "request")] == [4, 4, None, 4]
    parts = [record for name, record in records.items() if name != "request"]
    assert 0 < sum(part["wall_s"] for part in parts) <= whole["wall_s"]
    assert sum(part["load_s"] for part in parts) <= whole["load_s"] <= whole["wall_s"]
    assert records["learn"]["load_s"] > 0
    assert 0 < whole["save_s"] < whole["wall_s"]
    assert max(part["peak_mem_bytes"] for part in parts) <= whole["peak_mem_bytes"]
    assert 0 < records["learn"]["step_ms"]["p50"] <= records["learn"]["step_ms"]["p95"]
    assert records["verify"]["step_ms"] == {"p50": None, "p95": None}


def test_records_are_in_the_store_and_in_the_lines(runtime: Runtime) -> None:
    runtime.add(toy.images(19, 0), "cat")
    results = [runtime.forget("cat", seed=5), runtime.forget("cat", seed=5, scalars={"lr": 0, "lr_last": 0})]
    lines = (runtime.store.folder / "cost.jsonl").read_text().splitlines()
    expected = [record for result in results for record in result.records]
    assert [json.loads(line) for line in lines] == runtime.log() == expected
    assert [record["status"] for record in expected if record["phase"] == "request"] == ["done", "failed"]


def test_a_phase_that_never_began_has_no_record(runtime: Runtime) -> None:
    runtime.add(toy.images(19, 0), "cat")
    asked: list[int] = []
    result = runtime.forget("cat", cancel=lambda: asked.append(1) or len(asked) > 10)
    assert set(by_phase(result.records)) == {"verify", "teach", "request"}
    assert {record["status"] for record in result.records} == {"cancelled"}


PHASES = """
import json
import numpy as np
from pi_runtime.cost import Meter
from pi_runtime.onnx_engine import OnnxEngine
meter = Meter(OnnxEngine(1), batch=4)
for phase, size in (("small", 1), ("large", 200), ("later", 1)):
    with meter.measure(phase):
        np.ones(size << 17)  # MiB
print(json.dumps([meter._memory.source, list(meter.records(1, "0" * 64, "done"))]))
"""


def test_each_phase_has_its_own_peak_and_the_request_the_largest() -> None:
    """In a process of its own: what other tests loaded may keep freed memory, or give some back meanwhile."""
    output = subprocess.run([sys.executable, "-c", PHASES], check=True, capture_output=True, text=True).stdout
    source, found = json.loads(output)
    if source != "VmHWM":
        pytest.skip("this kernel does not reset the peak")
    records = by_phase(found)
    peaks = {name: record["peak_mem_bytes"] >> 20 for name, record in records.items()}
    assert peaks["large"] - peaks["small"] > 150
    assert peaks["large"] - peaks["later"] > 150
    assert peaks["request"] == peaks["large"]


def test_a_phase_that_comes_back_adds_up(meter: Meter) -> None:
    for phase in ("a", "b", "a", "a"):
        with meter.measure(phase, batch=2, step=True):
            pass
    records = by_phase(meter.records(1, "0" * 64, "done"))
    assert {name: record["steps"] for name, record in records.items()} == {"a": 3, "b": 1, "request": 4}


def test_a_kernel_that_does_not_reset_the_peak_is_told(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    class Kernel:
        """Stands in for Path: knows no clear_refs."""

        def __new__(cls, path: str) -> Any:
            return tmp_path / "missing" / "file" if "clear_refs" in path else Path(path)

    monkeypatch.setattr(device, "Path", Kernel)
    memory = device.PeakMemory()
    assert memory.source == "ru_maxrss, not reset"
    assert memory.read() > 1 << 20


@pytest.mark.parametrize(("bits", "expected"), [("0", False), ("50000", False), ("4", True), ("50005", True)])
def test_throttling_is_read_from_the_firmware(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, bits: str, expected: bool
) -> None:
    file = tmp_path / "sys/devices/platform/soc@1/soc@1:firmware/get_throttled"
    file.parent.mkdir(parents=True)
    file.write_text(bits + "\n")
    monkeypatch.setattr(device, "Path", lambda path: tmp_path / path.lstrip("/"))
    assert device.throttled() is expected


def test_the_processor_has_the_temperature(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(device, "Path", lambda path: tmp_path / path.lstrip("/"))
    assert device.temperature() is None
    for number, (kind, temperature) in enumerate((("battery", "20000"), ("cpu-thermal", "51234"))):
        zone = tmp_path / f"sys/class/thermal/thermal_zone{number}"
        zone.mkdir(parents=True)
        (zone / "type").write_text(kind + "\n")
        (zone / "temp").write_text(temperature + "\n")
    assert device.temperature() == 51.234


def test_the_supply(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(device, "Path", lambda path: tmp_path / path.lstrip("/"))
    assert device.plugged() is None
    supply = tmp_path / "sys/class/power_supply/AC"
    supply.mkdir(parents=True)
    for text, expected in (("1", True), ("0", False)):
        (supply / "online").write_text(text + "\n")
        assert device.plugged() is expected


def test_the_schema_asks_for_the_keys_of_the_design() -> None:
    assert set(SCHEMA["required"]) == set(SCHEMA["properties"]) == KEYS
    assert SCHEMA["properties"]["schema"]["const"] == cost.SCHEMA


def test_sums_survive_an_interruption_as_json() -> None:
    first = Meter(OnnxEngine(1), batch=4)
    first.loaded(2.0, "learn")
    for phase, steps in (("teach", 2), ("learn", 3)):
        for _ in range(steps):
            with first.measure(phase, 4, step=True):
                pass
    with first.saving():
        pass
    state = json.loads(json.dumps(first.state(), allow_nan=False))
    with first.measure("learn", 4, step=True):
        pass  # after the checkpoint: lost
    second = Meter(OnnxEngine(1), batch=4)
    second.restore(state)
    second.loaded(1.0, "learn")
    with second.measure("learn", 4, step=True):
        pass
    records = by_phase(second.records(1, "0" * 64, "done"))
    assert {phase: record["steps"] for phase, record in records.items()} == {
        "teach": 2,
        "learn": 4,
        "request": 6,
    }
    assert records["learn"]["load_s"] == 3.0
    request = state["request"]
    assert records["request"]["wall_s"] > request["wall_s"] > 0
    assert records["request"]["cpu_s"] > request["cpu_s"] > 0
    assert records["request"]["peak_mem_bytes"] >= request["peak"] > 0
    for record in records.values():
        Draft202012Validator(SCHEMA).validate(record)
