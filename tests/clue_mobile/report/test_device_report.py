"""Reports of a device's log: read from a real store, drawn, and shown by a real browser."""

from __future__ import annotations

import html
import json
import re
import shlex
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from test_html import BROWSER, Reader, browse
from typer.testing import CliRunner

from clue_mobile.cli import app
from clue_mobile.errors import ClueError
from clue_mobile.report import device_log, device_plots, device_report, device_tables
from pi_runtime import Runtime
from pi_runtime.power import Choice

TESTS = Path(__file__).resolve().parents[2]
METER = shlex.join([sys.executable, "-uc", "import time\nwhile True: print(2.5); time.sleep(0.05)"])


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with two requests: one with a meter, one without."""
    sys.path.insert(0, str(TESTS / "pi_runtime"))
    try:
        import toy
    finally:
        sys.path.pop(0)
    folder = tmp_path_factory.mktemp("device")
    bundle = toy.build(folder / "toy.clue")
    with Runtime.open(bundle, folder / "pi5", threads=1) as runtime:
        runtime.add(toy.images(19, 0), "cat")
        runtime.power = Choice(command=METER, hz=50)
        assert runtime.forget("cat", seed=5, scalars={"check_every": 0}).status == "done"
        runtime.power = Choice("off")
        assert runtime.forget("cat", seed=6, verify_at_most=100).status == "done"
    return folder / "pi5"


def test_a_store_a_database_and_lines_say_the_same(store: Path, tmp_path: Path) -> None:
    whole, database = device_log.read(store), device_log.read(store / "store.db")
    assert whole == database
    lines = device_log.read(store / "cost.jsonl")
    assert [each.id for each in whole] == [1, 2]
    assert [dict(each.records) for each in lines] == [dict(each.records) for each in whole]
    first, second = whole
    assert (first.name, first.status, first.class_name) == ("pi5 #1, class cat", "done", "cat")
    assert lines[0].name == "pi5 #1"
    assert lines[0].evidence == {}
    assert set(first.phases) == {"verify", "teach", "learn", "finish"}
    assert first.evidence["forget_accuracy_after"] < first.evidence["forget_accuracy_before"]
    assert {span.phase for span in first.spans} == set(first.phases)
    assert {sample.watts for sample in first.samples} == {2.5}
    assert second.samples == []
    assert second.spans
    shutil.copy(store / "cost.jsonl", tmp_path / "run.jsonl")
    assert device_log.read(tmp_path / "run.jsonl")[0].name == "run #1"


def test_what_is_no_log(store: Path, tmp_path: Path) -> None:
    with pytest.raises(ClueError, match=r"no log .*: give a store's folder"):
        device_log.read(tmp_path / "none")
    with pytest.raises(ClueError, match=r"neither store\.db nor cost.jsonl"):
        device_log.read(tmp_path)
    lines = (store / "cost.jsonl").read_text().splitlines()
    path = tmp_path / "cost.jsonl"
    path.write_text("\n".join(lines) + '\n{"schema": 2, "requ')  # a write that was cut off
    assert len(device_log.read(path)) == 2
    path.write_text('{"x"\n' + lines[0] + "\n")
    with pytest.raises(ClueError, match="line 1: not JSON"):
        device_log.read(path)
    path.write_text('{"request_id": 1}\n')
    with pytest.raises(ClueError, match=r"line 1 is no cost record .* it lacks phase, wall_s"):
        device_log.read(path)
    path.write_bytes(b"SQLite format 3\0" + b"x" * 2000)
    with pytest.raises(ClueError, match="no store of clue-mobile, or it is damaged"):
        device_log.read(path)
    path.write_text("\n".join(lines))
    (tmp_path / "power.jsonl").write_text('{"request_id": 1, "line": "span"}\n')
    with pytest.raises(ClueError, match="line 1: no line of a power trace"):
        device_log.read(path)


def test_records_of_the_first_version_are_read(store: Path, tmp_path: Path) -> None:
    later = ("energy_note", "frequency_start", "frequency_end", "energy_scope")
    old = [
        {key: value for key, value in json.loads(line).items() if key not in later} | {"schema": 1}
        for line in (store / "cost.jsonl").read_text().splitlines()
    ]
    path = tmp_path / "old.jsonl"
    path.write_text("".join(json.dumps(record) + "\n" for record in old))
    written = device_report.write(tmp_path / "report", device_log.read(path))
    assert [each.name for each in written] == ["report.html", "requests.png"]  # no trace, no evidence


def test_tables_hold_the_records_figures(store: Path) -> None:
    requests = device_log.read(store)
    first, second = (dict(zip(t.headings, row, strict=True)) for t in [device_tables.requests_table(requests)]
                     for row in t.rows)  # fmt: skip
    whole = requests[0].whole
    assert float(first["Energy (J)"]) == pytest.approx(whole["energy_j"], rel=0.01)
    assert (first["Kind"], second["Kind"], second["Energy (J)"]) == ("measured", "-", "-")
    assert first["Wall (s)"] == f"{whole['wall_s']:,.2f}"
    assert first["Above idle (J)"] == "-"
    assert device_tables.above_idle({"energy_j": 10.0, "idle_w": 2.0, "wall_s": 3.0}) == 4.0
    rails = {"energy_source": "pmic", "energy_j": 10.0, "wall_s": 2.0}
    assert device_tables.board_estimate(rails) == pytest.approx(11.451 + 2 * 0.5879)
    assert device_tables.board_estimate({**rails, "energy_source": "rapl"}) is None
    phases = device_tables.phases_table(requests)
    assert list(phases.sections.values()) == ["pi5 #1, class cat", "pi5 #2, class cat"]
    assert device_tables.rails_table(requests) is None
    devices = device_tables.devices_table(requests).to_markdown()
    assert "command python" in devices
    assert "not measured (power was not sampled)" in devices


def test_rails_are_averaged() -> None:
    sample = device_log.Sample(1.0, 3.0, {"CORE": (2.0, 1.0), "DDR": (1.0, 1.0)})
    other = device_log.Sample(2.0, 5.0, {"CORE": (4.0, 1.0), "DDR": (1.0, 1.0)})
    table = device_tables.rails_table([device_log.LoggedRequest("pi", 1, {}, samples=[sample, other])])
    assert table is not None
    assert table.rows == [["pi #1", "3.000", "1.000", "4.00", f"{1.1451 * 4 + 0.5879:.2f}"]]


def test_the_command_reports_several_logs(store: Path, tmp_path: Path) -> None:
    done = CliRunner().invoke(
        app, ["report", str(store), str(store / "cost.jsonl"), "--out", str(tmp_path / "r"), "--json"]
    )
    assert done.exit_code == 0, done.output
    told = json.loads(done.stdout)
    assert [each["request_id"] for each in told["requests"]] == [1, 2, 1, 2]
    assert {Path(path).suffix for path in told["pictures"]} == {".png"}
    text = (tmp_path / "r" / "report.html").read_text()
    read = Reader(text)
    assert read.open == []
    assert {reference[:22] for reference in read.references} == {"data:image/png;base64,"}
    with pytest.raises(ClueError, match=r"has no finished request \[9\]: it has \[1, 2\]"):
        CliRunner().invoke(
            app, ["report", str(store), "--request", "9", "--out", str(tmp_path / "s")],
            catch_exceptions=False,
        )  # fmt: skip
    assert not (tmp_path / "s").exists()


def test_pictures_show_what_is_known(store: Path, tmp_path: Path) -> None:
    requests = device_log.read(store)
    colour = device_plots.colours(requests)
    shapes = []
    for at, request in enumerate(requests):
        path = device_plots.timeline_picture(tmp_path / f"{at}.png", request, colour)
        assert path is not None
        with Image.open(path) as image:
            shapes.append(image.size)
            pixels = np.asarray(image.convert("RGB")).reshape(-1, 3)
        for phase in request.phases:
            rgb = tuple(int(colour[phase][i : i + 2], 16) for i in (1, 3, 5))
            assert (pixels == rgb).all(axis=1).any(), phase
    assert shapes[0][1] > shapes[1][1]  # the first has a panel of power
    bare = device_log.LoggedRequest("x", 1, requests[0].records)
    assert device_plots.timeline_picture(tmp_path / "x.png", bare, colour) is None
    assert device_plots.evidence_picture(tmp_path / "x.png", bare) is None


@pytest.mark.skipif(BROWSER is None, reason="no browser is installed")
def test_in_a_real_browser(store: Path, tmp_path: Path) -> None:
    report, *pictures = device_report.write(tmp_path, device_log.read(store))
    shot = tmp_path / "shot.png"
    dom = browse(tmp_path / "profile", f"--screenshot={shot}", report.as_uri())
    assert 'data-sortable="yes"' in dom
    assert dom.count("<img") == len(pictures) == 5
    text = html.unescape(re.sub(r"<[^>]+>", "", dom.split("<main>")[1].split("<script>")[0]))
    for words in ("Requests of pi5", "pi5 #1, class cat", "Devices and meters", "Phases"):
        assert words in text
    with Image.open(shot) as image:
        assert len(np.unique(np.asarray(image.convert("RGB")).reshape(-1, 3), axis=0)) > 20
