"""What every HTML report has: the page around it, its look, and the script that sorts tables."""

from __future__ import annotations

from string import Template

PAGE = Template("""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy"
 content="default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>$title</title>
<style>
$style</style>
</head>
<body>
<main>
<h1>$title</h1>
$introduction
$sections
</main>
<footer><p>$made</p></footer>
<script>
$script</script>
</body>
</html>
""")

# Colours of the pictures: Okabe and Ito's blue, which stays apart with any colour vision.
STYLE = """:root {
  --ground: #ffffff; --ink: #222222; --soft: #5a6470; --line: #d9dde1; --stripe: #f6f7f8;
  --accent: #005a94; --best: #e3f0f8; --shade-ink: 0, 114, 178;
}
@media (prefers-color-scheme: dark) {
  :root {
    --ground: #16191d; --ink: #e6e8ea; --soft: #a3adb8; --line: #3a4149; --stripe: #1e2328;
    --accent: #7cc4f0; --best: #17374b; --shade-ink: 86, 180, 233;
  }
}
* { box-sizing: border-box; }
body {
  margin: 0; background: var(--ground); color: var(--ink);
  font: 16px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif;
}
main, footer { max-width: 90rem; margin: 0 auto; padding: 0 1.25rem; }
main > p { max-width: 46rem; }
h1 { font-size: 1.7rem; line-height: 1.25; margin: 2rem 0 .75rem; }
h2 { font-size: 1.25rem; margin: 2.25rem 0 .75rem; }
.scroll { overflow-x: auto; margin: 1rem 0 .25rem; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: .93rem; }
caption { text-align: left; font-weight: 600; padding: 0 0 .5rem; }
th, td {
  padding: .35rem .6rem; text-align: right; white-space: nowrap; border-bottom: 1px solid var(--line);
}
thead th { white-space: normal; border-bottom: 2px solid var(--ink); vertical-align: bottom; }
tbody th, thead th:first-child { text-align: left; }
tbody th { font-weight: 500; }
tbody tr:nth-child(even) { background: var(--stripe); }
tbody tr.section th { font-style: italic; font-weight: 400; color: var(--soft); padding-top: 1rem; }
tbody tr.stressed > * { font-weight: 700; }
td.words { text-align: left; white-space: normal; min-width: 24rem; }
td.best { background: var(--best); font-weight: 700; }
td[style] { background: rgba(var(--shade-ink), calc(var(--shade) * .55)); }
th button {
  all: unset; cursor: pointer; font: inherit; color: inherit; border-radius: 2px;
}
th button::after { content: "\\2195"; color: var(--soft); margin-left: .3em; font-weight: 400; }
th[aria-sort="ascending"] button::after { content: "\\2191"; color: var(--accent); }
th[aria-sort="descending"] button::after { content: "\\2193"; color: var(--accent); }
th button:hover { color: var(--accent); }
:focus-visible { outline: 2px solid var(--accent); outline-offset: 2px; }
.note { color: var(--soft); font-size: .9rem; max-width: 60rem; margin: .25rem 0 1.5rem; }
figure { margin: 1rem 0 2rem; }
img { max-width: 100%; height: auto; background: #ffffff; border: 1px solid var(--line); }
figcaption { color: var(--soft); font-size: .9rem; margin-top: .4rem; max-width: 60rem; }
details { border: 1px solid var(--line); border-radius: 4px; padding: .5rem .75rem; }
summary { cursor: pointer; }
pre { overflow: auto; max-height: 28rem; font-size: .8rem; }
.hidden { position: absolute; width: 1px; height: 1px; overflow: hidden; clip-path: inset(50%); }
footer { color: var(--soft); font-size: .85rem; border-top: 1px solid var(--line); margin-top: 2.5rem; }
@media print { .scroll { overflow: visible; } th button::after { content: ""; } details { display: none; } }
"""

# Numbers sort as numbers ("12.3 ± 0.4" by its 12.3), "> 200" by its
# 200), a dash for what is not known always comes last.
SCRIPT = """"use strict";
for (const table of document.querySelectorAll("table")) {
  const headings = [...table.tHead.rows[0].cells];
  const read = (row, column) => row.cells[column].firstChild?.textContent.trim() ?? "";
  const number = (text) => {
    const plain = text.replace(/^[>\\s]+/, "").replace(/,/g, "").replace(/^\\u2212/, "-");
    return /^[-+]?\\.?\\d/.test(plain) ? parseFloat(plain) : NaN;
  };
  headings.forEach((heading, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...heading.childNodes);
    heading.append(button);
    button.addEventListener("click", () => {
      const down = heading.getAttribute("aria-sort") === "ascending";
      headings.forEach((other) => other.removeAttribute("aria-sort"));
      heading.setAttribute("aria-sort", down ? "descending" : "ascending");
      for (const body of table.tBodies) {
        const rows = [...body.querySelectorAll("tr:not(.section)")].map((row) => [row, read(row, column)]);
        const known = rows.filter(([, text]) => text !== "" && text !== "-");
        const numeric = known.every(([, text]) => !Number.isNaN(number(text)));
        known.sort(([, a], [, b]) => numeric ? number(a) - number(b) : a.localeCompare(b));
        if (down) known.reverse();
        const unknown = rows.filter(([, text]) => text === "" || text === "-");
        body.append(...known.map(([row]) => row), ...unknown.map(([row]) => row));
      }
    });
  });
}
document.documentElement.dataset.sortable = "yes";
"""
