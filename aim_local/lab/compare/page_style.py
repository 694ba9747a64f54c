"""Style and script of the comparison page. The script only adds: without it everything is there, unsorted."""

# Eight colours that stay apart with the common colour blindnesses (after Okabe and Ito 2008), darkened or lightened
# until each has a contrast of at least 3 with its background.
CSS = """
:root { --c0: #0072b2; --c1: #c84e00; --c2: #00815e; --c3: #b0478a;
  --c4: #8f6a00; --c5: #4a4f57; --c6: #2f8fc4; --c7: #7a5cc7; }
@media (prefers-color-scheme: dark) {
  :root { --c0: #56b4e9; --c1: #ff8a4c; --c2: #2fc79b; --c3: #ec9ccb;
    --c4: #f0c445; --c5: #c9ced6; --c6: #7fa8ff; --c7: #b9a2ff; } }
dl.facts { display: grid; grid-template-columns: max-content minmax(0, 1fr); gap: .15rem 1rem; margin: .8rem 0; }
dl.facts dt { color: var(--muted); }
dl.facts dd { margin: 0; }
.lead { font-size: 1.05rem; max-width: 52rem; }
.legend { display: flex; flex-wrap: wrap; gap: .2rem 1.1rem; list-style: none; padding: 0; margin: .2rem 0;
  max-width: none; font-size: .9rem; }
.legend li { display: flex; align-items: center; gap: .35rem; min-width: 0; }
.legend svg { width: 18px; height: 18px; flex: none; }
.plots { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 330px), 1fr));
  gap: 1.2rem 1.4rem; margin: 1rem 0; }
figure { margin: 0; min-width: 0; }
figcaption { font-weight: 600; margin-bottom: .1rem; }
figure svg { display: block; width: 100%; height: auto; }
svg text { fill: var(--muted); font-size: 11.5px; }
svg text.name { fill: var(--text); font-size: 12px; }
svg text.label { fill: var(--text); paint-order: stroke; stroke: var(--bg); stroke-width: 3px; stroke-linejoin: round; }
svg .grid { stroke: var(--grid); fill: none; }
svg .axis { stroke: var(--muted); fill: none; }
svg .break { stroke: var(--muted); stroke-dasharray: 2 4; fill: none; }
svg .bar { stroke-width: 1.2; opacity: .5; fill: none; }
svg .front { stroke: var(--text); stroke-width: 1.3; stroke-dasharray: 5 3; fill: none; }
svg .ring { fill: none; stroke: var(--text); stroke-width: 1.4; }
svg .hit { fill: transparent; }
svg .point path { stroke-width: 1.4; }
.readout { min-height: 3em; margin: .1rem 0 0; font-size: .85rem; color: var(--muted); overflow-wrap: anywhere; }
table.wide th[scope=row], table.tags th[scope=row] { position: sticky; left: 0; background: var(--bg); z-index: 1;
  white-space: normal; overflow-wrap: anywhere; min-width: 11rem; max-width: 20rem;
  border-right: 1px solid var(--line); font-weight: 600; }
thead .first { background: var(--panel); position: sticky; left: 0; z-index: 2; border-right: 1px solid var(--line); }
thead th.first button + button { margin-left: .8rem; }
th small, td small { display: block; font-weight: 400; color: var(--muted); font-size: .78rem; }
table.wide .group { border-left: 1px solid var(--line); }
table.wide thead tr:first-child > * { background: var(--panel); }
table.wide thead tr:first-child th { text-align: left; }
td.status { text-align: left; white-space: normal; min-width: 7rem; max-width: 20rem; overflow-wrap: anywhere; }
tr.failed td.status small { color: var(--bad); min-width: 13rem; }
.faults li { margin: .2rem 0; }
th button { font: inherit; color: inherit; background: none; border: 0; padding: .2rem 0; cursor: pointer;
  text-align: inherit; white-space: nowrap; text-decoration: underline dotted; text-underline-offset: 3px; }
th button::after { content: " \\2195"; color: var(--muted); }
th button[data-dir="1"]::after { content: " \\2191"; color: var(--text); }
th button[data-dir="-1"]::after { content: " \\2193"; color: var(--text); }
td.tag { min-width: 5.5rem; }
@media (max-width: 600px) {
  dl.facts { grid-template-columns: minmax(0, 1fr); gap: 0; }
  dl.facts dd { margin-bottom: .45rem; }
  table.wide th[scope=row], table.tags th[scope=row] { min-width: 8rem; max-width: 9.5rem; }
  thead th.first button + button { margin-left: .5rem; }
}
@media print { .scroll { overflow: visible; } .readout { display: none; } }
"""

SCRIPT = """
"use strict";
const values = JSON.parse(document.getElementById("sort-values").textContent);
const table = document.getElementById("cells"), rows = [...table.tBodies[0].rows];
const buttons = [...table.querySelectorAll("[data-key]")].map(span => {
  const button = document.createElement("button");
  button.type = "button";
  button.dataset.key = span.dataset.key;
  button.textContent = span.textContent;
  span.replaceWith(button);
  button.addEventListener("click", () => sort(button));
  return button;
});
function sort(button) {
  const key = button.dataset.key, dir = button.dataset.dir === "1" ? -1 : 1;
  for (const other of buttons) {
    delete other.dataset.dir;
    other.closest("th").removeAttribute("aria-sort");
  }
  button.dataset.dir = dir;
  button.closest("th").setAttribute("aria-sort", dir > 0 ? "ascending" : "descending");
  const value = row => values[row.dataset.i][key];
  const missing = row => value(row) === undefined ? 1 : 0;
  rows.sort((a, b) => missing(a) - missing(b) || dir * (value(a) - value(b)) || a.dataset.i - b.dataset.i);
  table.tBodies[0].append(...rows);
}
// a phone has no tooltips: the text of a touched point stands under its plot
for (const figure of document.querySelectorAll("figure")) {
  const readout = figure.querySelector(".readout"), hint = readout.textContent;
  for (const point of figure.querySelectorAll(".point")) {
    const show = () => { readout.textContent = point.querySelector("title").textContent; };
    point.addEventListener("click", show);
    point.addEventListener("pointerenter", show);
    point.addEventListener("pointerleave", event => { if (event.pointerType === "mouse") readout.textContent = hint; });
  }
}
"""
