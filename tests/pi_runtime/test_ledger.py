"""The energy of phases and of parts; the trace; the estimate; requests with a meter at work."""

from __future__ import annotations

import json
import math
import shlex
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import toy
from jsonschema import Draft202012Validator
from test_cost import SCHEMA
from test_sampler import Scripted

from pi_runtime import Runtime
from pi_runtime.cost import Meter
from pi_runtime.errors import ClueError
from pi_runtime.onnx_engine import OnnxEngine
from pi_runtime.options import Options
from pi_runtime.power import Choice, Opened, Reading, estimate, open_source
from pi_runtime.power.calibrate import Idle, measure
from pi_runtime.power.ledger import Ledger

METER = shlex.join([sys.executable, "-uc", "import time\nwhile True: print(2.5); time.sleep(0.05)"])


def ledger(*readings: Reading | None, store: Path | None = None) -> Ledger:
    return Ledger(Opened(Choice(), Scripted(*readings or (Reading(watts=4.0),))), store, 7)


def lines(store: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (store / "power.jsonl").read_text().splitlines()]


def test_phases_that_come_back_add_up(tmp_path: Path) -> None:
    tally = ledger(store=tmp_path)
    for phase in ("a", "b", "a", ""):
        tally.enter(phase, steps=3)
        time.sleep(0.05)
    tally.close()
    a, b, whole = (tally.joules(name) for name in ("a", "b", "request"))
    assert a is not None
    assert b is not None
    assert whole is not None
    spans = [line for line in lines(tmp_path) if line["line"] == "span"]
    assert [span["phase"] for span in spans] == ["a", "b", "a"]
    assert a == pytest.approx(4 * sum(s["t1"] - s["t0"] for s in spans if s["phase"] == "a"), rel=0.01)
    assert a + b < whole
    assert tally.record("a")["energy_j"] == pytest.approx(a, abs=1e-6)
    assert tally.record("c")["energy_j"] is None
    header, *rest = lines(tmp_path)
    assert (header["line"], header["request_id"], header["source"], header["hz"]) == (
        "header", 7, "scripted", 50.0,
    )  # fmt: skip
    assert {line["w"] for line in rest if line["line"] == "sample"} == {4.0}
    assert {line["request_id"] for line in rest} == {7}
    assert (tmp_path / "power.jsonl").stat().st_mode & 0o777 == 0o600


def test_parts_of_a_request_add_up_if_they_were_measured_alike() -> None:
    first = ledger()
    first.enter("a")
    time.sleep(0.05)
    first.enter("")
    state = json.loads(json.dumps(first.state()))
    first.close()
    second = ledger()
    second.restore(state)
    second.enter("a")
    time.sleep(0.02)
    second.close()
    alone, both = first.joules("a"), second.joules("a")
    assert alone is not None
    assert both is not None
    assert both >= alone + 4 * 0.02
    other = Ledger(open_source(Choice("off")))
    other.restore(state)
    other.close()
    assert other.joules("a") is None
    assert "was not measured in the same way" in ledger_note(state)


def ledger_note(state: dict[str, Any]) -> str:
    changed = ledger()
    changed.restore({**state, "facts": {**state["facts"], "source": "another"}})
    changed.close()
    record = changed.record("a")
    assert record["energy_j"] is record["energy_source"] is record["energy_kind"] is None
    return str(record["energy_note"])


def test_samples_that_failed_are_told() -> None:
    tally = ledger(Reading(watts=1.0), None, None, Reading(watts=1.0))
    time.sleep(0.2)
    tally.close()
    note = tally.record("request")["energy_note"]
    assert note.startswith("2 of ")
    assert note.endswith("samples failed; out of order")


def test_a_trace_that_cannot_be_written_is_told_and_harms_nothing(tmp_path: Path) -> None:
    (tmp_path / "power.jsonl").mkdir()
    tally = ledger(store=tmp_path)
    time.sleep(0.03)
    tally.close()
    record = tally.record("request")
    assert record["energy_j"] > 0
    assert "no power trace: cannot open" in record["energy_note"]


def test_a_disk_that_is_full_ends_the_trace() -> None:
    from pi_runtime.power.trace import Trace

    trace = Trace(Path("/dev/full"), 1)
    trace.sample(time.monotonic(), 1.0, Reading(watts=1.0))
    trace.sample(time.monotonic(), 1.0, Reading(watts=1.0))
    assert trace.problem == "the power trace ended: No space left on device"


def test_a_request_with_a_meter(runtime: Runtime) -> None:
    runtime.add(toy.images(19, 0), "cat")
    runtime.power = Choice(command=METER, hz=50)
    result = runtime.forget("cat", seed=5, scalars={"check_every": 0})
    assert result.status == "done"
    records = {record["phase"]: record for record in result.records}
    for record in records.values():
        Draft202012Validator(SCHEMA).validate(record)
        assert record["energy_kind"] == "measured"
        assert record["energy_source"].startswith("command python")
        assert record["sampler_hz"] == 50
        assert record["idle_w"] is None
    whole = records.pop("request")
    assert whole["energy_j"] == pytest.approx(2.5 * whole["wall_s"], rel=0.2)
    assert sum(record["energy_j"] for record in records.values()) <= whole["energy_j"]
    assert whole["sampler_cpu_s"] > 0
    assert {record["sampler_cpu_s"] for record in records.values()} == {None}
    spans = [line["phase"] for line in lines(runtime.store.folder) if line["line"] == "span"]
    assert spans == ["verify", *["teach", "learn"] * 3, "finish", "verify"]


