"""The HTML report: what stands in it, and how a real browser shows it."""

from __future__ import annotations

import dataclasses
import html
import json
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from clue_mobile.errors import ClueError
from clue_mobile.report.html import Picture, Report, Table, render, write_report

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
BROWSER = next((found for name in BROWSERS if (found := shutil.which(name))), None)

ROWS = [
    ["Original", "100.00", "1,200", "-"],
    ["GA <b> & co", "9.50 ± 0.40", "7", "2"],
    ["CLUE", "10.25", "80", "> 11"],
]
TABLE = Table("Methods & gaps", ["Method", "UA", "Steps", "Relearn"], ROWS, best=frozenset({(1, 1)}))


def shown(tmp_path: Path) -> Report:
    path = tmp_path / "p.png"
    Image.fromarray(np.full((40, 60, 3), (0, 114, 178), np.uint8)).save(path)
    shaded = Table("Confusion", ["True", "a", "b"], [["a", "9", "1"], ["b", "0", "10"]],
                   shades=[[0, 0.9, 0.1], [0, 0, 1]], note="Rows are true classes.")  # fmt: skip
    rows = [["R", "0"], ["S", "9"], ["T", "8 " * 20]]
    sections, stressed = {0: "Own", 1: "Others"}, frozenset({0})
    parts = Table("Parts", ["Method", "UA"], rows, sections=sections, stressed=stressed)
    picture = Picture(path, "Energies before and after", "A blue field")
    return Report(
        "Forgetting “<3>”",
        ["First words.", "a < b"],
        [TABLE, shaded, parts],
        [picture],
        {"rows": ["</pre>", float("nan"), (1.5, float("inf"))]},
    )


