"""The rails of a Raspberry Pi 5, from recorded outputs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import toy
from test_vcgencmd import DATA, Install, install

from pi_runtime import Runtime
from pi_runtime.errors import ClueError
from pi_runtime.power import Choice, PowerError, open_source, pmic

__all__ = ["install"]
RAILS = {
    "3V7_WL_SW", "3V3_SYS", "1V8_SYS", "DDR_VDD2", "DDR_VDDQ", "1V1_SYS", "0V8_SW", "VDD_CORE", "3V3_DAC",
    "3V3_ADC", "0V8_AON", "HDMI",
}  # fmt: skip


def text(name: str) -> str:
    return (DATA / f"{name}.txt").read_text()


@pytest.mark.parametrize(("name", "core", "watts"), [
    # the sums by hand: awk over the files, current times voltage of the same rail
    ("pmic_load", (10.87674, 0.8974594), 10.799894),
    ("pmic_astronomy", (5.03652, 0.8936988), 5.921612),
    ("pmic_idle", (0.9465799, 0.7209762), 1.900528),
])  # fmt: skip
def test_recorded_outputs(name: str, core: tuple[float, float], watts: float) -> None:
    rails = pmic.parse(text(name))
    assert set(rails) == RAILS
    assert rails["VDD_CORE"] == core
    assert pmic.watts(rails) == pytest.approx(watts, abs=1e-6)


@pytest.mark.parametrize("change", [
    lambda t: t.replace("\n", "\r\n"),
    lambda t: t + "\0\0",
    lambda t: "\n".join(line.strip() for line in t.splitlines()),
    lambda t: "\n".join(reversed(t.splitlines())),  # voltages first
    lambda t: t.replace("=", " = "),
    lambda t: t + "SOMETHING else=5\nNEW_W power(30)=1.0W\n",
    lambda t: t.replace("0V8_SW", "0V8_SYS"),  # as early firmware calls it
])  # fmt: skip
def test_other_spellings_have_the_same_sum(change: object) -> None:
    changed = pmic.parse(change(text("pmic_idle")))  # type: ignore[operator]
    assert pmic.watts(changed) == pytest.approx(1.900528, abs=1e-6)
    assert len(changed) == 12


@pytest.mark.parametrize(("given", "message"), [
    (text("pmic_cut_off"), "no voltage for 0V8_SYS, 1V1_SYS"),
    (text("zero_bytes"), "no rail with a current"),
    ("EXT5V_V volt(24)=5.1V", "no rail with a current"),
    ("temp=40.0'C", "no rail with a current"),
    ("A_A current(0)=nanA\nA_V volt(1)=1.0V", "A_A is 'nan'"),
    ("A_A current(0)=1.0A\nA_V volt(1)=-1.0V", "A_V is '-1.0'"),
    ("A_A current(0)=1e9A\nA_V volt(1)=1.0V", "A_A is '1e9'"),
    ("A_A current(0)=1.2.3A\nA_V volt(1)=1.0V", "A_A is '1.2.3'"),
])  # fmt: skip
def test_what_is_no_power_figure(given: str, message: str) -> None:
    with pytest.raises(PowerError, match=message):
        pmic.parse(given)


def test_the_published_estimate_for_the_board() -> None:
    assert pmic.board_watts(2.0) == pytest.approx(1.1451 * 2 + 0.5879)


def test_as_sources(install: Install) -> None:
    install(text("pmic_idle"))
    rails, board = (open_source(Choice(name)).source for name in ("pmic", "pmic-board"))
    assert rails is not None
    assert board is not None
    reading = rails.read()
    assert reading.watts == pytest.approx(1.900528, abs=1e-6)
    assert reading.rails == pmic.parse(text("pmic_idle"))
    assert (rails.kind, rails.scope) == ("measured", "12 PMIC rails, without what hangs on the 5 V input")
    assert board.read().watts == pytest.approx(1.1451 * 1.900528 + 0.5879, abs=1e-5)
    assert board.read().rails == reading.rails
    assert board.kind == "estimated"
    assert isinstance(open_source(Choice()).source, pmic.Pmic)


def test_a_request_keeps_the_raw_rails(install: Install, runtime: Runtime) -> None:
    install(text("pmic_load"))
    runtime.add(toy.images(19, 0), "cat")
    runtime.power = Choice(hz=50)  # auto finds it
    record = runtime.forget("cat", seed=5).records[-1]
    assert (record["energy_source"], record["energy_kind"]) == ("pmic", "measured")
    assert record["energy_j"] == pytest.approx(10.799894 * record["wall_s"], rel=0.2)
    assert record["sampler_cpu_s"] > 0
    trace = (runtime.store.folder / "power.jsonl").read_text().splitlines()
    samples = [line for line in map(json.loads, trace) if line["line"] == "sample"]
    assert len(samples) >= 2
    expected = {rail: list(pair) for rail, pair in pmic.parse(text("pmic_load")).items()}
    assert all(line["rails"] == expected and line["w"] == 10.799894 for line in samples)


def test_zero_watts_is_no_figure(install: Install) -> None:
    install("A_A current(0)=0.0A\nA_V volt(1)=1.0V")
    with pytest.raises(ClueError, match=r"--power pmic: .* every rail is at 0 W"):
        open_source(Choice("pmic"))


def test_auto_says_why_there_is_nothing(
    install: Install, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from pi_runtime.power import meter, rapl

    install((DATA / "error_vchi.txt").read_text(), 255)
    monkeypatch.setattr(rapl.Rapl.__init__, "__defaults__", (tmp_path,))
    monkeypatch.setattr(meter.open_hwmon, "__defaults__", (tmp_path,))
    opened = open_source(Choice())
    assert opened.source is None
    assert "pmic: vcgencmd pmic_read_adc: VCHI initialization failed; hwmon: no power meter" in opened.reason
    assert f"rapl: no processor package in {tmp_path}" in opened.reason