def test_idle_power_stands_beside_the_energy_of_the_same_source(runtime: Runtime) -> None:
    runtime.add(toy.images(19, 0), "cat")
    opened = open_source(Choice(command=METER))
    assert opened.source is not None
    told: list[float] = []
    idle = measure(opened.source, 0.4, hz=20, tell=told.append)
    opened.close()
    assert (idle.idle_w, idle.median_w, idle.highest_w, idle.hz) == (2.5, 2.5, 2.5, 20)
    assert told
    assert idle.samples >= 3
    assert idle.busy is None or 0 <= idle.busy <= 1
    folder = runtime.store.folder
    for _ in range(2):  # the second takes the place of the first
        assert Idle.read(idle.write(folder).parent) == idle
    runtime.power = Choice(command=METER)
    assert runtime.forget("cat", seed=5).records[-1]["idle_w"] == 2.5
    (folder / "idle.json").write_text(json.dumps({**vars(idle), "source": "another"}))
    assert runtime.forget("cat", seed=6, verify_at_most=100).records[-1]["idle_w"] is None
    for text in ("", "[]", "{}", json.dumps({**vars(idle), "idle_w": 0.0})):
        (folder / "idle.json").write_text(text)
        assert Idle.read(folder) is None


def test_what_cannot_be_calibrated() -> None:
    with pytest.raises(ClueError, match="over 0 to 3600 s, not 0 s"):
        measure(Scripted(Reading(watts=1.0)), 0)
    with pytest.raises(ClueError, match="scripted gave too few samples: out of order"):
        measure(Scripted(None), 0.1)
    with pytest.raises(ClueError, match="was cancelled; nothing was changed"):
        measure(Scripted(Reading(watts=1.0)), 10, cancel=lambda: True)


def test_an_estimate_only_where_it_was_asked_for(runtime: Runtime) -> None:
    runtime.add(toy.images(19, 0), "cat")
    runtime.power = Choice("estimate")
    result = runtime.forget("cat", seed=5, scalars={"check_every": 0})
    records = {record["phase"]: record for record in result.records}
    programs = runtime.bundle.programs
    assert records["teach"]["energy_j"] == pytest.approx(15 * estimate.of(programs["note"]), abs=1e-6)
    assert records["request"]["energy_j"] == pytest.approx(
        sum(record["energy_j"] or 0 for name, record in records.items() if name != "request"), abs=1e-5
    )
    assert {record["energy_kind"] for record in records.values() if record["energy_j"]} == {"estimated"}
    assert {record["sampler_hz"] for record in records.values()} == {None}


def test_the_estimate_by_hand(runtime: Runtime) -> None:
    program = runtime.bundle.programs["predict"]
    ports = 4 * sum(math.prod(port.shape) for port in (*program.inputs, *program.outputs))
    assert estimate.traffic(program) == ports + 2 * max(0, program.peak_bytes - ports)
    assert estimate.joules(1e9, 0) == pytest.approx(2.3e-3 + 8.75e-3)
    assert estimate.joules(0, 1e9) == pytest.approx(1.95 / 8)


def test_a_source_that_was_named_and_is_missing_leaves_no_request(runtime: Runtime) -> None:
    runtime.add(toy.images(19, 0), "cat")
    runtime.power = Choice(command="/nowhere/meter")
    with pytest.raises(ClueError, match="--power-command: cannot start"):
        runtime.forget("cat")
    assert runtime.store.requests() == []


def test_the_energy_so_far() -> None:
    meter = Meter(OnnxEngine(1), 4, ledger())
    before = meter.joules
    with meter.measure("a"):
        time.sleep(0.05)
    after = meter.joules
    assert before is not None
    assert after is not None
    assert after >= before + 4 * 0.05
    meter.close()
    assert Meter(OnnxEngine(1), 4).joules is None


def test_a_budget_of_joules_pauses_at_what_the_meter_says(runtime: Runtime) -> None:
    runtime.add(toy.images(19, 0), "cat")
    with pytest.raises(ClueError, match="max_joules: this device does not measure energy"):
        runtime.forget("cat", seed=5, options=Options(max_joules=0.05))
    assert runtime.store.requests() == []
    runtime.power = Choice(command=METER, hz=50)
    endless = {"epochs": 1e6, "check_every": 0, "lr": 1e-9}
    result = runtime.forget("cat", seed=5, scalars=endless, options=Options(max_joules=0.5))
    assert result.status == "paused"
    assert result.reason is not None
    used = float(result.reason.split()[2])
    assert result.reason == f"over budget: {used:.1f} J of 0.5 J"
    # The same meter goes on: the record has both parts.
    other = runtime.resume(result.id, cancel=lambda: True)
    record = other.records[-1]
    assert record["status"] == "cancelled"
    assert record["energy_j"] is None or record["energy_j"] > 0.5
    headers = [line for line in lines(runtime.store.folder) if line["line"] == "header"]
    assert len(headers) == 2