class Reader(HTMLParser):
    """Every tag that was opened and every reference to something outside of the page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.references: list[str] = []
        self.alts: list[str | None] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        if tag not in ("meta", "img", "br", "link"):
            self.open.append(tag)
        for name, value in attrs:
            if name in ("src", "href", "srcset", "data", "action", "poster"):
                self.references.append(value or "")
        if tag == "img":
            self.alts.append(dict(attrs).get("alt"))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_the_page_is_whole_and_needs_nothing_else(tmp_path: Path) -> None:
    path = write_report(tmp_path / "new" / "r.html", shown(tmp_path))
    assert [p.name for p in path.parent.iterdir()] == ["r.html"]
    text = path.read_text(encoding="utf-8")
    read = Reader(text)
    assert read.open == []
    assert [reference[:22] for reference in read.references] == ["data:image/png;base64,"]
    assert read.alts == ["A blue field"]
    assert not re.search(r"https?:|url\(|@import|<link", text)
    assert read.tags.count("h1") == 1
    assert [tag for tag in read.tags if tag in ("h1", "h2")] == ["h1", "h2", "h2", "h2"]
    assert read.tags.count("caption") == read.tags.count("table") == 3
    assert "Forgetting “&lt;3&gt;”" in text
    assert '<tr class="stressed"><th scope="row">R</th><td>0</td></tr>' in text
    assert '<th scope="rowgroup" colspan="2">Others</th>' in text
    assert '<td class="words">8 8 8' in text
    assert "GA &lt;b&gt; &amp; co" in text
    assert '<td class="best">9.50 ± 0.40<span class="hidden"> (best)</span></td>' in text
    raw = re.search(r'<pre id="results" tabindex="0">(.*?)</pre>', text, re.DOTALL)
    assert raw is not None
    assert json.loads(html.unescape(raw[1])) == {"rows": ["</pre>", None, [1.5, None]]}


def test_what_cannot_be_reported_leaves_the_old_report(tmp_path: Path) -> None:
    report, path = shown(tmp_path), tmp_path / "r.html"
    path.write_text("old")
    with pytest.raises(ClueError, match="3 headings and a row of 2"):
        Table("t", ["a", "b", "c"], [["1", "2"]])
    for change, message in (
        ({"pictures": [Picture(tmp_path / "no.png", "")]}, "cannot read the picture"),
        ({"pictures": [Picture(path, "")]}, "neither a PNG nor a JPEG"),
        ({"data": {"x": object()}}, "cannot be JSON"),
    ):
        with pytest.raises(ClueError, match=message):
            write_report(path, dataclasses.replace(report, **change))
    assert path.read_text() == "old"
    with pytest.raises(ClueError, match="cannot make the folder"):
        write_report(path / "r.html", report)
    assert "<table>" not in render(Report("Nothing"))


# Clicks headings and tells the order of the rows; then what the page has asked for; then asks for something.
WATCHER = """<script>
const blocked = [];
addEventListener("securitypolicyviolation", (event) => blocked.push(event.blockedURI));
const table = document.querySelector("table"), heads = table.tHead.rows[0].cells;
const orders = [[1, 1], [2, 2], [3, 2], [0, 1]].map(([column, times]) => {
  for (let i = 0; i < times; i++) heads[column].querySelector("button").click();
  const names = [...table.tBodies[0].rows].map((row) => row.cells[0].textContent);
  return [heads[column].getAttribute("aria-sort"), names];
});
const parts = document.querySelectorAll("table")[2];
parts.tHead.rows[0].cells[1].querySelector("button").click();
orders.push([...parts.rows].map((row) => row.cells[0].textContent));
addEventListener("load", () => {
  const asked = performance.getEntriesByType("resource").map((entry) => entry.name), before = [...blocked];
  const tell = () => document.body.dataset.told = JSON.stringify({orders, asked, before, blocked});
  const image = new Image();
  image.onload = image.onerror = () => setTimeout(tell);
  image.src = "http://elsewhere.example/x.png";
  setTimeout(tell, 500);
});
</script>"""


def browse(profile: Path, *words: str) -> str:
    """Run the browser without a window and return the document as it is after its scripts ran."""
    assert BROWSER is not None
    command = [BROWSER, "--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking",
               "--disable-component-update", "--disable-sync", "--no-first-run", "--window-size=900,1400",
               "--virtual-time-budget=5000", "--host-resolver-rules=MAP * ~NOTFOUND", "--dump-dom",
               f"--user-data-dir={profile}", *words]  # fmt: skip
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout


@pytest.mark.skipif(BROWSER is None, reason=f"no browser is installed (one of {', '.join(BROWSERS)})")
def test_in_a_real_browser(tmp_path: Path) -> None:
    report = write_report(tmp_path / "r.html", shown(tmp_path))
    watched = tmp_path / "watched.html"
    watched.write_text(report.read_text().replace("</body>", WATCHER + "</body>"))
    dom = browse(tmp_path / "profile", watched.as_uri())
    told = re.search(r'data-told="(.*?)"', dom)
    assert told is not None
    found = json.loads(html.unescape(told[1]))
    assert found["orders"] == [
        # as numbers, so that 10.25 follows 9.50 and 1,200 follows 80; what is not known comes last
        ["ascending", ["GA <b> & co", "CLUE", "Original"]],
        ["descending", ["Original", "CLUE", "GA <b> & co"]],
        ["descending", ["CLUE", "GA <b> & co", "Original"]],
        ["ascending", ["CLUE", "GA <b> & co", "Original"]],
        ["Method", "Own", "R", "Others", "T", "S"],  # each under its title
    ]
    assert [name for name in found["asked"] if not name.startswith("data:")] == []
    assert found["before"] == []
    assert found["blocked"] == ["http://elsewhere.example/x.png"]  # whatever the page held, it could not ask

    picture = tmp_path / "shot.png"
    dom = browse(tmp_path / "profile", f"--screenshot={picture}", report.as_uri())
    assert 'data-sortable="yes"' in dom
    text = html.unescape(re.sub(r"<[^>]+>", "", dom.split("<main>")[1].split("<script>")[0]))
    assert "Forgetting “<3>”" in text
    assert "Rows are true classes." in text
    with Image.open(picture) as image:
        pixels = np.asarray(image.convert("RGB"))
    assert (pixels == (0, 114, 178)).all(axis=-1).sum() == 40 * 60  # the picture, pixel for pixel
    assert len(np.unique(pixels.reshape(-1, 3), axis=0)) > 20  # letters
